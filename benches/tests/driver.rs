//! The whole generator against a small server in this process that lies on demand.
#![allow(
    clippy::indexing_slicing,
    reason = "a test's server: a wrong index fails the test"
)]

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use keyway_bench::{Args, Report, Settings, Stage};
use resp::{OwnedRequest, RequestDecoder, RequestLimits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the server does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Lie {
    None,
    /// Once in a while answers a GET with the last GET's reply.
    Stale,
    /// Closes connections after some requests.
    Close,
    /// Stands still for a second, two seconds after its start.
    Stall,
}

type Store = Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>;

/// A server on a thread of its own; ends with the process.
fn server(lie: Lie) -> SocketAddr {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            send.send(listener.local_addr().expect("bound"))
                .expect("a test");
            let store = Store::default();
            let stall = Arc::new(Stall(Instant::now(), AtomicBool::new(false)));
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, store.clone(), stall.clone(), lie));
            }
        });
    });
    receive.recv().expect("the server's address")
}

/// When the server is to stand still, and whether it has.
struct Stall(Instant, AtomicBool);

impl Stall {
    fn elapsed(&self) -> bool {
        self.0.elapsed() > Duration::from_secs(2)
    }
}

async fn serve(mut socket: TcpStream, store: Store, stall: Arc<Stall>, lie: Lie) {
    let mut decoder = RequestDecoder::new(RequestLimits::AUTHENTICATED);
    let mut buf = Vec::new();
    let mut last = b"$-1\r\n".to_vec();
    let mut requests = 0_u32;
    loop {
        let mut out = Vec::new();
        while let Some(len) = decoder.decode(&buf).expect("canonical requests") {
            let request = OwnedRequest::parse(buf[..len].to_vec()).expect("a request");
            let args: Vec<&[u8]> = request.as_request().args().collect();
            requests += 1;
            let reply = answer(&mut store.lock().expect("no panic"), &args);
            if args[0] == b"GET" && lie == Lie::Stale && requests.is_multiple_of(20) {
                out.extend_from_slice(&last);
            } else {
                out.extend_from_slice(&reply);
            }
            if args[0] == b"GET" {
                last = reply;
            }
            buf.drain(..len);
            decoder.next();
        }
        if lie == Lie::Stall && stall.elapsed() && !stall.1.swap(true, Ordering::Relaxed) {
            // Blocks the runtime's only thread: the whole server stands still.
            std::thread::sleep(Duration::from_secs(1));
        }
        if lie == Lie::Close && requests > 20 {
            return;
        }
        if socket.write_all(&out).await.is_err() {
            return;
        }
        match socket.read_buf(&mut buf).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
    }
}

fn answer(store: &mut HashMap<Vec<u8>, Vec<u8>>, args: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    match (args[0], store.get(args[1])) {
        (b"SET", _) => {
            store.insert(args[1].to_vec(), args[2].to_vec());
            resp::write::simple(&mut out, "OK");
        }
        (b"GET", Some(value)) => resp::write::bulk(&mut out, value),
        (b"GET", None) => out.extend_from_slice(b"$-1\r\n"),
        (b"ECHO", _) => resp::write::bulk(&mut out, args[1]),
        _ => resp::write::error(&mut out, b"ERR unknown command"),
    }
    out
}

fn load(address: SocketAddr, more: &str) -> Report {
    let line = format!(
        "load --plain --target {address} --keys 2000 --mix get=80,set=20 --warmup 0s --seed 5 {more}"
    );
    let args = Args::try_parse_from(line.split_whitespace()).expect("a command line");
    keyway_bench::run(Settings::new(&args).expect("settings")).expect("a run")
}

#[test]
fn an_honest_server_passes() {
    let report = load(
        server(Lie::None),
        "--clients 20 --pipeline 1..32 --value-bytes 64..20000 --duration 1s --threads 2",
    );
    assert!(report.passed(), "{report}");
    assert!(report.targets[0].requests > 1000, "{report}");
}

#[test]
fn a_reply_of_another_request_is_counted() {
    let report = load(server(Lie::Stale), "--clients 4 --pipeline 8 --duration 1s");
    assert!(!report.passed(), "{report}");
    assert!(report.mismatched() > 5, "{report}");
    assert!(!report.targets[0].mismatches.is_empty());
    let by_kind = &report.targets[0].mismatched_by_kind;
    assert!(by_kind.contains_key("swapped"), "{by_kind:?}");
}

#[test]
fn closed_connections_are_counted_and_made_again() {
    let report = load(
        server(Lie::Close),
        "--clients 4 --pipeline 4 --duration 1s --no-fill",
    );
    let target = &report.targets[0];
    assert!(!report.passed(), "{report}");
    assert!(target.closed.values().sum::<u64>() >= 2, "{report}");
    assert!(target.reconnected >= 2, "{report}");
    assert_eq!(report.mismatched(), 0, "{report}");
    let report = load(
        server(Lie::Close),
        "--clients 4 --pipeline 4 --duration 1s --no-fill --allow-errors",
    );
    assert!(report.passed(), "{report}");
}

