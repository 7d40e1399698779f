//! The dataplane alone, with drivers as the proxy has them, to the letter: they run when they are
//! woken, when bytes come, when there is room; never else, so that a lost wake shows.

use std::{
    io::IoSlice,
    sync::Arc,
    time::{Duration, Instant},
};

use dataplane::{
    Action, Attempt, CloseReason, Dataplane, Key, Limits, Opening, Planted, SLICES_MAX, Settings,
    UNCORK_AFTER, Unauthenticated, Why,
};

use crate::{
    agenda::Event,
    history::Violation,
    proxy::Proxy,
    weather::Weather,
    world::{DEADLINE, Report, TABLE, World},
};

mod discovery;
mod gauges;

use discovery::Discovery;
use gauges::Gauges;

/// After this nobody needs a node connection any more.
const LONG_AFTER: Duration = Duration::from_secs(400);

/// The dataplane and what its drivers know.
pub(crate) struct Pure {
    plane: Dataplane<Gauges>,
    /// By the clients' places.
    keys: Vec<Key>,
    discovery: Discovery,
}

impl World<Pure> {
    /// A world with the dataplane alone.
    pub(crate) fn pure(seed: u64, planted: Option<Planted>, shown: bool) -> Self {
        Self::new(seed, shown, |weather, _, epoch: Instant| {
            let settings = settings(seed, weather);
            let mut plane = Dataplane::new(settings, TABLE.clone(), Gauges::new(planted), epoch);
            plane.follow(true, 3);
            Pure {
                plane,
                keys: Vec::new(),
                discovery: Discovery::default(),
            }
        })
    }

    pub(crate) fn run(mut self) -> Result<Report, Violation> {
        self.begin();
        self.after(Duration::ZERO, Event::Look);
        self.after(Duration::from_millis(5), Event::Tick);
        let lasts = self.weather.lasts;
        self.go_on(lasts, |_| false)?;
        self.calm_down()?;
        self.go_on(self.answered_by(), |world| world.is_answered())?;
        self.check_answered()?;
        self.go_on(self.at_rest_by(), Self::is_at_rest)?;
        self.check_rest()?;
        self.end()
    }

    /// Until a time, or until `done`.
    fn go_on(
        &mut self,
        until: Duration,
        done: impl Fn(&mut Self) -> bool,
    ) -> Result<(), Violation> {
        while !done(self) {
            let Some((at, event)) = self.next_event(until) else {
                return Ok(());
            };
            self.now = self.now.max(at);
            self.happen(event)?;
        }
        Ok(())
    }

    /// Does what the dataplane wants done.
    pub(crate) fn obey(&mut self) -> Result<(), Violation> {
        let mut actions = Vec::new();
        self.proxy.plane.take_actions(&mut actions);
        for action in actions {
            match action {
                Action::Connect { attempt, addr } => self.connect(attempt, addr)?,
                Action::Drop(attempt) => self.drop_attempt(attempt),
                Action::WakeChannel(attempt) => {
                    if let Some(id) = self.link_of(attempt) {
                        self.drive_soon(id);
                    }
                }
                Action::WakeClient(key) => {
                    if let Some(at) = self.proxy.keys.iter().position(|known| *known == key) {
                        self.turn_soon(at);
                    }
                }
                Action::Uncork => self.after(UNCORK_AFTER, Event::Uncork),
                Action::Refresh => self.look_soon(),
                Action::Moved { slot, to } => self.proxy.discovery.moved.push((slot, to)),
                Action::Script(_)
                | Action::WatchReaders
                | Action::Count
                | Action::ScriptsForgotten
                | Action::AskWorkers { .. } => {}
            }
        }
        Ok(())
    }

    fn turn_soon(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if !client.turn_due {
            client.turn_due = true;
            self.after(Duration::ZERO, Event::Turn(at));
        }
    }

    fn drive_soon(&mut self, id: u64) {
        if let Some(link) = self.links.get_mut(&id).filter(|link| !link.drive_due) {
            link.drive_due = true;
            self.after(Duration::ZERO, Event::Drive(id));
        }
    }

    /// Returns whether the client's window is full.
    fn write_to_client(&mut self, at: usize) -> Result<bool, Violation> {
        let (key, now) = (self.proxy.keys[at], self.instant());
        loop {
            let output = self.proxy.plane.client_output(key);
            if output.is_empty() {
                return Ok(false);
            }
            let room = self
                .weather
                .window
                .saturating_sub(self.clients[at].outbox.len());
            let count = room.min(output.len());
            if count == 0 {
                self.client_reads_soon(at);
                return Ok(true);
            }
            let bytes = output[..count].to_vec();
            self.note(&bytes, format_args!("client {key:?} is told"));
            self.clients[at].outbox.extend_from_slice(&bytes);
            self.proxy.plane.client_wrote(key, count, now);
            self.obey()?;
            self.client_reads_soon(at);
        }
    }

