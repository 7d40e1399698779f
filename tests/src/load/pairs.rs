//! Two connections that wait for each other: one pushes what the other pops (`BLPOP`), or publishes
//! what the other has subscribed to.
//!
//! Everything that is handed over has a number of its own, counted up: what comes twice, or before
//! what was sent earlier, shows. What was pushed and acknowledged has to be popped; messages may be
//! missed while their node changes, a subscription may not be. Messages to a channel that is not a
//! shard's go from the node that owns its slot to all others, and from another when that is another:
//! of two such ways none promises to be the faster, so there a message may come late, though not
//! twice. So may one whose publishing a stopped node had before it, and finds when it goes on.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use resp::Value;

use crate::client::{Client, show};
use crate::load::LoadOptions;
use crate::load::model::{Fault, origin, value};
use crate::load::tally::{Excuse, Shared, Tally};

/// How long a pop waits; seconds.
const POP_WAITS: &str = "1";
/// Between two pushes: the pop waits meanwhile.
const PUSH_PAUSE: Duration = Duration::from_millis(40);
/// Between two messages.
const MESSAGE_PAUSE: Duration = Duration::from_millis(25);
/// A subscriber that gets no message for so long at the end is not subscribed.
const MESSAGES_WITHIN: Duration = Duration::from_secs(10);
/// How often a subscriber looks up from reading.
const PATIENCE: Duration = Duration::from_millis(100);

/// What a pair needs to begin.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) addr: String,
    pub(crate) ca: PathBuf,
    pub(crate) options: LoadOptions,
    /// Its number among all that are at work.
    pub(crate) client: usize,
    pub(crate) shared: Arc<Shared>,
}

/// What was sent, by number.
#[derive(Debug, Default)]
struct Sent {
    acked: Vec<u64>,
    refused: Vec<u64>,
}

impl Pair {
    fn connect(&self) -> Client {
        Client::connect(&self.addr, &self.ca)
    }

    fn tally(&self) -> Tally {
        Tally::new(self.client, self.shared.begin())
    }

    /// An error that is no reply's fault is a client's end.
    fn failed(&self, tally: &mut Tally, told: &str, error: &io::Error) {
        tally.closed(told, &error.to_string());
        self.shared.error_now();
    }

    fn refused(&self, tally: &mut Tally, told: &str, reply: &Value) -> bool {
        let error = String::from_utf8_lossy(reply.as_error().unwrap_or_default());
        let unknown = error.contains("KEYWAY.UNKNOWN_OUTCOME");
        let excuse = if unknown {
            Excuse::UnknownWrite
        } else {
            Excuse::None
        };
        tally.error(told, &error, excuse);
        self.shared.error_now();
        unknown
    }

    // ---- a queue ----

    /// Pops what another connection pushes, until the load ends and nothing is left.
    pub(crate) fn pop(self) -> Vec<Tally> {
        let queue = format!("{}:{}:queue", self.options.prefix, self.client);
        let pushing = {
            let (pair, queue) = (self.clone(), queue.clone());
            thread::spawn(move || pair.push(&queue))
        };
        let mut popped = Popped {
            queue: &queue,
            lossy: self.options.lossy,
            seen: Vec::new(),
            unknown: 0,
        };
        let (mut tally, mut connection) = (self.tally(), self.connect());
        let mut pushing = Some(pushing);
        let mut pushed = None;
        loop {
            // What is pushed before this is seen is popped before nothing is left.
            let over = pushing.as_ref().is_none_or(thread::JoinHandle::is_finished);
            if let Some(done) = pushing.take_if(|_| over) {
                pushed = Some(done.join().expect("a pushing connection"));
            }
            match connection.try_cmd(&["BLPOP", &queue, POP_WAITS]) {
                Err(error) => {
                    self.failed(&mut tally, "BLPOP", &error);
                    popped.unknown += 1;
                    connection = self.connect();
                }
                Ok(reply) if reply.as_error().is_some() => {
                    let unknown = self.refused(&mut tally, "BLPOP", &reply);
                    popped.unknown += u64::from(unknown);
                }
                Ok(reply) if reply.is_null() && over => break,
                Ok(reply) if reply.is_null() => {}
                Ok(reply) => popped.take(&reply, &mut tally),
            }
        }
        let (sent, pusher) = pushed.expect("nothing is pushed any more");
        popped.compare(&sent, &mut tally);
        vec![tally, pusher]
    }

