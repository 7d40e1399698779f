//! The end of the process: who is let go when, and that nobody loses a command by it.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use keyway_tests::{
    Client, Keyway, RealCluster, Settings, Signal, Version, frame, show, text, wait_until,
};

const LIMIT: Duration = Duration::from_secs(20);

fn is_closed(client: &mut Client) -> bool {
    client.read_to_end(LIMIT) == Some(Vec::new())
}

fn settings(drain: &str) -> Settings {
    Settings {
        sections: format!("[drain]\n{drain}"),
        ..Settings::default()
    }
}

fn is_draining(keyway: &Keyway) -> bool {
    let answer = keyway.http("/readyz");
    answer.is_ok_and(|(status, body)| status == 503 && body.contains("ending"))
}

/// A client that appends numbers to a list of its own, a few at a time, over whichever of `doors`
/// takes it. What had no reply is sent again: it must not have run.
struct Writer<'a> {
    key: String,
    doors: Vec<(String, &'a Path)>,
    /// Numbers that have their reply.
    done: usize,
    connections: usize,
}

impl Writer<'_> {
    fn run(&mut self, over: &AtomicBool, progress: &AtomicUsize) {
        while !over.load(SeqCst) {
            let connected = self
                .doors
                .iter()
                .find_map(|(addr, ca)| Client::try_connect(addr, ca).ok());
            let Some(client) = connected else {
                thread::sleep(Duration::from_millis(2));
                continue;
            };
            self.connections += 1;
            self.serve(client, over, progress);
        }
    }

    /// Until the connection ends, which it must do between two replies.
    fn serve(&mut self, mut client: Client, over: &AtomicBool, progress: &AtomicUsize) {
        while !over.load(SeqCst) {
            let count = 1 + self.done % 7;
            let batch: Vec<u8> = (self.done..self.done + count)
                .flat_map(|number| frame(&format!("RPUSH {} {number}", self.key)))
                .collect();
            if client.try_raw(&batch).is_err() {
                return;
            }
            for _ in 0..count {
                let Ok(reply) = client.try_read() else {
                    let rest = client.read_to_end(LIMIT);
                    assert_eq!(
                        rest.map_or(0, |rest| rest.len()),
                        0,
                        "a reply is cut in half"
                    );
                    return;
                };
                self.done += 1;
                let length = self.done.to_string();
                assert_eq!(text(&reply), length, "of {}: lost or done twice", self.key);
                progress.fetch_add(1, SeqCst);
            }
        }
    }

    /// What the list is to be.
    fn check(&self, client: &mut Client) {
        let list = client.ask(&format!("LRANGE {} 0 -1", self.key));
        let all: Vec<String> = (0..self.done).map(|number| number.to_string()).collect();
        // The last batch may have run without its replies being read.
        assert!(list.starts_with(&all.join(" ")), "{} is {list}", self.key);
    }
}

/// Sets it when dropped: a test that fails must not wait for its writers for ever.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Runs writers while `event` happens, and some time before and after; they must go on.
fn under_load(doors: &[(String, &Path)], event: impl FnOnce(&dyn Fn())) -> Vec<(String, usize)> {
    let (over, progress) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut writers: Vec<Writer<'_>> = (0..8)
        .map(|number| Writer {
            key: format!("list:{number}"),
            doors: doors.to_vec(),
            done: 0,
            connections: 0,
        })
        .collect();
    let (over, progress) = (&over, &progress);
    thread::scope(|scope| {
        let running: Vec<_> = writers
            .iter_mut()
            .map(|writer| scope.spawn(move || writer.run(over, progress)))
            .collect();
        let end = Over(over);
        let go_on = || {
            let before = progress.load(SeqCst);
            wait_until("more replies", 20, || progress.load(SeqCst) > before + 400);
        };
        go_on();
        event(&go_on);
        go_on();
        drop(end);
        for thread in running {
            thread.join().expect("a writer");
        }
    });
    let (addr, ca) = doors.last().expect("a door");
    let mut client = Client::connect(addr, ca);
    writers.iter().for_each(|writer| writer.check(&mut client));
    writers
        .into_iter()
        .map(|writer| (writer.key, writer.connections))
        .collect()
}

#[test]
fn of_two_instances_one_ends_under_load_and_no_command_is_lost() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let drain = settings("lame_duck_ms = 100\ngrace_ms = 10000");
    let (mut first, second) = (Keyway::with(&cluster, &drain), Keyway::start(&cluster));
    let (from, to) = (first.addr(), second.addr());
    let ca = first.ca().to_owned();
    let doors = [(from, ca.as_path()), (to, second.ca())];
    let connections = under_load(&doors, |_| {
        first.signal(Signal::TERM);
        assert!(first.wait_end().success());
    });
    for (key, connections) in connections {
        assert_eq!(connections, 2, "{key}: one before and one after");
    }
    let log = first.log();
    assert!(log.contains("\"ended\""), "nobody was cut off:\n{log}");
}

