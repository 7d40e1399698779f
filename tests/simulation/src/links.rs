//! The nodes' side: connections with delays, segments of any length, cuts and silence, between the
//! proxy and the cluster.

use std::{collections::VecDeque, time::Duration};

use cluster_sim::ConnectionId;
use topology::NodeAddr;

use crate::{agenda::Event, history::Violation, others::News, proxy::Proxy, world::World};

/// One connection between the proxy and a node.
#[derive(Debug)]
pub(crate) struct Link<A> {
    pub(crate) id: u64,
    pub(crate) attempt: A,
    pub(crate) node: usize,
    connection: ConnectionId,
    pub(crate) up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
    /// What nodes have told of changed keys, and at which byte of all that comes down.
    news: VecDeque<(usize, News)>,
    /// Bytes that were said, and that have arrived.
    said: usize,
    brought: usize,
    /// When the last segment arrives: none overtakes another.
    up_until: Duration,
    down_until: Duration,
    /// The driver waits for room to write.
    pub(crate) full: bool,
    pub(crate) drive_due: bool,
    /// Neither side hears the other any more, and nobody says so.
    pub(crate) silent: bool,
    /// It is broken; the proxy has heard of it, or will.
    pub(crate) broken: bool,
    /// The proxy has closed it.
    pub(crate) dropped: bool,
}

impl<P: Proxy> World<P> {
    pub(crate) fn connect(&mut self, attempt: P::Attempt, addr: NodeAddr) -> Result<(), Violation> {
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

    pub(crate) fn connected(
        &mut self,
        attempt: P::Attempt,
        addr: &NodeAddr,
    ) -> Result<(), Violation> {
        let Some(node) = self.node_at(addr) else {
            return Ok(());
        };
        if !self.proxy.wants(attempt) || self.nodes[node].silent {
            return Ok(()); // nobody answers: the proxy's time will run out
        }
        let Some(connection) = self.cluster.connect(node, "", self.now) else {
            self.note(&[], format_args!("{attempt:?} to node {node} is refused"));
            return P::connected(self, attempt, None);
        };
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
            news: VecDeque::new(),
            said: 0,
            brought: 0,
            up_until: self.now,
            down_until: self.now,
            full: false,
            drive_due: false,
            silent: false,
            broken: false,
            dropped: false,
        };
        self.links.insert(id, link);
        P::connected(self, attempt, Some(id))
    }

    pub(crate) fn link_of(&self, attempt: P::Attempt) -> Option<u64> {
        let mut links = self.links.values();
        let link = links.find(|link| link.attempt == attempt)?;
        Some(link.id)
    }

    /// The proxy wants no more of an attempt. What is on its way still arrives at the node.
    pub(crate) fn drop_attempt(&mut self, attempt: P::Attempt) {
        let mut links = self.links.values_mut();
        if let Some(link) = links.find(|link| link.attempt == attempt) {
            link.dropped = true;
            let id = link.id;
            self.bury(id);
        }
    }

    /// The system takes bytes from the proxy onto the way to the node.
    pub(crate) fn take(&mut self, id: u64, bytes: &[u8]) {
        self.note(bytes, format_args!("link {id} takes"));
        let delay = self.delay();
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if !link.broken {
            link.up.push_back(bytes.to_vec());
        }
        if !link.silent && !link.broken {
            link.up_until = link.up_until.max(self.now + delay);
            let due = link.up_until;
            self.at(due, Event::Up(id));
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
        let connection = link.connection;
        self.cluster.received(connection, &bytes, self.now);
        P::has_room(self, id, bytes.len());
        self.collect();
        self.bury(id);
    }

    /// Takes what nodes have said onto the way to the proxy.
    pub(crate) fn collect(&mut self) {
        if self.weather.users || self.weather.near || self.weather.hot {
            let ran = self.cluster.take_journal();
            self.history.others.ran(&ran);
            if self.weather.users {
                self.history.identities.note(ran);
            }
        }
        let ids: Vec<u64> = self.links.keys().copied().collect();
        for id in ids {
            let link = &self.links[&id];
            let mut bytes = self.cluster.output(link.connection, self.now);
            if link.silent || link.broken || link.dropped {
                continue;
            }
            if let Some(link) = self.links.get_mut(&id) {
                let (mut lost, loses) = (0, self.proxy.loses_news());
                for (mut at, news) in self.history.others.said(&bytes) {
                    if loses {
                        at = at.start - lost..at.end - lost;
                        lost += at.len();
                        bytes.drain(at.clone());
                        at.end = at.start;
                    }
                    link.news.push_back((link.said + at.end, news));
                }
                link.said += bytes.len();
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
        let link = self.links.get_mut(&id);
        let Some(link) = link.filter(|link| !link.silent && !link.dropped) else {
            return Ok(());
        };
        let Some(bytes) = link.down.pop_front() else {
            return Ok(());
        };
        link.brought += bytes.len();
        while let Some((_, news)) = link.news.pop_front_if(|(at, _)| *at <= link.brought) {
            let worker = self.proxy.worker_of(link.attempt);
            self.history.others.heard(worker, news);
        }
        self.note(&bytes, format_args!("link {id} brings"));
        P::bring(self, id, &bytes)
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
        if self.links.get(&id).is_none_or(|link| link.dropped) {
            return Ok(());
        }
        let in_order = self.rng.chance(50);
        self.note(&[], format_args!("link {id} is over"));
        P::lost(self, id, in_order)
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
