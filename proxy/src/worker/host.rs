//! What the dataplane tells of itself becomes metrics and log lines.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use command::CommandId;
use dataplane::{
    CloseReason, Done, ErrorKind, Followed, HandshakeError, Host, Phase, RedirectKind, Totals, Zone,
};
use resp::Protocol;
use session::{User, local::keyway::Question};
use topology::{NodeAddr, ShardIndex, Slot};

use super::{
    Shared,
    audit::{self, Audit},
    counters::Counters,
};
use crate::{
    access::{AccessLog, Line, Sampler},
    clock,
    config::Config,
    events::unix_ms,
    heat,
    metrics::{self, ConnectResult, NearDrop, NearEnd, PoisonReason, UpstreamState, WorkerMetrics},
    slow::{Allowance, Slow},
    traces::{Traced, Traces},
};

pub(crate) struct WorkerHost {
    metrics: Rc<WorkerMetrics>,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    audit: Audit,
    slow_after: Duration,
    slow_allowance: Allowance,
    access: Option<AccessLog>,
    /// Which commands are in it, and whether the last one is.
    sampler: Sampler,
    sampled: bool,
    traces: Option<Traces>,
    traced_one_in: u32,
    seed: u64,
}

impl WorkerHost {
    pub(super) fn new(
        metrics: Rc<WorkerMetrics>,
        shared: Arc<Shared>,
        counters: Arc<Counters>,
        seed: u64,
    ) -> Self {
        Self {
            access: None,
            sampler: Sampler::default(),
            sampled: false,
            traces: None,
            traced_one_in: 0,
            metrics,
            shared,
            counters,
            audit: Audit::default(),
            slow_after: Duration::MAX,
            slow_allowance: Allowance::new(clock::now()),
            seed,
        }
    }

    /// Commands are told of as this configuration says, from now on. Returns one in how many is traced.
    pub(super) fn tell_as(&mut self, config: &Config) -> u32 {
        self.slow_after = config.log.slow;
        self.access = self.shared.outlets.access();
        let access = self.access.as_ref();
        self.sampler = access.map_or_else(Sampler::default, |access| access.sampler(self.seed));
        self.traces = self.shared.outlets.traces();
        let is_on = self.traces.is_some();
        self.traced_one_in = if is_on { config.traces.one_in } else { 0 };
        self.traced_one_in
    }

    fn shard_of(&self, slot: Slot) -> Option<usize> {
        let view = self.shared.view();
        view.topology
            .as_deref()?
            .owner_index(slot)
            .map(ShardIndex::get)
    }

    /// Where the time of a command went: of one that went to no node, on the client's side alone.
    fn time(&self, followed: &Followed) {
        let there = followed.taken.saturating_duration_since(followed.arrived);
        let back = followed
            .written
            .saturating_duration_since(followed.answered);
        self.metrics.phase(metrics::Phase::ClientTls, there + back);
        if let Some(sent) = followed.sent {
            let queue = sent.saturating_duration_since(followed.taken);
            let node = followed.answered.saturating_duration_since(sent);
            self.metrics.phase(metrics::Phase::Queue, queue);
            self.metrics.phase(metrics::Phase::Node, node);
        }
    }

    fn note_slow(&self, line: &Line, left_out: u64) {
        self.shared.slow.push(Slow {
            at_ms: line.at_ms,
            took_us: line.took_us,
            command: line.command.clone(),
            client: line.client.clone(),
            user: line.user.clone(),
            left_out,
        });
    }

    /// Says what was not said at once, lest it be too much.
    pub(super) fn say_who_was_refused(&mut self) {
        self.audit
            .due(clock::now())
            .iter()
            .for_each(|line| say_refused(line, self.shared.name.as_deref()));
    }
}

fn say_refused(line: &audit::Line, cluster: Option<&str>) {
    let client = line
        .client
        .map_or_else(|| "(various)".to_owned(), |ip| ip.to_string());
    tracing::warn!(
        %client, cluster, user = %line.user, reason = %line.reason, times = line.times,
        "credentials refused"
    );
}

