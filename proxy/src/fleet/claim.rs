//! One at a time: who changes a cluster says so in the cluster, by a key that lives for [`TTL`] and is
//! renewed while it works. Whoever comes second is told who that is; the key of one that was killed
//! ends by itself, at once for those who can see that it is gone. The key moves with its slot and follows its primary, as all keys do.
//!
//! This keeps apart tools that would undo each other's work; it is no lock that data depends on. A
//! failover may lose the newest key, as it may lose any write: for [`RENEW_EVERY`] two may then work at
//! once, which each of them survives.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

use resp::Value;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use topology::{NodeAddr, Slot};

use super::{Fleet, Stop, Trouble, Words, text_of, words};
use crate::events::unix_ms;

/// The key; always in the same slot.
pub(crate) const KEY: &str = "keyway:fleet";
/// What the holder of a cluster may do to others by being killed: make them wait for so long.
const TTL: Duration = Duration::from_secs(15);
/// A failover between two renewals is survived.
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// Where its slot is gets clear within this, or it is not.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(100);
/// What a node says when the key's slot is elsewhere or moves, or nobody serves it right now.
const ELSEWHERE: [&str; 6] = [
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "LOADING",
    "READONLY",
];

/// Who has the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    tool: String,
    host: String,
    pid: String,
    /// Where the process with this number can be looked for.
    place: String,
    since_ms: u64,
    nonce: String,
}

impl Holder {
    fn myself(tool: &str) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host: String = host.split_whitespace().take(1).collect();
        Self {
            tool: tool.to_owned(),
            host: match host.as_str() {
                "" => "?".to_owned(),
                host => host.to_owned(),
            },
            pid: std::process::id().to_string(),
            place: place(),
            since_ms: unix_ms(),
            nonce: format!("{:016x}", RandomState::new().build_hasher().finish()),
        }
    }

    fn write(&self) -> String {
        let Self {
            tool,
            host,
            pid,
            place,
            since_ms,
            nonce,
        } = self;
        format!("{tool} {host} {pid} {place} {since_ms} {nonce}")
    }

    fn read(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let [tool, host, pid, place, since_ms, nonce] = words.as_slice() else {
            return None;
        };
        Some(Self {
            tool: (*tool).to_owned(),
            host: (*host).to_owned(),
            pid: (*pid).to_owned(),
            place: (*place).to_owned(),
            since_ms: since_ms.parse().ok()?,
            nonce: (*nonce).to_owned(),
        })
    }

    /// It was killed, for sure: its process was here and is not any more.
    fn is_gone(&self) -> bool {
        let number = self.pid.parse::<u32>().is_ok();
        number && self.place == place() && self.place != NOWHERE && !exists(&self.pid)
    }

    /// This one run.
    pub(crate) fn id(&self) -> &str {
        &self.nonce
    }

    /// Who, and since when.
    pub(crate) fn told(&self) -> String {
        let seconds = unix_ms().saturating_sub(self.since_ms) / 1000;
        let Self {
            tool, host, pid, ..
        } = self;
        format!("keyway {tool} on {host} (pid {pid}), for {seconds} s")
    }
}

/// Processes cannot be looked for here.
const NOWHERE: &str = "-";

/// This boot of this machine, and which processes are seen from here: containers see their own.
fn place() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let seen = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let number: String = seen
        .to_string_lossy()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    match (boot.trim(), number.as_str()) {
        ("", _) | (_, "") => NOWHERE.to_owned(),
        (boot, number) => format!("{boot}/{number}"),
    }
}

fn exists(pid: &str) -> bool {
    std::path::Path::new("/proc").join(pid).exists()
}

/// What became of an attempt.
pub(crate) enum Attempt {
    /// The cluster is ours until this is dropped.
    Ours(Claim),
    Theirs(Holder),
}

/// What a renewal found.
enum Renewal {
    Done,
    Lost(String),
}

