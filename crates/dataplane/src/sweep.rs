//! What time does: retries, deadlines, clients that stall, connections that nobody needs.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use smallvec::SmallVec;
use upstream::CloseReason;

use crate::{
    action::Action,
    channel::{Channel, IDLE, Purpose, STALL},
    client::{State, Why},
    host::Host,
    plane::Dataplane,
    settings::Limits,
    slots::Key,
};

/// While a node owes an answer for long, or is gone and commands wait for it, the cluster is asked
/// this often.
const STALL_LOOKS: Duration = Duration::from_millis(100);
/// All clients are looked at this often.
const SWEEP: Duration = Duration::from_millis(250);
/// So many at a time: what a client keeps is far from any cache when it is idle, and all of ten
/// thousand would keep the others waiting for milliseconds.
const PIECE: usize = 256;
/// In so many pieces at most.
const PIECES_MAX: usize = 250;
/// While half sent commands grow by this part of what they may, nobody has to look: a crowd that sends
/// fast fills any memory between two looks by time.
const UNSEEN_PART: usize = 8;
/// A client for which so much waits must take some of it now and then.
const STALLED_BYTES: usize = 8 * 1024 * 1024;
/// How long it may take none.
const STALLED: Duration = Duration::from_secs(10);
/// So many clients can be closed at a time for the memory of all: crowds that fill it a little each
/// take more rounds.
const LARGEST_MAX: usize = 64;

/// A look at all clients, a piece at a time.
#[derive(Debug)]
pub(crate) struct Round {
    /// The position where the next piece begins.
    next: usize,
    /// When that is to be.
    due: Instant,
    /// Bytes that wait for the clients seen in this round.
    waiting: usize,
    /// Those for whom most do, at most [`LARGEST_MAX`].
    largest: Vec<(usize, Key)>,
    /// By how much the memory of half sent commands has grown since all clients were looked at.
    grown: usize,
}

impl Round {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            next: 0,
            due: now + SWEEP,
            waiting: 0,
            largest: Vec::new(),
            grown: 0,
        }
    }

    /// How many of so many positions the next piece has, and how long it is until that after it.
    fn pace(positions: usize) -> (usize, Duration) {
        let piece = positions.div_ceil(PIECES_MAX).max(PIECE);
        let pieces = positions.div_ceil(piece).max(1);
        (piece, SWEEP / u32::try_from(pieces).unwrap_or(u32::MAX))
    }

    fn saw(&mut self, key: Key, waiting: usize) {
        self.waiting += waiting;
        if waiting == 0 {
            return;
        }
        if self.largest.len() < LARGEST_MAX {
            self.largest.push((waiting, key));
        } else if let Some(least) = self.largest.iter_mut().min_by_key(|(bytes, _)| *bytes)
            && waiting > least.0
        {
            *least = (waiting, key);
        }
    }

    /// A piece was looked at, and the next is due then. After the last: what all have waiting, and
    /// who the most.
    fn moved_by(
        &mut self,
        piece: usize,
        positions: usize,
        due: Instant,
    ) -> Option<(usize, Vec<(usize, Key)>)> {
        self.due = due;
        self.next += piece;
        if self.next < positions {
            return None;
        }
        self.next = 0;
        self.grown = 0;
        let waiting = std::mem::take(&mut self.waiting);
        Some((waiting, std::mem::take(&mut self.largest)))
    }
}

/// Who must go so that no more than `max` waits: those for whom most does, and no more than it takes.
fn who_goes(
    mut waiting: usize,
    mut largest: Vec<(usize, Key)>,
    max: usize,
) -> impl Iterator<Item = (usize, Key)> {
    largest.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    largest.into_iter().take_while(move |(bytes, _)| {
        let over = waiting > max;
        waiting = waiting.saturating_sub(*bytes);
        over
    })
}

impl<H: Host> Dataplane<H> {
    /// Time has passed. To be called every [`Dataplane::tick_interval`].
    pub fn tick(&mut self, now: Instant) {
        if self.round.due <= now {
            self.sweep_clients(now);
        }
        if now.saturating_duration_since(self.ticked_at) >= self.pace() {
            self.ticked_at = now;
            self.tick_all(now);
        }
        self.check_invariants();
    }

