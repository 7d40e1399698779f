//! The ports: which there are to be, how they are bound, and how they come, go and change hands while
//! Keyway runs. Who may come in there is the acceptor's business.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::sync::watch;

use super::StartError;
use crate::{
    acceptor::{self, Door, Entrance},
    config::{ClusterId, Config},
    contract::{Part, Shutdown, Stage, Stages},
    systemd::Given,
};

/// A port that has just been given up may be ours for so many looks more, ..
const LOOKS_MAX: u32 = 20;
/// .. with so long between two.
const LOOK: Duration = Duration::from_millis(25);

/// The listening sockets.
#[derive(Debug)]
pub struct Bound {
    pub(super) clients: Vec<(Entrance, TcpListener)>,
    pub(super) admin: TcpListener,
}

/// Where clients come, with the key that says so. The first is `listen.address`.
pub(crate) fn entrances(config: &Config) -> Vec<(Entrance, &'static str, SocketAddr)> {
    // To everyone's ports, if there are several clusters.
    let of_all = config.clusters.is_empty().then_some(ClusterId::FIRST);
    let mut all = vec![(
        (Door::Main, of_all),
        "listen.address",
        config.listen.address,
    )];
    let reads = config.reads.address;
    all.extend(reads.map(|address| ((Door::Reads, of_all), "reads.address", address)));
    for (id, own) in config.of_each() {
        let Some(tenant) = &own.tenant else { continue };
        if tenant.own_port {
            let door = (Door::Main, Some(id));
            all.push((door, "cluster.listen.address", own.listen.address));
        }
        let reads = own.reads.address.filter(|_| tenant.own_read_port);
        let door = (Door::Reads, Some(id));
        all.extend(reads.map(|address| (door, "cluster.reads.address", address)));
    }
    all
}

impl Bound {
    /// Binds all, or none.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        let mut given = Given::take().map_err(StartError::Given)?;
        let mut bind = |key, address| {
            if let Some(listener) = given.bound_to(address) {
                return Ok(listener);
            }
            acceptor::bind(address, config.listen.reuse_port)
                .map_err(|error| cannot_bind(key, address, error))
        };
        let mut clients = Vec::new();
        for (entrance, key, address) in entrances(config) {
            clients.push((entrance, bind(key, address)?));
        }
        let admin = bind("admin.address", config.admin.address)?;
        if let Some(address) = given.left().next() {
            return Err(StartError::Unused(address));
        }
        Ok(Self { clients, admin })
    }

    /// Writes the ports that the system chose into the configuration.
    ///
    /// # Errors
    /// The system does not say.
    pub fn tell(&self, config: &mut Config) -> io::Result<()> {
        let mut bound = Vec::new();
        for (entrance, listener) in &self.clients {
            bound.push((*entrance, listener.local_addr()?));
        }
        tell(config, &bound);
        Ok(())
    }

    /// Where clients connect.
    ///
    /// # Errors
    /// The system does not say.
    pub fn clients_address(&self) -> io::Result<SocketAddr> {
        let first = self.clients.first();
        let (_, listener) = first.ok_or_else(|| io::Error::other("nothing is bound"))?;
        listener.local_addr()
    }

    /// Where metrics and probes are.
    ///
    /// # Errors
    /// The system does not say.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }
}

fn cannot_bind(key: &'static str, address: SocketAddr, error: io::Error) -> StartError {
    StartError::Bind {
        key,
        address,
        advice: match error.kind() {
            io::ErrorKind::AddrInUse => "; end what listens there, or choose another port",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges",
            io::ErrorKind::AddrNotAvailable => "; no interface of this machine has it",
            _ => "",
        },
        error,
    }
}

/// Writes where it is listened into the configuration.
fn tell(config: &mut Config, bound: &[(Entrance, SocketAddr)]) {
    for ((door, cluster), address) in bound {
        let of_all = cluster.is_none() || config.clusters.is_empty();
        if of_all {
            tell_one(config, *door, *address);
        }
        for own in &mut config.clusters {
            let Some(tenant) = own.tenant.clone() else {
                continue;
            };
            let shared = match door {
                Door::Main => !tenant.own_port,
                Door::Reads => !tenant.own_read_port && own.reads.address.is_some(),
            };
            if *cluster == Some(tenant.id) || (of_all && shared) {
                tell_one(Arc::make_mut(own), *door, *address);
            }
        }
    }
}

fn tell_one(config: &mut Config, door: Door, address: SocketAddr) {
    match door {
        Door::Main => config.listen.address = address,
        Door::Reads => config.reads.address = Some(address),
    }
}

/// Ports that are listened at, by their addresses.
#[derive(Debug, Default)]
pub(super) struct Doors(BTreeMap<SocketAddr, Opened>);

/// One of them. It closes when this is dropped.
#[derive(Debug)]
struct Opened {
    entrance: watch::Sender<Entrance>,
    part: Part,
}

/// Ports that are bound, and at which nobody is accepted yet.
pub(super) type Fresh = Vec<(Entrance, TcpListener)>;

impl Doors {
    /// Binds what a configuration has and is not there, and writes the ports that the system chose into it.
    pub(super) fn prepare(&self, config: &mut Config) -> Result<Fresh, StartError> {
        let (mut fresh, mut bound) = (Fresh::new(), Vec::new());
        for (entrance, key, address) in entrances(config) {
            if self.0.contains_key(&address) {
                bound.push((entrance, address));
                continue;
            }
            let listener = bind_again(address, config.listen.reuse_port);
            let listener = listener.map_err(|error| cannot_bind(key, address, error))?;
            bound.push((entrance, listener.local_addr()?));
            fresh.push((entrance, listener));
        }
        tell(config, &bound);
        Ok(fresh)
    }

    /// Opens new ones, gives those that belong to another now to it, and closes those that a configuration
    /// does not have.
    pub(super) fn settle(
        &mut self,
        config: &Config,
        fresh: Fresh,
        stages: &Stages,
        mut accept: impl FnMut(TcpListener, watch::Receiver<Entrance>, Shutdown),
    ) -> io::Result<()> {
        let wanted: BTreeMap<SocketAddr, Entrance> = entrances(config)
            .into_iter()
            .map(|(entrance, _, address)| (address, entrance))
            .collect();
        self.0.retain(|address, opened| {
            let entrance = wanted.get(address);
            match entrance {
                Some(entrance) => drop(opened.entrance.send_replace(*entrance)),
                None => opened.part.enter(Stage::Shut),
            }
            entrance.is_some()
        });
        for (entrance, listener) in fresh {
            let address = listener.local_addr()?;
            let (part, shutdown) = stages.part();
            let (entrance, whose) = watch::channel(entrance);
            accept(listener, whose, shutdown);
            self.0.insert(address, Opened { entrance, part });
        }
        Ok(())
    }
}

/// Binds an address that may have been ours until now: its socket is closed by another thread.
pub(super) fn bind_again(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let mut looks = 0;
    loop {
        match acceptor::bind(address, shared) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && looks < LOOKS_MAX => {
                looks += 1;
                thread::sleep(LOOK);
            }
            result => return result,
        }
    }
}
