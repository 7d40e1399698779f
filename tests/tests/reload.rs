//! Certificates, authorities and revocation lists that change while clients come and go.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use keyway_tests::{
    Certificates, Client, Identity, Keyway, RealCluster, Settings, Signal, Version, text, trusting,
    wait_until,
};

/// The test swaps so often; `KEYWAY_SWAPS=1000` for as often as the README says.
const SWAPS: usize = 25;
/// Clients that connect again and again meanwhile.
const CLIENTS: usize = 4;
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A folder as Kubernetes mounts a secret: files are links through `..data` to a folder that is
/// replaced as a whole.
struct Mount {
    root: tempfile::TempDir,
    version: usize,
}

impl Mount {
    fn new(files: &[(&str, &str)]) -> Self {
        let mut mount = Self {
            root: tempfile::tempdir().expect("a folder"),
            version: 0,
        };
        mount.swap(files);
        for (name, _) in files {
            symlink(format!("..data/{name}"), mount.path(name)).expect("a link");
        }
        mount
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn swap(&mut self, files: &[(&str, &str)]) {
        self.version += 1;
        let folder = self.path(&format!("..{}", self.version));
        fs::create_dir(&folder).expect("a folder");
        for (name, content) in files {
            fs::write(folder.join(name), content).expect("a file");
        }
        symlink(format!("..{}", self.version), self.path("..new")).expect("a link");
        fs::rename(self.path("..new"), self.path("..data")).expect("the link in its place");
        let before = self.path(&format!("..{}", self.version - 1));
        let _ = fs::remove_dir_all(before); // there is none at first
    }

    /// The same with a certificate and its key.
    fn swap_pair(&mut self, [cert, key]: &[String; 2]) {
        self.swap(&[("tls.crt", cert), ("tls.key", key)]);
    }

    fn pair(pair: &[String; 2]) -> Self {
        Self::new(&[("tls.crt", &pair[0]), ("tls.key", &pair[1])])
    }

    fn settings(&self) -> Settings {
        Settings {
            certificate: Some([self.path("tls.crt"), self.path("tls.key")]),
            ..Settings::default()
        }
    }
}

fn reloads(keyway: &Keyway, result: &str) -> f64 {
    let label = format!("result=\"{result}\"");
    keyway.metric("keyway_tls_reloads_total", &[&label])
}

fn swaps() -> usize {
    let asked = std::env::var("KEYWAY_SWAPS").ok();
    asked.map_or(SWAPS, |asked| asked.parse().expect("a number"))
}

fn ping(client: &mut Client, word: &str) {
    assert_eq!(text(&client.cmd(&["ECHO", word])), word);
}

fn is_closed(client: &mut Client) -> bool {
    client.read_to_end(Duration::from_secs(10)) == Some(Vec::new())
}

#[test]
fn certificates_are_swapped_under_handshakes_and_none_fails() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let authority = Certificates::loopback();
    let mut mount = Mount::pair(&authority.issue(&LOOPBACK));
    let keyway = Keyway::with(&cluster, &mount.settings());
    let (addr, ca) = (keyway.addr(), authority.ca.as_path());
    let (over, handshakes) = (AtomicBool::new(false), AtomicUsize::new(0));
    let rounds = swaps();
    let mut old = keyway_client(&addr, ca);
    ping(&mut old, "who says nothing is not kept for long");
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (over, handshakes, addr) = (&over, &handshakes, &addr);
            scope.spawn(move || {
                let config = trusting(ca, None);
                let mut round = 0;
                while !over.load(SeqCst) {
                    // Half of them resume sessions.
                    let own = trusting(ca, None);
                    let config = if number % 2 == 0 { &config } else { &own };
                    let mut client = Client::try_connect_with(addr, "localhost", config)
                        .unwrap_or_else(|error| panic!("handshake {round} of {number}: {error}"));
                    ping(&mut client, &format!("{number}:{round}"));
                    handshakes.fetch_add(1, SeqCst);
                    round += 1;
                }
            });
        }
        for round in 1..=rounds {
            let next = authority.issue(&LOOPBACK);
            let before = handshakes.load(SeqCst);
            mount.swap_pair(&next);
            wait_until("the swap to count", 20, || {
                reloads(&keyway, "ok") > as_f64(round) - 0.5
            });
            wait_until("handshakes between swaps", 20, || {
                handshakes.load(SeqCst) >= before + CLIENTS
            });
        }
        over.store(true, SeqCst);
    });
    println!("{rounds} swaps, {} handshakes", handshakes.load(SeqCst));
    ping(&mut old, "a connection from before the first swap");
    let now = fs::read_to_string(mount.path("tls.crt")).expect("the certificate");
    let shown = keyway_client(&addr, ca).shown().expect("a certificate");
    assert_eq!(pem(&now), shown, "the last one is shown");
    assert!(reloads(&keyway, "failed") < 0.5);
}