    /// How long until the next [`Dataplane::tick`]: shorter while something waits for it, and with
    /// many clients.
    #[must_use]
    pub fn tick_interval(&self) -> Duration {
        let (_, pause) = Round::pace(self.clients.positions());
        self.pace().min(pause)
    }

    fn tick_all(&mut self, now: Instant) {
        self.tick_channels(now);
        self.tick_stalled(now);
        self.settle(now);
        self.tick_held(now);
        self.tick_auth(now);
        self.core.follows.tick(now);
        self.core.tick_messages(now);
        self.core.tick_near(now);
        self.settle(now);
        for key in std::mem::take(&mut self.core.waiting_for_room) {
            if let Some(client) = self.clients.get_mut(key) {
                self.core.wake(&mut client.state, key);
            }
        }
        if now.saturating_duration_since(self.swept_at) >= SWEEP {
            self.swept_at = now;
            self.core.heat.tick(now);
            self.core.tick_hot(now);
            self.core.tick_leases(now);
            self.core.unrest.tick(now);
            self.tick_subscribing(now);
            for key in self.core.identities.keys() {
                self.core.identities.forget_unused(key, now);
            }
        }
    }

    /// What but the clients is looked at this often: more often while something waits for it.
    fn pace(&self) -> Duration {
        let waits = !self.core.held_clients.is_empty()
            || !self.core.waiting_for_room.is_empty()
            || self
                .core
                .channels
                .iter()
                .any(|(_, channel)| !channel.is_ready() || channel.stalled);
        Duration::from_millis(if waits { 10 } else { 100 })
    }

    /// A node that owes an answer for long may be gone, and one that commands wait for surely is:
    /// the cluster tells. When it has chosen another for the slots, nothing will come of the old one
    /// that could be believed.
    fn tick_stalled(&mut self, now: Instant) {
        let mut keys: SmallVec<[Key; 4]> = SmallVec::new();
        for (key, channel) in self.core.channels.iter() {
            let answers = matches!(
                channel.purpose,
                Purpose::Commands | Purpose::Lease | Purpose::Messages
            );
            if answers && channel.stalls(now) {
                keys.push(key);
            }
        }
        for key in &keys {
            if let Some(channel) = self.core.channels.get_mut(*key)
                && !std::mem::replace(&mut channel.stalled, true)
            {
                self.core.host.channel_stalled(&channel.addr);
            }
        }
        let waited_for = |channel: &Channel| {
            let owes = channel.connection.pipeline().in_flight() > 0;
            !channel.is_ready() && channel.backoff.attempts() > 0 && owes
        };
        if keys.is_empty()
            && !self
                .core
                .channels
                .iter()
                .any(|(_, channel)| waited_for(channel))
        {
            self.core.looked_at = None;
            return;
        }
        let due = |at: Instant| now.saturating_duration_since(at) >= STALL_LOOKS;
        if self.core.looked_at.is_none_or(due) {
            self.core.looked_at = Some(now);
            self.core.refresh();
        }
        let Some(topology) = self.core.view.topology.clone() else {
            return;
        };
        for key in keys {
            let channel = self.core.channels.get(key);
            if channel.is_some_and(|channel| !channel.serves(&topology)) {
                self.end_attempt(key, &CloseReason::Silent(STALL), now);
            }
        }
    }

