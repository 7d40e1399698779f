//! `CLUSTER SHARDS`: a list of maps with `slots` (flat pairs) and `nodes` (a list of maps).

use resp::Value;

use super::fields;
use crate::candidate::REPLICAS_MAX;
use crate::{Candidate, Health, Node, NodeAddr, ParseError, Role, Shard, SlotRange};

/// Reads an answer to `CLUSTER SHARDS` given by the node at `asked`. With `tls` the nodes' TLS
/// ports are taken, where they have one.
///
/// A shard that lists several primaries is a failover seen half: the healthiest leads. A shard
/// without a primary is left out, and its slots are nobody's.
///
/// # Errors
/// The answer is an error, has another shape, or contradicts itself.
pub fn parse_shards(value: &Value, asked: &NodeAddr, tls: bool) -> Result<Candidate, ParseError> {
    let mut shards = Vec::new();
    for row in fields::rows(value)? {
        let nodes = row.map_get("nodes").and_then(Value::as_array);
        let nodes = nodes.ok_or(ParseError::Shape("nodes"))?;
        if nodes.len() > REPLICAS_MAX {
            return Err(ParseError::TooManyNodes);
        }
        let nodes = nodes
            .iter()
            .filter_map(|node| parse_node(node, asked, tls).transpose());
        let nodes: Vec<Node> = nodes.collect::<Result<_, _>>()?;
        let ranges = parse_ranges(row.map_get("slots"))?;
        shards.extend(shard(nodes).map(|shard| (shard, ranges)));
    }
    Candidate::from_shards(shards)
}

fn parse_ranges(value: Option<&Value>) -> Result<Vec<SlotRange>, ParseError> {
    let bounds = value
        .and_then(Value::as_array)
        .ok_or(ParseError::Shape("slots"))?;
    bounds
        .chunks(2)
        .map(|pair| fields::range(pair.first(), pair.get(1)))
        .collect()
}

/// `None`: a dead node whose address the cluster does not know (any more).
fn parse_node(value: &Value, asked: &NodeAddr, tls: bool) -> Result<Option<Node>, ParseError> {
    let get = |key: &str| value.map_get(key);
    let health = match get("health").and_then(Value::as_bytes) {
        Some(b"online") => Health::Online,
        Some(b"loading") => Health::Loading,
        Some(_) => Health::Failed,
        None => return Err(ParseError::Shape("health")),
    };
    let nowhere = get("ip").and_then(Value::as_bytes) == Some(b"");
    if health == Health::Failed && nowhere {
        return Ok(None);
    }
    let port = if tls {
        get("tls-port").or(get("port"))
    } else {
        get("port")
    };
    let host = fields::host(get("endpoint"), get("ip"), asked)?;
    Ok(Some(Node {
        id: fields::node_id(get("id"))?,
        addr: fields::address(host, port)?,
        role: match get("role").and_then(Value::as_bytes) {
            Some(b"master" | b"primary") => Role::Primary,
            Some(b"replica" | b"slave") => Role::Replica,
            _ => return Err(ParseError::Shape("role")),
        },
        health,
        zone: fields::zone(get("availability-zone"))?,
        replication_offset: get("replication-offset")
            .and_then(Value::as_int)
            .and_then(|offset| u64::try_from(offset).ok()),
    }))
}

fn shard(mut nodes: Vec<Node>) -> Option<Shard> {
    let sickness = |node: &Node| match node.health {
        Health::Online => 0,
        Health::Loading => 1,
        Health::Failed => 2,
    };
    let primaries = nodes
        .iter()
        .enumerate()
        .filter(|(_, node)| node.role == Role::Primary);
    let (leader, _) = primaries.min_by_key(|(_, node)| sickness(node))?;
    let primary = nodes.remove(leader);
    Some(Shard {
        primary,
        replicas: nodes,
    })
}
