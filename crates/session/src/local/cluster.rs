//! `CLUSTER`: one virtual primary that owns every slot, at the endpoint, and one virtual replica at
//! the read port, if there is one.
//!
//! An address is told as 9.1.2 tells a node's. A host name is told as `ElastiCache` Serverless
//! does: `CLUSTER NODES` has it where the address belongs, without a second name behind it, and
//! `CLUSTER SLOTS` without the empty `ip` that 9.1.2 would add for want of an address. The port
//! is said twice in `CLUSTER SHARDS`, as `port` and as `tls-port`: clients look for either.

use std::{io::Write as _, net::IpAddr};

use resp::{Protocol, Request, write};
use routing::Slot;

use super::{Context, Endpoint, Member};
use crate::state::Session;

/// The last slot.
const SLOT_LAST: i64 = Slot::COUNT as i64 - 1;

/// A node's port for other nodes, above that for clients. Nobody listens there.
const BUS_PORT_OFFSET: u16 = 10_000;

/// `CLUSTER SLOTS`.
pub(super) fn slots(session: &Session, context: &Context<'_>, out: &mut Vec<u8>) {
    write::array(out, 1);
    write::array(out, 2 + context.members().count());
    write::integer(out, 0);
    write::integer(out, SLOT_LAST);
    for member in context.members() {
        write::array(out, 4);
        write::bulk(out, &member.endpoint.host);
        write::integer(out, member.endpoint.port.into());
        write::bulk(out, member.id);
        write::map(out, session.protocol, context.named_zone().iter().len());
        availability_zone(context, out);
    }
}

/// `CLUSTER SHARDS`.
pub(super) fn shards(session: &Session, context: &Context<'_>, out: &mut Vec<u8>) {
    let protocol = session.protocol;
    write::array(out, 1);
    write::map(out, protocol, 3);
    write::bulk(out, "slots");
    write::array(out, 2);
    write::integer(out, 0);
    write::integer(out, SLOT_LAST);
    write::bulk(out, "nodes");
    write::array(out, context.members().count());
    for member in context.members() {
        shard_node(member, protocol, context, out);
    }
    write::bulk(out, "id");
    write::bulk(out, context.shard_id);
}

fn shard_node(member: Member<'_>, protocol: Protocol, context: &Context<'_>, out: &mut Vec<u8>) {
    let host = member.endpoint.host.as_str();
    let named = is_name(member.endpoint);
    write::map(
        out,
        protocol,
        8 + usize::from(named) + context.named_zone().iter().len(),
    );
    write::bulk(out, "id");
    write::bulk(out, member.id);
    for name in ["port", "tls-port"] {
        write::bulk(out, name);
        write::integer(out, member.endpoint.port.into());
    }
    write::bulk(out, "ip");
    write::bulk(out, if named { "" } else { host });
    write::bulk(out, "endpoint");
    write::bulk(out, host);
    if named {
        write::bulk(out, "hostname");
        write::bulk(out, host);
    }
    write::bulk(out, "role");
    write::bulk(out, if member.replica { "replica" } else { "master" });
    write::bulk(out, "replication-offset");
    write::integer(out, 0);
    write::bulk(out, "health");
    write::bulk(out, "online");
    availability_zone(context, out);
}

fn availability_zone(context: &Context<'_>, out: &mut Vec<u8>) {
    if let Some(zone) = context.named_zone() {
        write::bulk(out, "availability-zone");
        write::bulk(out, zone);
    }
}

/// Whether the endpoint's host is a name, not an address.
fn is_name(endpoint: &Endpoint) -> bool {
    endpoint.host.parse::<IpAddr>().is_err()
}

/// `CLUSTER NODES`.
pub(super) fn nodes(session: &Session, context: &Context<'_>, out: &mut Vec<u8>) {
    let lines: String = context
        .members()
        .map(|member| node_line(member, context) + "\n")
        .collect();
    write::verbatim(out, session.protocol, b"txt", lines);
}

