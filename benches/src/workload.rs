//! What one client sends and what it must get back: pure bytes, from a seed.
//!
//! Owns: the requests' bytes, the model of every key the client owns, and the check of every reply
//! by position and by content. Will never contain: sockets, clocks or statistics.
//!
//! Two ranges of keys. A client alone writes its *own* keys, so it knows the exact value of each
//! at every place in its pipeline: replies come in order, hence the model is advanced when a
//! request is written. The *shared* range is written by everyone; there a value only has to be
//! whole and to name the key that was asked for. Main types: [`Plan`], [`Workload`], [`Verdict`].

mod check;
mod item;
mod keys;
mod mix;
mod value;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use resp::Protocol;

pub use check::{Flaw, Mismatch, Verdict};
pub use keys::{Distribution, KEYS_MAX, KeyId, KeySpace, KeySpaceError};
pub use mix::{Kind, Mix, MixError, Span};
pub use value::{VALUE_BYTES_MIN, ValueShape};

/// Clients of one run at most; bounds the length of a key's name.
pub const CLIENTS_MAX: u32 = 100_000;

/// What every client of a run has in common.
#[derive(Debug)]
pub struct Plan {
    /// Which commands, how often.
    pub mix: Mix,
    /// Which keys.
    pub keys: KeySpace,
    /// How values look.
    pub values: ValueShape,
    /// What the connections speak; a null of the other protocol is a mismatch.
    pub protocol: Protocol,
    /// Keys of one MGET or MSET.
    pub multi_keys: Span,
    /// One request in so many is an ECHO of a nonce; 0 is never.
    pub echo_every: u32,
    /// Clients over all targets.
    pub clients: u32,
    /// Everything random follows from it.
    pub seed: u64,
}

/// What the model says about a key at one place in the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// Exactly the value this client wrote with this sequence number.
    Written(u32),
    /// No value.
    Absent,
    /// The client's own key, but its last write had no certain outcome.
    Unknown,
    /// Nothing, or a value of any client that names the key.
    Shared,
}

/// A key that a request names, with what was known of it when the request was written.
#[derive(Clone, Copy, Debug)]
struct Touched {
    key: KeyId,
    want: Want,
}

/// A reply that is owed; the keys of its request are in `Workload::touched`.
#[derive(Clone, Copy, Debug)]
enum Owed {
    Ok { keys: u32 },
    Pong,
    Echo { nonce: u64 },
    Value,
    Values { keys: u32 },
    Count { least: u32, most: u32, keys: u32 },
    Counter { exactly: Option<i64> },
}

impl Owed {
    /// How many entries of `touched` belong to it.
    fn keys(self) -> u32 {
        match self {
            Self::Ok { keys } | Self::Values { keys } | Self::Count { keys, .. } => keys,
            Self::Value | Self::Counter { .. } => 1,
            Self::Pong | Self::Echo { .. } => 0,
        }
    }
}

/// `Workload::own` of a key that has no value.
const ABSENT: u32 = 0;
/// `Workload::own` of a key whose value is not known.
const UNKNOWN: u32 = u32::MAX;

/// One client's requests and expectations. Lives as long as the client, over reconnections.
#[derive(Debug)]
pub struct Workload {
    plan: Arc<Plan>,
    client: u32,
    rng: SmallRng,
    /// Of the last value written; a client never uses one twice.
    sequence: u32,
    /// Requests written, and how many of them are settled: the place of the next reply.
    issued: u64,
    settled: u64,
    /// Per own key: the sequence number of its value, or `ABSENT`, or `UNKNOWN`.
    own: Vec<u32>,
    /// Per own counter: its value, `None` when a failed INCR left it open.
    counters: Vec<Option<i64>>,
    /// Per own, then per shared counter: the last value seen. A counter only rises.
    floors: Vec<i64>,
    owed: VecDeque<Owed>,
    touched: VecDeque<Touched>,
    /// Own keys whose write failed: reads issued before this place are judged loosely.
    doubted: HashMap<KeyId, u64>,
    /// Steps of the filling already written.
    filled: u32,
    /// Scratch for a key's name.
    name: Vec<u8>,
    /// Scratch for what a value must say.
    label: Vec<u8>,
}

