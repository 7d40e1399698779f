//! The dataplane, its clients, the cluster, and the order in which things happen.

use std::{
    io::IoSlice,
    sync::Arc,
    time::{Duration, Instant},
};

use command::{CommandId, CommandTable};
use dataplane::{
    Action, Attempt, CloseReason, Dataplane, ErrorKind, Host, Key, Limits, Opening, Phase,
    RedirectKind, Settings, Totals, Unauthenticated, View, Zone,
};
use topology::{NodeAddr, Slot, Topology};

use crate::{
    client::Client,
    cluster::{Cluster, Link, NODES, addr},
    rng::Rng,
};

#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    pub moves: bool,
    pub kills: bool,
}

#[derive(Debug)]
pub struct Outcome {
    pub answered: usize,
    pub unknown: usize,
    pub errors: Vec<String>,
}

#[derive(Debug)]
struct Silent;

impl Host for Silent {
    fn request(&mut self, _: Option<CommandId>, _: Duration) {}
    fn redirect(&mut self, _: RedirectKind) {}
    fn read(&mut self, _: Zone) {}
    fn channel_stalled(&mut self, _: &NodeAddr) {}
    fn node_bytes(&mut self, _: Zone, _: usize, _: usize) {}
    fn error(&mut self, _: ErrorKind) {}
    fn in_flight(&mut self, _: i64) {}
    fn channel_phase(&mut self, _: Option<Phase>, _: Option<Phase>) {}
    fn channel_ready(&mut self, _: &NodeAddr, _: u32) {}
    fn channel_lost(&mut self, _: &NodeAddr, _: &CloseReason, _: u32) {}
    fn totals(&self) -> Totals {
        Totals::default()
    }
}

pub struct World {
    rng: Rng,
    trouble: Trouble,
    now: Instant,
    plane: Dataplane<Silent>,
    clients: Vec<(Key, Client)>,
    cluster: Cluster,
    links: Vec<(Attempt, Link)>,
    connecting: Vec<(Attempt, NodeAddr)>,
    topology: Option<Arc<Topology>>,
    looks: u64,
    look_wanted: bool,
    seen_changes: u64,
}

const TAGS: [&str; 5] = ["a", "b", "c", "d", "e"];

impl World {
    pub fn new(seed: u64, trouble: Trouble) -> Self {
        let mut rng = Rng::new(seed);
        let now = Instant::now();
        let settings = Settings {
            limits: Limits {
                deadline: Duration::from_secs(15),
                connect: Duration::from_secs(3),
                reply: Duration::from_secs(5),
                read_reply: Duration::from_secs(1),
                request: Duration::from_secs(60),
                first_command: Duration::from_secs(60),
                in_flight_max: 1 + rng.below(40),
                request_bytes_max: 1 << 30,
                client_output_bytes_max: 1 << 25,
                worker_output_bytes_max: 1 << 30,
                leases_max: 100,
                clients_max: 100,
            },
            cross_slot: routing::CrossSlot::Split,
            workers: 1,
            service: None,
            users: Arc::default(),
            zone: None,
            readonly_flag: true,
            unauthenticated: Unauthenticated::Default,
            port: 1,
            advertise: None,
            read_port: None,
            node_id: "a".repeat(40),
            shard_id: "b".repeat(40),
            run_id: "c".repeat(40),
            process_id: 1,
            version: "0.0.0",
            seed,
        };
        let table = Arc::new(CommandTable::builtin().clone());
        let mut plane = Dataplane::new(settings, table, Silent, now);
        let clients = (0..1 + rng.below(4))
            .map(|number| {
                let address = ([127, 0, 0, 1], 1).into();
                let opening = Opening {
                    id: number as u64,
                    peer: address,
                    local: address,
                    user: None,
                    read_port: false,
                };
                (
                    plane.client_opened(opening, now),
                    Client::new(number, &TAGS),
                )
            })
            .collect();
        let slots = TAGS
            .iter()
            .map(|tag| Slot::of_key(tag.as_bytes()).get())
            .collect();
        Self {
            rng,
            trouble,
            now,
            plane,
            clients,
            cluster: Cluster::new(slots),
            links: Vec::new(),
            connecting: Vec::new(),
            topology: None,
            looks: 0,
            seen_changes: 0,
            look_wanted: false,
        }
    }

    pub fn run(mut self) -> Outcome {
        for _ in 0..1500 {
            self.step(true);
        }
        let (mut before, mut idle) = (0, 0);
        while self.clients.iter().any(|(_, client)| client.awaits() > 0) {
            self.step(false);
            let answered = self.clients.iter().map(|(_, client)| client.answered).sum();
            idle = if answered > before { 0 } else { idle + 1 };
            before = answered;
            if idle >= 20_000 {
                self.stuck();
            }
        }
        let sum = |count: fn(&Client) -> usize| self.clients.iter().map(|(_, c)| count(c)).sum();
        let outcome = Outcome {
            answered: sum(|client| client.answered),
            unknown: sum(|client| client.unknown),
            errors: self
                .clients
                .iter()
                .flat_map(|(_, client)| client.errors.clone())
                .collect(),
        };
        for (_, client) in &mut self.clients {
            for key in client.keys() {
                let value = self.cluster.value(&key).cloned().unwrap_or_default();
                client.narrow(&key, value);
            }
        }
        outcome
    }