/// A line of `CLUSTER NODES`, without its end.
fn node_line(member: Member<'_>, context: &Context<'_>) -> String {
    let Endpoint { host, port } = member.endpoint;
    let myself = if member.is_asked { "myself," } else { "" };
    let bus = port.saturating_add(BUS_PORT_OFFSET);
    let epoch = context.facts.epoch;
    let id = member.id;
    if member.replica {
        let primary = context.node_id;
        format!("{id} {host}:{port}@{bus} {myself}slave {primary} 0 0 {epoch} connected")
    } else {
        format!("{id} {host}:{port}@{bus} {myself}master - 0 0 {epoch} connected 0-{SLOT_LAST}")
    }
}

/// `CLUSTER REPLICAS id`.
pub(super) fn replicas(request: Request<'_>, context: &Context<'_>, out: &mut Vec<u8>) {
    let id = request.arg(2).unwrap_or_default();
    if context
        .members()
        .any(|member| member.replica && member.id.as_bytes() == id)
    {
        write::error(out, "ERR The specified node is not a master");
        return;
    }
    about_node(request, context, out, |out| {
        let replicas = context.members().filter(|member| member.replica);
        write::array(out, replicas.clone().count());
        replicas.for_each(|member| write::bulk(out, node_line(member, context)));
    });
}

/// `CLUSTER INFO`: one node, and the slots of the cluster. Its state is `ok` unless no slot at all
/// has an owner: clients refuse to work with another state, and Valkey too can serve the slots
/// that it has (`cluster-require-full-coverage no`).
pub(super) fn info(session: &Session, context: &Context<'_>, out: &mut Vec<u8>) {
    let covered = context.facts.slots_covered;
    let epoch = context.facts.epoch;
    let mut text = Vec::with_capacity(640);
    let state = if covered > 0 { "ok" } else { "fail" };
    let _ = write!(
        text,
        "cluster_state:{state}\r\ncluster_slots_assigned:{covered}\r\n"
    );
    let _ = write!(text, "cluster_slots_ok:{covered}\r\n");
    for field in [
        "slots_pfail",
        "slots_fail",
        "nodes_pfail",
        "nodes_fail",
        "voting_nodes_pfail",
    ] {
        let _ = write!(text, "cluster_{field}:0\r\n");
    }
    let _ = write!(
        text,
        "cluster_voting_nodes_fail:0\r\ncluster_known_nodes:{}\r\n",
        context.members().count()
    );
    let _ = write!(text, "cluster_size:{}\r\n", u8::from(covered > 0));
    let _ = write!(
        text,
        "cluster_current_epoch:{epoch}\r\ncluster_my_epoch:{epoch}\r\n"
    );
    for field in ["messages", "bytes", "pubsub_bytes", "module_bytes"] {
        let _ = write!(text, "cluster_stats_{field}_sent:0\r\n");
        let _ = write!(text, "cluster_stats_{field}_received:0\r\n");
    }
    text.extend_from_slice(b"total_cluster_links_buffer_limit_exceeded:0\r\n");
    write::verbatim(out, session.protocol, b"txt", text);
}

/// A question about the node whose id is the argument.
pub(super) fn about_node(
    request: Request<'_>,
    context: &Context<'_>,
    out: &mut Vec<u8>,
    answer: impl FnOnce(&mut Vec<u8>),
) {
    let id = request.arg(2).unwrap_or_default();
    if context.members().any(|member| member.id.as_bytes() == id) {
        answer(out);
    } else {
        let mut text = b"ERR Unknown node ".to_vec();
        text.extend_from_slice(id);
        write::error(out, &text);
    }
}

/// `CLUSTER KEYSLOT key`.
pub(super) fn key_slot(request: Request<'_>, out: &mut Vec<u8>) {
    let slot = Slot::of_key(request.arg(2).unwrap_or_default());
    write::integer(out, slot.get().into());
}
