//! The cases: what is done to the cluster while the load runs.

use std::time::{Duration, Instant};

use crate::chaos::{Allowed, Ground, Outage, Row, settle};
use crate::load::Load;
use crate::observer::Observer;
use crate::wait::wait_until;

const SLOTS: usize = 16_384;

/// Moves `slots` slots of the first shard to the second and back, by SETSLOT and MIGRATE, `times`
/// times.
///
/// # Panics
/// The cluster does not do it.
#[must_use]
pub fn legacy(ground: &Ground, slots: u16, times: usize) -> Row {
    let load = ground.start_load(false);
    let first = ground.cluster.slots_of(0).0;
    let last = first + slots - 1;
    for _ in 0..times {
        let home = ground.cluster.owner(first);
        let away = ground.cluster.owner(ground.cluster.slots_of(1).0);
        for (from, to) in [(home, away), (away, home)] {
            ground.cluster.migrate_slots(first..=last, from, to);
            settle(&load, &ground.load);
        }
    }
    row(
        "slots move key by key",
        format!("{slots} slots and back, {times} x"),
        load,
    )
}

/// Moves half of all slots in one step per shard, and back.
///
/// # Panics
/// The cluster does not do it.
#[must_use]
pub fn atomic(ground: &Ground, times: usize) -> Row {
    let load = ground.start_load(false);
    let shards = ground.cluster.options().shards;
    let owners: Vec<usize> = (0..shards)
        .map(|shard| ground.cluster.owner(ground.cluster.slots_of(shard).0))
        .collect();
    let mut moved = 0;
    for _ in 0..times {
        for back in [false, true] {
            for shard in 0..shards {
                let (first, last) = ground.cluster.slots_of(shard);
                let half = (first, first + (last - first) / 2);
                let (home, away) = (owners[shard], owners[(shard + 1) % shards]);
                let (from, to) = if back { (away, home) } else { (home, away) };
                ground.cluster.migrate_ranges_atomically(&[half], from, to);
                moved += usize::from(half.1 - half.0) + 1;
                settle(&load, &ground.load);
            }
        }
    }
    row(
        "slots move in one step",
        format!("{} slots and back, {times} x", moved / 2 / times.max(1)),
        load,
    )
}

/// Replicas become primaries by plan, one shard after the other.
///
/// # Panics
/// The cluster does not do it.
#[must_use]
pub fn planned(ground: &Ground, times: usize) -> Row {
    let load = ground.start_load(false);
    let observer = ground.observe();
    let mut outages = Vec::new();
    for turn in 0..times {
        ground.cluster.wait_healthy();
        let shard = turn % ground.cluster.options().shards;
        let (_, replica) = ground.primary_and_replica(shard);
        let begin = begin(&load);
        ground.cluster.failover(replica);
        outages.push(outage(ground, &load, &observer, begin));
    }
    drop(observer);
    Row {
        outages,
        ..row("planned failover", format!("{times} x"), load)
    }
}

/// Primaries are killed (SIGKILL), one shard after the other, and come back as replicas.
///
/// # Panics
/// The cluster does not recover.
#[must_use]
pub fn killed(ground: &mut Ground, times: usize) -> Row {
    let load = ground.start_load(true);
    let observer = ground.observe();
    let mut outages = Vec::new();
    for turn in 0..times {
        let shard = turn % ground.cluster.options().shards;
        let (primary, _) = ground.primary_and_replica(shard);
        let begin = begin(&load);
        ground.cluster.node_mut(primary).kill();
        outages.push(outage(ground, &load, &observer, begin));
        ground.cluster.node_mut(primary).restart();
        ground.cluster.wait_healthy();
    }
    settle(&load, &ground.load);
    drop(observer);
    Row {
        allowed: Allowed::UnknownWrites,
        outages,
        ..row("kill -9 of a primary", format!("{times} x"), load)
    }
}