    fn tick_channels(&mut self, now: Instant) {
        let deadline = self.core.settings.limits.deadline;
        let keys: Vec<Key> = self.core.channels.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(channel) = self.core.channels.get_mut(key) else {
                continue;
            };
            channel.connection.pipeline_mut().relax();
            channel.reads.relax();
            if let Some(at) = channel.connect_at {
                if at <= now {
                    channel.connect_at = None;
                    let addr = channel.addr.clone();
                    let attempt = channel.attempt(key);
                    self.core.actions.push(Action::Connect { attempt, addr });
                }
            } else if let Some(reason) = channel.connection.timed_out(now) {
                self.end_attempt(key, &reason, now);
                continue;
            }
            let Some(channel) = self.core.channels.get(key) else {
                continue;
            };
            let pipeline = channel.connection.pipeline();
            let oldest = pipeline.oldest_queued_at();
            if channel.purpose != Purpose::Commands {
                continue; // it has its timeouts, and whoever opened it looks after it
            }
            if !channel.is_ready() && oldest.is_some_and(|oldest| oldest + deadline <= now) {
                self.core.requeue(key, now);
            } else if pipeline.in_flight() == 0 && (channel.leaves || channel.used_at + IDLE <= now)
            {
                self.core.retire(key);
            }
        }
    }

    pub(crate) fn tick_held(&mut self, now: Instant) {
        for key in std::mem::take(&mut self.core.held_clients) {
            let Some(client) = self.clients.get_mut(key) else {
                continue;
            };
            client.state.listed_as_held = false;
            if client.state.session.order.held() > 0 {
                self.core.list_as_held(&mut client.state, key);
                self.poke(key, now);
            }
        }
        self.settle(now);
    }

    /// A client's half sent command takes so many bytes more.
    pub(crate) fn half_sent_grew(&mut self, bytes: usize, now: Instant) {
        self.round.grown += bytes;
        if self.round.grown <= self.core.settings.limits.worker_output_bytes_max / UNSEEN_PART {
            return;
        }
        // From the first to the last: what was seen of some before is not true any more.
        self.round = Round::new(now);
        for _ in 0..PIECES_MAX {
            self.sweep_clients(now);
            if self.round.next == 0 {
                break;
            }
        }
    }

    /// Looks at the next piece of the clients.
    fn sweep_clients(&mut self, now: Instant) {
        let limits = self.core.settings.limits;
        let stays = limits.idle.is_none() && limits.age.is_none();
        let (piece, pause) = Round::pace(self.clients.positions());
        let round = &mut self.round;
        let mut endings: SmallVec<[(Key, Why, bool); 4]> = SmallVec::new();
        let mut blocked: SmallVec<[Key; 4]> = SmallVec::new();
        // Most clients of a crowd are idle: this is all that they cost.
        for (key, client) in self.clients.stretch(round.next, piece) {
            let state = &client.state;
            let order = &state.session.order;
            let replies = state.session.output.len() + order.early_bytes() + order.merging_bytes();
            if state.ending.is_none() {
                round.saw(key, replies + client.pending.capacity());
            }
            if state
                .unblocking
                .as_ref()
                .is_some_and(|asked| asked.until <= now)
            {
                blocked.push(key);
            }
            if let Some(why) = overdue(state, replies, &limits, now) {
                endings.push((key, why, true));
            } else if !stays && let Some(why) = outstayed(state, client.may_leave(), &limits, now) {
                endings.push((key, why, false));
            }
        }
        let over = round.moved_by(piece, self.clients.positions(), now + pause);
        if let Some((waiting, largest)) = over {
            let max = limits.worker_output_bytes_max;
            self.core.host.waiting_bytes(waiting, max);
            let go = who_goes(waiting, largest, max);
            endings.extend(go.map(|(waiting, key)| (key, Why::Memory { waiting }, true)));
        }
        blocked
            .into_iter()
            .for_each(|key| self.unblock_late(key, now));
        for (key, why, at_once) in endings {
            if let Some(client) = self.clients.get_mut(key) {
                if matches!(why, Why::Memory { .. }) {
                    client.pending = BytesMut::new(); // now, and not when its task comes to it
                }
                client.state.end(why, at_once);
                self.core.wake(&mut client.state, key);
            }
        }
    }

    /// An attempt of a channel is over.
    pub(crate) fn end_attempt(&mut self, key: Key, reason: &CloseReason, now: Instant) {
        let Some(channel) = self.core.channels.get(key) else {
            return;
        };
        match channel.purpose {
            Purpose::Verdict => {
                let addr = channel.addr.clone();
                self.core.host.channel_lost(&addr, reason, 1);
                self.verdict(key, Some(reason), now);
            }
            Purpose::Lease => self.core.lose_lease(key, reason),
            Purpose::Messages => self.core.lose_home(key, reason, now),
            Purpose::Near => self.core.lose_near(key, reason, now),
            Purpose::Commands => self.core.lose(key, reason, now),
        }
    }
}

