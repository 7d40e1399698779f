//! Slots in one step: `CLUSTER MIGRATESLOTS`, watched to its end.
//!
//! The nodes do it, whether anybody watches or not: whoever watched and is gone has broken nothing.
//! Nothing here cancels: `CLUSTER CANCELSLOTMIGRATIONS` is taken also after the source has granted the
//! slots (`failover-granted`). It then takes writes again until it hears that the target has the slots,
//! and those writes are lost (seen on 9.1.2). It would also cancel what somebody else has begun there.

use std::{collections::BTreeSet, time::Duration};

use resp::Value;
use tokio::time::sleep;
use topology::{NodeId, Slot};

use super::{Link, Trouble, agenda::slots_as_ranges, members, text_of};

/// Between two looks at a migration: short ones end soon.
const LOOKS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(200)];
/// What a node says of slots that it does not own (any more).
const NOT_OWNED: &str = "not served by this node";

/// Moves slots away from the node at the other end of `source`, and tells how many: others had another
/// owner by then.
pub(super) async fn migrate(
    source: &mut Link,
    target: NodeId,
    slots: &[Slot],
) -> Result<usize, Trouble> {
    let known: BTreeSet<String> = jobs(source)
        .await?
        .into_iter()
        .map(|job| job.name)
        .collect();
    let mut slots = slots.to_vec();
    if let Err(trouble) = begin(source, target, &slots).await {
        if !trouble.to_string().contains(NOT_OWNED) {
            return Err(trouble);
        }
        // Some have another owner since this was planned.
        let owned = owned(source).await?;
        slots.retain(|slot| owned.contains(slot));
        if slots.is_empty() {
            return Ok(0);
        }
        begin(source, target, &slots).await?;
    }
    watch(source, target, &slots, &known).await
}

async fn begin(source: &mut Link, target: NodeId, slots: &[Slot]) -> Result<(), Trouble> {
    let mut request: Vec<String> = ["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE"]
        .map(str::to_owned)
        .to_vec();
    for range in slots_as_ranges(slots) {
        request.extend([range.first().to_string(), range.last().to_string()]);
    }
    request.extend(["NODE".to_owned(), target.to_string()]);
    let request: Vec<&str> = request.iter().map(String::as_str).collect();
    source.call(&request).await.map(drop)
}

async fn watch(
    source: &mut Link,
    target: NodeId,
    slots: &[Slot],
    known: &BTreeSet<String>,
) -> Result<usize, Trouble> {
    let mut pause = LOOKS[0];
    loop {
        let ours = jobs(source).await?.into_iter().find(|job| {
            job.target == Some(target) && job.slots == slots && !known.contains(&job.name)
        });
        let Some(job) = ours else {
            return Err(Trouble::State(format!(
                "{} has forgotten a migration that it began",
                source.addr
            )));
        };
        match job.state.as_str() {
            "success" => return Ok(slots.len()),
            "failed" | "cancelled" => {
                return Err(Trouble::State(format!(
                    "{}: the migration {}: {}",
                    source.addr, job.state, job.message
                )));
            }
            _ => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(LOOKS[1]);
    }
}

/// A migration from the node that answers.
struct Migration {
    name: String,
    target: Option<NodeId>,
    slots: Vec<Slot>,
    state: String,
    message: String,
}

async fn jobs(source: &mut Link) -> Result<Vec<Migration>, Trouble> {
    let answer = source.call(&["CLUSTER", "GETSLOTMIGRATIONS"]).await?;
    let list = answer.as_array().unwrap_or_default();
    Ok(list.iter().filter_map(migration).collect())
}

fn migration(job: &Value) -> Option<Migration> {
    let get = |key: &str| job.map_get(key).map(text_of);
    if get("operation")? != "EXPORT" {
        return None;
    }
    let ranges = get("slot_ranges")?;
    let slots = ranges.split_ascii_whitespace().filter_map(members::range);
    Some(Migration {
        name: get("name")?,
        target: NodeId::parse(get("target_node")?.as_bytes()),
        slots: slots.flatten().collect(),
        state: get("state")?,
        message: get("message").unwrap_or_default(),
    })
}

/// The slots that a node owns now, by its own word.
pub(super) async fn owned(link: &mut Link) -> Result<BTreeSet<Slot>, Trouble> {
    let answer = link.call(&["CLUSTER", "NODES"]).await?;
    let lines = members::read(&text_of(&answer));
    let own = lines.into_iter().find(|line| line.myself);
    Ok(own
        .map(|own| own.slots.into_iter().collect())
        .unwrap_or_default())
}
