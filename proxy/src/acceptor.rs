//! Accepting connections: how many, how many at once in their handshake, and which worker.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd, RawFd},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
};

use crate::{
    config::{ClusterId, Limits},
    contract::{Shutdown, WorkerHandle},
    metrics::{HandshakeResult, WorkerMetrics},
};

mod arrivals;
mod places;

pub(crate) use arrivals::ARRIVALS;
pub use arrivals::Arrival;
use arrivals::Arrivals;
pub use places::Admission;
use places::{Full, Places};

/// Connections that the system keeps for us while we are busy.
const BACKLOG: i32 = 4096;
/// Silence on a connection after which the system asks whether the client is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// A pause when the system has no descriptors left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// A handshake that takes longer gives way when all places are taken: several times what a good
/// one takes, half way around the world or in a burst of others.
const HANDSHAKE_PATIENCE: Duration = Duration::from_millis(250);
/// Between two lines about the same trouble.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// A port that clients come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `[listen] address`.
    Main,
    /// `[reads] address`.
    Reads,
}

/// A port, and the cluster that it belongs to; `None` is everyone's.
pub type Entrance = (Door, Option<ClusterId>);

/// A connection on its way to a worker.
#[derive(Debug)]
pub struct Accepted<S = TcpStream> {
    /// Non-blocking, without delay, with keepalive.
    pub stream: S,
    /// The client's address.
    pub peer: SocketAddr,
    /// Which port it came to.
    pub door: Door,
    /// Whose port that is; `None` is everyone's.
    pub cluster: Option<ClusterId>,
    /// Its place among the clients, and among the handshakes.
    pub admission: Admission,
    /// Until the worker has begun with it; others are given to it then.
    pub arrival: Option<Arrival>,
}

impl<S> Accepted<S> {
    /// The same client, its connection made into something else.
    ///
    /// # Errors
    /// That of `make`.
    pub fn try_map<T>(self, make: impl FnOnce(S) -> io::Result<T>) -> io::Result<Accepted<T>> {
        Ok(Accepted {
            stream: make(self.stream)?,
            peer: self.peer,
            door: self.door,
            cluster: self.cluster,
            admission: self.admission,
            arrival: self.arrival,
        })
    }
}

/// Binds a listening socket, tuned for the clients that come to it; with `shared`, other processes may bind it too.
///
/// # Errors
/// The address is in use, or not this machine's.
pub fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    tune(&socket)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Gives each connection to the worker with the fewest of those that are not busy with new ones, whichever
/// port it came to; all ports together have `clients_max` places.
#[derive(Debug)]
pub struct Acceptor<W> {
    places: Arc<Places>,
    arrivals: Arc<Arrivals>,
    workers: Vec<W>,
    /// Counts who is not let in.
    metrics: Mutex<WorkerMetrics>,
}

impl<W: WorkerHandle> Acceptor<W> {
    /// Gives connections to these workers.
    pub fn new(workers: Vec<W>, limits: &Limits, metrics: WorkerMetrics) -> Self {
        let new = Self {
            places: Places::new(
                limits.clients_max,
                limits.handshakes_max,
                HANDSHAKE_PATIENCE,
            ),
            arrivals: Arrivals::new(workers.len()),
            workers,
            metrics: Mutex::new(metrics),
        };
        new.set_limits(limits);
        new
    }

    /// Has other limits from now on.
    pub fn set_limits(&self, limits: &Limits) {
        self.places.resize(limits);
    }

    /// Clients that there are, with those in their handshake.
    pub fn clients(&self) -> usize {
        self.places.clients()
    }

