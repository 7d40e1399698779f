//! Commands about the whole keyspace: to every shard at once, or to one after the other.

use std::{hash::BuildHasher, time::Instant};

use bytes::Bytes;
use command::{Command, FanOut, TopicKind};
use resp::Request;
use routing::{Keys, Merge, Page, Part, Slot, Split};
use session::Form;

use crate::{
    client::State,
    core::Core,
    forward::{Sending, Took},
    host::{ErrorKind, Host},
    slots::Key,
};

const NO_CLUSTER: &str =
    "ERR KEYWAY.UNAVAILABLE the cluster is not known yet: the command was not run";

impl<H: Host> Core<H> {
    /// Sends a command to the primary of every shard.
    pub(crate) fn fan_out(
        &mut self,
        (client, key): (&mut State, Key),
        command: &Command,
        request: Request<'_>,
        kind: FanOut,
        now: Instant,
    ) -> Took {
        let slots = self.slot_of_each_shard();
        let bytes = Bytes::copy_from_slice(request.bytes());
        let part = |slot| Part {
            slot,
            node: None,
            keys: Keys::all(),
            request: 0..bytes.len(),
            block: None,
        };
        let parts: Vec<Part> = slots.into_iter().map(part).collect();
        let here = (kind == FanOut::SumPairs).then(|| self.listeners(command, request));
        self.send_to_all((client, key), command, ((parts, bytes), here), kind, now)
    }

    /// What there is beyond the counts of the nodes: `PUBSUB NUMSUB`, or `SHARDNUMSUB`.
    fn listeners(&self, command: &Command, request: Request<'_>) -> Vec<u8> {
        let of_shards = command.name() == "pubsub|shardnumsub";
        let kind = if of_shards {
            TopicKind::Shard
        } else {
            TopicKind::Channel
        };
        let mut reply = Vec::new();
        resp::write::array(&mut reply, request.argc().saturating_sub(2) * 2);
        for name in request.args().skip(2) {
            resp::write::bulk(&mut reply, name);
            let beyond = self.settings.audience.beyond(kind, name);
            resp::write::integer(&mut reply, i64::try_from(beyond).unwrap_or(i64::MAX));
        }
        reply
    }

    /// Sends a command to every node, primaries first.
    pub(crate) fn every_node(
        &mut self,
        client: (&mut State, Key),
        command: &Command,
        request: Request<'_>,
        kind: FanOut,
        now: Instant,
    ) -> Took {
        let Some(topology) = self.view.topology.clone() else {
            return self.no_cluster(client.0, command, now);
        };
        let well = |node: &&topology::Node| node.health != topology::Health::Failed;
        let replicas = topology.shards().iter().flat_map(|shard| &shard.replicas);
        let bytes = Bytes::copy_from_slice(request.bytes());
        let parts = topology
            .primaries()
            .chain(replicas.filter(well))
            .map(|node| Part {
                slot: Slot::of_key(b""), // it has no say
                node: Some(Box::new(node.addr.clone())),
                keys: Keys::all(),
                request: 0..bytes.len(),
                block: None,
            });
        let parts = parts.collect();
        self.send_to_all(client, command, ((parts, bytes), None), kind, now)
    }

    fn send_to_all(
        &mut self,
        (client, key): (&mut State, Key),
        command: &Command,
        ((parts, bytes), here): ((Vec<Part>, Bytes), Option<Vec<u8>>),
        kind: FanOut,
        now: Instant,
    ) -> Took {
        if parts.is_empty() {
            return self.no_cluster(client, command, now);
        }
        let chance = self
            .hasher
            .hash_one((key.as_u64(), client.session.commands));
        let asked = parts.len();
        let mut merge = Merge::fan_out(kind, asked + usize::from(here.is_some()), chance);
        if let (Some(here), Ok(last)) = (here, u16::try_from(asked)) {
            merge.piece(last, &here, true); // Keyway's own part
        }
        self.forward_split(
            (client, key),
            command,
            Split {
                parts,
                bytes,
                merge,
            },
            now,
        )
    }

    /// The first slot of each shard: it stands for whoever owns it when a command is sent.
    pub(crate) fn slot_of_each_shard(&self) -> Vec<Slot> {
        let Some(topology) = self.view.topology.as_deref() else {
            return Vec::new();
        };
        let mut slots: Vec<Option<Slot>> = vec![None; topology.shards().len()];
        for (range, shard) in topology.ranges() {
            if let Some(slot) = slots.get_mut(shard.get()) {
                slot.get_or_insert(range.first());
            }
        }
        slots.into_iter().flatten().collect()
    }

    /// `SCAN`: the page of the node that owns the cursor's slot.
    pub(crate) fn scan(
        &mut self,
        (client, key): (&mut State, Key),
        command: &Command,
        request: Request<'_>,
        now: Instant,
    ) -> Took {
        let cursor = request
            .arg(1)
            .and_then(|cursor| std::str::from_utf8(cursor).ok()?.parse().ok())
            .and_then(Page::cursor);
        let Some((slot, theirs, mark)) = cursor else {
            // A node says what is wrong with it.
            let sending = Sending::plain(command, request, None, Keys::none());
            return self.forward((client, key), command, sending, now);
        };
        let Some(topology) = self.view.topology.as_deref() else {
            return self.no_cluster(client, command, now);
        };
        let owner = topology.owner_index(slot);
        let ours = topology
            .primary(slot)
            .map_or(0, |node| Page::mark(node.id.as_str()));
        let foreign = (slot.get() + 1..Slot::COUNT)
            .filter_map(Slot::new)
            .find(|slot| topology.owner_index(*slot) != owner);
        // Another node's place within the slot means nothing to this one.
        let cursor = if mark == ours {
            theirs
        } else {
            u64::from(slot.get())
        };
        let digits = cursor.to_string();
        let args: Vec<&[u8]> = request
            .args()
            .enumerate()
            .map(|(index, arg)| if index == 1 { digits.as_bytes() } else { arg })
            .collect();
        let mut bytes = Vec::with_capacity(request.bytes().len() + 16);
        resp::write::request(&mut bytes, &args);
        let guarded = client.unguarded.is_none_or(|except| !except.covers(slot));
        let epoch = topology.epoch().filter(|_| guarded && !client.uninformed);
        let (bytes, preludes) = if guarded {
            let asks = epoch.is_some();
            (Page::guard(slot, &bytes, asks), Page::guard_preludes(asks))
        } else {
            (bytes, 0)
        };
        let page = Page {
            slot,
            foreign,
            mark: ours,
            guarded,
            epoch,
        };
        if mark == Page::AGAIN {
            self.refresh();
        }
        let sending = Sending {
            request: &bytes,
            slot: Some(slot),
            keys: Keys::all(),
            writes: false,
            form: Form::Page(slot, preludes),
            merge: Some(Merge::page(page)),
        };
        self.forward((client, key), command, sending, now)
    }

    pub(crate) fn no_cluster(
        &mut self,
        client: &mut State,
        command: &Command,
        now: Instant,
    ) -> Took {
        self.refresh();
        self.fail(
            client,
            command,
            NO_CLUSTER.as_bytes(),
            ErrorKind::Unavailable,
            now,
        );
        Took::Yes
    }
}
