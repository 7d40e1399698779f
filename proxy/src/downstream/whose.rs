//! Which cluster's a client is: known from the port that it came to, from the name that it asks for, or
//! from the user that it names. Where there is one cluster, it is known from the start.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc};

use tokio::{io::AsyncWriteExt, time::timeout};

use super::{Counted, Failure, GOODBYE, Shaken, hello, lobby};
use crate::{
    config::ClusterId,
    metrics::HandshakeResult,
    net::Socket,
    tls::ServerTls,
    worker::{Hall, Worker},
};

/// What is known of it.
pub(super) struct Whose {
    worker: Option<Rc<Worker>>,
    /// It is counted among that cluster's.
    counted: Option<Counted>,
}

impl Whose {
    /// A client that has come to a port of this cluster's, or of everyone's; `None` when that cluster is
    /// gone.
    pub(super) fn new(cluster: Option<ClusterId>, hall: &Hall) -> Option<Self> {
        let mut whose = Self {
            worker: None,
            counted: None,
        };
        match cluster {
            Some(cluster) => whose.is(hall, cluster).then_some(whose),
            None => Some(whose),
        }
    }

    /// Returns whether there still is such a cluster.
    fn is(&mut self, hall: &Hall, cluster: ClusterId) -> bool {
        self.worker = hall.worker(cluster);
        self.counted = self.worker.as_ref().map(|worker| {
            worker.counters.connection_given();
            Counted(Arc::clone(&worker.counters))
        });
        self.worker.is_some()
    }

    /// Reads the client's hello, if it can tell something. Returns what was read.
    pub(super) async fn listen<S: Socket>(
        &mut self,
        hall: &Hall,
        stream: &mut S,
    ) -> Result<Vec<u8>, Failure> {
        let mut read = Vec::new();
        if self.worker.is_some() {
            return Ok(read);
        }
        let name = hello::read(stream, &mut read).await;
        let name = name.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => Failure::Tls(error),
            _ => Failure::Io(error),
        })?;
        let (named, users, usual) = {
            let directory = hall.directory();
            let named = name.as_deref().and_then(|name| directory.by_name(name));
            (named, directory.has_users(), directory.usual())
        };
        match named.or(usual.filter(|_| !users)) {
            Some(cluster) if self.is(hall, cluster) => {}
            None if users => {}
            _ => {
                let _ = timeout(GOODBYE, hello::refuse(stream)).await; // it is refused either way
                let asked = name.map_or_else(|| "(no name)".to_owned(), |name| printable(&name));
                return Err(Failure::NoCluster(asked));
            }
        }
        Ok(read)
    }

    /// The TLS that it is served by.
    pub(super) fn tls<'a>(&'a self, hall: &'a Hall) -> &'a ServerTls {
        match &self.worker {
            Some(worker) => &worker.downstream_tls,
            None => &hall.downstream_tls,
        }
    }

    /// Counts and tells why its handshake failed.
    pub(super) fn failed(&self, hall: &Hall, peer: SocketAddr, failure: &Failure) {
        self.count(hall, failure.result());
        if hall.log.allows() {
            let cluster = self.name();
            tracing::info!(client = %peer, cluster, reason = %failure, "TLS handshake failed");
        }
    }

    fn count(&self, hall: &Hall, result: HandshakeResult) {
        match &self.worker {
            Some(worker) => worker.metrics.handshake(result),
            None => hall.metrics.handshake(result),
        }
    }

    fn name(&self) -> Option<&str> {
        self.worker.as_ref()?.shared.name.as_deref()
    }

    /// After the handshake: waits until it is known, and looks whether that cluster lets it in. Returns
    /// the worker, the client, whether it must still say who it is, and what counts it as the cluster's.
    pub(super) async fn settle<S: Socket>(
        mut self,
        hall: &Hall,
        shaken: Shaken<S>,
        peer: SocketAddr,
    ) -> Option<(Rc<Worker>, Shaken<S>, bool, Option<Counted>)> {
        self.count(hall, HandshakeResult::Ok);
        let (mut stream, local, mut trust) = shaken;
        let mut stranger = false;
        if self.worker.is_none() {
            let certified = stream.peer_certificates();
            let certified = certified.and_then(|chain| hall.by_certificate(chain.first()?));
            let chosen = match certified {
                Some(cluster) => (cluster, false),
                None => self.ask(hall, &mut stream, peer).await?,
            };
            stranger = chosen.1;
            self.is(hall, chosen.0);
            let worker = self.worker.as_ref()?;
            // It was let in by everyone's rules, and the cluster may have stricter ones.
            let tls = worker.downstream_tls.current();
            trust = tls.trust;
            if let Err(error) = tls.admits(stream.peer_certificates()) {
                if hall.log.allows() {
                    let cluster = self.name();
                    tracing::warn!(
                        client = %peer, cluster, reason = %error,
                        "a client named a user of a cluster that wants another certificate"
                    );
                }
                self.turn_away(hall, stream, lobby::REFUSED).await;
                return None;
            }
        }
        let worker = self.worker.clone()?;
        let config = worker.config.get();
        let several = config.tenant.is_some();
        if several && worker.shared.clients() > config.limits.clients_max {
            self.count(hall, HandshakeResult::NoPlace);
            if hall.log.allows() {
                let cluster = self.name();
                tracing::warn!(client = %peer, cluster, "no place for more clients of the cluster");
            }
            let full = "ERR max number of clients reached";
            self.turn_away(hall, stream, full).await;
            return None;
        }
        Some((
            worker,
            (stream, local, trust),
            stranger,
            self.counted.take(),
        ))
    }

    /// The cluster that the client chooses by its first user, in time.
    async fn ask<S: Socket>(
        &self,
        hall: &Hall,
        stream: &mut super::Secured<S>,
        peer: SocketAddr,
    ) -> Option<(ClusterId, bool)> {
        let within = hall.config.get().limits.auth_timeout;
        let chosen = tokio::select! {
            biased;
            chosen = lobby::choose(hall, stream, peer) => chosen.ok().flatten(),
            () = tokio::time::sleep(within) => None,
            () = hall.shutdown.shut() => None,
        };
        if chosen.is_none() {
            let _ = timeout(GOODBYE, stream.shutdown()).await; // it is over either way
        }
        chosen
    }

    async fn turn_away<S: Socket>(
        &self,
        hall: &Hall,
        mut stream: Box<super::Secured<S>>,
        text: &str,
    ) {
        let goodbye = async {
            lobby::say(hall, &mut stream, text).await?;
            stream.shutdown().await?;
            stream.socket().flush().await
        };
        let _ = timeout(GOODBYE, goodbye).await; // it is refused either way
    }
}

/// A name that a client has sent, for a line in the log.
pub(super) fn printable(name: &str) -> String {
    let few = name.chars().take(100);
    few.map(|char| if char.is_ascii_graphic() { char } else { '?' })
        .collect()
}