#[test]
fn unknown_commands_are_errors_by_kind() {
    let report = load(
        server(Lie::None),
        "--clients 2 --duration 300ms --mix incr=1",
    );
    assert!(!report.passed(), "{report}");
    assert!(report.targets[0].errors.contains_key("ERR"), "{report}");
}

#[test]
fn a_stalled_second_shows_in_the_open_loop() {
    let report = load(
        server(Lie::Stall),
        "--clients 10 --rate 1000 --duration 5s --no-fill",
    );
    let target = &report.targets[0];
    assert!(report.passed(), "{report}");
    assert!((4500..5500).contains(&target.requests), "{report}");
    // One second in five: a tenth of all requests was due in its first half.
    assert!(target.latency_us.p90 > 300_000.0, "{report}");
    assert!(target.latency_us.p99 > 850_000.0, "{report}");
    // The same stall, in a closed loop, hides: ten requests saw it.
    let closed = load(server(Lie::Stall), "--clients 10 --duration 5s --no-fill");
    let hidden = closed.targets[0].latency_us.p99;
    assert!(hidden < target.latency_us.p99 / 2.0, "{closed}");
}

#[test]
fn a_duel_pairs_turns() {
    let first = server(Lie::None);
    let second = server(Lie::None);
    let pid = std::process::id();
    let report = load(
        first,
        &format!(
            "--target second={second},pid={pid} --clients 5 --duration 1s --turn 100ms --pipeline 4"
        ),
    );
    assert!(report.passed(), "{report}");
    assert_eq!(report.targets[1].turns, 10);
    let ratio = &report.ratios[0];
    assert_eq!(ratio.throughput.map(|ratio| ratio.count), Some(10));
    let mut turns = report.figures.iter();
    assert!(turns.all(|turn| turn.p50_us.is_some() && turn.p50_us <= turn.p99_us));
    assert!(report.targets[1].cpu.is_some());
    assert!(ratio.cpu.is_none(), "no pid of the reference");
}

#[test]
fn a_target_may_have_clients_of_its_own_and_every_stage_is_told() {
    let (first, second) = (server(Lie::None), server(Lie::None));
    let line = format!(
        "load --plain --target few={first} --target many={second},clients=30 --clients 3 \
         --duration 300ms --turn 100ms --keys 300 --mix get=1 --no-fill --shared 0"
    );
    let args = Args::try_parse_from(line.split_whitespace()).expect("a command line");
    let (mut stages, mut connections) = (Vec::new(), (0, 0));
    let report = keyway_bench::run_watched(Settings::new(&args).expect("settings"), &mut |stage| {
        stages.push(stage);
        connections = (established(first), established(second));
    })
    .expect("a run");
    assert!(report.passed(), "{report}");
    assert_eq!(
        stages,
        [Stage::Connected, Stage::Measuring, Stage::Measured]
    );
    assert_eq!(connections, (3, 30));
    assert_eq!(report.figures.len(), 6);
}

/// Connections that the server at `address` has.
fn established(address: SocketAddr) -> usize {
    let local = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc");
    let rows = table
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    let here = rows.filter(|row| row[1].ends_with(&local) && row[3] == "01");
    // A row may be told twice where other connections come and go meanwhile.
    here.map(|row| row[2].to_owned())
        .collect::<BTreeSet<_>>()
        .len()
}

#[test]
fn nobody_there_is_said() {
    let args = Args::try_parse_from(["load", "--plain", "--target", "127.0.0.1:1"]).expect("args");
    let error = keyway_bench::run(Settings::new(&args).expect("settings")).expect_err("refused");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[test]
fn bad_usage_is_named() {
    for (line, word) in [
        ("--target nowhere", "HOST:PORT"),
        ("--target 127.0.0.1:1", "--ca"),
        (
            "--target 127.0.0.1:1 --plain --value-bytes 10",
            "--value-bytes",
        ),
        ("--target 127.0.0.1:1 --plain --rate 0", "--rate"),
        ("--target 127.0.0.1:1,speed=9 --plain", "speed=9"),
        ("--target 127.0.0.1:1,clients=0 --plain", "clients=0"),
        ("--target 127.0.0.1:1 --ca /no/such.pem", "/no/such.pem"),
        ("--target 127.0.0.1:1,pid=4000000000 --plain", "4000000000"),
    ] {
        let words = std::iter::once("load").chain(line.split_whitespace());
        let args = Args::try_parse_from(words).expect("parses");
        let error = format!("{:#}", Settings::new(&args).expect_err(line));
        assert!(error.contains(word), "{line}: {error}");
    }
}
