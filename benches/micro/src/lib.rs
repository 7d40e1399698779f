//! The whole way of a command without sockets: a dataplane between clients and three nodes that are
//! bytes in memory. For what is counted, instructions and allocations: nothing here allocates in
//! the steady state but what is measured.

use std::{
    io::IoSlice,
    sync::Arc,
    time::{Duration, Instant},
};

use command::{CommandId, CommandTable};
use dataplane::{
    Action, Attempt, CloseReason, Dataplane, ErrorKind, Host, Key, Limits, Opening, Phase,
    RedirectKind, SLICES_MAX, Settings, Totals, UNCORK_AFTER, Unauthenticated, View, Zone,
};
use resp::{RequestDecoder, RequestLimits};
use topology::{
    Candidate, Health, Node, NodeAddr, NodeId, Role, Shard, Slot, SlotRange, Topology, accept,
};

/// Nodes, each with a third of the slots.
const NODES: u16 = 3;

/// A host that wants to know nothing, but how many commands there were.
#[derive(Debug, Default)]
pub struct Nobody {
    /// Commands with their whole reply.
    pub requests: u64,
}

impl Host for Nobody {
    fn request(&mut self, _: Option<CommandId>, _: Duration) {
        self.requests += 1;
    }
    fn redirect(&mut self, _: RedirectKind) {}
    fn read(&mut self, _: Zone) {}
    fn error(&mut self, _: ErrorKind) {}
    fn in_flight(&mut self, _: i64) {}
    fn node_bytes(&mut self, _: Zone, _: usize, _: usize) {}
    fn channel_phase(&mut self, _: Option<Phase>, _: Option<Phase>) {}
    fn channel_ready(&mut self, _: &NodeAddr, _: u32) {}
    fn channel_lost(&mut self, _: &NodeAddr, _: &CloseReason, _: u32) {}
    fn channel_stalled(&mut self, _: &NodeAddr) {}
    fn totals(&self) -> Totals {
        Totals::default()
    }
}

/// A node: what was written to it, and what it says to that.
#[derive(Debug)]
struct Peer {
    attempt: Attempt,
    id: String,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

/// A dataplane with clients and nodes.
#[derive(Debug)]
pub struct Plane {
    plane: Dataplane<Nobody>,
    clients: Vec<Key>,
    peers: Vec<Peer>,
    actions: Vec<Action>,
    now: Instant,
    /// The dataplane wants to be called a little later.
    uncorks: bool,
    value: Vec<u8>,
    /// What the clients were told, in bytes.
    pub told: u64,
}

impl Plane {
    /// So many clients before three nodes that answer reads with a value of this size. Every node
    /// has a connection already, and every buffer the size that it stays at.
    ///
    /// # Panics
    /// The dataplane does not get that far.
    #[must_use]
    pub fn new(clients: usize, value: usize) -> Self {
        let now = Instant::now();
        let table = Arc::new(CommandTable::builtin().clone());
        let mut plane = Dataplane::new(settings(), table, Nobody::default(), now);
        let mut view = View::unknown(true);
        view.topology = Some(Arc::new(topology()));
        view.looks = 1;
        plane.set_view(view, now);
        let clients = (0..clients)
            .map(|number| plane.client_opened(opening(number), now))
            .collect();
        let mut reply = format!("${value}\r\n").into_bytes();
        reply.resize(reply.len() + value, b'v');
        reply.extend_from_slice(b"\r\n");
        let mut this = Self {
            plane,
            clients,
            peers: Vec::new(),
            actions: Vec::new(),
            now,
            uncorks: false,
            value: reply,
            told: 0,
        };
        let mut all = Vec::new();
        for number in 0..300 {
            resp::write::request(&mut all, &["SET", &format!("key:{number}"), "value"]);
        }
        for client in 0..this.clients.len() {
            this.exchange(client, &all);
        }
        assert_eq!(
            this.peers.len(),
            usize::from(NODES),
            "every node has a connection"
        );
        this
    }

    /// A client sends this, every node answers, and the client has what is its own.
    pub fn exchange(&mut self, client: usize, request: &[u8]) {
        self.send(client, request);
        self.settle();
    }

    /// A client sends this.
    pub fn send(&mut self, client: usize, request: &[u8]) {
        if let Some(key) = self.clients.get(client) {
            self.plane.client_received(*key, request, self.now);
        }
    }

    /// Until nobody has anything more to say.
    pub fn settle(&mut self) {
        loop {
            let mut actions = std::mem::take(&mut self.actions);
            self.plane.take_actions(&mut actions);
            let done = actions.is_empty();
            for action in actions.drain(..) {
                self.act(action);
            }
            self.actions = actions;
            if done && !self.uncorks {
                return;
            }
            if done {
                self.uncorks = false;
                self.now += UNCORK_AFTER;
                self.plane.uncork(self.now);
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect { attempt, addr } => {
                self.plane.channel_connected(attempt);
                let number = addr.port - 1000;
                self.peers.push(Peer {
                    attempt,
                    id: format!("{number:040x}"),
                    inbox: Vec::with_capacity(1 << 20),
                    outbox: Vec::with_capacity(1 << 20),
                });
                self.drive(attempt);
            }
            Action::WakeChannel(attempt) => self.drive(attempt),
            Action::WakeClient(key) => {
                self.plane.client_resumed(key, self.now);
                let count = self.plane.client_output(key).len();
                if count > 0 {
                    self.told += u64::try_from(count).unwrap_or_default();
                    self.plane.client_wrote(key, count, self.now);
                }
            }
            Action::Uncork => self.uncorks = true,
            _ => {}
        }
    }

    /// Writes to a node, and reads what it says to that.
    fn drive(&mut self, attempt: Attempt) {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.attempt == attempt) else {
            return;
        };
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let used = self.plane.channel_slices(attempt, &mut slices);
            let before = peer.inbox.len();
            for slice in slices.iter().take(used) {
                peer.inbox.extend_from_slice(slice);
            }
            let count = peer.inbox.len() - before;
            if count == 0 {
                return;
            }
            self.plane.channel_wrote(attempt, count, self.now);
            answer(peer, &self.value);
            self.plane.channel_received(attempt, &peer.outbox, self.now);
            peer.outbox.clear();
        }
    }

