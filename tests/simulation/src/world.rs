//! The proxy, its clients and the cluster, and what happens between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use cluster_sim::{Cluster, Layout};
use command::CommandTable;
use resp::Value;
use topology::NodeAddr;

use crate::{
    agenda::{Agenda, Event},
    client::Client,
    faults::NodeState,
    history::{History, Violation},
    identities::{DATABASES, USERS},
    links::Link,
    proxy::Proxy,
    rng::Rng,
    speech,
    trace::Trace,
    weather::Weather,
};

/// Where time begins: only differences count.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
pub(crate) static TABLE: LazyLock<Arc<CommandTable>> =
    LazyLock::new(|| Arc::new(CommandTable::builtin().clone()));

/// From a command's arrival to its reply.
pub(crate) const DEADLINE: Duration = Duration::from_secs(8);
/// When the faults have stopped, everything must be answered within this.
const PATIENCE: Duration = Duration::from_secs(30);
/// More events than this are a circle.
const EVENTS_MAX: u64 = 400_000;

pub(crate) struct World<P: Proxy> {
    pub(crate) rng: Rng,
    pub(crate) weather: Weather,
    pub(crate) now: Duration,
    agenda: Agenda<P::Attempt>,
    pub(crate) trace: Trace,
    pub(crate) proxy: P,
    pub(crate) clients: Vec<Client>,
    pub(crate) client_count: usize,
    pub(crate) answered: usize,
    /// Keys that a failover set back, each time.
    pub(crate) set_back: usize,
    pub(crate) history: History,
    pub(crate) cluster: Cluster,
    pub(crate) addresses: Vec<NodeAddr>,
    pub(crate) nodes: Vec<NodeState>,
    pub(crate) links: BTreeMap<u64, Link<P::Attempt>>,
    pub(crate) link_count: u64,
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
    /// Reads that got the reply of another.
    pub coalesced: usize,
    /// Reads that were answered from what is kept near.
    pub near: usize,
    /// Commands that were followed to their end.
    pub followed: usize,
    /// Keys that a primary's death, or its isolation, set back.
    pub set_back: usize,
    /// Events of the trace.
    pub events: u64,
    /// The trace as one number.
    pub digest: u64,
}

