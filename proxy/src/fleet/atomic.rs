//! Slots in one step: `CLUSTER MIGRATESLOTS`, watched to its end.
//!
//! The nodes do it, whether anybody watches or not: whoever watched and is gone has broken nothing.

use std::{collections::BTreeSet, time::Duration};

use resp::Value;
use tokio::time::sleep;
use topology::{NodeId, Slot};

use super::{Link, Stop, Trouble, agenda::slots_as_ranges, members, mover::Ended, text_of};

/// Between two looks at a migration: short ones end soon.
const LOOKS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(200)];
/// What a node says of slots that it does not own (any more).
const NOT_OWNED: &str = "not served by this node";

/// Moves slots away from the node at the other end of `source`.
pub(super) async fn migrate(
    source: &mut Link,
    target: NodeId,
    slots: &[Slot],
    stop: &Stop,
) -> Result<Ended, Trouble> {
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
            return Ok(Ended::Moved(0));
        }
        begin(source, target, &slots).await?;
    }
    watch(source, target, &slots, &known, stop).await
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
    stop: &Stop,
) -> Result<Ended, Trouble> {
    let (mut pause, mut cancelled) = (LOOKS[0], false);
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
            "success" => return Ok(Ended::Moved(slots.len())),
            "failed" | "cancelled" if cancelled => return Ok(Ended::Stopped),
            "failed" | "cancelled" => {
                return Err(Trouble::State(format!(
                    "{}: the migration {}: {}",
                    source.addr, job.state, job.message
                )));
            }
            _ => {}
        }
        if stop.requested() && !cancelled {
            // Refused when it is over: the next look sees how it ended.
            let _ = source.call(&["CLUSTER", "CANCELSLOTMIGRATIONS"]).await;
            cancelled = true;
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
