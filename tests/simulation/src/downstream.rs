//! The clients' side: as the proxy's driver of a client connection does it, to the letter. It runs
//! when it is woken, when bytes come, when there is room; never else, so that a lost wake shows.

use std::time::Duration;

use dataplane::{Key, Opening, Why};

use crate::{agenda::Event, client::Client, history::Violation, speech::Sent, world::World};

impl World {
    /// A new client, at a place of its own or at that of one that has left.
    pub(crate) fn open_client(&mut self, at: usize) {
        self.client_count += 1;
        let number = self.client_count;
        let address = ([127, 0, 0, 1], 1).into();
        let opening = Opening {
            id: number as u64,
            peer: address,
            local: address,
            user: None,
            read_port: false,
        };
        let now = self.instant();
        let key = self.plane.client_opened(opening, now);
        let slow = self.weather.slow_readers && self.rng.chance(40);
        let mut client = Client::new(number, key, slow);
        if self.weather.resp3 && self.rng.chance(50) {
            client.greet();
        }
        if self.weather.readers && self.rng.chance(60) {
            client.read_anywhere();
        }
        if at < self.clients.len() {
            self.clients[at] = client;
        } else {
            self.clients.push(client);
        }
        self.arrives_soon(at);
    }

    pub(crate) fn speak(&mut self, at: usize) {
        if !self.is_busy() {
            return;
        }
        let pause = self.weather.pause;
        let pause = self.rng.time(pause);
        self.after(pause, Event::Speak(at));
        let client = &mut self.clients[at];
        // Nobody has endlessly many commands under way.
        if client.eof || client.sent.len() > 200 {
            return;
        }
        let count = self.rng.up_to(self.weather.burst);
        for _ in 0..count {
            client.speak(&mut self.rng, &mut self.history, &self.weather);
        }
        self.arrives_soon(at);
    }

    fn arrives_soon(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if !client.arrival_due && !client.outgoing.is_empty() {
            client.arrival_due = true;
            let delay = self.rng.time(Duration::from_micros(500));
            self.after(delay, Event::Arrive(at));
        }
    }

    /// A segment of any length reaches the proxy.
    pub(crate) fn arrive(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.arrival_due = false;
        if !client.outgoing.is_empty() {
            let whole = self.rng.chance(60);
            let most = client.outgoing.len();
            let count = if whole { most } else { self.rng.up_to(most) };
            client.inbox.extend(client.outgoing.drain(..count));
        }
        if client.reading {
            self.turn_soon(at);
        }
        self.arrives_soon(at);
    }

    pub(crate) fn turn_soon(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if !client.turn_due {
            client.turn_due = true;
            self.after(Duration::ZERO, Event::Turn(at));
        }
    }

    pub(crate) fn wake_client(&mut self, key: Key) {
        if let Some(at) = self.clients.iter().position(|client| client.key == key) {
            self.turn_soon(at);
        }
    }

    /// The driver runs until it has to wait.
    pub(crate) fn turn(&mut self, at: usize) -> Result<(), Violation> {
        self.clients[at].turn_due = false;
        let (key, now) = (self.clients[at].key, self.instant());
        self.plane.client_resumed(key, now);
        self.obey()?;
        loop {
            let blocked = self.write_to_client(at)?;
            if let Some(ending) = self.plane.client_ending(key).cloned()
                && (!blocked || ending.at_once)
            {
                return self.client_ended(at, &ending.why);
            }
            let wants = self.plane.client_wants_read(key);
            let client = &mut self.clients[at];
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
                self.plane.client_eof(key);
                self.obey()?;
                continue;
            }
            let most = client.inbox.len();
            let count = if self.rng.chance(70) {
                most
            } else {
                self.rng.up_to(most)
            };
            let bytes: Vec<u8> = client.inbox.drain(..count).collect();
            self.note(&bytes, format_args!("client {key:?} says"));
            self.plane.client_received(key, &bytes, now);
            self.obey()?;
        }
    }

    /// Returns whether the client's window is full.
    fn write_to_client(&mut self, at: usize) -> Result<bool, Violation> {
        let (key, now) = (self.clients[at].key, self.instant());
        loop {
            let output = self.plane.client_output(key);
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
            self.plane.client_wrote(key, count, now);
            self.obey()?;
            self.client_reads_soon(at);
        }
    }

    fn client_reads_soon(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if !client.reading_due {
            client.reading_due = true;
            let slow = client.slow && self.busy;
            let most = if slow { 250_000 } else { 400 };
            let delay = self.rng.time(Duration::from_micros(most));
            self.after(delay, Event::ClientReads(at));
        }
    }

    pub(crate) fn client_reads(&mut self, at: usize) -> Result<(), Violation> {
        let client = &mut self.clients[at];
        client.reading_due = false;
        if client.outbox.is_empty() {
            return Ok(());
        }
        let most = client.outbox.len();
        let count = if self.rng.chance(70) {
            most
        } else {
            self.rng.up_to(most)
        };
        client.receive(count, &mut self.history, &self.weather)?;
        if client.writing {
            self.turn_soon(at);
        }
        if !self.clients[at].outbox.is_empty() {
            self.client_reads_soon(at);
        }
        Ok(())
    }

    /// The proxy has ended a client: only one that has left.
    fn client_ended(&mut self, at: usize, why: &Why) -> Result<(), Violation> {
        // Only the rest of a reply that has begun cannot be had from elsewhere.
        let cut_off = *why == Why::CutOff && self.weather.is_rough() && self.weather.big_values;
        if !self.clients[at].eof && !cut_off {
            let number = self.clients[at].number;
            return Err(format!("client {number} was closed: {why}"));
        }
        self.forget_client(at)
    }

    /// A client leaves: it closes its side and goes, or is gone without a word.
    pub(crate) fn leave(&mut self, at: usize) -> Result<(), Violation> {
        let client = &mut self.clients[at];
        if client.eof {
            return Ok(());
        }
        client.eof = true;
        if self.rng.chance(50) {
            return self.forget_client(at);
        }
        if client.reading {
            self.turn_soon(at);
        }
        Ok(())
    }

    /// A client is gone. What it was not answered may have run. Another one comes.
    fn forget_client(&mut self, at: usize) -> Result<(), Violation> {
        let (key, now) = (self.clients[at].key, self.instant());
        self.note(&[], format_args!("client {key:?} is gone"));
        for sent in &self.clients[at].sent {
            if let Sent::Pop(queue) = sent {
                self.history.may_have_popped(queue);
            }
        }
        self.answered += self.clients[at].answered;
        self.plane.client_closed(key, now);
        self.obey()?;
        // Events of the old client that are under way find the new one, and do no harm.
        self.open_client(at);
        Ok(())
    }
}