fn zone_of(zone: Zone) -> metrics::Zone {
    match zone {
        Zone::Own => metrics::Zone::Own,
        Zone::Other => metrics::Zone::Other,
        Zone::Unknown => metrics::Zone::Unknown,
    }
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

impl Host for WorkerHost {
    fn request(&mut self, command: Option<CommandId>, took: Duration) {
        self.counters.command();
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.metrics
            .request(command.map_or(usize::MAX, CommandId::index), nanos);
    }

    #[inline]
    fn notes(&mut self, took: Duration) -> bool {
        self.sampled = self.sampler.takes_next();
        self.sampled || took >= self.slow_after
    }

    fn done(&mut self, done: &Done<'_>) {
        let command = done.command.and_then(|id| self.shared.table.get(id));
        // Waiting is what a blocking command is for.
        let slow =
            done.took >= self.slow_after && !command.is_some_and(command::Command::is_blocking);
        let slow = if slow {
            self.slow_allowance.take(clock::now())
        } else {
            None
        };
        if !self.sampled && slow.is_none() {
            return;
        }
        let line = Line {
            at_ms: unix_ms(),
            took_us: u64::try_from(done.took.as_micros()).unwrap_or(u64::MAX),
            command: command
                .map_or(command::LABEL_OTHER, |command| command.name())
                .to_owned(),
            client: done.client.to_string(),
            user: match done.user {
                User::Default => "default".to_owned(),
                User::Service => "(service)".to_owned(),
                User::Named(name) => audit::printable(&String::from_utf8_lossy(name)),
            },
            cluster: self.shared.name.as_deref().map(str::to_owned),
            slot: done.slot.map(Slot::get),
            node: done.node.map(ToString::to_string),
            ..Line::default()
        };
        if let Some(left_out) = slow {
            self.note_slow(&line, left_out);
        }
        if self.sampled
            && let Some(access) = &self.access
        {
            access.write(line);
        }
    }

    fn moment(&self, _: Instant) -> Instant {
        clock::now()
    }

    fn followed(&mut self, followed: Followed) {
        let command = followed.command.and_then(|id| self.shared.table.get(id));
        // Waiting is what a blocking command is for; one that shares an answer was nowhere.
        let blocks = command.is_some_and(command::Command::is_blocking);
        let was_somewhere = followed.sent.is_some() || followed.here.is_some();
        if followed.purposes.timed && !blocks && was_somewhere {
            self.time(&followed);
        }
        if followed.purposes.traced
            && let Some(traces) = &self.traces
        {
            let name = command.map_or(command::LABEL_OTHER, |command| command.name());
            traces.tell(Traced {
                command: name.into(),
                cluster: self.shared.name.clone(),
                shard: followed.slot.and_then(|slot| self.shard_of(slot)),
                one_in: self.traced_one_in,
                followed,
            });
        }
    }

    fn unfollowed(&mut self) {
        if let Some(traces) = &self.traces {
            traces.lost();
        }
    }

    fn redirect(&mut self, kind: RedirectKind) {
        self.metrics.redirect(match kind {
            RedirectKind::Moved => metrics::RedirectKind::Moved,
            RedirectKind::Ask => metrics::RedirectKind::Ask,
            RedirectKind::TryAgain => metrics::RedirectKind::TryAgain,
            RedirectKind::ClusterDown => metrics::RedirectKind::ClusterDown,
            RedirectKind::Loading => metrics::RedirectKind::Loading,
            RedirectKind::MasterDown => metrics::RedirectKind::MasterDown,
            RedirectKind::ReadOnly => metrics::RedirectKind::ReadOnly,
        });
    }

    fn error(&mut self, kind: ErrorKind) {
        self.metrics.error(match kind {
            ErrorKind::Protocol => metrics::ErrorKind::Protocol,
            ErrorKind::Refused => metrics::ErrorKind::Refused,
            ErrorKind::Auth => metrics::ErrorKind::Auth,
            ErrorKind::UnknownOutcome => metrics::ErrorKind::UnknownOutcome,
            ErrorKind::Unavailable => metrics::ErrorKind::Unavailable,
            ErrorKind::Overtaken => metrics::ErrorKind::Overtaken,
        });
    }

    fn credentials_refused(&mut self, client: SocketAddr, username: &[u8], reason: &str) {
        let now = clock::now();
        let line = self.audit.refused(client.ip(), username, reason, now);
        line.iter()
            .for_each(|line| say_refused(line, self.shared.name.as_deref()));
    }

    fn coalesced(&mut self) {
        self.metrics.coalesced();
    }

    fn near(&mut self, hit: bool) {
        self.metrics
            .near(if hit { NearEnd::Hit } else { NearEnd::Miss });
    }

    fn near_invalidated(&mut self, count: usize) {
        self.metrics
            .near_dropped(NearDrop::Invalidated, as_u64(count));
    }

    fn near_dropped(&mut self, count: usize) {
        self.metrics.near_dropped(NearDrop::Lost, as_u64(count));
    }

    fn near_bytes(&mut self, bytes: usize) {
        self.metrics.near_bytes(as_u64(bytes));
    }

    fn waiting_bytes(&mut self, bytes: usize, max: usize) {
        self.metrics.waiting_bytes(as_u64(bytes), as_u64(max));
    }

    fn read(&mut self, zone: Zone) {
        self.metrics.read(zone_of(zone));
    }

    fn node_bytes(&mut self, zone: Zone, received: usize, sent: usize) {
        self.metrics
            .node_bytes(zone_of(zone), as_u64(received), as_u64(sent));
    }

    fn in_flight(&mut self, delta: i64) {
        if delta != 0 {
            self.metrics.upstream_in_flight(delta);
        }
    }

    fn channel_phase(&mut self, from: Option<Phase>, to: Option<Phase>) {
        let state = |phase: Phase| {
            if phase == Phase::Ready {
                UpstreamState::Ready
            } else {
                UpstreamState::Connecting
            }
        };
        self.metrics.upstream_moved(from.map(state), to.map(state));
    }

    fn channel_ready(&mut self, addr: &NodeAddr, failures: u32) {
        self.metrics.upstream_connect(ConnectResult::Ok);
        if failures > 0 {
            tracing::info!(node = %addr, failures, "connected to the node again");
        }
    }

    fn channel_lost(&mut self, addr: &NodeAddr, reason: &CloseReason, failures: u32) {
        match reason {
            CloseReason::Poisoned(poison) => {
                self.metrics.poisoned(match poison.label() {
                    "shape" => PoisonReason::Shape,
                    "sentinel" => PoisonReason::Sentinel,
                    "malformed" => PoisonReason::Protocol,
                    _ => PoisonReason::Unexpected,
                });
            }
            CloseReason::Silent(_) => self.metrics.upstream_connect(ConnectResult::Timeout),
            CloseReason::Handshake(HandshakeError::Refused(_)) => {
                self.metrics.upstream_connect(ConnectResult::Auth);
            }
            CloseReason::Handshake(_) => self.metrics.upstream_connect(ConnectResult::Protocol),
            CloseReason::Io(_) | CloseReason::Eof | CloseReason::Retired => {}
        }
        // One line for the first failure, the second, the fourth: a dead node is no news.
        if failures.is_power_of_two() {
            tracing::warn!(
                node = %addr, cluster = self.shared.name.as_deref(), %reason, failures,
                "a connection to the node ended or could not be made; trying again"
            );
        }
    }

    fn channel_stalled(&mut self, addr: &NodeAddr) {
        let stalls = self.metrics.upstream_stalled();
        if stalls.is_power_of_two() {
            tracing::info!(
                node = %addr, stalls,
                "the node owes an answer for half a second; asking the cluster what became of it"
            );
        }
    }

    fn keyway(&mut self, question: Question, protocol: Protocol, out: &mut Vec<u8>) {
        heat::answer(&self.shared, question, protocol, out);
    }

    fn totals(&self) -> Totals {
        self.shared.totals()
    }
}
