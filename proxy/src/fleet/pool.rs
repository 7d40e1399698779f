//! Nodes that come and go: the warm pool.
//!
//! A node that has keys or slots is never taken and never reset. What is lost by a reset is an empty
//! node's acquaintances, or a replica's copy.

use std::{net::IpAddr, time::Duration};

use tokio::time::{Instant, sleep};
use topology::{NodeAddr, NodeId};

use super::{Fleet, Peer, Trouble, View, field, members, text_of, words};

/// All nodes know a new one within this.
const JOIN_LIMIT: Duration = Duration::from_secs(30);
/// A node gives up on another that does not answer within the node timeout, and does not try again by
/// itself: who is not there after this is introduced once more.
const MEET_AGAIN: Duration = Duration::from_secs(5);
/// Clients have left an emptied node within this, or are not waited for any longer.
const CALM_LIMIT: Duration = Duration::from_secs(10);
/// A node that sent nobody away for so long has been left by all clients.
const CALM: Duration = Duration::from_millis(300);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Whether an emptied primary becomes a replica.
const FOLLOWS: &str = "cluster-allow-replica-migration";

/// A node of the pool, looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Spare {
    /// Empty and alone.
    Ready(NodeId),
    /// Empty, and half in or half out of this cluster: somebody was interrupted.
    Stranded,
    /// It is in the cluster.
    Member(NodeId),
    /// It cannot be taken; here is why.
    Unusable(String),
}

impl Fleet {
    /// What a node of the pool is now.
    pub(crate) async fn spare(&self, view: &View, addr: &NodeAddr) -> Spare {
        match self.look_at_spare(view, addr).await {
            Ok(spare) => spare,
            Err(trouble) => Spare::Unusable(trouble.to_string()),
        }
    }

    async fn look_at_spare(&self, view: &View, addr: &NodeAddr) -> Result<Spare, Trouble> {
        let mut link = self.link(addr).await?;
        let lines = members::read(&text_of(&link.call(&["CLUSTER", "NODES"]).await?));
        let Some(own) = lines.iter().find(|line| line.myself) else {
            return Ok(Spare::Unusable(format!("{addr} does not know itself")));
        };
        if view.peer(own.id).is_some() {
            return Ok(Spare::Member(own.id));
        }
        let keyspace = text_of(&link.call(&["INFO", "keyspace"]).await?);
        let empty = own.replica || !keyspace.lines().any(|line| line.starts_with("db"));
        let ours =
            |line: &members::Line| line.myself || line.handshake || view.peer(line.id).is_some();
        Ok(if !own.slots.is_empty() || !empty {
            Spare::Unusable(format!("{addr} is not empty"))
        } else if lines.len() == 1 && !own.replica {
            Spare::Ready(own.id)
        } else if lines.iter().all(ours) {
            Spare::Stranded
        } else {
            Spare::Unusable(format!("{addr} belongs to another cluster"))
        })
    }

    /// Takes nodes in, and waits until all know them. Returns the view then.
    pub(crate) async fn join(
        &self,
        view: &View,
        new: &[(NodeAddr, NodeId)],
    ) -> Result<View, Trouble> {
        let Some(host) = view.primaries().find(|peer| !peer.slots.is_empty()) else {
            return Err(Trouble::State("nobody has slots".to_owned()));
        };
        for (addr, _) in new {
            self.meet(host, addr).await?;
        }
        let until = Instant::now() + JOIN_LIMIT;
        let mut meet_again = Instant::now() + MEET_AGAIN;
        loop {
            let view = self.view().await?;
            let here = new.iter().all(|(_, id)| view.peer(*id).is_some());
            let trouble = match view.disagreement() {
                None if here && view.sound().is_ok() => return Ok(view),
                trouble => trouble.unwrap_or_else(|| "not all are there".to_owned()),
            };
            if Instant::now() >= meet_again {
                // All of them: one of two may know the other and not be known.
                for (addr, _) in new {
                    self.meet(host, addr).await?;
                }
                meet_again = Instant::now() + MEET_AGAIN;
            }
            if Instant::now() >= until {
                return Err(Trouble::State(format!(
                    "the new nodes are not known to all within {} s: {trouble}; can the nodes reach each \
                     other on their cluster bus ports?",
                    JOIN_LIMIT.as_secs()
                )));
            }
            sleep(LOOK).await;
        }
    }

    async fn meet(&self, host: &Peer, addr: &NodeAddr) -> Result<(), Trouble> {
        let lines = members::read(&text_of(&self.ask(addr, &["CLUSTER", "NODES"]).await?));
        let own = lines.into_iter().find(|line| line.myself);
        let announced = own.as_ref().and_then(|own| own.addr.clone());
        let ip = match announced
            .unwrap_or_else(|| addr.clone())
            .host
            .parse::<IpAddr>()
        {
            Ok(ip) => ip.to_string(),
            Err(_) => self.address_of(addr).await?,
        };
        let port = addr.port.to_string();
        let bus = own.and_then(|own| own.bus_port).map(|bus| bus.to_string());
        let mut request = vec!["CLUSTER", "MEET", &ip, &port];
        request.extend(bus.as_deref());
        self.link(&host.addr).await?.call(&request).await.map(drop)
    }

    /// Makes an empty node that is in the cluster a replica; waits until it has all data and all know.
    pub(crate) async fn replicate(
        &self,
        (replica, id): (&NodeAddr, NodeId),
        primary: NodeId,
    ) -> Result<(), Trouble> {
        let until = Instant::now() + JOIN_LIMIT;
        let of = primary.to_string();
        let mut link = self.link(replica).await?;
        link.call(&["CLUSTER", "REPLICATE", &of]).await?;
        loop {
            let info = text_of(&link.call(&["INFO", "replication"]).await?);
            let follows = field(&info, "master_link_status") == Some("up");
            let view = self.view().await?;
            let known = view.replicas_of(primary).any(|peer| peer.id == id);
            if follows && known && view.disagreement().is_none() {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(Trouble::State(format!(
                    "{replica} does not become a replica within {} s; look at its log",
                    JOIN_LIMIT.as_secs()
                )));
            }
            sleep(LOOK).await;
        }
    }