#[test]
fn a_restart_on_one_machine_leaves_no_gap() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let shared = Settings {
        listen: "reuse_port = true".to_owned(),
        ..settings("lame_duck_ms = 0\ngrace_ms = 10000")
    };
    let mut old = Keyway::with(&cluster, &shared);
    // The same certificate: clients come to the same address.
    let folder = old.ca().parent().expect("a folder").to_owned();
    let next = Settings {
        port: old.port(),
        certificate: Some([folder.join("cert.pem"), folder.join("key.pem")]),
        ..shared
    };
    let (addr, ca) = (old.addr(), folder.join("ca.pem"));
    let mut new = None;
    let connections = under_load(&[(addr.clone(), &ca)], |go_on| {
        new = Some(Keyway::with(&cluster, &next));
        go_on();
        old.signal(Signal::TERM);
        assert!(old.wait_end().success());
    });
    let most = connections.iter().map(|(_, count)| *count).max();
    assert_eq!(most, Some(2), "one before and one after: {connections:?}");
    drop(new);
}

#[test]
fn a_sidecar_serves_until_its_application_is_gone() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let mut keyway = Keyway::with(&cluster, &settings("mode = 'sidecar'\ngrace_ms = 600000"));
    let mut client = keyway.client();
    assert_eq!(client.ask("SET key 0"), "OK");
    keyway.signal(Signal::TERM);
    wait_until("not ready", 10, || is_draining(&keyway));
    for number in 1..=1000 {
        assert_eq!(client.ask("INCR key"), number.to_string());
    }
    let mut late = keyway.client();
    assert_eq!(late.ask("GET key"), "1000", "it may also come back");
    drop(client);
    assert_eq!(late.ask("GET key"), "1000");
    drop(late);
    assert!(keyway.wait_end().success());
}

#[test]
fn new_clients_are_taken_until_everyone_knows() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let keyway = Keyway::with(
        &cluster,
        &settings("lame_duck_ms = 600000\ngrace_ms = 3600000"),
    );
    let mut early = keyway.client();
    assert_eq!(early.ask("PING"), "PONG");
    keyway.signal(Signal::TERM);
    wait_until("not ready", 10, || is_draining(&keyway));
    assert_eq!(keyway.client().ask("PING"), "PONG");
    assert_eq!(early.ask("PING"), "PONG");
    // A second signal means now.
    assert!(keyway.stop().success());
    assert!(is_closed(&mut early));
}

#[test]
fn whoever_is_in_the_middle_of_something_has_time() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let mut keyway = Keyway::with(&cluster, &settings("lame_duck_ms = 0\ngrace_ms = 6000"));
    let [mut idle, mut multi, mut half, mut topic, mut blocked] = [(); 5].map(|()| keyway.client());
    for client in [&mut idle, &mut multi, &mut half, &mut topic, &mut blocked] {
        assert_eq!(client.ask("PING"), "PONG");
    }
    assert_eq!(multi.ask("MULTI"), "OK");
    assert_eq!(multi.ask("SET multi done"), "QUEUED");
    let whole = frame("SET half done");
    half.raw(&whole[..whole.len() - 3]);
    assert_eq!(topic.ask("SUBSCRIBE news"), "subscribe news 1");
    blocked.raw(&frame("BLPOP queue 0"));
    let mut node = cluster.client(0);
    wait_until("a client that is blocked", 10, || {
        text(&node.cmd(&["INFO", "clients"])).contains("blocked_clients:1")
    });

    keyway.signal(Signal::TERM);
    assert!(is_closed(&mut idle), "nothing keeps it");
    assert!(Client::try_connect(&keyway.addr(), keyway.ca()).is_err());
    assert_eq!(multi.ask("EXEC"), "OK");
    assert!(is_closed(&mut multi), "its transaction is over");
    half.raw(&whole[whole.len() - 3..]);
    assert_eq!(show(&half.read()), "OK");
    assert!(is_closed(&mut half), "its command is whole");
    assert_eq!(text(&node.cmd(&["PUBLISH", "news", "late"])), "1");
    assert_eq!(show(&topic.read()), "message news late");
    // Who is still here has what it is owed, and leaves before the time is over.
    assert!(is_closed(&mut topic) && is_closed(&mut blocked));
    assert!(keyway.wait_end().success());
    assert_eq!(text(&node.cmd(&["RPUSH", "queue", "kept"])), "1");
    assert_eq!(
        text(&node.cmd(&["LLEN", "queue"])),
        "1",
        "nobody waits for it any more"
    );
    assert_eq!(text(&node.cmd(&["GET", "multi"])), "done");
    assert!(keyway.log().contains("\"in time\""), "{}", keyway.log());
}

#[test]
fn the_service_manager_hears_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(LIMIT)).expect("a socket");
    let hear = || {
        let mut bytes = [0; 1024];
        let count = socket.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let told = Settings {
        environment: vec![("NOTIFY_SOCKET".to_owned(), path.display().to_string())],
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &told);
    assert_eq!(hear().trim(), "READY=1");
    keyway.signal(Signal::HUP);
    let reloading = hear();
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading:?}"
    );
    assert_eq!(hear().trim(), "READY=1");
    keyway.signal(Signal::TERM);
    assert_eq!(hear().trim(), "STOPPING=1");
}
