//! The proxy's own drivers: its tasks for clients and nodes and its discovery, on a tokio runtime
//! whose time is the world's, between streams in memory. The clients speak real TLS.
//!
//! The runtime's time stands still while anybody has something to do, and then goes on to what is
//! next, by whole milliseconds. Between two events of the same millisecond the drivers run for as
//! many turns as the seed says.

use std::{sync::Arc, time::Duration};

use keyway::{
    acceptor::{Accepted, Admission, Door},
    config::{ClusterId, Config, CrossSlot, HostPort, Live},
    contract::{
        DataPlane as _, DiscoveryContext, HallContext, Readiness, Shutdown, Stage, WorkerContext,
    },
    dns::{Resolve, Resolving},
    metrics::Metrics,
    net::{DriverFault, Reach},
    worker::{Here, Plane},
};
use tokio::{
    sync::watch,
    task::{self, LocalSet},
    time::{Instant, sleep_until},
};
use topology::NodeAddr;

use crate::{
    agenda::Event,
    history::Violation,
    proxy::Proxy,
    weather::Weather,
    world::{DEADLINE, Report, World},
};

mod line;
mod net;

use line::{CERTIFICATES, Line};
use net::{End, Net, News};

/// How often time passes for the cluster, while clients wait for something and after.
const TICKS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(500)];
/// After this nobody needs a node connection any more.
const LONG_AFTER: Duration = Duration::from_secs(400);
/// A look at the cluster takes less.
const LOOK: Duration = Duration::from_secs(15);
/// A client's window is at least this: TLS says more before the first reply.
const CLIENT_WINDOW_MIN: usize = 512;

/// The proxy as it runs, but for sockets, threads and the clock.
pub(crate) struct Drivers {
    began: Instant,
    net: Net,
    /// A client's is that at its place.
    workers: Vec<Here>,
    metrics: Metrics,
    /// By the clients' places.
    lines: Vec<Line>,
    /// Ends the discovery.
    _shutdown: watch::Sender<Stage>,
}

/// Runs one seed on a runtime of its own.
pub(crate) fn run(seed: u64, fault: Option<DriverFault>, shown: bool) -> Result<Report, Violation> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let run = async { World::with_drivers(seed, fault, shown).run().await };
    LocalSet::new().block_on(&runtime, run)
}

/// Nobody has names here.
#[derive(Debug)]
struct NoNames;

impl Resolve for NoNames {
    fn resolve<'a>(&'a self, host: &'a str, _: u16) -> Resolving<'a> {
        panic!("asked for the address of {host}");
    }
}

impl Drivers {
    fn begin(seed: u64, fault: Option<DriverFault>, weather: &Weather, nodes: &[NodeAddr]) -> Self {
        let config = Arc::new(config(weather, nodes));
        let live = Live::new(Arc::clone(&config));
        let net = Net::new(seed, fault);
        // Who asks for a connection is known; the discovery counts as the first worker.
        let reach_of = |worker| Reach {
            resolver: Arc::new(NoNames),
            net: Arc::new(net.of(worker)),
        };
        let (sender, shutdown) = Shutdown::new();
        let metrics = Metrics::new([]);
        let plane = Plane::seeded(seed);
        plane.add_cluster(ClusterId::FIRST, &config);
        let worker = |index| {
            let only = WorkerContext {
                cluster: ClusterId::FIRST,
                index,
                config: live.clone(),
                downstream_tls: CERTIFICATES.server.clone(),
                upstream_tls: None,
                reach: reach_of(index),
                metrics: metrics.worker(),
                shutdown: shutdown.clone(),
            };
            plane.begin_here(HallContext {
                index,
                config: live.clone(),
                downstream_tls: CERTIFICATES.server.clone(),
                metrics: metrics.worker(),
                shutdown: shutdown.clone(),
                clusters: vec![only],
            })
        };
        let workers = (0..weather.workers).map(worker).collect();
        task::spawn_local(plane.discover_here(DiscoveryContext {
            config: live,
            upstream_tls: None,
            reach: reach_of(0),
            metrics: metrics.control(),
            readiness: Readiness::default(),
            shutdown,
        }));
        Self {
            began: Instant::now(),
            net,
            workers,
            metrics,
            lines: Vec::new(),
            _shutdown: sender,
        }
    }

