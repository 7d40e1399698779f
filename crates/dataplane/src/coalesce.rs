//! Reads that ask the same at the same moment are asked once.
//!
//! A read joins another one, its bytes the same, that is queued on the connection it would take
//! itself, when two things hold. No byte of that one has been handed to the socket: so the node
//! runs it after the joining read was asked, and whoever asked could not have been told anything
//! newer. And nothing on its key was queued behind that one, by whomever: so to join it is the same
//! as to be queued last, and whatever holds for the order of commands on a key holds for it too.
//! Neither needs anything of the client, and neither loosens what is promised of reads.
//!
//! Owns who waits for whose reply, on one connection. Never here: which commands may be joined,
//! replies.

use hashbrown::HashMap;
use upstream::Abandoned;

use crate::ticket::Ticket;

/// A longer request is not joined, nor is its reply kept near: its copy would be kept as long.
pub(crate) const REQUEST_BYTES_MAX: usize = 1024;
/// Room for so many tickets is kept for the next who wait together.
const KEEP_TICKETS_MAX: usize = 256;
/// Room for so many groups is kept while there are none.
const KEEP_GROUPS_MAX: usize = 64;

/// Those who get the same reply as the command that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group(u32);

impl Group {
    /// Nobody can have joined.
    pub(crate) const NONE: Self = Self(0);
    /// No client waits, but a cache.
    pub(crate) const NEAR: Self = Self(u32::MAX);

    #[inline]
    pub(crate) fn is_some(self) -> bool {
        self != Self::NONE
    }

    fn index(self) -> Option<usize> {
        usize::try_from(self.0).ok()?.checked_sub(1)
    }
}

#[derive(Debug, Default)]
struct Waiting {
    request: Vec<u8>,
    others: Vec<Ticket>,
}

/// The reads of one connection that are asked for several.
///
/// Invariants: what is open is not written, and is the last command on its key; a group is freed
/// with the reply to the command that it belongs to.
#[derive(Debug, Default)]
pub(crate) struct Coalescer {
    /// What can be joined, by the fingerprint of its key.
    open: HashMap<u32, Group, foldhash::fast::FixedState>,
    groups: Vec<Waiting>,
    free: Vec<Group>,
}

impl Coalescer {
    /// Whether a read waits for the reply of another from now on.
    pub(crate) fn join(&mut self, key: u32, request: &[u8], ticket: Ticket) -> bool {
        let group = self.open.get(&key).and_then(|group| group.index());
        let waiting = group.and_then(|index| self.groups.get_mut(index));
        let same = waiting.filter(|waiting| waiting.request == request);
        same.map(|waiting| waiting.others.push(ticket)).is_some()
    }

    /// A read is queued that others can join from now on.
    pub(crate) fn lead(&mut self, key: u32, request: &[u8]) -> Group {
        let group = self.free.pop().unwrap_or_else(|| {
            self.groups.push(Waiting::default());
            Group(u32::try_from(self.groups.len()).unwrap_or_default())
        });
        let waiting = group.index().and_then(|index| self.groups.get_mut(index));
        if let Some(waiting) = waiting {
            waiting.request.extend_from_slice(request);
        }
        self.open.insert(key, group);
        group
    }

    /// Another command on these keys is queued.
    pub(crate) fn close(&mut self, keys: impl Iterator<Item = u32>) {
        for key in keys {
            self.open.remove(&key);
        }
    }

    /// Commands were written, or one is queued whose keys nobody knows.
    #[inline]
    pub(crate) fn close_all(&mut self) {
        if !self.open.is_empty() {
            self.open.clear();
        }
    }

    /// How many joined.
    pub(crate) fn joined(&self, group: Group) -> usize {
        let waiting = group.index().and_then(|index| self.groups.get(index));
        waiting.map_or(0, |waiting| waiting.others.len())
    }

    /// Those who joined, to be given back.
    pub(crate) fn take(&mut self, group: Group) -> Vec<Ticket> {
        let waiting = group.index().and_then(|index| self.groups.get_mut(index));
        waiting.map_or_else(Vec::new, |waiting| std::mem::take(&mut waiting.others))
    }

    /// They have had what there was: all of the reply, when they are done.
    pub(crate) fn give_back(&mut self, group: Group, mut others: Vec<Ticket>, done: bool) {
        let waiting = group.index().and_then(|index| self.groups.get_mut(index));
        let Some(waiting) = waiting else { return };
        if done {
            others.clear();
            others.shrink_to(KEEP_TICKETS_MAX);
            waiting.request.clear();
            self.free.push(group);
        }
        waiting.others = others;
    }

