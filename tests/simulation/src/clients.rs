//! The clients' side: who comes, speaks, reads and leaves.

use std::time::Duration;

use crate::{
    agenda::Event, client::Client, history::Violation, proxy::Proxy, speech::Sent, world::World,
};

/// Between two messages of one client when the faults are over.
const LAST_WORDS: Duration = Duration::from_millis(50);

impl<P: Proxy> World<P> {
    /// A new client, at a place of its own or at that of one that has left.
    pub(crate) fn open_client(&mut self, at: usize) {
        self.client_count += 1;
        let number = self.client_count;
        let slow = self.weather.slow_readers && self.rng.chance(40);
        let mut client = Client::new(number, slow);
        client.worker = P::worker_of_client(self, at);
        if self.weather.resp3 && self.rng.chance(50) {
            client.greet();
        }
        if self.weather.users && self.rng.chance(50) {
            client.change(&mut self.rng, &mut self.history);
        }
        if self.weather.fan_outs {
            client.tell_name();
        }
        if at >= self.weather.clients {
            client.listen();
        } else if self.weather.readers && self.rng.chance(60) {
            client.read_anywhere();
        }
        if at < self.clients.len() {
            self.clients[at] = client;
        } else {
            self.clients.push(client);
        }
        P::opened(self, at);
        self.arrives_soon(at);
    }

    pub(crate) fn speak(&mut self, at: usize) {
        if !self.is_busy() {
            return self.speak_last(at);
        }
        let pause = self.weather.pause;
        let pause = self.rng.time(pause);
        self.after(pause, Event::Speak(at));
        if (self.weather.near || self.weather.hot) && self.rng.chance(10) {
            self.stranger_writes();
        }
        let client = &mut self.clients[at];
        // Nobody has endlessly many commands under way.
        if client.eof || client.sent.len() > 200 {
            return;
        }
        let count = self.rng.up_to(self.weather.burst);
        for _ in 0..count {
            if client.listening.is_some() {
                client.fidget(&mut self.rng);
                continue;
            }
            client.speak(&mut self.rng, &mut self.history, &self.weather);
        }
        self.arrives_soon(at);
    }

    /// The faults are over: messages go out until everybody who listens has heard one.
    fn speak_last(&mut self, at: usize) {
        if self.deaf().is_none() {
            return;
        }
        self.after(LAST_WORDS, Event::Speak(at));
        let client = &mut self.clients[at];
        if client.eof || client.sent.len() > 20 {
            return;
        }
        if client.listening.is_some() {
            client.subscribe_missing();
        } else {
            client.publish(&mut self.rng, &mut self.history.messages);
        }
        self.arrives_soon(at);
    }

    pub(crate) fn arrives_soon(&mut self, at: usize) {
        if !self.clients[at].arrival_due && P::is_sending(self, at) {
            self.clients[at].arrival_due = true;
            let delay = self.rng.time(Duration::from_micros(500));
            self.after(delay, Event::Arrive(at));
        }
    }

    /// A segment of any length reaches the proxy.
    pub(crate) fn arrive(&mut self, at: usize) {
        self.clients[at].arrival_due = false;
        P::arrive(self, at);
        self.arrives_soon(at);
    }

    pub(crate) fn client_reads_soon(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if !client.reading_due {
            client.reading_due = true;
            let slow = client.slow && self.busy;
            let most = if slow { 250_000 } else { 400 };
            let delay = self.rng.time(Duration::from_micros(most));
            self.after(delay, Event::ClientReads(at));
        }
    }

    /// A client leaves: it closes its side and goes, or is gone without a word.
    pub(crate) fn leave(&mut self, at: usize) -> Result<(), Violation> {
        let client = &mut self.clients[at];
        if client.eof {
            return Ok(());
        }
        client.eof = true;
        self.history.roll.ends(client.number);
        if self.rng.chance(50) {
            return self.forget_client(at);
        }
        P::leaves(self, at);
        Ok(())
    }

    /// A client is gone. What it was not answered may have run. Another one comes.
    pub(crate) fn forget_client(&mut self, at: usize) -> Result<(), Violation> {
        let number = self.clients[at].number;
        self.note(&[], format_args!("client {number} is gone"));
        self.history.roll.ends(number);
        for sent in &self.clients[at].sent {
            if let Sent::Pop(queue) = sent {
                self.history.may_have_popped(queue);
            }
        }
        self.answered += self.clients[at].answered;
        P::gone(self, at)?;
        // Events of the old client that are under way find the new one, and do no harm.
        self.open_client(at);
        // Who comes when the faults are over has heard nothing, and all may have fallen silent.
        if !self.is_busy() && self.weather.listeners > 0 {
            for at in 0..self.clients.len() {
                self.after(LAST_WORDS, Event::Speak(at));
            }
        }
        Ok(())
    }
}