    /// The zone of a node, if it says one.
    pub(crate) async fn zone_of(&self, addr: &NodeAddr) -> Option<String> {
        let info = self.ask(addr, &["INFO", "server"]).await.ok()?;
        let zone = field(&text_of(&info), "availability_zone")?.to_owned();
        (!zone.is_empty()).then_some(zone)
    }

    /// Nodes are introduced by address alone.
    async fn address_of(&self, addr: &NodeAddr) -> Result<String, Trouble> {
        let found = self
            .context
            .reach
            .resolver
            .resolve(&addr.host, addr.port)
            .await;
        let found = found.map_err(|error| Trouble::State(format!("{addr}: {error}")))?;
        let first = found.first().map(|address| address.ip().to_string());
        first.ok_or_else(|| Trouble::State(format!("{addr} has no address")))
    }

    /// Whether an emptied node follows whoever took its last slots, with a copy of all its data.
    /// Returns what it did before.
    pub(crate) async fn set_follows(&self, peer: &Peer, follows: bool) -> Result<bool, Trouble> {
        let value = if follows { "yes" } else { "no" };
        let mut link = self.link(&peer.addr).await?;
        let before = link.call(&["CONFIG", "GET", FOLLOWS]).await?;
        link.call(&["CONFIG", "SET", FOLLOWS, value]).await?;
        Ok(before.map_get(FOLLOWS).and_then(resp::Value::as_str) == Some("yes"))
    }

    /// Lets an emptied node go: when clients have left it, all forget it, and it is as new.
    pub(crate) async fn release(&self, peer: &Peer) -> Result<(), Trouble> {
        let view = self.view().await?;
        let owns = view.peer(peer.id).is_some_and(|now| !now.slots.is_empty());
        let claimed = view
            .peers
            .iter()
            .any(|other| other.id == peer.id && !other.open.is_empty());
        if owns || claimed || view.replicas_of(peer.id).next().is_some() {
            return Err(Trouble::State(format!(
                "{} has slots or replicas again: it is not let go",
                peer.addr
            )));
        }
        self.wait_unowned(&view, peer).await?;
        self.wait_calm(&peer.addr).await?;
        let until = Instant::now() + CALM_LIMIT;
        let others = || view.peers.iter().filter(|other| other.id != peer.id);
        let id = peer.id.to_string();
        loop {
            let forget = [
                words(&["CLUSTER", "FORGET", &id]),
                words(&["CLUSTER", "NODES"]),
            ];
            let answers = self
                .ask_all(others().map(|other| other.addr.clone()), &forget)
                .await;
            let knows = |said: &Result<Vec<resp::Value>, Trouble>| match said {
                Ok(said) => said.get(1).is_none_or(|nodes| text_of(nodes).contains(&id)),
                Err(_) => true,
            };
            let left = answers.iter().find(|(_, said)| knows(said));
            match left {
                None => break,
                Some((addr, _)) if Instant::now() >= until => {
                    return Err(Trouble::State(format!(
                        "{addr} does not forget {}",
                        peer.addr
                    )));
                }
                Some(_) => sleep(LOOK).await,
            }
        }
        self.reset(&peer.addr).await
    }

    /// Waits until nobody holds it for the owner of anything: who forgets an owner has slots without one.
    async fn wait_unowned(&self, view: &View, peer: &Peer) -> Result<(), Trouble> {
        let until = Instant::now() + CALM_LIMIT;
        let addrs = || view.peers.iter().map(|other| other.addr.clone());
        loop {
            let said = self.ask_all(addrs(), &[words(&["CLUSTER", "NODES"])]).await;
            let believes = |said: &Result<Vec<resp::Value>, Trouble>| match said {
                Ok(said) => {
                    let lines = said.first().map(|nodes| members::read(&text_of(nodes)));
                    let mut lines = lines.unwrap_or_default().into_iter();
                    lines.any(|line| line.id == peer.id && !line.slots.is_empty())
                }
                Err(_) => true,
            };
            let Some((addr, _)) = said.iter().find(|(_, said)| believes(said)) else {
                return Ok(());
            };
            if Instant::now() >= until {
                return Err(Trouble::State(format!(
                    "{addr} does not answer, or holds {} for an owner of slots: it is not let go",
                    peer.addr
                )));
            }
            sleep(LOOK).await;
        }
    }

    /// Makes an empty node new. It refuses when it has keys of its own.
    pub(crate) async fn reset(&self, addr: &NodeAddr) -> Result<(), Trouble> {
        self.link(addr)
            .await?
            .call(&["CLUSTER", "RESET", "HARD"])
            .await
            .map(drop)
    }

    /// Waits until a node that owns nothing sends nobody away any more.
    async fn wait_calm(&self, addr: &NodeAddr) -> Result<(), Trouble> {
        let mut link = self.link(addr).await?;
        let until = Instant::now() + CALM_LIMIT;
        let (mut known, mut since) = (String::new(), Instant::now());
        while since.elapsed() < CALM && Instant::now() < until {
            let stats = text_of(&link.call(&["INFO", "errorstats"]).await?);
            let now = field(&stats, "errorstat_MOVED")
                .unwrap_or_default()
                .to_owned();
            if now != known {
                (known, since) = (now, Instant::now());
            }
            sleep(LOOK).await;
        }
        Ok(())
    }
}