/// Why a client must go at once, if it must.
fn overdue(state: &State, waiting: usize, limits: &Limits, now: Instant) -> Option<Why> {
    let since = |at: Instant| now.saturating_duration_since(at);
    let (output, session) = (state.session.output.len(), &state.session);
    if output > STALLED_BYTES && since(state.drained_at) > STALLED {
        Some(Why::Output { waiting })
    } else if state
        .half_since
        .is_some_and(|at| since(at) > limits.request)
    {
        Some(Why::HalfRequest)
    } else if session.commands == 0
        && state.auth.is_none()
        && since(session.connected_at) > limits.first_command
    {
        Some(Why::NoCommand)
    } else {
        None
    }
}

/// Why a client is to go when it has what it is owed, if it is.
fn outstayed(state: &State, may_leave: bool, limits: &Limits, now: Instant) -> Option<Why> {
    let since = |at: Instant| now.saturating_duration_since(at);
    let session = &state.session;
    let subscriptions = state.subscriptions.as_deref();
    let waits = !session.order.is_empty()
        || state.blocked.is_some()
        || subscriptions.is_some_and(|subscriptions| !subscriptions.is_empty());
    let idle = |limit: Duration| !waits && since(session.last_command_at) > limit;
    if limits.idle.is_some_and(idle) {
        return Some(Why::Idle);
    }
    let old = |limit: Duration| {
        // Clients that came together do not leave together.
        let early = u32::try_from(session.id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60);
        let limit = limit - limit / 128 * early.unwrap_or_default();
        let age = since(session.connected_at);
        age > limit && (may_leave || age > limit + limit / 4)
    };
    limits.age.is_some_and(old).then_some(Why::Age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn a_crowd_is_looked_at_in_pieces_and_as_often_as_a_few() {
        for positions in [0, 1, 255, 256, 257, 13_000, 64_000, 1_000_000] {
            let (piece, pause) = Round::pace(positions);
            assert!(piece == PIECE || piece * PIECES_MAX < positions + PIECES_MAX);
            let now = Instant::now();
            let mut round = Round::new(now);
            let (mut looks, mut due) = (1, now + pause);
            while round.moved_by(piece, positions, due).is_none() {
                assert!(round.next < positions);
                looks += 1;
                due += pause;
            }
            assert_eq!(round.next, 0);
            let took = pause * looks;
            assert!(took <= SWEEP && took + Duration::from_micros(1) > SWEEP);
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn the_largest_of_all_pieces_is_told_after_the_last() {
        let now = Instant::now();
        let key = |index| Key {
            index,
            generation: 0,
        };
        let mut round = Round::new(now);
        round.saw(key(3), 70);
        assert_eq!(round.moved_by(PIECE, 2 * PIECE, now), None);
        round.saw(key(300), 50);
        let told = round.moved_by(PIECE, 2 * PIECE, now);
        assert_eq!(told, Some((120, vec![(70, key(3)), (50, key(300))])));
        assert_eq!(round.moved_by(PIECE, PIECE, now), Some((0, Vec::new())));
    }

    #[test]
    fn as_many_go_as_it_takes() {
        let key = |index| Key {
            index,
            generation: 0,
        };
        let largest = || vec![(20, key(1)), (70, key(2)), (50, key(3))];
        let go = |max| {
            let keys = who_goes(140, largest(), max).map(|(bytes, _)| bytes);
            keys.collect::<Vec<_>>()
        };
        assert_eq!(go(140), []);
        assert_eq!(go(139), [70]);
        assert_eq!(go(70), [70]);
        assert_eq!(go(69), [70, 50]);
        assert_eq!(go(0), [70, 50, 20]);
    }
}