    /// The sum of a metric, whatever its labels.
    fn metric(&self, name: &str, label: &str) -> u64 {
        let page = self.metrics.page();
        let lines = page.lines().filter_map(|line| line.strip_prefix(name));
        let lines = lines.filter(|line| line.starts_with([' ', '{']) && line.contains(label));
        let numbers = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        numbers.sum::<f64>() as u64
    }
}

impl World<Drivers> {
    fn with_drivers(seed: u64, fault: Option<DriverFault>, shown: bool) -> Self {
        Self::new(seed, shown, |weather, nodes, _| {
            Drivers::begin(seed, fault, weather, nodes)
        })
    }

    async fn run(mut self) -> Result<Report, Violation> {
        self.after(Duration::ZERO, Event::Tick);
        self.begin();
        let lasts = self.weather.lasts;
        self.go_on(lasts, |_| false).await?;
        self.calm_down()?;
        self.go_on(self.answered_by(), |world| world.is_answered())
            .await?;
        self.check_answered()?;
        self.go_on(self.at_rest_by(), Self::is_at_rest).await?;
        self.check_rest()?;
        self.end().await
    }

    /// Until a time, or until `done`.
    async fn go_on(
        &mut self,
        until: Duration,
        done: impl Fn(&mut Self) -> bool,
    ) -> Result<(), Violation> {
        loop {
            self.now = self.now.max(self.proxy.began.elapsed());
            self.hear()?;
            if let Some(place) = crate::panicked() {
                return Err(format!("a task of the proxy panicked at {place}"));
            }
            if done(self) {
                return Ok(());
            }
            let due = self.next_due();
            if due.is_some_and(|due| due <= self.now) {
                if let Some((_, event)) = self.next_event(self.now) {
                    self.happen(event)?;
                }
                for _ in 0..self.rng.below(4) {
                    task::yield_now().await;
                }
            } else if self.now >= until {
                return Ok(());
            } else {
                let next = due.map_or(until, |due| due.min(until));
                tokio::select! {
                    biased;
                    () = sleep_until(self.proxy.began + next) => {}
                    () = self.proxy.net.has_news() => {}
                }
            }
        }
    }

    /// What the drivers have done.
    fn hear(&mut self) -> Result<(), Violation> {
        for news in self.proxy.net.take_news() {
            match news {
                News::Dialled(id, address) => {
                    self.note(&[], format_args!("call {id} to {address}"));
                    let addr = NodeAddr::parse(&address.to_string());
                    self.connect(id, addr.ok_or("an address is none")?)?;
                }
                News::Wrote(id, bytes) => match self.place_of(id) {
                    Some(at) => {
                        self.proxy.lines[at].incoming.extend(bytes);
                        self.client_reads_soon(at);
                    }
                    None => {
                        if let Some(link) = self.link_of(id) {
                            self.take(link, &bytes);
                        }
                    }
                },
                News::Dropped(id) => match self.place_of(id) {
                    Some(at) => {
                        self.proxy.lines[at].closed = true;
                        self.client_reads_soon(at);
                    }
                    None => {
                        self.note(&[], format_args!("call {id} is over"));
                        self.drop_attempt(id);
                    }
                },
            }
        }
        Ok(())
    }

    /// The client whose stream it is.
    fn place_of(&self, wire: u64) -> Option<usize> {
        self.proxy.lines.iter().position(|line| line.wire == wire)
    }

    /// The proxy has closed a client's connection: only that of one that has left.
    fn closed(&mut self, at: usize) -> Result<(), Violation> {
        // Only the rest of a reply that has begun cannot be had from elsewhere.
        let may_be = self.weather.is_rough() && self.weather.big_values;
        let number = self.clients[at].number;
        if !self.clients[at].eof && !may_be && !self.history.roll.is_killed(number) {
            return Err(format!("client {number} was closed"));
        }
        self.forget_client(at)
    }