/// Primaries are stopped (SIGSTOP) for `pause`, and go on when they have been replaced.
///
/// # Panics
/// The cluster does not recover.
#[must_use]
pub fn stopped(ground: &Ground, times: usize, pause: Duration) -> Row {
    let load = ground.start_load(true);
    let mut outages = Vec::new();
    for turn in 0..times {
        let observer = ground.observe();
        settle(&load, &ground.load);
        let shard = turn % ground.cluster.options().shards;
        let (primary, _) = ground.primary_and_replica(shard);
        let begin = begin(&load);
        ground.cluster.nodes()[primary].freeze();
        let mut outage = outage(ground, &load, &observer, begin);
        std::thread::sleep(pause.saturating_sub(begin.elapsed()));
        ground.cluster.nodes()[primary].thaw();
        ground.cluster.wait_healthy();
        settle(&load, &ground.load);
        outage.clients = outage.clients.max(load_outage(&load, begin));
        outages.push(outage);
    }
    Row {
        allowed: Allowed::UnknownWrites,
        outages,
        ..row(
            "SIGSTOP of a primary",
            format!("{times} x {} s", pause.as_secs()),
            load,
        )
    }
}

/// Grows a cluster of one shard to `shards`, and shrinks it again; slots are spread evenly.
///
/// # Panics
/// The cluster does not do it.
#[must_use]
pub fn scaled(ground: &mut Ground, shards: usize, times: usize) -> Row {
    let load = ground.start_load(false);
    for _ in 0..times {
        while ground.cluster.nodes().len() < shards {
            let new = ground.cluster.add_primary();
            for from in 0..new {
                let surplus = owned(ground, from).saturating_sub(SLOTS / (new + 1));
                let ranges = take(&ground.cluster.ranges_of(from), surplus);
                ground.cluster.migrate_ranges_atomically(&ranges, from, new);
            }
            settle(&load, &ground.load);
        }
        while ground.cluster.nodes().len() > 1 {
            let last = ground.cluster.nodes().len() - 1;
            let total = owned(ground, last);
            for to in 0..last {
                let share = if to + 1 == last { SLOTS } else { total / last };
                let ranges = take(&ground.cluster.ranges_of(last), share);
                ground.cluster.migrate_ranges_atomically(&ranges, last, to);
            }
            settle(&load, &ground.load);
            ground.cluster.remove_last_node();
        }
        settle(&load, &ground.load);
    }
    row(
        "shards come and go",
        format!("1 to {shards} and back, {times} x"),
        load,
    )
}

fn row(case: &str, done: String, load: Load) -> Row {
    Row {
        case: case.to_owned(),
        done,
        allowed: Allowed::Nothing,
        report: load.stop(),
        outages: Vec::new(),
        short: Vec::new(),
    }
}

/// Now, with nothing noted from before.
fn begin(load: &Load) -> Instant {
    let _ = load.take_worst();
    Instant::now()
}

/// Waits until cluster and clients are served again after what happened at `begin`.
fn outage(ground: &Ground, load: &Load, observer: &Observer, begin: Instant) -> Outage {
    wait_until("a cluster that serves all shards again", 60, || {
        observer.all_serve(begin)
    });
    settle(load, &ground.load);
    Outage {
        cluster: observer.outage(begin),
        clients: load_outage(load, begin),
    }
}

fn load_outage(load: &Load, begin: Instant) -> Duration {
    let (longest, error_age) = load.take_worst();
    let last_error = error_age.map(|age| begin.elapsed().saturating_sub(age));
    longest.max(last_error.unwrap_or_default())
}

fn owned(ground: &Ground, index: usize) -> usize {
    let ranges = ground.cluster.ranges_of(index);
    ranges
        .iter()
        .map(|(first, last)| usize::from(last - first) + 1)
        .sum()
}

/// The first `count` slots of some ranges.
fn take(ranges: &[(u16, u16)], count: usize) -> Vec<(u16, u16)> {
    let mut left = u16::try_from(count).unwrap_or(u16::MAX);
    let mut taken = Vec::new();
    for (first, last) in ranges {
        if left == 0 {
            break;
        }
        let size = (last - first + 1).min(left);
        taken.push((*first, first + size - 1));
        left -= size;
    }
    taken
}
