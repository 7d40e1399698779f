//! The cluster as a whole: state, slots, every node, replicas, zones, clocks.

use std::{collections::BTreeSet, time::Duration};

use resp::Value;
use tokio::{task::JoinSet, time::timeout};
use topology::{Health, Node as Member, NodeAddr, Role, Slot, Topology};

use super::Findings;
use crate::{
    contract::DiscoveryContext,
    discovery::{Look, Node},
    events::unix_ms,
};

/// One node's time to answer everything.
const PATIENCE: Duration = Duration::from_secs(2);
/// Nodes that are asked; those of a larger cluster would take too long.
const NODES_MAX: usize = 200;
/// Clocks further apart are a warning.
const APART_MS: u64 = 2_000;
/// Names that one line has.
const NAMED_MAX: usize = 5;

/// What a node says of itself.
#[derive(Debug, Default)]
struct Said {
    state: Option<String>,
    zone: Option<String>,
    /// Its clock, less ours, in milliseconds.
    ahead_ms: Option<i64>,
}

pub(super) async fn examine(
    context: &DiscoveryContext,
    looked: Option<(NodeAddr, Look)>,
    findings: &mut Findings,
) {
    let Some((addr, look)) = looked else {
        findings.skip("cluster", "no seed could be asked");
        return;
    };
    let topology = match topology::accept(None, look.candidate.confirmed()) {
        Ok(Some(topology)) => topology,
        Ok(None) => return,
        Err(refusal) => {
            let remedy = "look at CLUSTER INFO and CLUSTER SHARDS of that node";
            findings.fail("cluster", format!("{addr}: {refusal}"), remedy);
            return;
        }
    };
    slots(&topology, findings);
    let answers = ask_all(context, &topology).await;
    reachable(&topology, &answers, findings);
    state(&answers, findings);
    replicas(&topology, findings);
    zones(context, &topology, &answers, findings);
    clocks(&answers, findings);
}

fn slots(topology: &Topology, findings: &mut Findings) {
    let (shards, nodes) = (topology.shards().len(), topology.nodes().count());
    if topology.covers_all() {
        let found = format!(
            "all {} have an owner; {shards} shards, {nodes} nodes",
            Slot::COUNT
        );
        findings.fine("slots", found);
    } else {
        findings.fail(
            "slots",
            format!("{} have no owner", topology.holes()),
            "commands on their keys wait, then fail: give them an owner (CLUSTER ADDSLOTSRANGE, \
             valkey-cli --cluster fix), or bring back their shard",
        );
    }
}

/// A node and what it said, or why not.
type Answer = (Member, Result<Said, String>);

async fn ask_all(context: &DiscoveryContext, topology: &Topology) -> Vec<Answer> {
    let mut tasks = JoinSet::new();
    for member in topology.nodes().take(NODES_MAX) {
        let (context, member) = (context.clone(), member.clone());
        tasks.spawn(async move {
            let said = timeout(PATIENCE, ask(&context, &member.addr)).await;
            let silent = || Err(format!("no answer within {} s", PATIENCE.as_secs()));
            (member, said.unwrap_or_else(|_| silent()))
        });
    }
    let mut answers: Vec<Answer> = tasks.join_all().await;
    answers.sort_by(|(one, _), (other, _)| one.addr.cmp(&other.addr));
    answers
}

async fn ask(context: &DiscoveryContext, addr: &NodeAddr) -> Result<Said, String> {
    let mut node = Node::connect(context, addr)
        .await
        .map_err(|error| error.to_string())?;
    let mut call = async |args: &[&[u8]]| node.call(args).await.map_err(|error| error.to_string());
    let cluster = call(&[b"CLUSTER", b"INFO"]).await?;
    let server = call(&[b"INFO", b"server"]).await?;
    let before = unix_ms();
    let time = call(&[b"TIME"]).await?;
    let ours = u64::midpoint(before, unix_ms());
    Ok(Said {
        state: field(&cluster, "cluster_state"),
        zone: field(&server, "availability_zone").filter(|zone| !zone.is_empty()),
        ahead_ms: milliseconds(&time)
            .and_then(|theirs| theirs.checked_sub(i64::try_from(ours).ok()?)),
    })
}

fn field(info: &Value, name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(info.as_bytes()?).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.strip_prefix(':')?.trim().to_owned())
}

/// The reply to `TIME`.
fn milliseconds(time: &Value) -> Option<i64> {
    let number = |value: &Value| -> Option<i64> {
        std::str::from_utf8(value.as_bytes()?).ok()?.parse().ok()
    };
    let [seconds, micros] = time.as_array()? else {
        return None;
    };
    number(seconds)?
        .checked_mul(1000)?
        .checked_add(number(micros)? / 1000)
}

fn reachable(topology: &Topology, answers: &[Answer], findings: &mut Findings) {
    const CHECK: &str = "nodes";
    let mut troubled = 0;
    for (member, answer) in answers {
        let role = match member.role {
            Role::Primary => "primary",
            Role::Replica => "replica",
        };
        let trouble = match (answer, member.health) {
            (Err(text), _) => text.as_str(),
            (Ok(_), Health::Failed) => "the cluster holds it for dead",
            (Ok(_), Health::Loading) => "it is loading",
            (Ok(_), Health::Online) => continue,
        };
        troubled += 1;
        let found = format!("{role} {}: {trouble}", member.addr);
        let remedy = "Keyway connects to every node at the address that the cluster tells: it must \
                      be reachable from here (cluster-announce-ip, cluster-announce-hostname)";
        if member.role == Role::Primary {
            findings.fail(CHECK, found, remedy);
        } else {
            findings.warn(CHECK, found, remedy);
        }
    }
    let left = topology.nodes().count().saturating_sub(answers.len());
    let tail = if left > 0 {
        format!("; {left} more were not asked")
    } else {
        String::new()
    };
    if troubled == 0 {
        findings.fine(CHECK, format!("{} answer{tail}", answers.len()));
    }
}

