//! What `KEYWAY` says to a client, in its protocol.

use resp::{Protocol, write};
use session::local::keyway::{HotBy, Question};
use topology::Topology;

use super::{HotSlot, KeyRate, Rate, Sum, report::NodeCounts, slot_of};
use crate::{slow::Slow, worker::Shared};

/// Writes the answer to a question.
pub(crate) fn answer(shared: &Shared, question: Question, protocol: Protocol, out: &mut Vec<u8>) {
    match question {
        Question::HotKeys(count, by) => hot_keys(&shared.heat.sum(), (count, by), protocol, out),
        Question::HotSlots(count, by) => {
            let weight = match by {
                HotBy::Operations => |rate: Rate| rate.operations,
                HotBy::Bytes => Rate::bytes,
            };
            let slots = shared.heat.sum().hottest(count, weight);
            let (view, nodes) = (shared.view(), shared.heat.node_counts());
            write::array(out, slots.len());
            for slot in &slots {
                let node = nodes.get(&slot.slot.get()).copied().unwrap_or_default();
                hot_slot(slot, view.topology.as_deref(), node, protocol, out);
            }
        }
        Question::BigKeys(count) => {
            let sum = shared.heat.sum();
            let keys = sum.big.iter().take(count);
            write::array(out, keys.len());
            for (key, ago) in keys {
                let slot = slot_of(&key.key);
                write::map(out, protocol, 4);
                bulk(out, "key", &key.key);
                nullable(out, "slot", slot.map(|slot| slot.get().into()), protocol);
                integer(out, "bytes", key.bytes);
                integer(out, "seen-seconds-ago", ago.as_secs());
            }
        }
        Question::SlowGet(count) => {
            let slow = shared.slow.all();
            let last = slow.iter().rev().take(count);
            write::array(out, last.len());
            last.for_each(|one| slow_one(one, protocol, out));
        }
        Question::SlowLen => {
            let len = shared.slow.all().len();
            write::integer(out, i64::try_from(len).unwrap_or(i64::MAX));
        }
        Question::SlowReset => {
            shared.slow.clear();
            write::simple(out, "OK");
        }
        // Answered before anybody was asked.
        Question::Help => write::null_array(out, protocol),
    }
}

fn hot_keys(sum: &Sum, (count, by): (usize, HotBy), protocol: Protocol, out: &mut Vec<u8>) {
    let (keys, all): (&[KeyRate], f64) = match by {
        HotBy::Operations => (&sum.by_operations, sum.key_operations),
        HotBy::Bytes => (&sum.by_bytes, sum.key_bytes),
    };
    let unit = match by {
        HotBy::Operations => ["ops-per-second", "ops-per-second-at-least"],
        HotBy::Bytes => ["bytes-per-second", "bytes-per-second-at-least"],
    };
    let keys = keys.iter().take(count);
    write::array(out, keys.len());
    for key in keys {
        write::map(out, protocol, 5);
        bulk(out, "key", &key.key);
        let slot = slot_of(&key.key).map(|slot| slot.get().into());
        nullable(out, "slot", slot, protocol);
        double(out, unit[0], key.at_most, protocol);
        double(out, unit[1], key.at_least, protocol);
        double(
            out,
            "percent",
            100.0 * key.at_most / all.max(1e-9),
            protocol,
        );
    }
}

fn hot_slot(
    slot: &HotSlot,
    topology: Option<&Topology>,
    node: NodeCounts,
    protocol: Protocol,
    out: &mut Vec<u8>,
) {
    let told = [
        ("key-count", node.key_count),
        ("cpu-usec", node.cpu_usec),
        ("memory-bytes", node.memory_bytes),
        ("network-bytes-in", node.network_bytes_in),
        ("network-bytes-out", node.network_bytes_out),
    ];
    let told = told
        .iter()
        .filter_map(|(name, value)| Some((*name, (*value)?)));
    let owner = topology.and_then(|topology| topology.owner_index(slot.slot));
    let owner = owner.and_then(|shard| u64::try_from(shard.get()).ok());
    let (rate, total) = (slot.rate, slot.total);
    write::map(out, protocol, 9 + told.clone().count());
    integer(out, "slot", slot.slot.get().into());
    nullable(out, "shard", owner, protocol);
    double(out, "ops-per-second", rate.operations, protocol);
    double(out, "bytes-in-per-second", rate.bytes_in, protocol);
    double(out, "bytes-out-per-second", rate.bytes_out, protocol);
    integer(out, "reads", total.reads);
    integer(out, "writes", total.writes);
    integer(out, "bytes-in", total.bytes_in);
    integer(out, "bytes-out", total.bytes_out);
    told.for_each(|(name, value)| integer(out, name, value));
}

fn slow_one(slow: &Slow, protocol: Protocol, out: &mut Vec<u8>) {
    write::map(out, protocol, 6);
    integer(out, "at-ms", slow.at_ms);
    integer(out, "took-us", slow.took_us);
    bulk(out, "command", slow.command.as_bytes());
    bulk(out, "client", slow.client.as_bytes());
    bulk(out, "user", slow.user.as_bytes());
    integer(out, "left-out", slow.left_out);
}

fn bulk(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    write::bulk(out, name);
    write::bulk(out, value);
}

fn integer(out: &mut Vec<u8>, name: &str, value: u64) {
    write::bulk(out, name);
    write::integer(out, i64::try_from(value).unwrap_or(i64::MAX));
}

fn nullable(out: &mut Vec<u8>, name: &str, value: Option<u64>, protocol: Protocol) {
    match value {
        Some(value) => integer(out, name, value),
        None => {
            write::bulk(out, name);
            write::null(out, protocol);
        }
    }
}

/// With one digit behind the point: more would be made up.
fn double(out: &mut Vec<u8>, name: &str, value: f64, protocol: Protocol) {
    write::bulk(out, name);
    write::double(out, protocol, (value * 10.0).round() / 10.0);
}
