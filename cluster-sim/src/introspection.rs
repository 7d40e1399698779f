//! `CLUSTER` and `INFO`: what a node says of itself and the others.

use resp::{Request, Value};
use topology::Slot;

use crate::{
    cluster::Cluster,
    commands::{Outcome, args},
    layout::Version,
    node::{Connection, Node, NodeIndex},
};

pub(crate) fn run(
    cluster: &mut Cluster,
    connection: &Connection,
    name: &str,
    request: Request<'_>,
) -> Option<Outcome> {
    let here = connection.node;
    Some(match name {
        "cluster|shards" => Ok(cluster.shards_reply()),
        "cluster|slots" => Ok(cluster.slots_reply()),
        "cluster|nodes" => Ok(text(cluster.nodes_reply(here))),
        "cluster|info" => Ok(text(cluster.info_reply())),
        "cluster|myid" => Ok(Value::bulk(
            cluster.nodes.get(here).map_or("", |node| &node.id),
        )),
        "cluster|keyslot" => {
            let slot = Slot::of_key(request.arg(2).unwrap_or_default());
            Ok(Value::Integer(slot.get().into()))
        }
        "cluster|countkeysinslot" => counted_slot(request).map(|slot| {
            Value::Integer(i64::try_from(cluster.keys_in(here, slot).len()).unwrap_or(i64::MAX))
        }),
        "cluster|getkeysinslot" => counted_slot(request).and_then(|slot| {
            let count = number(request, 3).ok_or("ERR Invalid slot or number of keys")?;
            let keys = cluster.keys_in(here, slot);
            Ok(Value::Array(
                keys.iter().take(count).map(Value::bulk).collect(),
            ))
        }),
        "cluster|setslot" => set_slot(cluster, here, request),
        "cluster|migrateslots" if cluster.layout.version != Version::V8_0 => {
            migrate_slots(cluster, request)
        }
        "cluster|failover" => fail_over(cluster, here),
        "migrate" => migrate(cluster, here, request),
        "info" => Ok(text(cluster.info(here))),
        _ => return None,
    })
}

fn text(text: String) -> Value {
    Value::Verbatim {
        format: *b"txt",
        text: text.into(),
    }
}

fn number(request: Request<'_>, at: usize) -> Option<usize> {
    std::str::from_utf8(request.arg(at)?).ok()?.parse().ok()
}

fn slot(request: Request<'_>, at: usize) -> Result<Slot, String> {
    let slot = number(request, at)
        .and_then(|slot| u16::try_from(slot).ok())
        .and_then(Slot::new);
    slot.ok_or_else(|| "ERR Invalid or out of range slot".to_owned())
}

/// The slot whose keys are asked for.
fn counted_slot(request: Request<'_>) -> Result<Slot, String> {
    let number = args::integer(request.arg(2).unwrap_or_default());
    let slot = u16::try_from(number.ok_or(args::NOT_AN_INTEGER)?).ok();
    slot.and_then(Slot::new)
        .ok_or_else(|| "ERR Invalid slot".to_owned())
}

fn node_named(cluster: &Cluster, id: &[u8]) -> Option<NodeIndex> {
    let mut nodes = cluster.nodes.iter();
    nodes.position(|node| node.id.as_bytes() == id)
}

fn set_slot(cluster: &mut Cluster, here: NodeIndex, request: Request<'_>) -> Outcome {
    let slot = slot(request, 2)?.get();
    let action = request.arg(3).unwrap_or_default().to_ascii_lowercase();
    let id = request.arg(4).unwrap_or_default();
    let shown = String::from_utf8_lossy(id);
    let other = || {
        let node = node_named(cluster, id);
        node.ok_or_else(|| format!("ERR I don't know about node {shown}"))
    };
    let owner = Slot::new(slot).and_then(|slot| cluster.owner(slot));
    let mine = owner.and_then(|shard| cluster.primary(shard)) == Some(here);
    if !cluster.is_primary(here) {
        return Err("ERR Please use SETSLOT only with masters.".to_owned());
    }
    let not_primary = || Err("ERR Target node is not a master".to_owned());
    match action.as_slice() {
        b"migrating" if !mine => {
            return Err(format!("ERR I'm not the owner of hash slot {slot}"));
        }
        b"migrating" => {
            let target = other()?;
            if target == here {
                return Err("ERR Target node is myself".to_owned());
            }
            if !cluster.is_primary(target) {
                return not_primary();
            }
            if let Some(node) = cluster.nodes.get_mut(here) {
                node.migrating.insert(slot, target);
            }
        }
        b"importing" if mine => {
            return Err(format!("ERR I'm already the owner of hash slot {slot}"));
        }
        b"importing" => {
            let source = other()?;
            if !cluster.is_primary(source) {
                return not_primary();
            }
            if let Some(node) = cluster.nodes.get_mut(here) {
                node.importing.insert(slot, source);
            }
        }
        b"stable" => {
            if let Some(node) = cluster.nodes.get_mut(here) {
                node.migrating.remove(&slot);
                node.importing.remove(&slot);
            }
        }
        b"node" => {
            let target = node_named(cluster, id);
            let target = target.ok_or_else(|| format!("ERR Unknown node {shown}"))?;
            cluster.assign(slot, target);
        }
        _ => {
            return Err(
                "ERR Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP"
                    .to_owned(),
            );
        }
    }
    Ok(Value::Simple("OK".into()))
}