    fn push(&self, queue: &str) -> (Sent, Tally) {
        let (mut tally, mut connection) = (self.tally(), self.connect());
        let mut sent = Sent::default();
        for seq in 1.. {
            if self.shared.stopped() {
                break;
            }
            let told = format!("RPUSH {queue} {seq}");
            match connection.try_cmd(&["RPUSH", queue, &value(queue, seq)]) {
                Err(error) => {
                    self.failed(&mut tally, &told, &error);
                    connection = self.connect();
                }
                Ok(reply) if reply.as_error().is_some() => {
                    if !self.refused(&mut tally, &told, &reply) {
                        sent.refused.push(seq);
                    }
                }
                Ok(reply) if reply.as_int().is_some_and(|len| len > 0) => {
                    tally.report.verified += 1;
                    sent.acked.push(seq);
                }
                Ok(reply) => {
                    tally.fault(Fault::Swapped, &told, "a length".to_owned(), &show(&reply))
                }
            }
            thread::sleep(PUSH_PAUSE);
        }
        (sent, tally)
    }

    // ---- channels ----

    /// Reads what another connection publishes on two channels, one of a shard, until the load ends
    /// and both have brought something since.
    pub(crate) fn listen(self) -> Vec<Tally> {
        let name = |kind| format!("{}:{}:{kind}", self.options.prefix, self.client);
        let mut heard = [name("channel"), name("shard")].map(Heard::new);
        let (mut tally, mut connection) = (self.tally(), self.connect());
        if self.client % 2 == 1 {
            connection.cmd(&["HELLO", "3"]);
        }
        connection.cmd(&["SUBSCRIBE", &heard[0].channel]);
        connection.cmd(&["SSUBSCRIBE", &heard[1].channel]);
        connection.set_patience(PATIENCE);
        let (sent, quit) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let publishing = {
            let channels = [0, 1].map(|n: usize| heard[n].channel.clone());
            let (pair, sent, quit) = (self.clone(), Arc::clone(&sent), Arc::clone(&quit));
            thread::spawn(move || pair.publish(&channels, &sent, &quit))
        };
        // When the load has ended: what was sent until then, and when it was.
        let mut last: Option<(u64, Instant)> = None;
        loop {
            match connection.try_read() {
                Ok(push) => hear(&mut heard, &push, self.options.lossy, &mut tally),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => {}
                Err(error) => {
                    self.failed(&mut tally, "a subscription", &error);
                    break;
                }
            }
            let Some((until, at)) = last else {
                let now = || (sent.load(Ordering::SeqCst), Instant::now());
                last = self.shared.stopped().then(now);
                continue;
            };
            if heard.iter().all(|heard| heard.last > until) {
                break;
            }
            if at.elapsed() > MESSAGES_WITHIN {
                let expected = format!("messages after number {until}");
                let got = format!("up to {:?}", heard.each_ref().map(|heard| heard.last));
                tally.fault(Fault::Lost, "a subscription", expected, &got);
                break;
            }
        }
        quit.store(true, Ordering::SeqCst);
        let publisher = publishing.join().expect("a publishing connection");
        for heard in &heard {
            tally.report.missed += heard.last - heard.seen.len() as u64;
        }
        vec![tally, publisher]
    }

