//! What hostile or broken clients send gets the server's own error, or a closed connection, and
//! touches nobody else: a neighbour is served all the while.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use keyway_tests::{Client, Keyway, RealCluster, Settings, Traffic, Version, text, wait_until};

/// How long Keyway may take to close what it must close at once.
const AT_ONCE: Duration = Duration::from_secs(3);

/// A cluster of one node, Keyway with short patience, and a neighbour that is served all the time.
struct World {
    keyway: Keyway,
    neighbour: Traffic,
    _cluster: RealCluster,
}

impl World {
    fn start() -> Self {
        let cluster = RealCluster::start(Version::V9_1, 1, 0);
        let limits = "handshake_timeout_ms = 1000\nrequest_timeout_ms = 1500\nhandshakes_max = 64";
        let keyway = Keyway::with(
            &cluster,
            &Settings {
                limits: limits.to_owned(),
                ..Settings::default()
            },
        );
        let neighbour = Traffic::start(&keyway.addr(), keyway.ca(), 1, "neighbour");
        Self {
            keyway,
            neighbour,
            _cluster: cluster,
        }
    }

    /// The neighbour went on and saw nothing strange; Keyway did not panic.
    fn assert_unharmed(self) {
        self.neighbour.wait_rounds(20);
        let (problems, longest) = self.neighbour.stop();
        assert!(problems.is_empty(), "the neighbour: {problems:?}");
        assert!(
            longest < Duration::from_secs(2),
            "the neighbour waited {longest:?}"
        );
        assert!(
            !self.keyway.log().contains("panicked"),
            "{}",
            self.keyway.log()
        );
        assert_eq!(text(&self.keyway.client().cmd(&["PING"])), "PONG");
    }

    /// A TCP connection that says what it likes.
    fn tcp(&self) -> TcpStream {
        let socket = TcpStream::connect(self.keyway.addr()).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        socket
    }
}