    /// The connection is over: each of those who joined has what the command had that was sent.
    pub(crate) fn spread(&mut self, abandoned: Vec<Abandoned<Ticket>>) -> Vec<Abandoned<Ticket>> {
        if self.groups.len() == self.free.len() {
            return abandoned;
        }
        let mut all = Vec::with_capacity(abandoned.len());
        for mut command in abandoned {
            let group = std::mem::replace(&mut command.ticket.group, Group::NONE);
            let others = self.take(group);
            let others = others.into_iter().map(|ticket| Abandoned {
                ticket,
                request: command.request.clone(),
                ..command
            });
            let others: Vec<_> = others.collect();
            all.push(command);
            all.extend(others);
        }
        *self = Self::default();
        all
    }

    /// Gives back memory, if nobody waits.
    pub(crate) fn relax(&mut self) {
        if self.free.len() == self.groups.len() && self.free.len() > KEEP_GROUPS_MAX {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
    const OTHER: &[u8] = b"*2\r\n$6\r\nSTRLEN\r\n$1\r\nk\r\n";

    fn ticket(part: u16) -> Ticket {
        let mut ticket = Ticket::of_topic(None);
        ticket.part = part;
        ticket
    }

    #[test]
    fn only_the_last_command_on_a_key_that_is_not_written_is_joined() {
        let mut reads = Coalescer::default();
        assert!(!reads.join(1, GET, ticket(1)), "there is none");
        let first = reads.lead(1, GET);
        assert!(reads.join(1, GET, ticket(2)));
        assert!(!reads.join(2, GET, ticket(3)), "another key");
        assert!(!reads.join(1, OTHER, ticket(3)), "it asks something else");
        let second = reads.lead(1, OTHER);
        assert!(!reads.join(1, GET, ticket(3)), "another is behind it");
        assert!(reads.join(1, OTHER, ticket(4)));
        reads.close([7, 1].into_iter());
        assert!(!reads.join(1, OTHER, ticket(5)), "a write is behind it");
        let third = reads.lead(1, GET);
        reads.close_all();
        assert!(!reads.join(1, GET, ticket(6)), "it was written");
        for (group, parts) in [(first, vec![2]), (second, vec![4]), (third, vec![])] {
            let others = reads.take(group);
            let found: Vec<u16> = others.iter().map(|ticket| ticket.part).collect();
            assert_eq!(found, parts);
            reads.give_back(group, others, true);
        }
        assert_eq!(reads.free.len(), 3);
        assert!(reads.lead(1, OTHER).is_some());
        assert_eq!(reads.groups.len(), 3, "room is used again");
        assert!(!reads.join(1, GET, ticket(7)), "with what was asked there");
    }

    #[test]
    fn whoever_waits_has_the_fate_of_what_was_sent() {
        let mut reads = Coalescer::default();
        let group = reads.lead(1, GET);
        assert!(reads.join(1, GET, ticket(2)) && reads.join(1, GET, ticket(3)));
        let command = |part, group, touched| {
            let mut ticket = ticket(part);
            ticket.group = group;
            Abandoned {
                ticket,
                request: Bytes::from_static(GET),
                touched,
                answered_in_part: false,
                asking: false,
            }
        };
        let abandoned = vec![command(0, Group::NONE, true), command(1, group, false)];
        let all = reads.spread(abandoned);
        let found: Vec<_> = all
            .iter()
            .map(|one| (one.ticket.part, one.touched))
            .collect();
        assert_eq!(found, [(0, true), (1, false), (2, false), (3, false)]);
        assert!(all.iter().all(|one| one.ticket.group == Group::NONE));
        assert!(reads.groups.is_empty());
    }

    #[test]
    fn memory_is_given_back() {
        let mut reads = Coalescer::default();
        let keys = 0..u32::try_from(2 * KEEP_GROUPS_MAX).unwrap_or_default();
        let groups: Vec<Group> = keys.map(|key| reads.lead(key, GET)).collect();
        reads.relax();
        assert_eq!(reads.groups.len(), groups.len(), "they are waited for");
        for group in groups {
            let others = vec![ticket(0); 10 * KEEP_TICKETS_MAX];
            reads.give_back(group, others, true);
        }
        assert!(
            reads
                .groups
                .iter()
                .all(|group| group.others.capacity() <= KEEP_TICKETS_MAX)
        );
        reads.relax();
        assert!(reads.groups.is_empty());
    }
}