fn state(answers: &[Answer], findings: &mut Findings) {
    let not_ok: Vec<String> = said(answers)
        .filter(|(_, said)| said.state.as_deref().is_some_and(|state| state != "ok"))
        .map(|(member, _)| member.addr.to_string())
        .collect();
    if not_ok.is_empty() {
        findings.fine("cluster state", "ok, by every node that answers");
    } else {
        findings.fail(
            "cluster state",
            format!("not ok, by {}", some(&not_ok)),
            "these nodes refuse commands (CLUSTERDOWN): look at their CLUSTER INFO, and whether \
             they reach the others on the cluster bus port",
        );
    }
}

fn replicas(topology: &Topology, findings: &mut Findings) {
    let alone: Vec<String> = topology
        .shards()
        .iter()
        .filter(|shard| shard.replicas.is_empty())
        .map(|shard| shard.primary.addr.to_string())
        .collect();
    if alone.is_empty() {
        findings.fine("replicas", "every shard has one");
    } else {
        findings.warn(
            "replicas",
            format!("none for {}", some(&alone)),
            "when such a primary is lost, its slots are unavailable: add a replica",
        );
    }
}

fn zones(
    context: &DiscoveryContext,
    topology: &Topology,
    answers: &[Answer],
    findings: &mut Findings,
) {
    const CHECK: &str = "zones";
    let reads = &context.config.get().reads;
    let by_address = |member: &Member| {
        let address = member.addr.host.parse().ok()?;
        let found = reads.zones.iter().find(|zone| zone.contains(address))?;
        Some(found.zone.to_string())
    };
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut unknown = Vec::new();
    for member in topology.nodes() {
        let told = said(answers).find(|(other, _)| other.id == member.id);
        let told = told.and_then(|(_, said)| said.zone.clone());
        let zone = by_address(member).or_else(|| member.zone.as_deref().map(str::to_owned));
        match zone.or(told) {
            Some(zone) => drop(known.insert(zone)),
            None => unknown.push(member.addr.to_string()),
        }
    }
    let all: Vec<String> = known.iter().cloned().collect();
    match reads.zone.as_deref() {
        None if known.is_empty() => findings.skip(CHECK, "neither Keyway nor the nodes have one"),
        None => findings.warn(
            CHECK,
            format!("nodes are in {}; Keyway's own zone is not set", some(&all)),
            "set [reads] zone, for reads that stay in the zone",
        ),
        Some(own) if !known.contains(own) => findings.warn(
            CHECK,
            format!("no node is known to be in Keyway's zone {own}"),
            "set availability-zone on the nodes, or [reads] zones by their addresses",
        ),
        Some(_) if !unknown.is_empty() => findings.warn(
            CHECK,
            format!("not known of {}", some(&unknown)),
            "set availability-zone on these nodes, or [reads] zones by their addresses",
        ),
        Some(own) => findings.fine(
            CHECK,
            format!("Keyway is in {own}, nodes in {}", some(&all)),
        ),
    }
}

fn clocks(answers: &[Answer], findings: &mut Findings) {
    let furthest = said(answers)
        .filter_map(|(member, said)| Some((member, said.ahead_ms?)))
        .max_by_key(|(_, ahead)| ahead.unsigned_abs());
    match furthest {
        None => findings.skip("clock", "no node told its time"),
        Some((_, ahead)) if ahead.unsigned_abs() <= APART_MS => {
            findings.fine(
                "clock",
                format!("{} ms from the furthest node", ahead.unsigned_abs()),
            );
        }
        Some((member, ahead)) => findings.warn(
            "clock",
            format!(
                "{} is {} ms from this machine",
                member.addr,
                ahead.unsigned_abs()
            ),
            "run NTP on both: certificates and expiring keys go by the clock",
        ),
    }
}

fn said(answers: &[Answer]) -> impl Iterator<Item = (&Member, &Said)> {
    let answers = answers.iter();
    answers.filter_map(|(member, said)| Some((member, said.as_ref().ok()?)))
}

/// A list that fits into a line.
fn some(names: &[String]) -> String {
    let shown = names.get(..NAMED_MAX.min(names.len())).unwrap_or_default();
    let more = names.len() - shown.len();
    let tail = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    shown.join(", ") + &tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_and_fields() {
        let time = Value::Array(vec![
            Value::Bulk("1700000000".into()),
            Value::Bulk("250999".into()),
        ]);
        assert_eq!(milliseconds(&time), Some(1_700_000_000_250));
        let info = Value::Bulk("cluster_state:ok\r\ncluster_size:3\r\n".into());
        assert_eq!(field(&info, "cluster_state").as_deref(), Some("ok"));
        assert_eq!(field(&info, "cluster"), None);
    }

    #[test]
    fn lists_are_cut() {
        let names: Vec<String> = (0..8).map(|number| number.to_string()).collect();
        assert_eq!(some(&names), "0, 1, 2, 3, 4 and 3 more");
        assert_eq!(some(&names[..2]), "0, 1");
    }
}
