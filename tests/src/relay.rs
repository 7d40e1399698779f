//! A TCP relay between Keyway and one node: it adds latency, stalls, swallows, and cuts.
//!
//! The node announces the relay's port to clients, so Keyway knows no other; the nodes reach each
//! other and the tests reach them without it. Two threads per direction: one reads, one writes when
//! the time has come, so latency does not cost throughput. Knows nothing of what it carries.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::ports::{self, Port};

/// Chunks on their way in one direction; more wait in the sockets.
const CHUNKS_MAX: usize = 1_024;
const CHUNK_BYTES: usize = 16 * 1024;
/// How soon a thread that waits for bytes sees that its relay ended.
const GLANCE: Duration = Duration::from_millis(100);

/// Where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// From Keyway to the node.
    Node,
    /// From the node to Keyway.
    Client,
}

#[derive(Debug, Default)]
struct Faults {
    target: Option<u16>,
    latency: Duration,
    stalled: bool,
    silent: bool,
    /// After how many more bytes a connection is cut, once.
    cut: Option<(Toward, usize)>,
    ended: bool,
}

/// One connection: its two sockets. Without the second the node was never asked.
type Pair = (TcpStream, Option<TcpStream>);

#[derive(Debug, Default)]
struct State {
    faults: Mutex<Faults>,
    changed: Condvar,
    pairs: Mutex<Vec<Pair>>,
    accepted: AtomicU64,
}

/// A relay with a port of its own; it ends, and all its connections with it, when dropped.
#[derive(Debug)]
pub struct Relay {
    port: Port,
    state: Arc<State>,
}

impl Relay {
    /// Listens, and takes connections for nobody until [`Self::point_at`].
    ///
    /// # Panics
    /// The port cannot be bound.
    #[must_use]
    pub fn listen() -> Self {
        let port = ports::reserve();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).expect("a port");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || shared.accept(&listener));
        Self { port, state }
    }

    /// Carries new connections to this port.
    pub fn point_at(&self, port: u16) {
        self.state.faults().target = Some(port);
    }

    /// `host:port` to connect to.
    #[must_use]
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Connections taken until now.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.state.accepted.load(Ordering::Relaxed)
    }

    /// Every byte takes this much longer, in each direction.
    pub fn set_latency(&self, latency: Duration) {
        self.state.faults().latency = latency;
    }

    /// While stalled, bytes wait, in both directions; then they go on.
    pub fn stall(&self, on: bool) {
        self.state.faults().stalled = on;
        self.state.changed.notify_all();
    }

    /// While silent, bytes and the ends of connections vanish, and new connections are taken and
    /// lead nowhere. Whatever connection was there is cut when the silence ends.
    pub fn silence(&self, on: bool) {
        let was = std::mem::replace(&mut self.state.faults().silent, on);
        self.state.changed.notify_all();
        if was && !on {
            self.cut();
        }
    }

    /// Cuts a connection after `bytes` more in that direction: the one that carries the last of them.
    pub fn cut_after(&self, toward: Toward, bytes: usize) {
        self.state.faults().cut = Some((toward, bytes));
    }

    /// Whether what [`Self::cut_after`] asked for is still to happen.
    #[must_use]
    pub fn cut_is_due(&self) -> bool {
        self.state.faults().cut.is_some()
    }

    /// Cuts all connections now.
    pub fn cut(&self) {
        for (client, node) in self.state.pairs().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = node.map(|node| node.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.faults().ended = true;
        self.state.changed.notify_all();
        self.cut();
        // The listener's thread waits in accept.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port.number()));
    }
}