    /// The proxy has ended a client: only one that has left.
    fn client_ended(&mut self, at: usize, why: &Why) -> Result<(), Violation> {
        // Only the rest of a reply that has begun cannot be had from elsewhere.
        let cut_off = *why == Why::CutOff && self.weather.is_rough() && self.weather.big_values;
        let number = self.clients[at].number;
        if !self.clients[at].eof && !cut_off && !self.history.roll.is_killed(number) {
            return Err(format!("client {number} was closed: {why}"));
        }
        self.forget_client(at)
    }

    /// All clients leave; long after, nothing is left of anything.
    fn end(mut self) -> Result<Report, Violation> {
        for at in 0..self.clients.len() {
            let (key, now) = (self.proxy.keys[at], self.instant());
            self.proxy.plane.client_closed(key, now);
        }
        let end = self.now + LONG_AFTER;
        while self.now < end {
            self.now += Duration::from_secs(5);
            let now = self.instant();
            self.proxy.plane.tick(now);
            let mut actions = Vec::new();
            self.proxy.plane.take_actions(&mut actions);
        }
        if let Some(gauge) = self.proxy.plane.host().first_above_zero() {
            return Err(format!("at rest: long after everything, {gauge}"));
        }
        let unknown = self.proxy.plane.host().unknown_outcomes;
        let host = self.proxy.plane.host();
        let (coalesced, near, followed) = (host.coalesced, host.near, host.followed);
        Ok(Report {
            coalesced,
            near,
            followed,
            ..self.report(unknown)
        })
    }
}

impl Proxy for Pure {
    type Attempt = Attempt;

    fn opened(world: &mut World<Self>, at: usize) {
        let address = ([127, 0, 0, 1], 1).into();
        let opening = Opening {
            id: world.clients[at].number as u64,
            peer: address,
            local: address,
            user: None,
            read_port: false,
            stranger: false,
        };
        let now = world.instant();
        let key = world.proxy.plane.client_opened(opening, now);
        if at < world.proxy.keys.len() {
            world.proxy.keys[at] = key;
        } else {
            world.proxy.keys.push(key);
        }
    }

    fn is_sending(world: &World<Self>, at: usize) -> bool {
        !world.clients[at].outgoing.is_empty()
    }

    /// A segment of any length reaches the proxy.
    fn arrive(world: &mut World<Self>, at: usize) {
        let client = &mut world.clients[at];
        if !client.outgoing.is_empty() {
            let whole = world.rng.chance(60);
            let most = client.outgoing.len();
            let count = if whole { most } else { world.rng.up_to(most) };
            client.inbox.extend(client.outgoing.drain(..count));
        }
        if client.reading {
            world.turn_soon(at);
        }
    }

    /// The driver runs until it has to wait.
    fn turn(world: &mut World<Self>, at: usize) -> Result<(), Violation> {
        world.clients[at].turn_due = false;
        let (key, now) = (world.proxy.keys[at], world.instant());
        world.proxy.plane.client_resumed(key, now);
        world.obey()?;
        loop {
            let blocked = world.write_to_client(at)?;
            if let Some(ending) = world.proxy.plane.client_ending(key).cloned()
                && (!blocked || ending.at_once)
            {
                return world.client_ended(at, &ending.why);
            }
            let wants = world.proxy.plane.client_wants_read(key);
            let client = &mut world.clients[at];
            client.reading = wants;
            client.writing = blocked;
            if !wants {
                return Ok(());
            }
            if client.inbox.is_empty() {
                if !client.eof || client.eof_seen {
                    return Ok(());
                }
                client.eof_seen = true;
                world.proxy.plane.client_eof(key);
                world.obey()?;
                continue;
            }
            let most = client.inbox.len();
            let count = if world.rng.chance(70) {
                most
            } else {
                world.rng.up_to(most)
            };
            let bytes: Vec<u8> = client.inbox.drain(..count).collect();
            world.note(&bytes, format_args!("client {key:?} says"));
            world.proxy.plane.client_received(key, &bytes, now);
            world.obey()?;
        }
    }

    fn client_reads(world: &mut World<Self>, at: usize) -> Result<(), Violation> {
        let client = &mut world.clients[at];
        if client.outbox.is_empty() {
            return Ok(());
        }
        let most = client.outbox.len();
        let count = if world.rng.chance(70) {
            most
        } else {
            world.rng.up_to(most)
        };
        client.receive(count, &mut world.history, &world.weather)?;
        if client.writing {
            world.turn_soon(at);
        }
        if !world.clients[at].outbox.is_empty() {
            world.client_reads_soon(at);
        }
        Ok(())
    }