/// The cluster is ours. Renewed while it lives; [`Claim::release`] gives it up at once, and whoever
/// drops it leaves it to end by itself.
pub(crate) struct Claim {
    keeper: JoinHandle<()>,
    seat: Seat,
    value: String,
    stop: Stop,
    lost: watch::Receiver<Option<String>>,
}

impl Claim {
    /// Tries to have the cluster. `stop` is what stops its owner.
    pub(crate) async fn attempt(
        fleet: &Fleet,
        tool: &str,
        stop: &Stop,
    ) -> Result<Attempt, Trouble> {
        let value = Holder::myself(tool).write();
        let mut seat = Seat::new(fleet);
        let began = Instant::now();
        if let Some(holder) = seat.take(&value).await? {
            // What one that was killed has left half moved shall not wait for its claim to end.
            if holder.is_gone() {
                seat.give_up(&holder.write()).await?;
            }
            if let Some(holder) = seat.take(&value).await? {
                return Ok(Attempt::Theirs(holder));
            }
        }
        let (says, lost) = watch::channel(None);
        let (ends, tenure) = Stop::new();
        let keeper = Keeper {
            seat: seat.clone(),
            value: value.clone(),
            renewed: began,
        };
        let outer = stop.clone();
        let keeper = tokio::spawn(async move {
            let mut keep = Box::pin(keeper.keep());
            let why = tokio::select! {
                why = &mut keep => why,
                () = outer.heard() => {
                    let _ = ends.send(true);
                    // What its owner has in hand is finished under it.
                    keep.await
                }
            };
            let _ = says.send(Some(why));
            let _ = ends.send(true);
        });
        Ok(Attempt::Ours(Self {
            keeper,
            seat,
            value,
            stop: tenure,
            lost,
        }))
    }

    /// Requested when its owner is to stop, and when the cluster is not ours any more.
    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Why it is not ours any more.
    pub(crate) fn lost(&self) -> Option<String> {
        self.lost.borrow().clone()
    }