/// Sends bytes on a fresh connection and returns everything until it is closed.
#[track_caller]
fn answer(keyway: &Keyway, bytes: &[u8]) -> String {
    let mut client = keyway.client();
    // The rest of a long stream may meet a closed connection.
    let _ = client.try_raw(bytes);
    let said = client.read_to_end(AT_ONCE);
    let said = said.unwrap_or_else(|| {
        panic!(
            "still open after {:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(60)])
        )
    });
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn protocol_errors_get_the_servers_own_words() {
    let world = World::start();
    for (bytes, said) in broken_requests() {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let expected = if said.is_empty() {
            String::new()
        } else {
            format!("-ERR Protocol error: {said}\r\n")
        };
        assert_eq!(answer(&world.keyway, &bytes), expected, "for {shown:?}");
        // Replies to what came before go out first, in order.
        let before = [b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n".as_slice(), &bytes].concat();
        let got = answer(&world.keyway, &before);
        let silent = said.is_empty() && got.is_empty();
        assert!(
            silent || got == format!("$2\r\nhi\r\n{expected}"),
            "ECHO and {shown:?}: {got:?}"
        );
    }
    world.assert_unharmed();
}

/// Requests that break the protocol, and what a server of 9.1 says before it closes; nothing where
/// it closes without a word.
fn broken_requests() -> Vec<(Vec<u8>, &'static str)> {
    let written: [(&str, &str); 15] = [
        ("*1\r\n$536870913\r\n", "invalid bulk length"),
        ("*1\r\n$-1\r\n", "invalid bulk length"),
        ("*1\r\n$+4\r\nPING\r\n", "invalid bulk length"),
        ("*1\r\n$04\r\nPING\r\n", "invalid bulk length"),
        ("*1\r\n$9223372036854775808\r\n", "invalid bulk length"),
        ("*2147483648\r\n", "invalid multibulk length"),
        ("*+1\r\n$4\r\nPING\r\n", "invalid multibulk length"),
        ("*01\r\n$4\r\nPING\r\n", "invalid multibulk length"),
        ("*99999999999999999999\r\n", "invalid multibulk length"),
        ("*1\r\n+PING\r\n", "expected '$', got '+'"),
        ("*1\r\n*1\r\n$4\r\nPING\r\n", "expected '$', got '*'"),
        ("*1\r\n$4\r\nPINGxx", "invalid CRLF in request"),
        ("SET \"unfinished\r\n", "unbalanced quotes in request"),
        ("POST / HTTP/1.1\r\nHost: x\r\n\r\n", ""),
        ("Host: x\r\n\r\n", ""),
    ];
    let long = "x".repeat(70_000);
    let made = [
        ("*1\r\n".repeat(100_000), "expected '$', got '*'"),
        (long.clone(), "too big inline request"),
        (format!("*1\r\n${long}"), "too big bulk count string"),
        (format!("*{long}"), "too big mbulk count string"),
    ];
    let written = written
        .into_iter()
        .map(|(bytes, said)| (bytes.to_owned(), said));
    written
        .chain(made)
        .map(|(bytes, said)| (bytes.into_bytes(), said))
        .collect()
}

#[test]
fn requests_without_a_reply_shift_nothing() {
    let world = World::start();
    let mut client = world.keyway.client();
    client.raw(b"*0\r\n\r\n*-1\r\n\r\n*-5\r\n  \r\nECHO one\r\n*1\r\n$4\r\nPING\r\n");
    assert_eq!(text(&client.read()), "one");
    assert_eq!(text(&client.read()), "PONG");
    // Every split of a request into two writes is the same request.
    let frame = b"*3\r\n$3\r\nSET\r\n$5\r\nsplit\r\n$6\r\na\r\nb\r\n\r\n";
    for at in 1..frame.len() {
        client.raw(&frame[..at]);
        client.raw(&frame[at..]);
        assert_eq!(text(&client.read()), "OK", "split at {at}");
    }
    assert_eq!(text(&client.cmd(&["GET", "split"])), "a\r\nb\r\n");
    world.assert_unharmed();
}

#[test]
fn clients_that_leave_in_the_middle_touch_nobody() {
    let world = World::start();
    let frame = b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$5\r\nvalue\r\n";
    for at in 0..frame.len() {
        let mut client = world.keyway.client();
        client.raw(&frame[..at]);
        client.abort();
    }
    for _ in 0..50 {
        // Gone with replies owed: they must be thrown away, not given to another.
        let mut client = world.keyway.client();
        let mut bytes = Vec::new();
        (0..100).for_each(|i| {
            resp::write::request(&mut bytes, &["ECHO".to_owned(), format!("owed {i}")])
        });
        (0..100).for_each(|i| {
            resp::write::request(&mut bytes, &["GET".to_owned(), format!("owed {i}")])
        });
        client.raw(&bytes);
        client.abort();
    }
    assert!(
        world.keyway.client().cmd(&["GET", "half"]).is_null(),
        "half a SET was run"
    );
    world.assert_unharmed();
}

#[test]
fn a_request_that_never_ends_is_cut_off() {
    let world = World::start();
    for half in [
        b"*2\r\n$3\r\nGET\r\n".as_slice(),
        b"*2\r\n$3\r\nGET\r\n$5\r\nab",
        b"GET ke",
        b"*",
    ] {
        let mut client = world.keyway.client();
        client.raw(half);
        let begin = Instant::now();
        let end = client.read_to_end(Duration::from_secs(6));
        assert!(
            end.is_some(),
            "half a request was waited for longer than its limit"
        );
        assert!(
            begin.elapsed() > Duration::from_secs(1),
            "cut off before its limit"
        );
    }
    // Between requests a client may be silent as long as it likes.
    let mut idle = world.keyway.client();
    assert_eq!(text(&idle.cmd(&["PING"])), "PONG");
    assert!(
        idle.read_to_end(Duration::from_secs(3)).is_none(),
        "an idle client was cut off"
    );
    assert_eq!(text(&idle.cmd(&["PING"])), "PONG");
    world.assert_unharmed();
}

#[test]
fn announced_sizes_cost_no_memory() {
    let world = World::start();
    let before = resident_kib(&world.keyway);
    let claims: [&[u8]; 3] = [
        b"*1048576\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nx",
        b"*2147483647\r\n$1\r\n",
    ];
    let mut clients: Vec<Client> = (0..300).map(|_| world.keyway.client()).collect();
    for (client, claim) in clients.iter_mut().zip(claims.iter().cycle()) {
        client.raw(claim);
    }
    world.neighbour.wait_rounds(20);
    let grown = resident_kib(&world.keyway).saturating_sub(before);
    // A TLS connection has buffers of its own; half a gigabyte each is what must not be.
    assert!(
        grown < 300 * 200,
        "300 clients that only announce cost {grown} KiB"
    );
    drop(clients);
    world.assert_unharmed();
}

#[test]
fn other_protocols_on_the_tls_port_are_closed() {
    let world = World::start();
    let told = "-ERR this port speaks TLS only";
    let cases: [(&[u8], &str); 5] = [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 400"),
        (b"*1\r\n$4\r\nPING\r\n", told),
        (b"PING\r\n", told),
        (b"\x16\x03\x01\xff\xff\x01garbage in a record", ""),
        (&[0x80; 400], ""),
    ];
    for (bytes, expected) in cases {
        let mut socket = world.tcp();
        socket.write_all(bytes).unwrap();
        let mut said = Vec::new();
        let _ = socket.read_to_end(&mut said);
        // Who forgot TLS is told so in the protocol it speaks; others get a TLS alert at most.
        let text = String::from_utf8_lossy(&said);
        let right = if expected.is_empty() {
            said.is_empty() || said[0] == 0x15
        } else {
            text.starts_with(expected)
        };
        assert!(right, "{text:?} for {bytes:?}");
    }
    wait_until("failed handshakes that are counted", 5, || {
        world.keyway.metric("keyway_handshakes_total", &[]) >= 5.0
            || world.keyway.log().contains("handshake")
    });
    world.assert_unharmed();
}

#[test]
fn stalled_handshakes_are_closed_and_keep_nobody_out() {
    let world = World::start();
    let mut stalled: Vec<TcpStream> = (0..200).map(|_| world.tcp()).collect();
    for socket in &mut stalled {
        socket.write_all(b"\x16\x03\x01\x00").unwrap();
    }
    let begin = Instant::now();
    assert_eq!(text(&world.keyway.client().cmd(&["PING"])), "PONG");
    let took = begin.elapsed();
    assert!(
        took < Duration::from_secs(4),
        "a good client waited {took:?} behind stalled handshakes"
    );
    for socket in &mut stalled {
        let mut rest = Vec::new();
        match socket.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_ne!(
                error.kind(),
                ErrorKind::WouldBlock,
                "a stalled handshake was kept for 10 s"
            ),
        }
    }
    world.assert_unharmed();
}

#[test]
fn half_closed_and_reset_connections_are_let_go() {
    let world = World::start();
    let before = world.keyway.metric("keyway_client_connections", &[]);
    for _ in 0..100 {
        let socket = world.tcp();
        socket.shutdown(Shutdown::Write).unwrap();
    }
    for _ in 0..100 {
        drop(world.keyway.client());
    }
    wait_until("connections that are gone", 10, || {
        world.keyway.metric("keyway_client_connections", &[]) <= before
    });
    world.assert_unharmed();
}

#[test]
fn a_client_that_never_reads_is_bounded() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let limits = "client_output_bytes_max = 4194304";
    let keyway = Keyway::with(
        &cluster,
        &Settings {
            limits: limits.to_owned(),
            ..Settings::default()
        },
    );
    let neighbour = Traffic::start(&keyway.addr(), keyway.ca(), 1, "neighbour");
    let mut writer = keyway.client();
    assert_eq!(
        text(&writer.cmd(&["SET".as_bytes(), b"big", &vec![b'x'; 1_000_000]])),
        "OK"
    );
    let before = resident_kib(&keyway);
    let mut greedy: Vec<Client> = (0..20).map(|_| keyway.client()).collect();
    let mut bytes = Vec::new();
    (0..200).for_each(|_| resp::write::request(&mut bytes, &["GET", "big"]));
    for client in &mut greedy {
        client.raw(&bytes);
    }
    let mut most = 0;
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        most = most.max(resident_kib(&keyway));
        std::thread::sleep(Duration::from_millis(50));
    }
    // 20 clients ask for 4 GB in all; what may wait is 4 MiB each, and what is on its way.
    let grown = most.saturating_sub(before);
    assert!(
        grown < 20 * 12 * 1024,
        "20 clients that do not read cost {grown} KiB"
    );
    neighbour.wait_rounds(20);
    let (problems, _) = neighbour.stop();
    assert!(problems.is_empty(), "the neighbour: {problems:?}");
}

/// Resident memory of the process, by the kernel's word.
fn resident_kib(keyway: &Keyway) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", keyway.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}
