//! One client: a connection, its keys, and pipelines one after another.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use resp::Value;

use crate::client::{Client, show};
use crate::load::LoadOptions;
use crate::load::dice::Dice;
use crate::load::keys::{Keys, Kind, LOG_LEN_MAX, Place, group};
use crate::load::model::{Fault, Log, Wrong};
use crate::load::op::{How, Op, encode};
use crate::load::tally::{Excuse, Shared, Tally};

/// How long a client tries to connect again.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// In the error that says that a write may or may not have been done.
const UNKNOWN: &str = "KEYWAY.UNKNOWN_OUTCOME";
/// In the error of a read whose node was lost.
const NO_REPLY: &str = "the command got no reply";
/// The same of one that was to be sent again.
const NOT_RUN: &str = "TRYAGAIN the slot is moving";

pub(crate) struct Worker {
    addr: String,
    ca: PathBuf,
    options: LoadOptions,
    client: usize,
    keys: Keys,
    dice: Dice,
    tally: Tally,
    shared: Arc<Shared>,
    /// Keys to read next, because the outcome of a write is not known.
    open: Vec<Place>,
    nonce: u64,
}

impl Worker {
    pub(crate) fn new(
        addr: String,
        ca: PathBuf,
        options: LoadOptions,
        client: usize,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            keys: Keys::new(&options.prefix, client, options.keys_max > 1),
            dice: Dice::new(options.seed.wrapping_mul(1_000_003) ^ client as u64),
            tally: Tally::new(client, shared.begin()),
            addr,
            ca,
            options,
            client,
            shared,
            open: Vec::new(),
            nonce: 0,
        }
    }

    pub(crate) fn run(mut self) -> Tally {
        let Some(mut connection) = self.connect() else {
            return self.tally;
        };
        while !self.shared.stopped() {
            let batch = self.batch();
            if !self.ask(&mut connection, &batch) {
                match self.connect() {
                    Some(fresh) => connection = fresh,
                    None => return self.tally,
                }
            }
            self.shared.round();
            let pause_us = usize::try_from(self.options.pause.as_micros()).unwrap_or(0);
            let pause_us = self.dice.below(2 * pause_us + 1);
            thread::sleep(Duration::from_micros(pause_us as u64));
        }
        let last: Vec<Op> = self
            .keys
            .places()
            .into_iter()
            .map(|p| self.read(p))
            .collect();
        self.ask(&mut connection, &last);
        self.tally
    }

    fn connect(&mut self) -> Option<Client> {
        let end = Instant::now() + CONNECT_LIMIT;
        loop {
            match self.try_connect() {
                Ok(client) => return Some(client),
                Err(error) if Instant::now() >= end => {
                    self.tally.closed("a new connection", &error.to_string());
                    return None;
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn try_connect(&self) -> io::Result<Client> {
        let mut client = Client::try_connect(&self.addr, &self.ca)?;
        if self.client % 2 == 1 {
            client.try_cmd(&["HELLO", "3"])?;
        }
        Ok(client)
    }

    fn read(&mut self, place: Place) -> Op {
        let how = self.how();
        Op::read(place, &self.keys, how)
    }

    fn how(&mut self) -> How {
        if self.options.watches && self.dice.below(4) == 0 {
            return How::Watch;
        }
        if self.options.scripts && self.dice.below(2) == 0 {
            return How::Script;
        }
        How::Multi
    }

    fn batch(&mut self) -> Vec<Op> {
        let open = std::mem::take(&mut self.open);
        let mut batch: Vec<Op> = open.into_iter().map(|place| self.read(place)).collect();
        if batch.is_empty() {
            batch.extend(self.renew());
        }
        let count = 1 + self.dice.below(self.options.pipeline_max);
        for _ in 0..count.saturating_sub(batch.len()) {
            self.nonce += 1;
            let kind = (self.options.keys_max, self.how());
            batch.push(Op::random(&mut self.dice, &mut self.keys, kind, self.nonce));
        }
        batch
    }

    /// A log that has grown enough goes on under a new name. No reply about it is due now.
    fn renew(&mut self) -> Option<Op> {
        let long = |(_, log): &&mut (Kind, Log)| log.len() >= LOG_LEN_MAX;
        let (kind, log) = self.keys.logs.iter_mut().find(long)?;
        let old = log.renew();
        Some(match kind {
            Kind::Group => Op::Forget(group(&old)[0].clone()),
            _ => Op::Forget(old),
        })
    }

    /// Sends a pipeline and checks its replies; false when the connection ended.
    fn ask(&mut self, connection: &mut Client, batch: &[Op]) -> bool {
        let requests: Vec<_> = batch.iter().map(|op| op.requests(&self.keys)).collect();
        let mut bytes = Vec::new();
        requests.iter().for_each(|some| encode(&mut bytes, some));
        let sent = Instant::now();
        if let Err(error) = connection.try_raw(&bytes) {
            return self.ended(batch, &error);
        }
        for (place, (op, requests)) in batch.iter().zip(&requests).enumerate() {
            let mut replies = Vec::with_capacity(requests.len());
            for _ in requests {
                match connection.try_read() {
                    Ok(reply) => replies.push(reply),
                    Err(error) => return self.ended(&batch[place..], &error),
                }
            }
            let wait = sent.elapsed();
            self.shared.waited(wait);
            let report = &mut self.tally.report;
            report.longest = report.longest.max(wait);
            report.verified += replies.len() as u64;
            let later = batch[place + 1..]
                .iter()
                .position(|later| op.conflicts(later));
            let told = || {
                let lines: Vec<String> = requests.iter().map(|words| words.join(" ")).collect();
                let of = batch.len();
                let mut told = format!("{} ({} of {of})", lines.join("; "), place + 1);
                let behind = later.and_then(|later| batch.get(place + 1 + later));
                if let Some(behind) = behind {
                    told.push_str(&format!(", and behind it on its keys {behind:?}"));
                }
                told
            };
            self.settle(op, &replies, later.is_some(), told);
        }
        true
    }

    fn settle(&mut self, op: &Op, replies: &[Value], overtaken: bool, told: impl Fn() -> String) {
        let error = replies.iter().rev().find_map(first_error);
        if let Some(text) = error {
            let unknown = text.contains(UNKNOWN);
            let not_answered = [NO_REPLY, NOT_RUN].iter().any(|why| text.contains(why));
            let kind = match (unknown && op.writes(), overtaken) {
                (true, _) => Excuse::UnknownWrite,
                (false, true) if not_answered => Excuse::OvertakenRead,
                _ => Excuse::None,
            };
            self.tally.error(&told(), &text, kind);
            self.shared.error_now();
            if unknown {
                op.unsure(&mut self.keys);
            } else {
                op.refused(&mut self.keys);
            }
            self.read_next(op);
            return;
        }
        if op.watches() {
            let report = &mut self.tally.report;
            report.watched += 1;
            report.aborted += u64::from(replies.last().is_some_and(Value::is_null));
        }
        match op.check(&mut self.keys, replies, self.options.lossy) {
            Ok(lost) => self.tally.report.lost_by_failover += lost,
            Err(Wrong { fault, expected }) => {
                let got: Vec<String> = replies.iter().map(show).collect();
                self.tally.fault(fault, &told(), expected, &got.join("; "));
                // A write whose reply went astray may have been done, or not.
                if fault == Fault::Swapped && op.writes() {
                    op.unsure(&mut self.keys);
                }
                self.read_next(op);
            }
        }
    }

    /// Its keys are read before anything else is done.
    fn read_next(&mut self, op: &Op) {
        let places = op.places();
        self.open.extend(places.into_iter().filter(|_| op.writes()));
    }

    /// The connection is gone, and with it the replies to `left`.
    fn ended(&mut self, left: &[Op], error: &io::Error) -> bool {
        let first = left.first().map(|op| op.requests(&self.keys));
        let told = format!("{first:?} and {} more", left.len().saturating_sub(1));
        self.tally.closed(&told, &error.to_string());
        self.shared.error_now();
        for op in left {
            op.unsure(&mut self.keys);
            self.read_next(op);
        }
        false
    }
}

/// The first error in a reply, also inside of an EXEC's array.
fn first_error(reply: &Value) -> Option<String> {
    match (reply.as_error(), reply.as_array()) {
        (Some(text), _) => Some(String::from_utf8_lossy(text).into_owned()),
        (None, Some(items)) => items.iter().find_map(first_error),
        (None, None) => None,
    }
}