    /// Gives it up, if it can be reached; else it ends by itself.
    pub(crate) async fn release(mut self) {
        self.keeper.abort();
        let _ = timeout(PATIENCE, self.seat.give_up(&self.value)).await;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Renews it.
struct Keeper {
    seat: Seat,
    value: String,
    /// What was sent then was granted.
    renewed: Instant,
}

impl Keeper {
    /// Ends when it is lost, with the reason.
    async fn keep(mut self) -> String {
        let mut pause = RENEW_EVERY;
        loop {
            sleep(pause).await;
            let began = Instant::now();
            let left = TTL.saturating_sub(self.renewed.elapsed());
            match timeout(left, self.seat.renew(&self.value)).await {
                Ok(Ok(Renewal::Done)) => (self.renewed, pause) = (began, RENEW_EVERY),
                Ok(Ok(Renewal::Lost(why))) => return why,
                Ok(Err(trouble)) if self.renewed.elapsed() >= TTL => return too_late(&trouble),
                Ok(Err(_)) => pause = AGAIN,
                Err(_) => return too_late(&"no answer"),
            }
        }
    }
}

fn too_late(why: &dyn std::fmt::Display) -> String {
    let seconds = TTL.as_secs();
    format!("the claim on the cluster ({KEY}) could not be renewed for {seconds} s: {why}")
}

/// Where the key is.
#[derive(Clone)]
struct Seat {
    fleet: Fleet,
    /// Where it was last, and whether it is only on its way there.
    known: Option<(NodeAddr, bool)>,
}

impl Seat {
    fn new(fleet: &Fleet) -> Self {
        Self {
            fleet: fleet.clone(),
            known: None,
        }
    }

    /// Makes it ours if it is nobody's; else says whose it is.
    async fn take(&mut self, value: &str) -> Result<Option<Holder>, Trouble> {
        let ttl = TTL.as_millis().to_string();
        let set = ["SET", KEY, value, "NX", "PX", &ttl];
        let answers = self.ask(&[&set, &["GET", KEY]]).await?;
        match answers.as_slice() {
            // What was set by an attempt whose answer was lost is ours.
            [_, now] if text_of(now) == value => Ok(None),
            [_, now] => Holder::read(&text_of(now)).map(Some).ok_or_else(|| {
                Trouble::State(format!(
                    "the key {KEY} is not of Keyway's making, and stands where the tools that change a \
                     cluster say so: rename it, or use --no-claim"
                ))
            }),
            _ => Err(Trouble::State("half an answer".to_owned())),
        }
    }

    async fn renew(&mut self, value: &str) -> Result<Renewal, Trouble> {
        let ttl = TTL.as_millis().to_string();
        if self.if_still(value, &["PEXPIRE", KEY, &ttl]).await? {
            return Ok(Renewal::Done);
        }
        // Flushed, evicted or lost by a failover: whoever is first has it.
        Ok(match self.take(value).await? {
            None => Renewal::Done,
            Some(holder) => Renewal::Lost(format!("the cluster has gone to {}", holder.told())),
        })
    }

    async fn give_up(&mut self, value: &str) -> Result<(), Trouble> {
        self.if_still(value, &["DEL", KEY]).await.map(drop)
    }

    /// Does something to the key if it is what it was. All versions know this way; scripts may be forbidden.
    async fn if_still(&mut self, value: &str, deed: &[&str]) -> Result<bool, Trouble> {
        let (watch, get): (&[&str], &[&str]) = (&["WATCH", KEY], &["GET", KEY]);
        let expected = value.to_owned();
        let answers = self
            .ask_then(&[watch, get], move |seen| {
                let same = seen.get(1).is_some_and(|now| text_of(now) == expected);
                same.then(|| words(deed))
            })
            .await?;
        // `EXEC` answers nothing when the key has changed since.
        Ok(matches!(answers.last(), Some(Value::Array(_))))
    }

    async fn ask(&mut self, requests: &[&[&str]]) -> Result<Vec<Value>, Trouble> {
        self.ask_then(requests, |_| None).await
    }

    /// Asks where the key is; what `then` makes of the answers follows on the same connection, in a
    /// transaction. Goes where it is sent.
    async fn ask_then(
        &mut self,
        requests: &[&[&str]],
        then: impl Fn(&[Value]) -> Option<Words>,
    ) -> Result<Vec<Value>, Trouble> {
        let until = Instant::now() + PATIENCE;
        loop {
            let (trouble, sent_to) = match self.once(requests, &then).await {
                Ok(answers) => match refusal(&answers) {
                    None => return Ok(answers),
                    Some(text) => (self.refused(&text), asked_to(&text)),
                },
                Err(trouble) => (trouble, None),
            };
            let elsewhere = matches!(&trouble, Trouble::Refused { text, .. }
                if ELSEWHERE.iter().any(|word| text.starts_with(word)));
            let gone = matches!(trouble, Trouble::Gone { .. });
            if !(elsewhere || gone) || Instant::now() >= until {
                return Err(trouble);
            }
            self.known = sent_to.map(|addr| (addr, true));
            if self.known.is_none() {
                sleep(AGAIN).await;
            }
        }
    }

    fn refused(&self, text: &str) -> Trouble {
        let addr = self.known.as_ref().map(|(addr, _)| addr.clone());
        match addr {
            Some(addr) => Trouble::Refused {
                addr,
                command: format!("the claim on the cluster (key {KEY})"),
                text: match text.starts_with("NOPERM") {
                    true => format!(
                        "{text}\nthe user needs ~{KEY} +set +get +del +pexpire +watch +multi +exec +asking; with \
                         --no-claim nothing keeps two runs apart"
                    ),
                    false => text.to_owned(),
                },
            },
            None => Trouble::State(text.to_owned()),
        }
    }

    async fn once(
        &mut self,
        requests: &[&[&str]],
        then: &impl Fn(&[Value]) -> Option<Words>,
    ) -> Result<Vec<Value>, Trouble> {
        let (addr, asking) = self.place().await?;
        let mut link = self.fleet.link(&addr).await?;
        let ask: Vec<Words> = asking.then(|| words(&["ASKING"])).into_iter().collect();
        let mut batch = Vec::new();
        for request in requests {
            batch.extend(ask.iter().cloned());
            batch.push(words(request));
        }
        let step = 1 + ask.len();
        let seen = own(link.ask(&batch).await?, step);
        let Some(deed) = then(&seen).filter(|_| refusal(&seen).is_none()) else {
            return Ok(seen);
        };
        let mut batch = ask;
        batch.extend([words(&["MULTI"]), deed, words(&["EXEC"])]);
        Ok(link.ask(&batch).await?.into_iter().skip(step - 1).collect())
    }

    async fn place(&mut self) -> Result<(NodeAddr, bool), Trouble> {
        // Whoever is sent on once is told anew next time.
        if let Some((addr, asking)) = self.known.take() {
            self.known = (!asking).then(|| (addr.clone(), false));
            return Ok((addr, asking));
        }
        let slot = Slot::of_key(KEY.as_bytes());
        let view = self.fleet.view().await?;
        let owner = view.owner(slot).map(|owner| owner.addr.clone());
        let owner = owner.ok_or_else(|| Trouble::State(format!("slot {slot} has no owner")))?;
        self.known = Some((owner.clone(), false));
        Ok((owner, false))
    }
}

/// The answers that are not `ASKING`'s.
fn own(answers: Vec<Value>, step: usize) -> Vec<Value> {
    answers.into_iter().skip(step - 1).step_by(step).collect()
}

/// The first refusal among answers.
fn refusal(answers: &[Value]) -> Option<String> {
    let text = answers.iter().find_map(Value::as_error)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// `ASK 1234 host:port`
fn asked_to(text: &str) -> Option<NodeAddr> {
    let mut words = text.strip_prefix("ASK ")?.split(' ');
    NodeAddr::parse(words.nth(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let own = Holder::myself("rebalance");
        assert_eq!(Holder::read(&own.write()), Some(own.clone()));
        assert_ne!(
            Holder::myself("rebalance"),
            own,
            "two of one process are two"
        );
        assert!(
            own.told().starts_with("keyway rebalance on "),
            "{}",
            own.told()
        );
        for other in ["", "a b 3 d 4", "a b 3 d e f", "a b 3 d 4 f g"] {
            assert_eq!(Holder::read(other), None, "{other:?}");
        }
    }

    #[test]
    fn only_who_was_here_and_is_not_is_gone() {
        let own = Holder::myself("rebalance");
        let with = |pid: &str, place: &str| Holder {
            pid: pid.to_owned(),
            place: place.to_owned(),
            ..own.clone()
        };
        assert!(!own.is_gone(), "this process");
        // No process has so high a number.
        assert!(with("4194305", &own.place).is_gone());
        assert!(!with("4194305", "another/1").is_gone());
        assert!(!with("4194305", NOWHERE).is_gone());
        assert!(!with("../x", &own.place).is_gone());
    }

    #[test]
    fn a_key_on_its_way_is_asked_for_where_it_goes() {
        let addr = NodeAddr::new("10.0.0.1", 7001);
        assert_eq!(asked_to("ASK 7 10.0.0.1:7001"), addr);
        assert_eq!(asked_to("MOVED 7 10.0.0.1:7001"), None);
    }

    #[test]
    fn answers_to_asking_are_not_ours() {
        let answers = || {
            ["OK", "one", "OK", "two"]
                .map(|text| Value::Bulk(text.into()))
                .to_vec()
        };
        let texts: Vec<String> = own(answers(), 2).iter().map(text_of).collect();
        assert_eq!(texts, ["one", "two"]);
        assert_eq!(own(answers(), 1).len(), 4);
    }
}
