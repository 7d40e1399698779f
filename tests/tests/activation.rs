//! Sockets that a service manager holds: while Keyway is started again, nobody is refused.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::{fs, thread};

use keyway_tests::ports::{self, Port};
use keyway_tests::{Certificates, Client, RealCluster, Version, http_get, text, tools, wait_until};

/// Holds a socket as systemd does: for `start` it runs Keyway with it, for `stop` it ends it.
const MANAGER: &str = r#"
import os, signal, socket, sys
port, program, *arguments = sys.argv[1:]
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(port)))
listener.listen(128)
child = 0
for line in sys.stdin:
    if line.strip() == "start":
        child = os.fork()
        if child == 0:
            os.dup2(listener.fileno(), 3)
            os.set_inheritable(3, True)
            os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
            os.execv(program, [program] + arguments)
    else:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
    print("done", flush=True)
if child:
    os.kill(child, signal.SIGKILL)
"#;

/// The manager, until it is dropped.
struct Manager {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Manager {
    fn of(port: u16, config: &str) -> Self {
        let mut child = Command::new(tools::tool("KEYWAY_PYTHON"))
            .args(["-c", MANAGER, &port.to_string()])
            .arg(tools::keyway())
            .args(["serve", "--config", config])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, answers }
    }

    fn ask(&mut self, what: &str) {
        let mut stdin = self.child.stdin.as_ref().unwrap();
        writeln!(stdin, "{what}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        drop(self.child.stdin.take()); // it ends what it has started
        let _ = self.child.wait();
    }
}

#[test]
fn a_client_that_comes_between_two_runs_waits_and_is_served() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let certificates = Certificates::loopback();
    let (port, admin): (Port, Port) = (ports::reserve(), ports::reserve());
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("keyway.toml");
    let text_of = format!(
        "[listen]\naddress = \"127.0.0.1:{}\"\n[listen.tls]\ncertificate = {:?}\nkey = {:?}\n\
         [cluster]\nseeds = {:?}\n[drain]\nlame_duck_ms = 0\n[admin]\naddress = \"127.0.0.1:{}\"\n",
        port.number(),
        certificates.cert,
        certificates.key,
        cluster.addrs(),
        admin.number(),
    );
    fs::write(&config, text_of).unwrap();
    let address = format!("127.0.0.1:{}", port.number());
    let page = format!("127.0.0.1:{}", admin.number());
    let mut manager = Manager::of(port.number(), config.to_str().unwrap());
    manager.ask("start");
    wait_until("readiness", 20, || {
        http_get(&page, "/readyz").is_ok_and(|(status, _)| status == 200)
    });
    let mut first = Client::connect(&address, &certificates.ca);
    assert_eq!(text(&first.cmd(&["SET", "key", "before"])), "OK");
    drop(first);

    manager.ask("stop");
    assert!(http_get(&page, "/livez").is_err(), "Keyway has ended");
    let _waiting = TcpStream::connect(&address).unwrap();
    let (to, ca) = (address.clone(), certificates.ca.clone());
    let between = thread::spawn(move || text(&Client::connect(&to, &ca).cmd(&["GET", "key"])));
    manager.ask("start");
    assert_eq!(between.join().unwrap(), "before");
}