    /// Accepts at one port until no more clients are to come there. Whose port it is may change.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub async fn run(
        self: Arc<Self>,
        listener: TcpListener,
        entrance: watch::Receiver<Entrance>,
        shutdown: Shutdown,
    ) -> io::Result<()> {
        let listener = Listener {
            tuned: is_tuned(&listener)?,
            socket: listener,
        };
        #[expect(
            deprecated,
            reason = "deprecated for what may change its descriptor; a listener does not, and the replacement is an \
                      unsafe fn"
        )]
        let listener = AsyncFd::with_interest(listener, Interest::READABLE)?;
        tokio::select! {
            () = self.accept_all(&listener, &entrance) => {}
            () = shutdown.shut() => {}
        }
        // Who has connected already would get a reset when the socket closes.
        let listener = listener.into_inner();
        loop {
            match listener.accept() {
                Ok((stream, peer)) => {
                    self.admit(stream, peer, *entrance.borrow());
                }
                Err(error) if is_the_clients(&error) => {}
                Err(_) => break, // nobody is left
            }
        }
        Ok(())
    }

    async fn accept_all(&self, listener: &AsyncFd<Listener>, entrance: &watch::Receiver<Entrance>) {
        let (mut full, mut exhausted) = (Seldom::default(), Seldom::default());
        loop {
            self.arrivals.room().await;
            self.places.handshake_place().await;
            let (stream, peer) = match listener
                .async_io(Interest::READABLE, Listener::accept)
                .await
            {
                Ok(accepted) => accepted,
                Err(error) if is_the_clients(&error) => continue,
                Err(error) => {
                    if exhausted.is_time() {
                        tracing::warn!(%error, "cannot accept connections; raise the limit of open files");
                    }
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                    continue;
                }
            };
            let entrance = *entrance.borrow();
            if !self.admit(stream, peer, entrance) && full.is_time() {
                tracing::warn!(
                    "no place for more clients; raise limits.clients_max or clients_per_address_max"
                );
            }
        }
    }

    /// Returns false when there is no place for one more.
    fn admit(&self, stream: TcpStream, peer: SocketAddr, (door, cluster): Entrance) -> bool {
        // Dropping the stream closes it.
        let admission = match self.places.admit(peer.ip()) {
            Ok(admission) => admission,
            Err(Full::All) => {
                self.count(HandshakeResult::NoPlace);
                return false;
            }
            Err(Full::Address) => {
                self.count(HandshakeResult::Address);
                return false;
            }
        };
        self.give(Accepted {
            stream,
            peer,
            door,
            cluster,
            admission,
            arrival: None,
        });
        true
    }

    fn count(&self, result: HandshakeResult) {
        let metrics = self.metrics.lock();
        let metrics = metrics.unwrap_or_else(PoisonError::into_inner);
        metrics.handshake(result);
    }

    fn give(&self, mut accepted: Accepted) {
        let fewest =
            |(index, worker): &(usize, &W)| (!self.arrivals.has_room(*index), worker.connections());
        if let Some((index, worker)) = self.workers.iter().enumerate().min_by_key(fewest) {
            accepted.arrival = Some(self.arrivals.arrives(index));
            worker.give(accepted);
        }
    }
}

/// The client went away before it was accepted: nothing is wrong with us.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
    )
}

/// A socket that listens. Linux gives what is accepted the options that it had when the client came.
#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    /// From the beginning, so that nobody has to be tuned alone. A socket that somebody else has bound may not be.
    tuned: bool,
}

impl Listener {
    /// One client, by one system call: tokio's would have it in this thread's epoll first, which is for its worker's.
    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (stream, peer) = acceptfrom_with(&self.socket, flags)?;
        if !self.tuned {
            tune(&stream).map_err(|_| io::ErrorKind::ConnectionAborted)?; // gone already
        }
        let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
        Ok((stream.into(), peer.try_into()?))
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Without delay, with keepalive.
fn tune(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))
}

fn is_tuned(socket: &TcpListener) -> io::Result<bool> {
    let socket = SockRef::from(socket);
    Ok(socket.tcp_nodelay()?
        && socket.keepalive()?
        && socket.tcp_keepalive_time()? == KEEPALIVE_AFTER)
}

/// For lines that say the same: once in a while.
#[derive(Debug, Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    fn is_time(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= SAY_AGAIN);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests;
