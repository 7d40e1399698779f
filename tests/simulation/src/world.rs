//! The dataplane, its clients and the cluster, and the loop in which things happen.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use cluster_sim::{Cluster, Layout};
use command::CommandTable;
use dataplane::{Action, Dataplane, Limits, Planted, Settings, Unauthenticated};
use resp::Value;
use topology::NodeAddr;

use crate::{
    agenda::{Agenda, Event},
    client::Client,
    discovery::Discovery,
    faults::NodeState,
    gauges::Gauges,
    history::{History, Violation},
    rng::Rng,
    speech,
    trace::Trace,
    upstream::Link,
    weather::Weather,
};

/// Where time begins: only differences count.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
static TABLE: LazyLock<Arc<CommandTable>> =
    LazyLock::new(|| Arc::new(CommandTable::builtin().clone()));

/// From a command's arrival to its reply.
const DEADLINE: Duration = Duration::from_secs(8);
/// When the faults have stopped, everything must be answered within this.
const PATIENCE: Duration = Duration::from_secs(30);
/// After this nobody needs a node connection any more.
const LONG_AFTER: Duration = Duration::from_secs(400);
/// More events than this are a circle.
const EVENTS_MAX: u64 = 400_000;

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) weather: Weather,
    pub(crate) now: Duration,
    agenda: Agenda,
    pub(crate) trace: Trace,
    pub(crate) plane: Dataplane<Gauges>,
    pub(crate) clients: Vec<Client>,
    pub(crate) client_count: usize,
    pub(crate) answered: usize,
    pub(crate) history: History,
    pub(crate) cluster: Cluster,
    pub(crate) addresses: Vec<NodeAddr>,
    pub(crate) nodes: Vec<NodeState>,
    pub(crate) links: BTreeMap<u64, Link>,
    pub(crate) link_count: u64,
    pub(crate) discovery: Discovery,
    pub(crate) migrations: BTreeSet<u16>,
    pub(crate) moves: BTreeMap<u16, usize>,
    pub(crate) failed_over: BTreeMap<usize, Duration>,
    /// Clients speak, and faults happen.
    pub(crate) busy: bool,
}

/// How a run without a violation ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Replies that clients got.
    pub answered: usize,
    /// Writes whose outcome nobody was told.
    pub unknown: usize,
    /// Events of the trace.
    pub events: u64,
    /// The trace as one number.
    pub digest: u64,
}

impl World {
    pub(crate) fn new(seed: u64, planted: Option<Planted>, shown: bool) -> Self {
        let mut rng = Rng::new(seed);
        let weather = Weather::draw(&mut rng);
        let layout = Layout {
            shards: weather.shards,
            replicas: weather.replicas,
            replica_lag: weather.lag,
            node_timeout: rng.ms(200, 1500),
            seed,
            ..Layout::default()
        };
        let count = weather.shards * (1 + weather.replicas);
        let sockets: Vec<_> = (0..count as u8)
            .map(|node| ([10, 0, 0, node + 1], 6379).into())
            .collect();
        let addresses = sockets
            .iter()
            .filter_map(|socket: &std::net::SocketAddr| NodeAddr::parse(&socket.to_string()))
            .collect();
        let host = Gauges::new(planted);
        let table = Arc::clone(&TABLE);
        let plane = Dataplane::new(settings(seed, &weather), table, host, *EPOCH);
        Self {
            rng,
            now: Duration::ZERO,
            agenda: Agenda::default(),
            trace: Trace::new(shown),
            plane,
            clients: Vec::new(),
            client_count: 0,
            answered: 0,
            history: History::default(),
            cluster: Cluster::new(layout, &sockets),
            addresses,
            nodes: (0..count).map(|_| NodeState::default()).collect(),
            links: BTreeMap::new(),
            link_count: 0,
            discovery: Discovery::default(),
            migrations: BTreeSet::new(),
            moves: BTreeMap::new(),
            failed_over: BTreeMap::new(),
            busy: true,
            weather,
        }
    }

    // ---- time ----