    /// All clients leave; long after, nothing is left of anything.
    async fn end(mut self) -> Result<Report, Violation> {
        for at in 0..self.clients.len() {
            Drivers::gone(&mut self, at)?;
        }
        self.proxy.lines.clear();
        self.go_on(self.now + LONG_AFTER, |_| false).await?;
        // The discovery goes on looking.
        let is_shut = |world: &mut Self| world.proxy.net.open().is_empty();
        self.go_on(self.now + LOOK, is_shut).await?;
        let proxy = &self.proxy;
        if !proxy.net.open().is_empty() {
            return Err(format!("at rest: open streams: {:?}", proxy.net.open()));
        }
        let clients = proxy.workers.iter().map(Here::clients);
        let left = [
            ("clients", clients.sum::<usize>() as u64),
            (
                "client connections",
                proxy.metric("keyway_client_connections", ""),
            ),
            (
                "node connections",
                proxy.metric("keyway_upstream_connections", ""),
            ),
            (
                "commands in flight",
                proxy.metric("keyway_upstream_in_flight", ""),
            ),
            (
                "poisoned",
                proxy.metric("keyway_upstream_poisoned_total", ""),
            ),
        ];
        if let Some((what, count)) = left.into_iter().find(|(_, count)| *count > 0) {
            return Err(format!("at rest: long after everything, {what}: {count}"));
        }
        let unknown = self.proxy.metric("keyway_errors_total", "unknown_outcome");
        let near = self.proxy.metric("keyway_near_reads_total", "hit");
        Ok(Report {
            near: near as usize,
            ..self.report(unknown as usize)
        })
    }
}

impl Proxy for Drivers {
    /// The number of a stream's end.
    type Attempt = u64;

    fn opened(world: &mut World<Self>, at: usize) {
        let room = world.weather.window.max(CLIENT_WINDOW_MIN);
        let (wire, stream) = world.proxy.net.client(room);
        let line = Line::new(wire);
        if at < world.proxy.lines.len() {
            world.proxy.lines[at] = line;
        } else {
            world.proxy.lines.push(line);
        }
        let worker = at % world.proxy.workers.len();
        world.proxy.workers[worker].serve(Accepted {
            stream,
            peer: ([127, 0, 0, 1], 1).into(),
            door: Door::Main,
            cluster: Some(ClusterId::FIRST),
            admission: Admission::alone().unwrap(),
            arrival: None,
        });
    }

    fn is_sending(world: &World<Self>, at: usize) -> bool {
        let Some(line) = world.proxy.lines.get(at) else {
            return false; // all have left
        };
        let unsaid = !world.clients[at].outgoing.is_empty() || !line.outgoing.is_empty();
        unsaid || line.leaving && !line.left
    }

    fn arrive(world: &mut World<Self>, at: usize) {
        if !Self::is_sending(world, at) {
            return;
        }
        let plain = std::mem::take(&mut world.clients[at].outgoing);
        let number = world.clients[at].number;
        if !plain.is_empty() {
            world.note(&plain, format_args!("client {number} says"));
        }
        let whole = world.rng.chance(60);
        let line = &mut world.proxy.lines[at];
        line.seal(&plain);
        let most = line.outgoing.len();
        let count = if whole || most == 0 {
            most
        } else {
            world.rng.up_to(most)
        };
        let bytes: Vec<u8> = line.outgoing.drain(..count).collect();
        let wire = line.wire;
        world.proxy.net.deliver(wire, &bytes);
        if line.leaving && line.outgoing.is_empty() {
            line.left = true;
            world.proxy.net.end(wire, End::Eof);
        }
        world.note(&[], format_args!("{count} bytes of client {number} arrive"));
    }

    fn turn(_: &mut World<Self>, _: usize) -> Result<(), Violation> {
        Ok(()) // it is a task's
    }

    fn client_reads(world: &mut World<Self>, at: usize) -> Result<(), Violation> {
        let Some(line) = world.proxy.lines.get_mut(at) else {
            return Ok(()); // all have left
        };
        let most = line.incoming.len();
        if most == 0 {
            return if line.closed {
                world.closed(at)
            } else {
                Ok(())
            };
        }
        let whole = world.rng.chance(70);
        let count = if whole { most } else { world.rng.up_to(most) };
        let plain = line.open(count)?;
        world.proxy.net.make_room(line.wire, count);
        let more = !line.incoming.is_empty() || line.closed;
        let client = &mut world.clients[at];
        client.outbox.extend(&plain);
        client.receive(plain.len(), &mut world.history, &world.weather)?;
        let number = client.number;
        world.note(&plain, format_args!("client {number} reads {count} bytes"));
        if more {
            world.client_reads_soon(at);
        }
        world.arrives_soon(at);
        Ok(())
    }