/// `CLUSTER MIGRATESLOTS SLOTSRANGE first last NODE id`
fn migrate_slots(cluster: &mut Cluster, request: Request<'_>) -> Outcome {
    let (first, last) = (slot(request, 3)?, slot(request, 4)?);
    let id = request.arg(6).unwrap_or_default();
    let shown = String::from_utf8_lossy(id);
    if id.len() != 40 {
        return Err(format!("ERR Invalid node name: {shown}"));
    }
    let target = node_named(cluster, id);
    let target = target.ok_or_else(|| format!("ERR Unknown node name: {shown}"))?;
    let shard = cluster.nodes.get(target).map_or(0, |node| node.shard);
    let slots = (first.get()..=last.get()).filter_map(Slot::new);
    cluster.migrate_atomically(slots, shard);
    Ok(Value::Simple("OK".into()))
}

fn fail_over(cluster: &mut Cluster, here: NodeIndex) -> Outcome {
    if cluster.is_primary(here) {
        return Err("ERR You should send CLUSTER FAILOVER to a replica".to_owned());
    }
    let shard = cluster.nodes.get(here).map_or(0, |node| node.shard);
    if let Some(old) = cluster.primary(shard) {
        cluster.resync(here, old);
    }
    cluster.promote(shard, here);
    Ok(Value::Simple("OK".into()))
}

/// `MIGRATE host port key|"" 0 timeout [COPY] [REPLACE] [KEYS key...]`
fn migrate(cluster: &mut Cluster, here: NodeIndex, request: Request<'_>) -> Outcome {
    let port = number(request, 2).unwrap_or_default();
    let target = cluster
        .nodes
        .iter()
        .position(|node| usize::from(node.addr.port()) == port);
    let target = target.ok_or("IOERR error or timeout connecting to the client")?;
    let behind = request
        .args()
        .position(|arg| arg.eq_ignore_ascii_case(b"keys"));
    let keys: Vec<Vec<u8>> = match behind {
        Some(at) => request.args().skip(at + 1).map(<[u8]>::to_vec).collect(),
        None => vec![request.arg(3).unwrap_or_default().to_vec()],
    };
    let moved = keys
        .iter()
        .filter(|key| cluster.move_key(key, here, target))
        .count();
    cluster.replicas_follow([here, target]);
    Ok(Value::Simple(
        if moved == 0 { "NOKEY" } else { "OK" }.into(),
    ))
}

impl Cluster {
    /// From 9.1 on, zones are in `HELLO` and in the `CLUSTER` commands.
    pub(crate) fn shows_zones(&self) -> bool {
        self.layout.version == Version::V9_1
    }

    fn keys_in(&mut self, node: NodeIndex, slot: Slot) -> Vec<Vec<u8>> {
        let now = self.unix_ms();
        self.nodes
            .get_mut(node)
            .map(|node| node.store.keys_in(slot, now))
            .unwrap_or_default()
    }

