//! `CLUSTER SLOTS`: rows of first slot, last slot, primary, replicas. Each node is a list of
//! endpoint, port, id and metadata.

use std::collections::BTreeMap;

use resp::Value;

use super::fields;
use crate::candidate::REPLICAS_MAX;
use crate::{Candidate, Health, Node, NodeAddr, NodeId, ParseError, Role, Shard, SlotRange};

/// Reads an answer to `CLUSTER SLOTS` given by the node at `asked`. The server already chose the
/// port by how it was asked, so `tls` changes nothing; it is here so that both parsers are called
/// alike. Failed and loading replicas are not in this answer; what is in it counts as online.
///
/// # Errors
/// The answer is an error, has another shape, or contradicts itself.
pub fn parse_slots(value: &Value, asked: &NodeAddr, tls: bool) -> Result<Candidate, ParseError> {
    let _ = tls;
    let mut shards: BTreeMap<NodeId, (Shard, Vec<SlotRange>)> = BTreeMap::new();
    for row in fields::rows(value)? {
        let row = row.as_array().ok_or(ParseError::Shape("row"))?;
        let [first, last, primary, replicas @ ..] = row else {
            return Err(ParseError::Shape("row"));
        };
        if replicas.len() > REPLICAS_MAX {
            return Err(ParseError::TooManyNodes);
        }
        let range = fields::range(Some(first), Some(last))?;
        let primary = parse_node(primary, asked, Role::Primary)?;
        // A shard has a row for each range; the replicas of its first row stand for all.
        if let Some((_, ranges)) = shards.get_mut(&primary.id) {
            ranges.push(range);
            continue;
        }
        let replicas = replicas
            .iter()
            .map(|node| parse_node(node, asked, Role::Replica))
            .collect::<Result<_, _>>()?;
        shards.insert(primary.id, (Shard { primary, replicas }, vec![range]));
    }
    Candidate::from_shards(shards.into_values())
}

fn parse_node(value: &Value, asked: &NodeAddr, role: Role) -> Result<Node, ParseError> {
    let node = value.as_array().ok_or(ParseError::Shape("node"))?;
    let metadata = node.get(3).map(Value::plain);
    if !matches!(metadata, None | Some(Value::Map(_) | Value::Array(_))) {
        return Err(ParseError::Shape("metadata"));
    }
    let about = |key: &str| metadata.and_then(|metadata| metadata.map_get(key));
    let host = fields::host(node.first(), about("ip"), asked)?;
    Ok(Node {
        id: fields::node_id(node.get(2))?,
        addr: fields::address(host, node.get(1))?,
        role,
        health: Health::Online,
        zone: fields::zone(about("availability-zone"))?,
        replication_offset: None,
    })
}