    fn publish(&self, channels: &[String; 2], sent: &AtomicU64, quit: &AtomicBool) -> Tally {
        let (mut tally, mut connection) = (self.tally(), self.connect());
        while !quit.load(Ordering::SeqCst) {
            let seq = sent.fetch_add(1, Ordering::SeqCst) + 1;
            for (name, channel) in ["PUBLISH", "SPUBLISH"].iter().zip(channels) {
                let told = format!("{name} {channel} {seq}");
                match connection.try_cmd(&[name, channel.as_str(), &value(channel, seq)]) {
                    Err(error) => {
                        self.failed(&mut tally, &told, &error);
                        connection = self.connect();
                    }
                    Ok(reply) if reply.as_error().is_some() => {
                        self.refused(&mut tally, &told, &reply);
                    }
                    Ok(_) => tally.report.verified += 1,
                }
            }
            thread::sleep(MESSAGE_PAUSE);
        }
        tally
    }
}

/// What came out of a queue.
struct Popped<'a> {
    queue: &'a str,
    lossy: bool,
    seen: Vec<u64>,
    /// Pops that nobody was told the outcome of.
    unknown: u64,
}

impl Popped<'_> {
    fn take(&mut self, reply: &Value, tally: &mut Tally) {
        tally.report.verified += 1;
        tally.report.popped += 1;
        let parts = reply.as_array().unwrap_or_default();
        let seq = match parts {
            [queue, item] if queue.as_str() == Some(self.queue) => {
                item.as_str().and_then(|item| origin(self.queue, item))
            }
            _ => None,
        };
        let expected = || format!("an item of {} after {:?}", self.queue, self.seen.last());
        let Some(seq) = seq else {
            return tally.fault(Fault::Swapped, "BLPOP", expected(), &show(reply));
        };
        let later = self.seen.last().is_none_or(|last| *last < seq);
        if !later && self.lossy {
            tally.report.lost_by_failover += 1; // the pop was, so the item is there again
        } else if self.seen.contains(&seq) {
            tally.fault(Fault::Twice, "BLPOP", expected(), &show(reply));
        } else if !later {
            tally.fault(Fault::Order, "BLPOP", expected(), &show(reply));
        }
        self.seen.push(seq);
    }

    /// Nothing is left: everything that was acknowledged was popped.
    fn compare(&self, sent: &Sent, tally: &mut Tally) {
        let missing = sent.acked.iter().filter(|seq| !self.seen.contains(seq));
        let missing: Vec<_> = missing.collect();
        if self.lossy {
            tally.report.lost_by_failover += missing.len() as u64;
        } else if missing.len() as u64 > self.unknown {
            let got = format!("{missing:?} are missing, {} pops unknown", self.unknown);
            tally.fault(
                Fault::Lost,
                self.queue,
                "all that was pushed".to_owned(),
                &got,
            );
        }
        let refused = sent.refused.iter().filter(|seq| self.seen.contains(seq));
        for seq in refused {
            let got = format!("{seq}, whose push was refused");
            tally.fault(
                Fault::Refused,
                self.queue,
                "what was pushed".to_owned(),
                &got,
            );
        }
    }
}

/// What came from a channel.
struct Heard {
    channel: String,
    last: u64,
    seen: BTreeSet<u64>,
}

impl Heard {
    fn new(channel: String) -> Self {
        Self {
            channel,
            last: 0,
            seen: BTreeSet::new(),
        }
    }
}