impl<P: Proxy> World<P> {
    /// The cluster comes from the seed, and `proxy` makes what is before it.
    pub(crate) fn new(
        seed: u64,
        shown: bool,
        proxy: impl FnOnce(&Weather, &[NodeAddr], Instant) -> P,
    ) -> Self {
        let mut rng = Rng::new(seed);
        let weather = Weather::draw(&mut rng);
        let layout = Layout {
            shards: weather.shards,
            replicas: weather.replicas,
            replica_lag: weather.lag,
            node_timeout: rng.ms(200, 1500),
            users: users(&weather),
            databases: if weather.users { DATABASES } else { 1 },
            seed,
            ..Layout::default()
        };
        let history = History::default();
        let count = weather.shards * (1 + weather.replicas);
        let sockets: Vec<_> = (0..count as u8)
            .map(|node| ([10, 0, 0, node + 1], 6379).into())
            .collect();
        let addresses: Vec<NodeAddr> = sockets
            .iter()
            .filter_map(|socket: &std::net::SocketAddr| NodeAddr::parse(&socket.to_string()))
            .collect();
        Self {
            rng,
            now: Duration::ZERO,
            agenda: Agenda::new(),
            trace: Trace::new(shown),
            proxy: proxy(&weather, &addresses, *EPOCH),
            clients: Vec::new(),
            client_count: 0,
            answered: 0,
            set_back: 0,
            history,
            cluster: Cluster::new(layout, &sockets),
            addresses,
            nodes: (0..count).map(|_| NodeState::default()).collect(),
            links: BTreeMap::new(),
            link_count: 0,
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

    pub(crate) fn at(&mut self, at: Duration, event: Event<P::Attempt>) {
        let chance = self.rng.next();
        self.agenda.add(at, chance, event);
    }

    pub(crate) fn after(&mut self, wait: Duration, event: Event<P::Attempt>) {
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

    /// Clients come, and faults begin.
    pub(crate) fn begin(&mut self) {
        let weather = format!("{:?}", self.weather);
        self.note(weather.as_bytes(), format_args!("weather"));
        for at in 0..self.weather.clients + self.weather.listeners {
            self.open_client(at);
            let pause = self.rng.time(self.weather.pause);
            self.after(pause, Event::Speak(at));
        }
        let calm = self.rng.time(self.weather.calm);
        self.after(calm, Event::Fault);
        if self.weather.users || self.weather.near || self.weather.hot {
            self.cluster.take_journal();
        }
    }

    /// Nobody speaks any more, and nothing goes wrong.
    pub(crate) fn calm_down(&mut self) -> Result<(), Violation> {
        self.busy = false;
        self.history.messages.calm_down();
        self.mend_all()
    }

    pub(crate) fn answered_by(&self) -> Duration {
        self.weather.lasts + PATIENCE
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.migrations.is_empty() && self.waiting().is_none()
    }

    pub(crate) fn check_answered(&self) -> Result<(), Violation> {
        match self.waiting() {
            Some(waiting) => Err(format!("liveness: {waiting}")),
            None => Ok(()),
        }
    }

    /// What clients that have left had under way may take until its connection is given up.
    pub(crate) fn at_rest_by(&self) -> Duration {
        self.weather.lasts + PATIENCE * 2
    }

    /// Nothing is under way, not even a question whether a subscriber's node lives.
    pub(crate) fn is_at_rest(&mut self) -> bool {
        self.proxy.unrest().is_none() && self.proxy.in_flight().is_none()
    }

    /// Nothing is under way, and what the nodes have is what clients were told.
    pub(crate) fn check_rest(&mut self) -> Result<(), Violation> {
        if let Some(unrest) = self.proxy.unrest().or_else(|| self.proxy.in_flight()) {
            return Err(format!("at rest: {unrest}"));
        }
        self.settle_cluster()?;
        self.check_data()
    }

    /// When something happens next.
    #[cfg(feature = "drivers")]
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.agenda.next_due()
    }

    /// What happens next, if it does before a time.
    pub(crate) fn next_event(&mut self, until: Duration) -> Option<(Duration, Event<P::Attempt>)> {
        let (at, event) = self.agenda.next()?;
        if at > until {
            let chance = self.rng.next();
            self.agenda.add(at, chance, event);
            return None;
        }
        Some((at, event))
    }

    pub(crate) fn happen(&mut self, event: Event<P::Attempt>) -> Result<(), Violation> {
        if self.trace.events() > EVENTS_MAX {
            return Err(format!("liveness: {EVENTS_MAX} events, and no end"));
        }
        self.history.others.now = self.now;
        // Before a node hears anything: whoever takes a place does so here, where it is noted.
        self.tick_cluster();
        match event {
            Event::Speak(at) => self.speak(at),
            Event::Arrive(at) => self.arrive(at),
            Event::Turn(at) => return P::turn(self, at),
            Event::ClientReads(at) => {
                self.clients[at].reading_due = false;
                return P::client_reads(self, at);
            }
            Event::Connected(attempt, addr) => return self.connected(attempt, &addr),
            Event::Drive(id) => return P::drive(self, id),
            Event::Up(id) => self.up(id),
            Event::Down(id) => return self.down(id),
            Event::Reset(id) => return self.reset(id),
            Event::Tick => return P::tick(self),
            Event::Look => return P::look(self),
            Event::Uncork => return P::uncork(self),
            Event::Fault => return self.fault(),
            Event::Mend(mend) => return self.mend(&mend),
        }
        Ok(())
    }

    /// Who still waits, for people to read.
    fn waiting(&self) -> Option<String> {
        let mut clients = self.clients.iter();
        let Some(client) = clients.find(|client| !client.sent.is_empty()) else {
            return self.deaf();
        };
        Some(format!(
            "client {} still waits for {} replies, the first to {:?}; the proxy: {:?}",
            client.number,
            client.sent.len(),
            client.sent.front(),
            self.proxy.unrest(),
        ))
    }

    /// Who is subscribed, and has heard nothing since the faults are over.
    pub(crate) fn deaf(&self) -> Option<String> {
        self.clients.iter().find_map(|client| {
            let name = client.listening.as_ref()?.deaf_to()?;
            Some(format!("client {} hears nothing on {name}", client.number))
        })
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
        self.history.messages.check()?;
        self.history.identities.check()?;
        self.history.check_walks(&self.weather)?;
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

    /// How it ended, with so many outcomes that nobody was told.
    pub(crate) fn report(&self, unknown: usize) -> Report {
        let answered: usize = self.clients.iter().map(|client| client.answered).sum();
        Report {
            answered: self.answered + answered,
            unknown,
            coalesced: 0,
            near: 0,
            followed: 0,
            set_back: self.set_back,
            events: self.trace.events(),
            digest: self.trace.digest(),
        }
    }
}

fn users(weather: &Weather) -> Vec<(String, String)> {
    let users = USERS.iter().filter(|_| weather.users);
    let owned = |(user, password): &(&str, &str)| ((*user).to_owned(), (*password).to_owned());
    users.map(owned).collect()
}