    /// The ranges of slots that a shard owns.
    fn ranges(&self, shard: usize) -> Vec<(usize, usize)> {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for (slot, _) in self
            .owners
            .iter()
            .enumerate()
            .filter(|(_, owner)| **owner == shard)
        {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == slot => *last = slot,
                _ => ranges.push((slot, slot)),
            }
        }
        ranges
    }

    /// A shard's nodes, the primary first.
    fn members(&self, shard: usize) -> Vec<(NodeIndex, &Node)> {
        let all = self.nodes.iter().enumerate();
        let mut members: Vec<_> = all.filter(|(_, node)| node.shard == shard).collect();
        members.sort_by_key(|(index, _)| !self.is_primary(*index));
        members
    }

    fn shards_reply(&self) -> Value {
        let shard = |shard: usize| {
            let slots = self
                .ranges(shard)
                .into_iter()
                .flat_map(|(first, last)| [first, last]);
            let slots = slots.map(|slot| Value::Integer(i64::try_from(slot).unwrap_or_default()));
            let nodes = self
                .members(shard)
                .into_iter()
                .map(|(index, node)| self.shard_node(index, node));
            map([
                ("slots", Value::Array(slots.collect())),
                ("nodes", Value::Array(nodes.collect())),
            ])
        };
        Value::Array((0..self.shards.len()).map(shard).collect())
    }

    fn shard_node(&self, index: NodeIndex, node: &Node) -> Value {
        let ip = node.addr.ip().to_string();
        let reached = node.alive && !self.has_lost_cluster(index);
        let health = match (reached, node.loading_until) {
            (false, _) => "failed",
            (true, Some(_)) => "loading",
            (true, None) => "online",
        };
        let role = if self.is_primary(index) {
            "master"
        } else {
            "replica"
        };
        let mut fields = vec![
            ("id", Value::bulk(&node.id)),
            ("port", Value::Integer(node.addr.port().into())),
            ("ip", Value::bulk(&ip)),
            ("endpoint", Value::bulk(&ip)),
            ("role", Value::bulk(role)),
            (
                "replication-offset",
                Value::Integer(i64::try_from(node.applied + 1).unwrap_or(i64::MAX)),
            ),
            ("health", Value::bulk(health)),
        ];
        if self.shows_zones() && !node.zone.is_empty() {
            fields.push(("availability-zone", Value::bulk(&node.zone)));
        }
        map(fields)
    }

    fn slots_reply(&self) -> Value {
        let mut rows = Vec::new();
        for shard in 0..self.shards.len() {
            for (first, last) in self.ranges(shard) {
                let bound = |slot: usize| Value::Integer(i64::try_from(slot).unwrap_or_default());
                let mut row = vec![bound(first), bound(last)];
                let members = self.members(shard).into_iter();
                let shown = members.filter(|(index, node)| {
                    let reached = node.alive && !self.has_lost_cluster(*index);
                    reached || self.is_primary(*index)
                });
                row.extend(shown.map(|(_, node)| {
                    let zone = self.shows_zones() && !node.zone.is_empty();
                    let metadata = zone.then(|| ("availability-zone", Value::bulk(&node.zone)));
                    Value::Array(vec![
                        Value::bulk(node.addr.ip().to_string()),
                        Value::Integer(node.addr.port().into()),
                        Value::bulk(&node.id),
                        map(metadata),
                    ])
                }));
                rows.push((first, Value::Array(row)));
            }
        }
        rows.sort_by_key(|(first, _)| *first);
        Value::Array(rows.into_iter().map(|(_, row)| row).collect())
    }

    fn nodes_reply(&self, here: NodeIndex) -> String {
        let mut lines = String::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let primary = self.is_primary(index);
            let myself = if index == here { "myself," } else { "" };
            let role = if primary { "master" } else { "slave" };
            let reached = node.alive && !self.has_lost_cluster(index);
            let fail = if reached { "" } else { ",fail" };
            let leader = self
                .primary(node.shard)
                .and_then(|primary| self.nodes.get(primary));
            let follows = leader.filter(|_| !primary).map_or("-", |leader| &leader.id);
            let link = if reached { "connected" } else { "disconnected" };
            let bus = node.addr.port().wrapping_add(10_000);
            lines += &format!(
                "{} {}@{bus} {myself}{role}{fail} {follows} 0 0 {} {link}",
                node.id, node.addr, self.epoch
            );
            if primary {
                for (first, last) in self.ranges(node.shard) {
                    lines += &if first == last {
                        format!(" {first}")
                    } else {
                        format!(" {first}-{last}")
                    };
                }
            }
            if index == here {
                for (slot, to) in &node.migrating {
                    let id = self.nodes.get(*to).map_or("", |node| &node.id);
                    lines += &format!(" [{slot}->-{id}]");
                }
                for (slot, from) in &node.importing {
                    let id = self.nodes.get(*from).map_or("", |node| &node.id);
                    lines += &format!(" [{slot}-<-{id}]");
                }
            }
            lines.push('\n');
        }
        lines
    }

    fn info_reply(&self) -> String {
        let state = if self.now < self.down_until {
            "fail"
        } else {
            "ok"
        };
        format!(
            "cluster_state:{state}\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\n\
             cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:{}\r\n\
             cluster_size:{}\r\ncluster_current_epoch:{}\r\ncluster_my_epoch:{}\r\n",
            self.nodes.len(),
            self.shards.len(),
            self.epoch,
            self.epoch
        )
    }

    fn info(&self, here: NodeIndex) -> String {
        let Some(node) = self.nodes.get(here) else {
            return String::new();
        };
        let role = if self.is_primary(here) {
            "master"
        } else {
            "slave"
        };
        let link = if self.is_primary(here) {
            String::new()
        } else {
            format!(
                "master_link_status:up\r\nmaster_sync_in_progress:0\r\nslave_repl_offset:{}\r\n",
                node.applied
            )
        };
        let connections = self.connections.values().filter(|c| c.node == here).count() + 1;
        format!(
            "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:{}\r\n\
             server_mode:cluster\r\ntcp_port:{}\r\navailability_zone:{}\r\n\r\n# Clients\r\n\
             connected_clients:{connections}\r\n\r\n# Replication\r\nrole:{role}\r\n\
             {link}master_repl_offset:{}\r\n\r\n# Cluster\r\ncluster_enabled:1\r\n",
            self.layout.version.number(),
            node.addr.port(),
            node.zone,
            node.applied
        )
    }
}

fn map<'a>(pairs: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::Map(
        pairs
            .into_iter()
            .map(|(key, value)| (Value::bulk(key), value))
            .collect(),
    )
}