    fn leaves(world: &mut World<Self>, at: usize) {
        let plain = std::mem::take(&mut world.clients[at].outgoing);
        let line = &mut world.proxy.lines[at];
        line.seal(&plain);
        line.leave();
        world.arrives_soon(at);
    }

    fn gone(world: &mut World<Self>, at: usize) -> Result<(), Violation> {
        let in_order = world.rng.chance(50);
        let end = if in_order { End::Closed } else { End::Reset };
        world.proxy.net.end(world.proxy.lines[at].wire, end);
        Ok(())
    }

    fn worker_of_client(world: &World<Self>, at: usize) -> usize {
        at % world.proxy.workers.len()
    }

    fn loses_news(&self) -> bool {
        self.net.has(DriverFault::NewsIsLost)
    }

    fn worker_of(&self, attempt: u64) -> usize {
        self.net.caller(attempt)
    }

    fn wants(&self, attempt: u64) -> bool {
        self.net.is_wanted(attempt)
    }

    fn connected(world: &mut World<Self>, attempt: u64, id: Option<u64>) -> Result<(), Violation> {
        let room = id.map(|_| world.weather.window);
        world.proxy.net.answer(attempt, room);
        Ok(())
    }

    fn drive(_: &mut World<Self>, _: u64) -> Result<(), Violation> {
        Ok(()) // it is a task's
    }

    fn has_room(world: &mut World<Self>, id: u64, count: usize) {
        if let Some(link) = world.links.get(&id) {
            world.proxy.net.make_room(link.attempt, count);
        }
    }

    fn bring(world: &mut World<Self>, id: u64, bytes: &[u8]) -> Result<(), Violation> {
        if let Some(link) = world.links.get(&id) {
            world.proxy.net.deliver(link.attempt, bytes);
        }
        Ok(())
    }

    fn lost(world: &mut World<Self>, id: u64, in_order: bool) -> Result<(), Violation> {
        let end = if in_order { End::Closed } else { End::Reset };
        if let Some(link) = world.links.get(&id) {
            world.proxy.net.end(link.attempt, end);
        }
        Ok(())
    }

    fn tick(world: &mut World<Self>) -> Result<(), Violation> {
        world.tick_cluster();
        world.collect();
        let rests = world.proxy.lines.is_empty();
        world.after(TICKS[usize::from(rests)], Event::Tick);
        Ok(())
    }

    fn uncork(_: &mut World<Self>) -> Result<(), Violation> {
        Ok(()) // the drivers have a clock
    }

    fn look(_: &mut World<Self>) -> Result<(), Violation> {
        Ok(()) // it is a task's
    }

    fn unrest(&self) -> Option<String> {
        self.workers.iter().find_map(Here::unrest)
    }

    fn in_flight(&mut self) -> Option<String> {
        let count = self.metric("keyway_upstream_in_flight", "");
        (count > 0).then(|| format!("{count} commands in flight"))
    }
}

fn config(weather: &Weather, nodes: &[NodeAddr]) -> Config {
    let seeds = nodes.iter().map(|node| HostPort {
        host: node.host.to_string().into(),
        port: node.port,
    });
    let mut config = Config::with_defaults(CERTIFICATES.listen.clone(), seeds.collect());
    let limits = &mut config.limits;
    limits.handshake_timeout = Duration::from_secs(60);
    limits.auth_timeout = Duration::from_secs(600);
    limits.request_timeout = Duration::from_secs(600);
    limits.deadline = DEADLINE;
    limits.reply_timeout = weather.reply_max();
    limits.in_flight_max = weather.in_flight_max;
    limits.leases_max = 4;
    config.hot_keys.coalesce = weather.coalesce;
    if weather.split {
        config.cluster.cross_slot = CrossSlot::SplitTransactions;
    }
    if weather.near {
        config.hot_keys.near_prefixes = vec!["{".into()];
    }
    config.hot_keys.near_ops_min = usize::from(weather.hot);
    config.listen.workers = weather.workers;
    config
}
