//! Nodes and the shards they form.

use std::fmt;
use std::sync::Arc;

use crate::NodeAddr;

/// The name a node gave itself for life: 40 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId([u8; 40]);

impl NodeId {
    /// Reads an id; anything but 40 lower-case hexadecimal digits is none.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let id: [u8; 40] = text.try_into().ok()?;
        id.iter()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            .then_some(Self(id))
    }

    /// The 40 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a node does in its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Follows the primary.
    Replica,
}

/// How the node that answered sees this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// Serving.
    Online,
    /// A replica that has not caught up once.
    Loading,
    /// Considered dead by the cluster (or in a state not known here).
    Failed,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name, which survives a change of address.
    pub id: NodeId,
    /// Where to reach it.
    pub addr: NodeAddr,
    /// Primary or replica.
    pub role: Role,
    /// As the answering node sees it.
    pub health: Health,
    /// Its availability zone, where the cluster tells (9.1 and newer, when configured).
    pub zone: Option<Arc<str>>,
    /// Bytes of the replication stream it has, at the moment of the answer.
    pub replication_offset: Option<u64>,
}

/// A primary and its replicas. May own no slots: a node that just joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its role is [`Role::Primary`].
    pub primary: Node,
    /// Their roles are [`Role::Replica`]; in a snapshot sorted by id.
    pub replicas: Vec<Node>,
}

impl Shard {
    /// All nodes, the primary first.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(&self.primary).chain(&self.replicas)
    }

    /// Sets the roles by place, and sorts the replicas.
    pub(crate) fn normalise(&mut self) {
        self.primary.role = Role::Primary;
        for replica in &mut self.replicas {
            replica.role = Role::Replica;
        }
        self.replicas.sort_by_key(|node| node.id);
    }

    /// Makes the replica at this place the primary, and the primary a replica.
    pub(crate) fn promote(&mut self, replica: usize) {
        if let Some(new) = self.replicas.get_mut(replica) {
            std::mem::swap(&mut self.primary, new);
            self.normalise();
        }
    }
}
