//! Accepting connections: how many, how many at once in their handshake, and which worker.

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::sync::Notify;

use crate::contract::{Shutdown, WorkerHandle};

/// Connections that the system keeps for us while we are busy.
const BACKLOG: i32 = 4096;
/// Silence on a connection after which the system asks whether the client is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// A pause when the system has no descriptors left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A connection on its way to a worker.
#[derive(Debug)]
pub struct Accepted {
    /// Non-blocking, without delay, with keepalive.
    pub stream: TcpStream,
    /// The client's address.
    pub peer: SocketAddr,
    /// Its place among the clients, and among the handshakes.
    pub admission: Admission,
}

/// How many there are.
#[derive(Debug)]
struct Places {
    clients: AtomicUsize,
    clients_max: usize,
    handshakes_max: usize,
    /// Handshakes in progress, oldest first; those that are done are dropped on the way.
    handshakes: Mutex<VecDeque<Arc<Handshake>>>,
}

#[derive(Debug, Default)]
struct Handshake {
    over: AtomicBool,
    evicted: Notify,
}

/// A client's place. Dropping it gives the place back.
#[derive(Debug)]
pub struct Admission {
    places: Arc<Places>,
    handshake: Arc<Handshake>,
}

impl Admission {
    /// Waits until the acceptor wants this handshake's place for another client.
    pub async fn evicted(&self) {
        self.handshake.evicted.notified().await;
    }

    /// The handshake is over, well or not.
    pub fn handshake_done(&mut self) {
        if !self.handshake.over.swap(true, Relaxed) {
            let mut waiting = self
                .places
                .handshakes
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            waiting.retain(|handshake| !Arc::ptr_eq(handshake, &self.handshake));
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.handshake_done();
        self.places.clients.fetch_sub(1, Relaxed);
    }
}

impl Places {
    /// A place for one more client; `None` when there is none. A handshake beyond the limit takes
    /// the place of the oldest: who stalls must not keep others out.
    fn admit(self: &Arc<Self>) -> Option<Admission> {
        if self.clients.fetch_add(1, Relaxed) >= self.clients_max {
            self.clients.fetch_sub(1, Relaxed);
            return None;
        }
        let handshake = Arc::new(Handshake::default());
        let mut waiting = self
            .handshakes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= self.handshakes_max
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.over.store(true, Relaxed);
            oldest.evicted.notify_one();
        }
        waiting.push_back(Arc::clone(&handshake));
        drop(waiting);
        Some(Admission {
            places: Arc::clone(self),
            handshake,
        })
    }
}

/// Binds the listening socket.
///
/// # Errors
/// The address is in use, or not this machine's.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Accepts until the end, and gives each connection to the worker with the fewest.
pub async fn run<W: WorkerHandle>(
    listener: TcpListener,
    workers: Vec<W>,
    (clients_max, handshakes_max): (usize, usize),
    shutdown: Shutdown,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Places {
        clients: AtomicUsize::new(0),
        clients_max,
        handshakes_max,
        handshakes: Mutex::default(),
    });
    let mut full = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.requested() => return Ok(()),
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // The client gave up already, or the system has no descriptors: the rest goes on.
                tracing::warn!(%error, "cannot accept a connection; raise the limit of open files?");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        let Some(admission) = places.admit() else {
            if !full {
                tracing::warn!(
                    clients_max,
                    "no place for more clients; raise limits.clients_max"
                );
            }
            full = true;
            continue; // dropping the stream closes it
        };
        full = false;
        let Ok(stream) = stream
            .into_std()
            .and_then(|stream| tune(&stream).map(|()| stream))
        else {
            continue; // gone already
        };
        if let Some(worker) = workers.iter().min_by_key(|worker| worker.connections()) {
            worker.give(Accepted {
                stream,
                peer,
                admission,
            });
        }
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(clients_max: usize, handshakes_max: usize) -> Arc<Places> {
        let clients = AtomicUsize::new(0);
        Arc::new(Places {
            clients,
            clients_max,
            handshakes_max,
            handshakes: Mutex::default(),
        })
    }

    #[test]
    fn a_place_comes_back() {
        let places = places(2, 10);
        let (one, _two) = (places.admit().unwrap(), places.admit().unwrap());
        assert!(places.admit().is_none());
        drop(one);
        assert!(places.admit().is_some());
        assert_eq!(places.handshakes.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn the_oldest_handshake_makes_room() {
        let places = places(10, 2);
        let (first, mut second) = (places.admit().unwrap(), places.admit().unwrap());
        second.handshake_done();
        let third = places.admit().unwrap();
        let _fourth = places.admit().unwrap();
        first.evicted().await;
        drop(first);
        assert!(!third.handshake.over.load(Relaxed));
    }
}