/// A message of one of the channels, later than all before, and never one of those.
fn hear(heard: &mut [Heard; 2], push: &Value, lossy: bool, tally: &mut Tally) {
    let parts = match push {
        Value::Push(parts) => Some(parts.as_slice()),
        other => other.as_array(),
    };
    let parts: Option<Vec<&str>> = parts.and_then(|all| all.iter().map(Value::as_str).collect());
    let found = match parts.as_deref() {
        Some(["message", channel, text]) => Some((0, *channel, *text)),
        Some(["smessage", channel, text]) => Some((1, *channel, *text)),
        _ => None,
    };
    let of = found.and_then(|(kind, channel, text)| {
        let heard = &mut heard[kind];
        let seq = origin(&heard.channel, text)?;
        (heard.channel == channel).then_some((heard, seq, lossy || kind == 0))
    });
    let Some((heard, seq, may_be_late)) = of else {
        let expected = "a message of its channels".to_owned();
        return tally.fault(Fault::Swapped, "a subscription", expected, &show(push));
    };
    tally.report.verified += 1;
    tally.report.messages += 1;
    let expected = || format!("a message after {}", heard.last);
    if heard.seen.contains(&seq) {
        tally.fault(Fault::Twice, &heard.channel, expected(), &show(push));
    } else if seq < heard.last && may_be_late {
        tally.report.late += 1;
    } else if seq < heard.last {
        tally.fault(Fault::Order, &heard.channel, expected(), &show(push));
    }
    heard.seen.insert(seq);
    heard.last = heard.last.max(seq);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        Tally::new(0, Instant::now())
    }

    fn popped(seqs: &[u64], lossy: bool, sent: &Sent, unknown: u64) -> Vec<Fault> {
        let mut tally = tally();
        let mut popped = Popped {
            queue: "q",
            lossy,
            seen: Vec::new(),
            unknown,
        };
        for seq in seqs {
            let parts = ["q".to_owned(), value("q", *seq)].map(Value::bulk);
            popped.take(&Value::Array(parts.into()), &mut tally);
        }
        popped.compare(sent, &mut tally);
        tally.report.faults.into_keys().collect()
    }

    #[test]
    fn a_queue_gives_all_once_and_in_order() {
        let sent = |acked: &[u64], refused: &[u64]| Sent {
            acked: acked.to_vec(),
            refused: refused.to_vec(),
        };
        let three = sent(&[1, 2, 3], &[]);
        assert_eq!(popped(&[1, 2, 3], false, &three, 0), []);
        assert_eq!(popped(&[1, 2, 2, 3], false, &three, 0), [Fault::Twice]);
        assert_eq!(popped(&[1, 3, 2], false, &three, 0), [Fault::Order]);
        assert_eq!(popped(&[1, 3], false, &three, 0), [Fault::Lost]);
        assert_eq!(popped(&[1, 3], false, &three, 1), []);
        assert_eq!(popped(&[1, 2, 1], true, &three, 0), []);
        let refused = sent(&[1], &[2]);
        assert_eq!(popped(&[1, 2], false, &refused, 0), [Fault::Refused]);
    }

    #[test]
    fn a_subscriber_hears_everything_once_and_a_shard_in_order() {
        let heard = |kind: &str, name: &str, seqs: &[u64]| {
            let mut heard = ["channel", "shard"].map(|name| Heard::new(name.to_owned()));
            let mut tally = tally();
            for seq in seqs {
                let parts = [kind.to_owned(), name.to_owned(), value(name, *seq)];
                let push = Value::Push(parts.map(Value::bulk).into());
                hear(&mut heard, &push, false, &mut tally);
            }
            let late = tally.report.late;
            (tally.report.faults.into_keys().collect::<Vec<_>>(), late)
        };
        assert_eq!(heard("smessage", "shard", &[1, 2, 5]), (vec![], 0));
        let twice = vec![Fault::Twice];
        assert_eq!(heard("smessage", "shard", &[1, 2, 1]), (twice.clone(), 0));
        let order = vec![Fault::Order];
        assert_eq!(heard("smessage", "shard", &[1, 3, 2]), (order, 0));
        assert_eq!(heard("message", "channel", &[1, 3, 2]), (vec![], 1));
        assert_eq!(heard("message", "channel", &[1, 3, 3]), (twice, 0));
        let swapped = vec![Fault::Swapped];
        assert_eq!(heard("message", "shard", &[1]), (swapped, 0));
    }
}