impl Workload {
    /// The client numbered `client` (0-based, over all targets).
    #[must_use]
    pub fn new(plan: Arc<Plan>, client: u32) -> Self {
        let own = usize::try_from(plan.keys.own()).unwrap_or_default();
        let own_counters = usize::try_from(plan.keys.own_counters()).unwrap_or_default();
        let counters = usize::try_from(plan.keys.counters()).unwrap_or_default();
        let stream = value::scatter(plan.seed ^ (u64::from(client) << 32));
        Self {
            client,
            rng: SmallRng::seed_from_u64(stream),
            sequence: 0,
            issued: 0,
            settled: 0,
            own: vec![UNKNOWN; own],
            counters: vec![None; own_counters],
            floors: vec![i64::MIN; counters],
            owed: VecDeque::new(),
            touched: VecDeque::new(),
            doubted: HashMap::new(),
            filled: 0,
            name: Vec::with_capacity(32),
            label: Vec::with_capacity(96),
            plan,
        }
    }

    /// Requests written whose replies have not come.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.owed.len()
    }

    /// A number of requests for the next batch, out of `span`.
    pub fn depth(&mut self, span: Span) -> u32 {
        span.pick(&mut self.rng)
    }

    /// Appends one request of the mix and remembers what is owed for it.
    pub fn request(&mut self, out: &mut Vec<u8>) {
        let echo_every = self.plan.echo_every;
        let kind = if echo_every > 0 && self.rng.random_range(0..echo_every) == 0 {
            Kind::Echo
        } else {
            self.plan.mix.pick(&mut self.rng)
        };
        match kind {
            Kind::Get => self.get(out),
            Kind::Set => self.set(out),
            Kind::Mget => self.mget(out),
            Kind::Mset => self.mset(out),
            Kind::Del => self.count(out, "DEL"),
            Kind::Exists => self.count(out, "EXISTS"),
            Kind::Incr => self.incr(out),
            Kind::Echo => self.echo(out),
            Kind::Ping => {
                out.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
                self.owe(Owed::Pong);
            }
        }
    }

    /// Appends the next request that gives every key a known value; false when all have one. The
    /// client fills its own keys, and its part of the shared ones.
    pub fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(key) = self
            .plan
            .keys
            .fill(self.filled, self.client, self.plan.clients)
        else {
            return false;
        };
        self.filled += 1;
        out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
        if key.is_counter() {
            self.put_key(key, out);
            out.extend_from_slice(b"$1\r\n0\r\n");
            if let Some(counter) = self.counter_mut(key) {
                *counter = Some(0);
            }
            self.touch(key, Want::Shared);
        } else {
            self.put_key_and_value(key, out);
        }
        self.owe(Owed::Ok { keys: 1 });
        true
    }

    /// The connection is gone, with every reply that was owed. Their writes may or may not have
    /// happened. Returns how many replies were lost.
    pub fn connection_lost(&mut self) -> usize {
        let lost = self.owed.len();
        while let Some(owed) = self.owed.pop_front() {
            self.settled += 1;
            for _ in 0..owed.keys() {
                if let Some(touched) = self.touched.pop_front() {
                    self.doubt(owed, touched.key);
                }
            }
        }
        lost
    }

    fn get(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
        self.put_read(out);
        self.owe(Owed::Value);
    }

    fn set(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
        let key = self.sample();
        self.put_key_and_value(key, out);
        self.owe(Owed::Ok { keys: 1 });
    }

    fn mget(&mut self, out: &mut Vec<u8>) {
        let keys = self.plan.multi_keys.pick(&mut self.rng);
        put_len(out, b'*', u64::from(keys) + 1);
        out.extend_from_slice(b"$4\r\nMGET\r\n");
        for _ in 0..keys {
            self.put_read(out);
        }
        self.owe(Owed::Values { keys });
    }

    fn mset(&mut self, out: &mut Vec<u8>) {
        let keys = self.plan.multi_keys.pick(&mut self.rng);
        put_len(out, b'*', u64::from(keys) * 2 + 1);
        out.extend_from_slice(b"$4\r\nMSET\r\n");
        for _ in 0..keys {
            let key = self.sample();
            self.put_key_and_value(key, out);
        }
        self.owe(Owed::Ok { keys });
    }

    /// DEL and EXISTS of one or two keys: the reply is a number that the model bounds.
    fn count(&mut self, out: &mut Vec<u8>, command: &str) {
        let keys = self.rng.random_range(1..=2_u32);
        put_len(out, b'*', u64::from(keys) + 1);
        put_len(out, b'$', command.len() as u64);
        out.extend_from_slice(command.as_bytes());
        out.extend_from_slice(b"\r\n");
        let (mut least, mut most) = (0, 0);
        for _ in 0..keys {
            match self.put_read(out) {
                Touched {
                    want: Want::Written(_),
                    key,
                } => {
                    least += 1;
                    most += 1;
                    self.delete(command, key);
                }
                Touched {
                    want: Want::Absent, ..
                } => {}
                Touched { key, .. } => {
                    most += 1;
                    self.delete(command, key);
                }
            }
        }
        self.owe(Owed::Count { least, most, keys });
    }

    fn delete(&mut self, command: &str, key: KeyId) {
        if command == "DEL"
            && let Some(state) = self.own_mut(key)
        {
            *state = ABSENT;
        }
    }

    fn incr(&mut self, out: &mut Vec<u8>) {
        let key = self.plan.keys.sample_counter(&mut self.rng);
        out.extend_from_slice(b"*2\r\n$4\r\nINCR\r\n");
        self.put_key(key, out);
        let exactly = self.counter_mut(key).and_then(|counter| {
            *counter = counter.map(|value| value + 1);
            *counter
        });
        self.touch(key, Want::Shared);
        self.owe(Owed::Counter { exactly });
    }

    fn echo(&mut self, out: &mut Vec<u8>) {
        let nonce = self.rng.random::<u64>();
        out.extend_from_slice(b"*2\r\n$4\r\nECHO\r\n$16\r\n");
        value::put_hex(out, nonce, 16);
        out.extend_from_slice(b"\r\n");
        self.owe(Owed::Echo { nonce });
    }

    fn sample(&mut self) -> KeyId {
        self.plan.keys.sample(&mut self.rng)
    }

    /// Appends a key that is read, and remembers what its value must be.
    fn put_read(&mut self, out: &mut Vec<u8>) -> Touched {
        let key = self.sample();
        self.put_key(key, out);
        let want = match self.own_mut(key).map(|state| *state) {
            None => Want::Shared,
            Some(ABSENT) => Want::Absent,
            Some(UNKNOWN) => Want::Unknown,
            Some(sequence) => Want::Written(sequence),
        };
        self.touch(key, want)
    }

    fn put_key(&mut self, key: KeyId, out: &mut Vec<u8>) {
        self.name.clear();
        self.plan.keys.name(self.client, key, &mut self.name);
        put_len(out, b'$', self.name.len() as u64);
        out.extend_from_slice(&self.name);
        out.extend_from_slice(b"\r\n");
    }

    fn put_key_and_value(&mut self, key: KeyId, out: &mut Vec<u8>) {
        self.sequence += 1;
        let sequence = self.sequence;
        self.put_key(key, out);
        let len = self.plan.values.len(self.client, sequence);
        put_len(out, b'$', len as u64);
        self.plan
            .values
            .write(&self.name, self.client, sequence, out);
        out.extend_from_slice(b"\r\n");
        if let Some(state) = self.own_mut(key) {
            *state = sequence;
        }
        self.touch(key, Want::Shared);
    }

    /// A request is written; this is its reply.
    fn owe(&mut self, owed: Owed) {
        self.issued += 1;
        self.owed.push_back(owed);
    }

    fn touch(&mut self, key: KeyId, want: Want) -> Touched {
        let touched = Touched { key, want };
        self.touched.push_back(touched);
        touched
    }

    fn own_mut(&mut self, key: KeyId) -> Option<&mut u32> {
        self.own.get_mut(key.own_index()?)
    }

    fn counter_mut(&mut self, key: KeyId) -> Option<&mut Option<i64>> {
        self.counters.get_mut(key.own_counter_index()?)
    }

    /// The request may or may not have changed the key: reads of it that are on their way, and
    /// later ones until it is written again, are not held to one value.
    fn doubt(&mut self, owed: Owed, key: KeyId) {
        if matches!(owed, Owed::Value | Owed::Values { .. }) {
            return;
        }
        if let Some(counter) = self.counter_mut(key) {
            *counter = None;
        }
        if let Some(state) = self.own_mut(key) {
            *state = UNKNOWN;
        }
        if !key.is_shared() {
            self.doubted.insert(key, self.issued);
        }
    }
}

/// Appends `*n` or `$n` and the line's end.
fn put_len(out: &mut Vec<u8>, kind: u8, len: u64) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(len).as_bytes());
    out.extend_from_slice(b"\r\n");
}