fn as_f64(number: usize) -> f64 {
    f64::from(u32::try_from(number).expect("few"))
}

fn keyway_client(addr: &str, ca: &Path) -> Client {
    Client::try_connect(addr, ca).expect("a connection")
}

fn pem(text: &str) -> Vec<u8> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_slice(text.as_bytes())
        .expect("a certificate")
        .to_vec()
}

#[test]
fn what_cannot_be_used_does_not_count() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let authority = Certificates::loopback();
    let first = authority.issue(&LOOPBACK);
    let mut mount = Mount::pair(&first);
    let keyway = Keyway::with(&cluster, &mount.settings());
    let shown = || keyway_client(&keyway.addr(), &authority.ca).shown();
    let [other, _] = authority.issue(&LOOPBACK);
    let bad = [
        (["".to_owned(), first[1].clone()], "has no certificate"),
        ([other, first[1].clone()], "does not belong to"),
        (authority.issue_expired(), "has expired"),
    ];
    for (round, (pair, reason)) in (1..).zip(&bad) {
        mount.swap_pair(pair);
        wait_until("the failure to count", 20, || {
            reloads(&keyway, "failed") > as_f64(round) - 0.5
        });
        assert!(keyway.metric("keyway_tls_reload_failing", &[]) > 0.5);
        keyway.wait_logged(reason);
        assert_eq!(shown(), Some(pem(&first[0])), "the old one stays: {reason}");
    }
    // Whoever asks gets an answer at once, again and again.
    keyway.signal(Signal::HUP);
    wait_until("another answer", 20, || reloads(&keyway, "failed") > 3.5);
    let lines = keyway.log().matches("cannot be reloaded").count();
    assert_eq!(lines, 4, "once each:\n{}", keyway.log());

    let next = authority.issue(&LOOPBACK);
    mount.swap_pair(&next);
    wait_until("the good one", 20, || shown() == Some(pem(&next[0])));
    assert!(keyway.metric("keyway_tls_reload_failing", &[]) < 0.5);
    assert!(reloads(&keyway, "ok") > 0.5);
    let end = keyway.metric(
        "keyway_tls_not_after_timestamp_seconds",
        &["file=\"server\""],
    );
    assert!(end > 4e9, "rcgen's certificates hold for long: {end}");
}

#[test]
fn files_are_compared_also_where_nobody_watches() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let authority = Certificates::loopback();
    let mut mount = Mount::pair(&authority.issue(&LOOPBACK));
    let settings = Settings {
        sections: "[reload]\nwatch = false\nevery_ms = 100".to_owned(),
        ..mount.settings()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let next = authority.issue(&LOOPBACK);
    mount.swap_pair(&next);
    wait_until("the new certificate", 20, || {
        keyway_client(&keyway.addr(), &authority.ca).shown() == Some(pem(&next[0]))
    });
}

/// Two authorities, and a client of each that is connected and can resume.
struct Visitors {
    leaving: Client,
    staying: Client,
    addr: String,
    configs: [std::sync::Arc<rustls::ClientConfig>; 2],
}

impl Visitors {
    fn new(keyway: &Keyway, leaving: &Identity, staying: &Identity) -> Self {
        let configs = [leaving, staying].map(|identity| trusting(keyway.ca(), Some(identity)));
        let addr = keyway.addr();
        let [leaving, staying] = configs.each_ref().map(|config| {
            let connect = || Client::try_connect_with(&addr, "localhost", config);
            ping(&mut connect().expect("a connection"), "first");
            let mut again = connect().expect("a connection");
            assert!(again.resumed(), "nothing would be shown without a session");
            ping(&mut again, "again");
            again
        });
        Self {
            leaving,
            staying,
            addr,
            configs,
        }
    }

    /// One of them is out, its connection and its session; the other is not.
    fn check(mut self) {
        assert!(is_closed(&mut self.leaving), "its connection stays open");
        ping(&mut self.staying, "still here");
        let [leaving, staying] = &self.configs;
        let out = Client::try_connect_with(&self.addr, "localhost", leaving)
            .and_then(|mut client| client.try_cmd(&["PING"]));
        assert!(out.is_err(), "it got in again: {out:?}");
        let mut back = Client::try_connect_with(&self.addr, "localhost", staying).expect("welcome");
        ping(&mut back, "back");
    }
}

#[test]
fn a_client_of_a_removed_authority_is_out_at_once() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let [old, new] = [Certificates::loopback(), Certificates::loopback()];
    let read = |authority: &Certificates| fs::read_to_string(&authority.ca).expect("a CA");
    let both = read(&old) + &read(&new);
    let mut mount = Mount::new(&[("ca.crt", &both)]);
    let settings = Settings {
        listen_tls: format!("client_ca = {:?}", mount.path("ca.crt")),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let visitors = Visitors::new(
        &keyway,
        &old.identity("old", &[]),
        &new.identity("new", &[]),
    );
    mount.swap(&[("ca.crt", &read(&new))]);
    visitors.check();
    keyway.wait_logged("its certificate is not trusted any more");
}