    fn stuck(&self) -> ! {
        for (attempt, link) in &self.links {
            eprintln!(
                "{attempt:?} to {}: {} bytes of replies wait",
                link.node,
                link.output.len()
            );
        }
        for (key, client) in &self.clients {
            eprintln!(
                "{key:?}: awaits {}, {} bytes unsent, {} unread, reads {}",
                client.awaits(),
                client.outgoing.len(),
                self.plane.client_output(*key).len(),
                self.plane.client_wants_read(*key),
            );
        }
        panic!("commands without an answer");
    }

    fn step(&mut self, busy: bool) {
        match self.rng.below(20) {
            0..4 if busy => {
                let at = self.rng.below(self.clients.len());
                for _ in 0..1 + self.rng.below(6) {
                    self.clients[at].1.speak(&mut self.rng);
                }
            }
            0..6 => self.client_speaks(),
            6..9 => self.client_listens(),
            9..12 => self.node_listens(),
            12..15 => self.node_speaks(),
            15 => self.connect(),
            16 => self.look(),
            17 => {
                self.now += Duration::from_millis(self.rng.below(25) as u64);
                self.plane.tick(self.now);
            }
            18 if self.trouble.moves && (busy || !self.cluster.moving.is_empty()) => {
                self.cluster.churn(&mut self.rng);
            }
            19 if self.trouble.kills && busy && self.rng.chance(10) => self.kill(),
            _ => {}
        }
        self.obey();
    }

    fn client_speaks(&mut self) {
        let at = self.rng.below(self.clients.len());
        let (key, client) = &mut self.clients[at];
        self.plane.client_resumed(*key, self.now);
        if !client.outgoing.is_empty() && self.plane.client_wants_read(*key) {
            let count = 1 + self.rng.below(client.outgoing.len());
            let bytes: Vec<u8> = client.outgoing.drain(..count).collect();
            self.plane.client_received(*key, &bytes, self.now);
        }
    }

    fn client_listens(&mut self) {
        let at = self.rng.below(self.clients.len());
        let (key, client) = &mut self.clients[at];
        assert_eq!(self.plane.client_ending(*key), None);
        let output = self.plane.client_output(*key);
        if !output.is_empty() {
            let bytes = output[..1 + self.rng.below(output.len())].to_vec();
            client.receive(&bytes);
            self.plane.client_wrote(*key, bytes.len(), self.now);
        }
    }

    fn some_link(&mut self) -> Option<usize> {
        (!self.links.is_empty()).then(|| self.rng.below(self.links.len()))
    }

    fn node_listens(&mut self) {
        let Some(at) = self.some_link() else { return };
        let (attempt, link) = &mut self.links[at];
        let mut slices = [IoSlice::new(&[]); 64];
        let used = self.plane.channel_slices(*attempt, &mut slices);
        let bytes: Vec<u8> = slices[..used]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        if !bytes.is_empty() {
            let count = 1 + self.rng.below(bytes.len());
            self.plane.channel_wrote(*attempt, count, self.now);
            self.cluster.receive(link, &bytes[..count]);
        }
    }

    fn node_speaks(&mut self) {
        let Some(at) = self.some_link() else { return };
        let (attempt, link) = &mut self.links[at];
        if !link.output.is_empty() {
            let count = 1 + self.rng.below(link.output.len());
            let bytes: Vec<u8> = link.output.drain(..count).collect();
            self.plane.channel_received(*attempt, &bytes, self.now);
        }
    }

    fn connect(&mut self) {
        let Some((attempt, to)) = self.connecting.pop() else {
            return;
        };
        if self.trouble.kills && self.rng.chance(10) {
            let reason = CloseReason::Io("refused".to_owned());
            self.plane.channel_lost(attempt, &reason, self.now);
            return;
        }
        let node = (0..NODES).find(|node| addr(*node) == to).unwrap();
        self.plane.channel_connected(attempt);
        self.links.push((attempt, Link::new(node)));
    }

    fn look(&mut self) {
        if !std::mem::take(&mut self.look_wanted) && !self.rng.chance(5) {
            return;
        }
        // What has not changed need not be read again: that takes most of a run's time.
        if self.seen_changes != self.cluster.changes {
            self.seen_changes = self.cluster.changes;
            let candidate = self.cluster.candidate();
            let next = topology::accept(self.topology.as_deref(), candidate).unwrap();
            if let Some(next) = next {
                self.topology = Some(Arc::new(next));
            }
        }
        self.looks += 1;
        let view = View {
            table: None,
            topology: self.topology.clone(),
            looks: self.looks,
            ..View::unknown(true)
        };
        self.plane.set_view(view, self.now);
    }

    fn kill(&mut self) {
        let Some(at) = self.some_link() else { return };
        let (attempt, _) = self.links.swap_remove(at);
        self.plane
            .channel_lost(attempt, &CloseReason::Eof, self.now);
    }

    fn obey(&mut self) {
        let mut actions = Vec::new();
        self.plane.take_actions(&mut actions);
        for action in actions {
            match action {
                Action::Connect { attempt, addr } => self.connecting.push((attempt, addr)),
                Action::Drop(attempt) => {
                    self.links.retain(|(known, _)| *known != attempt);
                    self.connecting.retain(|(known, _)| *known != attempt);
                }
                Action::WatchReaders => {}
                Action::Refresh => self.look_wanted = true,
                Action::WakeChannel(_)
                | Action::WakeClient(_)
                | Action::Script(_)
                | Action::Count
                | Action::ScriptsForgotten
                | Action::AskWorkers { .. }
                | Action::Moved { .. } => {}
            }
        }
    }
}