    /// Commands that have been answered.
    pub fn answered(&mut self) -> u64 {
        self.plane.host().requests
    }
}

/// What a node says to what was written to it.
fn answer(peer: &mut Peer, value: &[u8]) {
    let mut decoder = RequestDecoder::new(RequestLimits::AUTHENTICATED);
    let mut used = 0;
    while let Ok(Some(len)) = decoder.decode(peer.inbox.get(used..).unwrap_or_default()) {
        let frame = peer.inbox.get(used..used + len).unwrap_or_default();
        let request = decoder.request(frame);
        match request.name() {
            b"GET" => peer.outbox.extend_from_slice(value),
            b"MGET" => {
                resp::write::array(&mut peer.outbox, request.argc() - 1);
                for _ in 1..request.argc() {
                    peer.outbox.extend_from_slice(value);
                }
            }
            b"ECHO" => resp::write::bulk(&mut peer.outbox, request.arg(1).unwrap_or_default()),
            b"HELLO" => peer.outbox.extend_from_slice(
                b"*6\r\n$5\r\nproto\r\n:2\r\n$7\r\nversion\r\n$5\r\n9.1.2\r\n$4\r\nrole\r\n$6\r\nmaster\r\n",
            ),
            b"CLUSTER" => resp::write::bulk(&mut peer.outbox, peer.id.as_bytes()),
            _ => peer.outbox.extend_from_slice(b"+OK\r\n"),
        }
        used += len;
        decoder.next();
    }
    peer.inbox.drain(..used);
}

fn opening(number: usize) -> Opening {
    let id = u64::try_from(number).unwrap_or_default() + 1;
    Opening {
        id,
        peer: ([127, 0, 0, 1], 1).into(),
        local: ([127, 0, 0, 1], 2).into(),
        user: None,
        read_port: false,
        stranger: false,
    }
}

#[allow(clippy::unwrap_used, reason = "three nodes that are made here")]
fn topology() -> Topology {
    let third = Slot::COUNT / NODES;
    let shards = (0..NODES).map(|number| {
        let last = if number + 1 == NODES {
            Slot::COUNT - 1
        } else {
            (number + 1) * third - 1
        };
        let node = Node {
            id: NodeId::parse(format!("{number:040x}").as_bytes()).unwrap(),
            addr: NodeAddr::new("127.0.0.1", 1000 + number).unwrap(),
            role: Role::Primary,
            health: Health::Online,
            zone: None,
            replication_offset: None,
        };
        let slot = |slot| Slot::new(slot).unwrap();
        let range = SlotRange::new(slot(number * third), slot(last)).unwrap();
        let replicas = Vec::new();
        (
            Shard {
                primary: node,
                replicas,
            },
            vec![range],
        )
    });
    let candidate = Candidate::from_shards(shards).unwrap();
    accept(None, candidate).unwrap().unwrap()
}

fn settings() -> Settings {
    let long = Duration::from_secs(600);
    Settings {
        limits: Limits {
            deadline: long,
            connect: long,
            reply: long,
            read_reply: long,
            request: long,
            first_command: long,
            in_flight_max: 1024,
            request_bytes_max: 1 << 30,
            client_output_bytes_max: 1 << 25,
            idle: None,
            age: None,
            worker_output_bytes_max: 1 << 30,
            leases_max: 4,
            clients_max: 100_000,
        },
        cross_slot: routing::CrossSlot::Split,
        coalesce: false,
        near_prefixes: Arc::default(),
        near_ops_min: 0,
        near_bytes_max: 0,
        workers: 1,
        service: None,
        users: Arc::default(),
        seats: Arc::default(),
        audience: Arc::default(),
        zone: None,
        readonly_flag: true,
        unauthenticated: Unauthenticated::Default,
        port: 6379,
        advertise: None,
        read_port: None,
        node_id: "a".repeat(40),
        shard_id: "b".repeat(40),
        run_id: "c".repeat(40),
        process_id: 1,
        version: "0.0.0",
        seed: 1,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Does what there is to do as workers do it: what a node's answer brings about comes before the next
    /// node's. Returns how often clients were written to.
    fn settle_node_by_node(plane: &mut Plane) -> u32 {
        let (mut writes, mut waiting, mut new) = (0, VecDeque::new(), Vec::new());
        loop {
            plane.plane.take_actions(&mut new);
            for action in new.drain(..).rev() {
                waiting.push_front(action);
            }
            let Some(action) = waiting.pop_front() else {
                return writes;
            };
            let told = plane.told;
            plane.act(action);
            writes += u32::from(plane.told > told);
        }
    }

    #[test]
    fn the_replies_of_a_pipeline_are_written_in_one_go() {
        let mut plane = Plane::new(10, 64);
        let mut pipeline = Vec::new();
        for number in 0..16 {
            resp::write::request(&mut pipeline, &["GET", &format!("key:{number}")]);
        }
        for round in 1..=20 {
            (0..10).for_each(|client| plane.send(client, &pipeline));
            assert_eq!(settle_node_by_node(&mut plane), 10, "round {round}");
        }
    }
}