    fn leaves(world: &mut World<Self>, at: usize) {
        if world.clients[at].reading {
            world.turn_soon(at);
        }
    }

    fn gone(world: &mut World<Self>, at: usize) -> Result<(), Violation> {
        let (key, now) = (world.proxy.keys[at], world.instant());
        world.proxy.plane.client_closed(key, now);
        world.obey()
    }

    fn wants(&self, attempt: Attempt) -> bool {
        self.plane.is_current(attempt)
    }

    fn connected(
        world: &mut World<Self>,
        attempt: Attempt,
        id: Option<u64>,
    ) -> Result<(), Violation> {
        if let Some(id) = id {
            world.proxy.plane.channel_connected(attempt);
            world.drive_soon(id);
        } else {
            let now = world.instant();
            let reason = CloseReason::Io("refused".to_owned());
            world.proxy.plane.channel_lost(attempt, &reason, now);
        }
        world.obey()
    }

    /// The driver writes until it has to wait.
    fn drive(world: &mut World<Self>, id: u64) -> Result<(), Violation> {
        let now = world.instant();
        loop {
            let Some(link) = world.links.get_mut(&id) else {
                return Ok(());
            };
            link.drive_due = false;
            if link.dropped || !world.proxy.plane.is_current(link.attempt) {
                return Ok(());
            }
            let waiting: usize = link.up.iter().map(Vec::len).sum();
            let room = world.weather.window.saturating_sub(waiting);
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let used = world.proxy.plane.channel_slices(link.attempt, &mut slices);
            let bytes: Vec<u8> = slices[..used]
                .iter()
                .flat_map(|slice| slice.to_vec())
                .collect();
            let count = room.min(bytes.len());
            link.full = count == 0 && !bytes.is_empty();
            if count == 0 {
                return Ok(());
            }
            let attempt = link.attempt;
            world.take(id, &bytes[..count]);
            world.proxy.plane.channel_wrote(attempt, count, now);
            world.obey()?;
        }
    }

    fn has_room(world: &mut World<Self>, id: u64, _: usize) {
        let link = world.links.get_mut(&id);
        if link.is_some_and(|link| std::mem::take(&mut link.full)) {
            world.drive_soon(id);
        }
    }

    fn bring(world: &mut World<Self>, id: u64, bytes: &[u8]) -> Result<(), Violation> {
        let now = world.instant();
        if let Some(link) = world.links.get(&id) {
            world.proxy.plane.channel_received(link.attempt, bytes, now);
        }
        world.obey()?;
        world.drive_soon(id);
        Ok(())
    }

    fn lost(world: &mut World<Self>, id: u64, in_order: bool) -> Result<(), Violation> {
        let now = world.instant();
        let reason = if in_order {
            CloseReason::Eof
        } else {
            CloseReason::Io("reset".to_owned())
        };
        if let Some(link) = world.links.get(&id) {
            world.proxy.plane.channel_lost(link.attempt, &reason, now);
        }
        world.obey()
    }

    fn tick(world: &mut World<Self>) -> Result<(), Violation> {
        world.tick_cluster();
        world.collect();
        let now = world.instant();
        world.proxy.plane.tick(now);
        let interval = world.proxy.plane.tick_interval();
        world.after(interval, Event::Tick);
        world.obey()
    }

    fn uncork(world: &mut World<Self>) -> Result<(), Violation> {
        let now = world.instant();
        world.proxy.plane.uncork(now);
        world.obey()
    }

    fn look(world: &mut World<Self>) -> Result<(), Violation> {
        world.look()
    }

    fn unrest(&self) -> Option<String> {
        self.plane.unrest()
    }

    fn in_flight(&mut self) -> Option<String> {
        let host = self.plane.host();
        let count = host.in_flight();
        (count != 0).then(|| format!("{count} commands in flight"))
    }
}

fn settings(seed: u64, weather: &Weather) -> Settings {
    Settings {
        limits: Limits {
            deadline: DEADLINE,
            connect: Duration::from_secs(2),
            reply: weather.reply_max(),
            read_reply: weather.reply_max(),
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
        cross_slot: if weather.split {
            routing::CrossSlot::SplitTransactions
        } else {
            routing::CrossSlot::Split
        },
        coalesce: weather.coalesce,
        near_prefixes: if weather.near {
            Arc::new([b"{"[..].into()])
        } else {
            Arc::default()
        },
        near_ops_min: usize::from(weather.hot),
        near_bytes_max: 100_000,
        workers: 1,
        service: None,
        users: Arc::default(),
        seats: Arc::default(),
        audience: Arc::default(),
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
