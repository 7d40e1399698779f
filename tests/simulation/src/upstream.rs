//! The nodes' side: connections with delays, segments of any length, cuts and silence, between the
//! dataplane and the cluster; and the proxy's driver of a node connection.

use std::{collections::VecDeque, io::IoSlice, time::Duration};

use cluster_sim::ConnectionId;
use dataplane::{Attempt, CloseReason, SLICES_MAX};
use topology::NodeAddr;

use crate::{agenda::Event, history::Violation, world::World};

/// One connection between the proxy and a node.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: u64,
    pub(crate) attempt: Attempt,
    pub(crate) node: usize,
    connection: ConnectionId,
    up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
    /// When the last segment arrives: none overtakes another.
    up_until: Duration,
    down_until: Duration,
    /// The driver waits for room to write.
    full: bool,
    drive_due: bool,
    /// Neither side hears the other any more, and nobody says so.
    pub(crate) silent: bool,
    /// It is broken; the proxy has heard of it, or will.
    pub(crate) broken: bool,
    /// The proxy has closed it.
    dropped: bool,
}

impl World {
    pub(crate) fn connect(&mut self, attempt: Attempt, addr: NodeAddr) -> Result<(), Violation> {
        let known = self.node_at(&addr);
        if known.is_none() {
            return Err(format!(
                "the proxy connects to {addr}, which is nobody's address"
            ));
        }
        let delay = self.delay();
        self.after(delay, Event::Connected(attempt, addr));
        Ok(())
    }

    pub(crate) fn node_at(&self, addr: &NodeAddr) -> Option<usize> {
        self.addresses.iter().position(|known| known == addr)
    }

    pub(crate) fn connected(&mut self, attempt: Attempt, addr: &NodeAddr) -> Result<(), Violation> {
        let Some(node) = self.node_at(addr) else {
            return Ok(());
        };
        if !self.plane.is_current(attempt) || self.nodes[node].silent {
            return Ok(()); // nobody answers: the dataplane's time will run out
        }
        let instant = self.instant();
        match self.cluster.connect(node, "", self.now) {
            None => {
                self.note(&[], format_args!("{attempt:?} to node {node} is refused"));
                let reason = CloseReason::Io("refused".to_owned());
                self.plane.channel_lost(attempt, &reason, instant);
                self.obey()
            }
            Some(connection) => {
                self.link_count += 1;
                let id = self.link_count;
                self.note(&[], format_args!("{attempt:?} to node {node} is link {id}"));
                let link = Link {
                    id,
                    attempt,
                    node,
                    connection,
                    up: VecDeque::new(),
                    down: VecDeque::new(),
                    up_until: self.now,
                    down_until: self.now,
                    full: false,
                    drive_due: false,
                    silent: false,
                    broken: false,
                    dropped: false,
                };
                self.links.insert(id, link);
                self.plane.channel_connected(attempt);
                self.drive_soon(id);
                self.obey()
            }
        }
    }

    fn drive_soon(&mut self, id: u64) {
        if let Some(link) = self.links.get_mut(&id).filter(|link| !link.drive_due) {
            link.drive_due = true;
            self.after(Duration::ZERO, Event::Drive(id));
        }
    }

    pub(crate) fn wake_channel(&mut self, attempt: Attempt) {
        let mut links = self.links.values();
        if let Some(id) = links
            .find(|link| link.attempt == attempt)
            .map(|link| link.id)
        {
            self.drive_soon(id);
        }
    }

    /// The dataplane wants no more of an attempt. What is on its way still arrives at the node.
    pub(crate) fn drop_attempt(&mut self, attempt: Attempt) {
        let mut links = self.links.values_mut();
        if let Some(link) = links.find(|link| link.attempt == attempt) {
            link.dropped = true;
            let id = link.id;
            self.bury(id);
        }
    }