impl State {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().expect("the relay's faults")
    }

    fn pairs(&self) -> MutexGuard<'_, Vec<Pair>> {
        self.pairs.lock().expect("the relay's connections")
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.faults().ended {
                return;
            }
            let Ok(client) = client else { continue };
            self.accepted.fetch_add(1, Ordering::Relaxed);
            let _ = client.set_nodelay(true);
            let (silent, target) = {
                let faults = self.faults();
                (faults.silent, faults.target)
            };
            let node = match target {
                Some(port) if !silent => match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                    Ok(node) => Some(node),
                    // As the node itself would: nobody is there.
                    Err(_) => continue,
                },
                _ => None,
            };
            self.carry(client, node);
        }
    }

    fn carry(self: &Arc<Self>, client: TcpStream, node: Option<TcpStream>) {
        if let Some(node) = &node {
            let _ = node.set_nodelay(true);
            for (from, to, toward) in [
                (&client, node, Toward::Node),
                (node, &client, Toward::Client),
            ] {
                let (from, to) = (copy(from), copy(to));
                let (chunks, due) = sync_channel(CHUNKS_MAX);
                let (reader, writer) = (Arc::clone(self), Arc::clone(self));
                thread::spawn(move || reader.read(from, &chunks));
                thread::spawn(move || writer.write(to, toward, &due));
            }
        }
        self.pairs().push((client, node));
    }

    fn read(&self, mut from: TcpStream, chunks: &SyncSender<(Instant, Vec<u8>)>) {
        let _ = from.set_read_timeout(Some(GLANCE));
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = match from.read(&mut chunk) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.faults().ended {
                        return;
                    }
                    continue;
                }
                Err(_) => 0,
            };
            if self.wait_for_sound(count) {
                continue;
            }
            if count == 0
                || chunks
                    .send((Instant::now(), chunk[..count].to_vec()))
                    .is_err()
            {
                return;
            }
        }
    }

    /// While silent, bytes are lost, and the end of a connection is held back. True when these were.
    fn wait_for_sound(&self, count: usize) -> bool {
        let mut faults = self.faults();
        if !faults.silent || count > 0 {
            return faults.silent;
        }
        while faults.silent && !faults.ended {
            faults = self.changed.wait(faults).expect("the relay's faults");
        }
        false
    }

    fn write(&self, mut to: TcpStream, toward: Toward, due: &Receiver<(Instant, Vec<u8>)>) {
        while let Ok((read, mut chunk)) = due.recv() {
            let latency = self.faults().latency;
            let left = (read + latency).saturating_duration_since(Instant::now());
            if !left.is_zero() {
                thread::sleep(left);
            }
            let (lost, cut) = self.pass(toward, chunk.len());
            if lost {
                continue;
            }
            chunk.truncate(cut.unwrap_or(chunk.len()));
            if to.write_all(&chunk).is_err() || cut.is_some() {
                self.cut_pair(&to);
                return;
            }
        }
        // The other side ended; what it had said is written.
        let _ = to.shutdown(Shutdown::Write);
    }

    /// Waits while stalled. Whether the bytes are lost, and after how many of them to cut.
    fn pass(&self, toward: Toward, bytes: usize) -> (bool, Option<usize>) {
        let mut faults = self.faults();
        while faults.stalled && !faults.ended {
            faults = self.changed.wait(faults).expect("the relay's faults");
        }
        let silent = faults.silent;
        match &mut faults.cut {
            Some((direction, left)) if *direction == toward && !silent => {
                if bytes < *left {
                    *left -= bytes;
                    return (false, None);
                }
                let at = *left;
                faults.cut = None;
                (false, Some(at))
            }
            _ => (silent, None),
        }
    }

    /// Cuts the connection that `socket` belongs to.
    fn cut_pair(&self, socket: &TcpStream) {
        let ends = |socket: &TcpStream| Some((socket.local_addr().ok()?, socket.peer_addr().ok()?));
        let own = ends(socket);
        let mut pairs = self.pairs();
        let place = pairs.iter().position(|(client, node)| {
            own.is_some() && (ends(client) == own || node.as_ref().and_then(ends) == own)
        });
        let pair = place.map(|place| pairs.swap_remove(place));
        if let Some((client, node)) = pair {
            let _ = client.shutdown(Shutdown::Both);
            let _ = node.map(|node| node.shutdown(Shutdown::Both));
        }
        let _ = socket.shutdown(Shutdown::Both);
    }
}

fn copy(socket: &TcpStream) -> TcpStream {
    socket.try_clone().expect("a file descriptor")
}
