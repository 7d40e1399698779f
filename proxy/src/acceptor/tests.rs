//! Real sockets, and workers that only collect.

use std::{
    io::Read,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
};

use tokio::{task::JoinHandle, time::timeout};

use super::*;
use crate::{
    contract::{Stage, WorkerContext},
    metrics::Metrics,
};

#[derive(Clone, Debug, Default)]
struct Collector {
    taken: Arc<Mutex<Vec<Accepted>>>,
    connections: Arc<AtomicUsize>,
    /// It begins with nobody whom it is given.
    busy: Arc<AtomicBool>,
}

impl WorkerHandle for Collector {
    fn give(&self, mut accepted: Accepted) {
        if !self.busy.load(Relaxed) {
            accepted.arrival = None;
        }
        self.connections.fetch_add(1, Relaxed);
        self.taken.lock().unwrap().push(accepted);
    }

    fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    fn open(&self, _: WorkerContext, _: mpsc::Sender<()>) {}
}

struct World {
    address: SocketAddr,
    workers: Vec<Collector>,
    metrics: Metrics,
    stop: tokio::sync::watch::Sender<Stage>,
    running: JoinHandle<io::Result<()>>,
}

fn start(clients_max: usize, handshakes_max: usize) -> World {
    let listener = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    start_at(listener, clients_max, handshakes_max)
}

fn start_at(listener: TcpListener, clients_max: usize, handshakes_max: usize) -> World {
    let address = listener.local_addr().unwrap();
    let workers = vec![Collector::default(), Collector::default()];
    let limits = Limits {
        clients_max,
        handshakes_max,
        ..Limits::default()
    };
    let metrics = Metrics::new([]);
    let (stop, shutdown) = Shutdown::new();
    let acceptor = Acceptor::new(workers.clone(), &limits, metrics.worker());
    let (_, entrance) = watch::channel((Door::Main, None));
    let running = Arc::new(acceptor).run(listener, entrance, shutdown);
    World {
        address,
        workers,
        metrics,
        stop,
        running: tokio::spawn(running),
    }
}

impl World {
    async fn connect(&self) -> TcpStream {
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        stream.into_std().unwrap()
    }

    fn given(&self) -> usize {
        self.workers.iter().map(Collector::connections).sum()
    }

    async fn wait_given(&self, count: usize) {
        let given = async {
            while self.given() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(5), given).await.unwrap();
    }
}

/// Whether the other side closes the connection within half a second.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(false).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    matches!(stream.read(&mut [0]), Ok(0))
}

#[tokio::test]
async fn workers_get_alike_many() {
    let world = start(100, 100);
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(world.connect().await);
    }
    world.wait_given(10).await;
    for worker in &world.workers {
        assert_eq!(worker.connections(), 5);
    }
}

#[tokio::test]
async fn clients_are_tuned_whoever_bound_the_port() {
    let ours = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let systemds = TcpListener::bind("127.0.0.1:0").unwrap();
    systemds.set_nonblocking(true).unwrap();
    for listener in [ours, systemds] {
        // One is there before we are.
        let early = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let world = start_at(listener, 100, 100);
        world.wait_given(1).await;
        let _clients = (early, world.connect().await);
        world.wait_given(2).await;
        for worker in &world.workers {
            let taken = worker.taken.lock().unwrap();
            let socket = SockRef::from(&taken[0].stream);
            assert!(socket.tcp_nodelay().unwrap());
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_AFTER);
            assert!(socket.nonblocking().unwrap());
        }
    }
}

#[tokio::test]
async fn a_worker_that_is_busy_gets_no_new_clients() {
    let world = start(100, 100);
    let [busy, idle] = &world.workers[..] else {
        panic!("two workers");
    };
    busy.busy.store(true, Relaxed);
    let mut clients = Vec::new();
    for count in 1..=3 * ARRIVALS {
        clients.push(world.connect().await);
        world.wait_given(count).await;
    }
    assert_eq!(busy.connections(), ARRIVALS);
    assert_eq!(idle.connections(), 2 * ARRIVALS);

    // Nobody has time: the system keeps them, and they come in when somebody has.
    idle.busy.store(true, Relaxed);
    for _ in 0..2 * ARRIVALS {
        clients.push(world.connect().await);
    }
    world.wait_given(4 * ARRIVALS).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(world.given(), 4 * ARRIVALS);
    for accepted in &mut *busy.taken.lock().unwrap() {
        accepted.arrival = None;
    }
    world.wait_given(5 * ARRIVALS).await;
    assert_eq!(idle.connections(), 3 * ARRIVALS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_place_is_closed_and_counted() {
    let world = start(2, 100);
    let _kept = (world.connect().await, world.connect().await);
    world.wait_given(2).await;
    let mut third = world.connect().await;
    assert!(is_closed(&mut third));
    assert_eq!(world.given(), 2);
    let page = world.metrics.page();
    assert!(
        page.contains("keyway_handshakes_total{result=\"no_place\"} 1\n"),
        "{page}"
    );
    world.workers[0].taken.lock().unwrap().clear();
    let _fourth = world.connect().await;
    world.wait_given(3).await;
}

#[tokio::test]
async fn stalled_handshakes_keep_nobody_out() {
    let world = start(100, 2);
    let began = Instant::now();
    let mut stalled = Vec::new();
    for _ in 0..2 {
        stalled.push(world.connect().await);
    }
    let _good = world.connect().await;
    world.wait_given(3).await;
    assert!(
        began.elapsed() >= HANDSHAKE_PATIENCE / 5,
        "pushed out too soon"
    );
    let first = world.workers[0].taken.lock().unwrap().remove(0);
    timeout(Duration::from_secs(1), first.admission.evicted())
        .await
        .unwrap();
}

#[tokio::test]
async fn the_end_closes_the_port() {
    let world = start(10, 10);
    world.stop.send_replace(Stage::Over);
    world.running.await.unwrap().unwrap();
    assert!(TcpStream::connect(world.address).is_err());
}