    /// The driver writes until it has to wait.
    pub(crate) fn drive(&mut self, id: u64) -> Result<(), Violation> {
        let now = self.instant();
        loop {
            let Some(link) = self.links.get_mut(&id) else {
                return Ok(());
            };
            link.drive_due = false;
            if link.dropped || !self.plane.is_current(link.attempt) {
                return Ok(());
            }
            let waiting: usize = link.up.iter().map(Vec::len).sum();
            let room = self.weather.window.saturating_sub(waiting);
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let used = self.plane.channel_slices(link.attempt, &mut slices);
            let bytes: Vec<u8> = slices[..used]
                .iter()
                .flat_map(|slice| slice.to_vec())
                .collect();
            let count = room.min(bytes.len());
            link.full = count == 0 && !bytes.is_empty();
            if count == 0 {
                return Ok(());
            }
            let (attempt, lost) = (link.attempt, link.silent || link.broken);
            if !link.broken {
                link.up.push_back(bytes[..count].to_vec());
            }
            self.note(&bytes[..count], format_args!("link {id} takes"));
            if !lost {
                let delay = self.delay();
                let link = self.links.get_mut(&id);
                let due = link.map(|link| {
                    link.up_until = link.up_until.max(self.now + delay);
                    link.up_until
                });
                self.at(due.unwrap_or(self.now), Event::Up(id));
            }
            self.plane.channel_wrote(attempt, count, now);
            self.obey()?;
        }
    }

    /// The oldest segment reaches the node.
    pub(crate) fn up(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.silent) else {
            return;
        };
        let Some(bytes) = link.up.pop_front() else {
            return;
        };
        let (connection, full) = (link.connection, std::mem::take(&mut link.full));
        self.cluster.received(connection, &bytes, self.now);
        if full {
            self.drive_soon(id);
        }
        self.collect();
        self.bury(id);
    }

    /// Takes what nodes have said onto the way to the proxy.
    pub(crate) fn collect(&mut self) {
        let ids: Vec<u64> = self.links.keys().copied().collect();
        for id in ids {
            let link = &self.links[&id];
            let mut bytes = self.cluster.output(link.connection, self.now);
            if link.silent || link.broken || link.dropped {
                continue;
            }
            while !bytes.is_empty() {
                let whole = self.rng.chance(75);
                let most = bytes.len();
                let count = if whole { most } else { self.rng.up_to(most) };
                let rest = bytes.split_off(count);
                let delay = self.delay() + self.nodes[self.links[&id].node].lag;
                if let Some(link) = self.links.get_mut(&id) {
                    link.down.push_back(bytes);
                    link.down_until = link.down_until.max(self.now + delay);
                    let due = link.down_until;
                    self.at(due, Event::Down(id));
                }
                bytes = rest;
            }
        }
    }

    /// The oldest segment reaches the proxy.
    pub(crate) fn down(&mut self, id: u64) -> Result<(), Violation> {
        let now = self.instant();
        let link = self.links.get_mut(&id);
        let Some(link) = link.filter(|link| !link.silent && !link.dropped) else {
            return Ok(());
        };
        let (attempt, bytes) = (link.attempt, link.down.pop_front());
        if let Some(bytes) = bytes {
            self.note(&bytes, format_args!("link {id} brings"));
            self.plane.channel_received(attempt, &bytes, now);
            self.obey()?;
            self.drive_soon(id);
        }
        Ok(())
    }

    /// The connection breaks: of what is on its way in either direction, a part arrives.
    pub(crate) fn cut(&mut self, id: u64) {
        self.note(&[], format_args!("link {id} is cut"));
        let keep = |rng: &mut crate::rng::Rng, segments: &mut VecDeque<Vec<u8>>| {
            if segments.is_empty() {
                return;
            }
            let count = rng.below(segments.len());
            segments.truncate(count + 1);
            if let Some(last) = segments.back_mut() {
                let bytes = rng.below(last.len() + 1);
                last.truncate(bytes);
            }
        };
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        keep(&mut self.rng, &mut link.up);
        keep(&mut self.rng, &mut link.down);
        link.broken = true;
        let last = link.down_until;
        let more = self.rng.ms(0, 5);
        self.at(last.max(self.now) + more, Event::Reset(id));
    }

    /// The proxy's system says that a connection is over.
    pub(crate) fn reset(&mut self, id: u64) -> Result<(), Violation> {
        let now = self.instant();
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.dropped) else {
            return Ok(());
        };
        let attempt = link.attempt;
        let reason = if self.rng.chance(50) {
            CloseReason::Eof
        } else {
            CloseReason::Io("reset".to_owned())
        };
        self.note(&[], format_args!("link {id} is over"));
        self.plane.channel_lost(attempt, &reason, now);
        self.obey()
    }

    /// A connection that the proxy has closed ends at the node when the node has all of it.
    pub(crate) fn bury(&mut self, id: u64) {
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let arrives = link.up_until > self.now && !link.silent;
        if link.dropped && !arrives && !self.nodes[link.node].frozen {
            self.cluster.disconnect(link.connection);
            self.links.remove(&id);
        }
    }
}