    pub(crate) fn instant(&self) -> Instant {
        *EPOCH + self.now
    }

    pub(crate) fn at(&mut self, at: Duration, event: Event) {
        let chance = self.rng.next();
        self.agenda.add(at, chance, event);
    }

    pub(crate) fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now + wait, event);
    }

    /// From the proxy to a node, or back.
    pub(crate) fn delay(&mut self) -> Duration {
        let most = self.weather.delay;
        Duration::from_micros(20) + self.rng.time(most)
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    pub(crate) fn note(&mut self, bytes: &[u8], what: fmt::Arguments<'_>) {
        self.trace.note(self.now, bytes, what);
    }

    // ---- the run ----

    pub(crate) fn run(mut self) -> Result<Report, Violation> {
        let weather = format!("{:?}", self.weather);
        self.note(weather.as_bytes(), format_args!("weather"));
        for at in 0..self.weather.clients {
            self.open_client(at);
            let pause = self.rng.time(self.weather.pause);
            self.after(pause, Event::Speak(at));
        }
        self.after(Duration::ZERO, Event::Look);
        self.after(Duration::from_millis(5), Event::Tick);
        let calm = self.rng.time(self.weather.calm);
        self.after(calm, Event::Fault);
        let lasts = self.weather.lasts;
        self.go_on(lasts, |_| false)?;
        self.busy = false;
        self.mend_all()?;
        self.go_on(lasts + PATIENCE, |world| {
            world.migrations.is_empty() && world.waiting().is_none()
        })?;
        if let Some(waiting) = self.waiting() {
            return Err(format!("liveness: {waiting}"));
        }
        // What clients that have left had under way may take until its connection is given up.
        self.go_on(lasts + PATIENCE * 2, |world| world.plane.unrest().is_none())?;
        if let Some(unrest) = self.plane.unrest() {
            return Err(format!("at rest: {unrest}"));
        }
        if self.plane.host().in_flight() != 0 {
            let gauge = self.plane.host().first_above_zero();
            return Err(format!("at rest: {}", gauge.unwrap_or_default()));
        }
        self.settle_cluster()?;
        self.check_data()?;
        self.end()
    }

    /// Until a time, or until `done`.
    fn go_on(&mut self, until: Duration, done: impl Fn(&Self) -> bool) -> Result<(), Violation> {
        while !done(self) {
            let Some((at, event)) = self.agenda.next() else {
                return Ok(());
            };
            if at > until {
                let chance = self.rng.next();
                self.agenda.add(at, chance, event);
                return Ok(());
            }
            self.now = self.now.max(at);
            self.happen(event)?;
            if self.trace.events() > EVENTS_MAX {
                return Err(format!("liveness: {EVENTS_MAX} events, and no end"));
            }
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Speak(at) => self.speak(at),
            Event::Arrive(at) => self.arrive(at),
            Event::Turn(at) => return self.turn(at),
            Event::ClientReads(at) => return self.client_reads(at),
            Event::Connected(attempt, addr) => return self.connected(attempt, &addr),
            Event::Drive(id) => return self.drive(id),
            Event::Up(id) => self.up(id),
            Event::Down(id) => return self.down(id),
            Event::Reset(id) => return self.reset(id),
            Event::Tick => return self.tick(),
            Event::Look => return self.look(),
            Event::Fault => return self.fault(),
            Event::Mend(mend) => return self.mend(&mend),
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), Violation> {
        self.tick_cluster();
        self.collect();
        let now = self.instant();
        self.plane.tick(now);
        let interval = self.plane.tick_interval();
        self.after(interval, Event::Tick);
        self.obey()
    }

    /// Does what the dataplane wants done.
    pub(crate) fn obey(&mut self) -> Result<(), Violation> {
        let mut actions = Vec::new();
        self.plane.take_actions(&mut actions);
        for action in actions {
            match action {
                Action::Connect { attempt, addr } => self.connect(attempt, addr)?,
                Action::Drop(attempt) => self.drop_attempt(attempt),
                Action::WakeChannel(attempt) => self.wake_channel(attempt),
                Action::WakeClient(key) => self.wake_client(key),
                Action::Refresh => self.look_soon(),
                Action::Moved { slot, to } => self.discovery.moved.push((slot, to)),
                Action::Script(_)
                | Action::WatchReaders
                | Action::Count
                | Action::ScriptsForgotten
                | Action::AskWorkers { .. } => {}
            }
        }
        Ok(())
    }

    /// Who still waits, for people to read.
    fn waiting(&self) -> Option<String> {
        let mut clients = self.clients.iter();
        let client = clients.find(|client| !client.sent.is_empty())?;
        Some(format!(
            "client {} still waits for {} replies, the first to {:?}; the proxy: {:?}",
            client.number,
            client.sent.len(),
            client.sent.front(),
            self.plane.unrest(),
        ))
    }

    /// Reads what the nodes have and holds the history against it.
    fn check_data(&mut self) -> Result<(), Violation> {
        let mut present = BTreeSet::new();
        for key in speech::lists() {
            let list = self.list(&key);
            for token in &list {
                present.insert(self.history.known(&key, token)?);
            }
            self.history.check(&key, &list)?;
        }
        self.history.check_groups(&present)?;
        for queue in speech::queues() {
            let left = self.list(&queue);
            self.history.check_queue(&queue, &left)?;
        }
        for at in 0..self.clients.len() {
            for key in self.clients[at].registers.keys() {
                let node = self.owner_of(&key);
                let value = self.cluster.look_into(node, &[b"GET", key.as_bytes()]);
                let value = value.unwrap_or(Value::Null);
                let number = speech::number(&key, &value);
                let number = number.ok_or_else(|| format!("identity: {key} holds {value:?}"))?;
                self.clients[at].registers.read(&key, number)?;
            }
        }
        Ok(())
    }

    /// A list as the owner of its slot has it.
    pub(crate) fn list(&mut self, key: &str) -> Vec<String> {
        let node = self.owner_of(key);
        self.list_on(node, key)
    }

    pub(crate) fn list_on(&mut self, node: usize, key: &str) -> Vec<String> {
        let range = [&b"LRANGE"[..], key.as_bytes(), b"0", b"-1"];
        let value = self.cluster.look_into(node, &range);
        let items = value.as_ref().and_then(Value::as_array).unwrap_or_default();
        items
            .iter()
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect()
    }

    /// All clients leave; long after, nothing is left of anything.
    fn end(mut self) -> Result<Report, Violation> {
        let answered: usize = self.clients.iter().map(|client| client.answered).sum();
        let answered = self.answered + answered;
        for at in 0..self.clients.len() {
            let (key, now) = (self.clients[at].key, self.instant());
            self.plane.client_closed(key, now);
        }
        let end = self.now + LONG_AFTER;
        while self.now < end {
            self.now += Duration::from_secs(5);
            let now = self.instant();
            self.plane.tick(now);
            let mut actions = Vec::new();
            self.plane.take_actions(&mut actions);
        }
        if let Some(gauge) = self.plane.host().first_above_zero() {
            return Err(format!("at rest: long after everything, {gauge}"));
        }
        Ok(Report {
            answered,
            unknown: self.plane.host().unknown_outcomes,
            events: self.trace.events(),
            digest: self.trace.digest(),
        })
    }
}

fn settings(seed: u64, weather: &Weather) -> Settings {
    Settings {
        limits: Limits {
            deadline: DEADLINE,
            connect: Duration::from_secs(2),
            reply: Duration::from_secs(1),
            read_reply: Duration::from_secs(1),
            request: Duration::from_secs(600),
            first_command: Duration::from_secs(600),
            in_flight_max: weather.in_flight_max,
            request_bytes_max: 1 << 30,
            client_output_bytes_max: 1 << 25,
            idle: None,
            age: None,
            worker_output_bytes_max: 1 << 30,
            leases_max: 4,
            clients_max: 100,
        },
        cross_slot: routing::CrossSlot::Split,
        workers: 1,
        service: None,
        users: Arc::default(),
        seats: Arc::default(),
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
    }
}