#[test]
fn a_revoked_client_is_out_at_once() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let authority = Certificates::loopback();
    let (bad, good) = (
        authority.identity("bad", &[]),
        authority.identity("good", &[]),
    );
    let mut mount = Mount::new(&[("revoked.pem", &authority.revoke(&[]))]);
    let settings = Settings {
        listen_tls: format!(
            "client_ca = {:?}\nclient_crl = {:?}\nclient_auth = 'optional'",
            authority.ca,
            mount.path("revoked.pem")
        ),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let mut unknown = keyway.client();
    let visitors = Visitors::new(&keyway, &bad, &good);
    mount.swap(&[("revoked.pem", &authority.revoke(&[&bad]))]);
    visitors.check();
    ping(&mut unknown, "who shows no certificate has none to revoke");
}

#[test]
fn a_session_resumes_at_every_worker() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let authority = Certificates::loopback();
    let settings = Settings {
        workers: 3,
        listen_tls: format!("client_ca = {:?}", authority.ca),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let config = trusting(keyway.ca(), Some(&authority.identity("one", &[])));
    // Each connection goes to the worker with the fewest, so three that stay are at three.
    let mut open = Vec::new();
    for number in 0..9 {
        let mut client =
            Client::try_connect_with(&keyway.addr(), "localhost", &config).expect("a connection");
        ping(&mut client, &number.to_string());
        assert_eq!(client.resumed(), number > 0, "connection {number}");
        open.push(client);
    }
}

#[test]
fn a_client_gets_the_certificate_of_the_name_it_asks_for() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let authority = Certificates::loopback();
    let folder = tempfile::tempdir().expect("a folder");
    let mut listen_tls = String::new();
    for (number, name) in ["one.example", "*.two.example"].iter().enumerate() {
        let [cert, key] = authority.issue(&[name]);
        let paths = ["crt", "key"].map(|kind| folder.path().join(format!("{number}.{kind}")));
        fs::write(&paths[0], cert).expect("a certificate");
        fs::write(&paths[1], key).expect("a key");
        listen_tls += &format!(
            "[[listen.tls.certificates]]\ncertificate = {:?}\nkey = {:?}\n",
            paths[0], paths[1]
        );
    }
    let usual = ["crt", "key"].map(|kind| folder.path().join(kind));
    for (path, text) in usual.iter().zip(authority.issue(&LOOPBACK)) {
        fs::write(path, text).expect("a file");
    }
    let settings = Settings {
        certificate: Some(usual),
        listen_tls,
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let config = trusting(&authority.ca, None);
    // The client checks that the certificate has the name.
    for name in ["one.example", "a.two.example", "localhost", "127.0.0.1"] {
        let client = Client::try_connect_with(&keyway.addr(), name, &config);
        ping(&mut client.expect(name), name);
    }
    for name in ["two.example", "elsewhere.example"] {
        let client = Client::try_connect_with(&keyway.addr(), name, &config);
        assert!(client.is_err(), "nobody has a certificate for {name}");
    }
    // One of them is renewed.
    let [cert, key] = authority.issue(&["three.example"]);
    fs::write(folder.path().join("0.crt"), cert).expect("a certificate");
    fs::write(folder.path().join("0.key"), key).expect("a key");
    wait_until("the new name", 20, || {
        Client::try_connect_with(&keyway.addr(), "three.example", &config).is_ok()
    });
}

#[test]
fn the_authority_of_the_nodes_is_read_again() {
    let cluster = RealCluster::start(Version::V8_0Tls, 1, 0);
    let section = cluster.section("");
    let right = section
        .lines()
        .find_map(|line| line.strip_prefix("ca = \""))
        .and_then(|rest| rest.strip_suffix('"'))
        .expect("nodes of 8.0 speak TLS");
    let right = fs::read_to_string(right).expect("the nodes' CA");
    let wrong = fs::read_to_string(Certificates::loopback().ca).expect("another CA");
    let mut mount = Mount::new(&[("ca.crt", &wrong)]);
    let section = format!(
        "[cluster]\nseeds = {:?}\n[cluster.tls]\nca = {:?}",
        cluster.addrs(),
        mount.path("ca.crt")
    );
    let mut keyway = Keyway::launch(&section, &Settings::default());
    keyway.wait_logged("TLS failed");
    assert!(!keyway.is_ready());
    mount.swap(&[("ca.crt", &right)]);
    keyway.wait_ready();
    assert_eq!(text(&keyway.client().cmd(&["SET", "key", "value"])), "OK");
}
