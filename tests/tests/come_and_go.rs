//! Clusters and ports that come, change and go while Keyway runs: nobody else's business.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use keyway_tests::tenants::{Tenant, World, sections, with_user};
use keyway_tests::{
    Client, Keyway, Load, LoadOptions, RealCluster, Settings, Version, ports, text, wait_until,
};

/// A `[[cluster]]`, to be put before the rest of a configuration.
fn one(name: &str, cluster: &RealCluster, own: &str) -> String {
    sections(&[Tenant::new(name, cluster, own)])
}

/// Keyway before `cluster`, which is called b and is for everybody who names none.
fn start(cluster: &RealCluster) -> World {
    let own = "default = true\nserver_names = [\"b.test\"]";
    World::new(&[Tenant::new("b", cluster, own)], Settings::default())
}

/// With these before `[admin]`, and without what was there before.
fn with(text: &str, clusters: &str) -> String {
    let (before, _) = text.split_once("[[cluster]]").expect("a cluster");
    let (_, after) = text.split_once("[admin]").expect("[admin]");
    format!("{before}{clusters}[admin]{after}")
}

fn is_closed(client: &mut Client) -> bool {
    client.read_to_end(Duration::from_secs(10)) == Some(Vec::new())
}

/// Lines of `/metrics` about a cluster.
fn shown(keyway: &Keyway, name: &str) -> usize {
    let (_, page) = keyway.http("/metrics").expect("/metrics");
    let label = format!("cluster=\"{name}\"");
    page.lines().filter(|line| line.contains(&label)).count()
}

/// Asks in pipelines, for more than sockets hold, until it is let go. Returns how many replies it had; all were whole.
fn asks_until_let_go(client: &mut Client, value: &str) -> usize {
    let mut pipeline = Vec::new();
    (0..10).for_each(|_| resp::write::request(&mut pipeline, &["GET", "big"]));
    for asked in 0.. {
        if client.try_raw(&pipeline).is_err() {
            return asked * 10;
        }
        for answered in 0..10 {
            match client.try_read() {
                Ok(reply) => assert_eq!(text(&reply), value),
                Err(error) => {
                    let rest = client.read_to_end(Duration::from_secs(5));
                    assert_eq!(
                        rest.unwrap_or_default(),
                        b"",
                        "a reply cut in half: {error}"
                    );
                    let ends = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
                    assert!(ends.contains(&error.kind()), "{error}");
                    return asked * 10 + answered;
                }
            }
        }
    }
    0
}

#[test]
fn a_cluster_comes_and_goes_and_nobody_else_notices() {
    let [a, b] = [with_user("alice"), with_user("bob")].map(RealCluster::with);
    let world = start(&b);
    let keyway = &world.keyway;
    let port = ports::reserve();
    let value = "v".repeat(300_000);
    a.client(0).cmd(&["SET", "big", &value]);
    let own = format!(
        "server_names = [\"a.test\"]\nuser_names = [\"alice\"]\n[cluster.listen]\n\
         address = \"127.0.0.1:{}\"",
        port.number()
    );
    let section = one("b", &b, "default = true\nserver_names = [\"b.test\"]");
    let both = format!("{section}{}", one("a", &a, &own));
    let options = LoadOptions {
        pause: Duration::from_millis(10),
        ..LoadOptions::new(6)
    };
    let load = Load::start(&keyway.addr(), &world.authority.ca, &options);
    let answers = AtomicUsize::new(0);
    for round in 0..20 {
        keyway.reconfigure(|text| with(&text, &both));
        let mut named = world.try_by_name("a.test").expect("a's client");
        let mut dialled = world.try_at(port.number()).expect("a's client");
        // Users choose for those who name none, and b is not theirs alone any more.
        let mut user = world.try_by_name("c.test").expect("a client");
        assert_eq!(text(&user.cmd(&["AUTH", "alice", "alice-pw"])), "OK");
        for client in [&mut named, &mut dialled, &mut user] {
            assert_eq!(text(&client.cmd(&["GET", "big"])), value, "round {round}");
        }
        assert!(shown(keyway, "a") > 10);
        thread::scope(|scope| {
            for client in [&mut named, &mut dialled] {
                scope.spawn(|| answers.fetch_add(asks_until_let_go(client, &value), SeqCst));
            }
            let mut beside = world.try_by_name("b.test").expect("b's client");
            beside.cmd(&["SET", "own", "1"]);
            keyway.reconfigure(|text| with(&text, &section));
            assert!(
                is_closed(&mut user),
                "an idle client of a cluster that is gone"
            );
            assert_eq!(text(&beside.cmd(&["GET", "own"])), "1", "b's client stays");
        });
        wait_until("a to be gone", 10, || shown(keyway, "a") == 0);
        assert!(world.try_at(port.number()).is_err(), "its port is closed");
        assert_eq!(keyway.http("/topology?cluster=a").expect("a page").0, 404);
        let mut nobodys = world.try_by_name("a.test").expect("everybody's client");
        assert_eq!(
            text(&nobodys.cmd(&["EXISTS", "big"])),
            "0",
            "b has no such key"
        );
    }
    assert!(answers.load(SeqCst) > 200, "clients that were busy");
    let report = load.stop();
    assert!(report.is_clean(), "{}", report.told(10));
    let errors = keyway.metric("keyway_errors_total", &["cluster=\"b\""]);
    assert!(errors < 0.5, "{errors} errors");
    let log = keyway.log();
    assert_eq!(log.matches("\"came\":\"a\"").count(), 20);
    assert_eq!(log.matches("\"went\":\"a\"").count(), 20);
    assert!(!log.contains("needs_restart"), "{log}");
}

/// Files, threads and KiB of memory.
fn held(keyway: &Keyway) -> (usize, usize, usize) {
    let folder = format!("/proc/{}", keyway.pid());
    let count = |name: &str| {
        fs::read_dir(format!("{folder}/{name}"))
            .expect("a process")
            .count()
    };
    let status = fs::read_to_string(format!("{folder}/status")).expect("a process");
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let rss = rss.and_then(|rest| rest.trim().strip_suffix(" kB"));
    (
        count("fd"),
        count("task"),
        rss.and_then(|kib| kib.parse().ok()).expect("a number"),
    )
}

#[test]
fn what_a_cluster_has_taken_comes_back() {
    let [a, b] = [with_user("alice"), with_user("bob")].map(RealCluster::with);
    let world = start(&b);
    let keyway = &world.keyway;
    let port = ports::reserve();
    let own = format!(
        "server_names = [\"a.test\"]\n[cluster.listen]\naddress = \"127.0.0.1:{}\"",
        port.number()
    );
    let section = one("b", &b, "default = true");
    let both = format!("{section}{}", one("a", &a, &own));
    let round = || {
        keyway.reconfigure(|text| with(&text, &both));
        let mut clients: Vec<Client> = (0..4)
            .map(|_| world.try_by_name("a.test").expect("a client"))
            .collect();
        clients.push(world.try_at(port.number()).expect("a client"));
        for client in &mut clients {
            assert_eq!(text(&client.cmd(&["SET", "k", "v"])), "OK");
        }
        keyway.reconfigure(|text| with(&text, &section));
        assert!(clients.into_iter().all(|mut client| is_closed(&mut client)));
        wait_until("a to be gone", 10, || shown(keyway, "a") == 0);
    };
    let (files, threads, _) = held(keyway);
    (0..10).for_each(|_| round());
    let (_, _, warm) = held(keyway);
    (0..50).for_each(|_| round());
    wait_until("files and threads to come back", 10, || {
        let (files_now, threads_now, _) = held(keyway);
        files_now <= files + 2 && threads_now <= threads
    });
    let (_, _, now) = held(keyway);
    // A worker that stays would be about 200 KiB in each thread, in each round.
    assert!(now < warm + 6 * 1024, "{warm} KiB, and then {now}");
}

#[test]
fn a_configuration_that_cannot_be_had_changes_nothing() {
    let [a, b] = [with_user("alice"), with_user("bob")].map(RealCluster::with);
    let world = start(&b);
    let keyway = &world.keyway;
    let keeps = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = keeps.local_addr().expect("its address");
    let section = one("b", &b, "default = true");
    let port = ports::reserve();
    let listening = |more: &str| {
        let own = format!(
            "[cluster.listen]\naddress = \"127.0.0.1:{}\"",
            port.number()
        );
        format!("{section}{}{more}", one("a", &a, &own))
    };
    let of_b = format!(
        "[cluster.listen.tls]\ncertificate = {:?}",
        world.authority.ca
    );
    let second = one("c", &a, &format!("[cluster.listen]\naddress = \"{taken}\""));
    let (files, threads, _) = held(keyway);
    for (clusters, said) in [
        (listening(&second), taken.to_string()),
        (
            listening(&format!("{of_b}\nkey = {:?}\n", world.authority.ca)),
            "has no private key".to_owned(),
        ),
        (listening("[cluster.nothing]\n"), "nothing".to_owned()),
        (String::new(), "cluster.seeds".to_owned()),
    ] {
        let before = keyway.log().len();
        keyway.reconfigure(|text| with(&text, &clusters));
        wait_until("a reason", 10, || {
            let log = keyway.log();
            let news = log.get(before..).unwrap_or_default();
            news.contains("what was in force stays") && news.contains(&said)
        });
        assert_eq!(shown(keyway, "a"), 0, "{said}");
        assert!(
            world.try_at(port.number()).is_err(),
            "{said}: its port is open"
        );
    }
    let failed = keyway.metric("keyway_config_reloads_total", &["result=\"failed\""]);
    assert!((failed - 4.0).abs() < 0.5);
    wait_until("nothing to be left of them", 10, || {
        let (files_now, threads_now, _) = held(keyway);
        files_now <= files + 2 && threads_now <= threads
    });
    let mut client = world.try_by_name("b.test").expect("b's client");
    assert_eq!(text(&client.cmd(&["SET", "k", "v"])), "OK");
}

#[test]
fn a_name_and_a_port_can_have_another_cluster_at_once() {
    let [a, b, c] = ["alice", "bob", "carol"]
        .map(with_user)
        .map(RealCluster::with);
    let world = start(&b);
    let keyway = &world.keyway;
    let port = ports::reserve();
    for (cluster, word) in [(&a, "of a"), (&c, "of c")] {
        cluster.client(0).cmd(&["SET", "k", word]);
    }
    let own = format!(
        "server_names = [\"a.test\"]\n[cluster.listen]\naddress = \"127.0.0.1:{}\"",
        port.number()
    );
    let section = one("b", &b, "default = true");
    let set = |name: &str, cluster: &RealCluster| {
        let clusters = format!("{section}{}", one(name, cluster, &own));
        keyway.reconfigure(|text| with(&text, &clusters));
    };
    let expect = |word: &str| {
        let clients = [world.try_at(port.number()), world.try_by_name("a.test")];
        clients.map(|client| {
            let mut client = client.expect("a client");
            assert_eq!(text(&client.cmd(&["GET", "k"])), word);
            client
        })
    };
    set("a", &a);
    let mut of_a = expect("of a");
    // They lose something by it, and so stay for a while.
    for client in &mut of_a {
        client.cmd(&["MULTI"]);
    }
    set("c", &c);
    let mut of_c = expect("of c");
    keyway.reconfigure(|text| with(&text, &section));
    set("a", &a);
    // There may be two that are called a: one of them leaves.
    let (_, page) = keyway.http("/metrics").expect("/metrics");
    let series: Vec<&str> = page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.rsplit_once(' ')?.0))
        .collect();
    let different: BTreeSet<&&str> = series.iter().collect();
    assert_eq!(series.len(), different.len(), "{page}");
    expect("of a");
    for client in of_a.iter_mut().chain(&mut of_c) {
        assert!(is_closed(client));
    }
    wait_until("c to be gone", 10, || shown(keyway, "c") == 0);
    assert!(shown(keyway, "a") > 10, "the other a is still here");
}

/// Asks for what is more than half of the memory, and reads nothing until all of it is there, or the client is
/// closed. Returns whether it is.
fn has_all(world: &World, value: &str) -> bool {
    const TIMES: usize = 7;
    let mut client = world.unnamed();
    let mut pipeline = Vec::new();
    (0..TIMES).for_each(|_| resp::write::request(&mut pipeline, &["GET", "big"]));
    let closed = || {
        let log = world.keyway.log();
        log.matches("limits.memory_bytes_max is reached").count()
    };
    let before = closed();
    let from_nodes = || {
        let labels = ["cluster=\"b\""];
        world
            .keyway
            .metric("keyway_upstream_received_bytes_total", &labels)
    };
    let expected = from_nodes() + (TIMES * value.len()) as f64;
    client.raw(&pipeline);
    // All clients are looked at each 100 ms: so long it is all there, at least.
    let mut looks = 0;
    wait_until("all of it, or the end", 20, || {
        looks += usize::from(from_nodes() >= expected);
        closed() > before || looks > 25
    });
    let mut whole = 0;
    while client.try_read().is_ok_and(|reply| text(&reply) == value) {
        whole += 1;
        if whole == TIMES {
            return true;
        }
    }
    false
}

#[test]
fn a_cluster_that_goes_gives_its_memory_back_when_it_is_gone() {
    let [a, b] = ["alice", "bob"].map(with_user).map(RealCluster::with);
    let own = "default = true\nserver_names = [\"b.test\"]";
    let settings = Settings {
        workers: 1,
        limits: "memory_bytes_max = 64000000\nclient_output_bytes_max = 512000000".to_owned(),
        ..Settings::default()
    };
    let tenants = [
        Tenant::new("a", &a, "server_names = [\"a.test\"]"),
        Tenant::new("b", &b, own),
    ];
    let world = World::new(&tenants, settings);
    let keyway = &world.keyway;
    let value = "v".repeat(8_000_000);
    assert_eq!(text(&b.client(0).cmd(&["SET", "big", &value])), "OK");
    assert!(!has_all(&world, &value), "half of the memory is enough");

    // It loses something by it, and so stays for a while: the memory is not free yet.
    let mut stays = world.by_name("a.test");
    stays.cmd(&["MULTI"]);
    keyway.reconfigure(|config| {
        let config = with(&config, &one("b", &b, own));
        config.replace("grace_ms = 1000", "grace_ms = 20000")
    });
    assert!(!has_all(&world, &value), "the memory of one that is here");
    assert_eq!(text(&stays.cmd(&["DISCARD"])), "OK");
    keyway.wait_logged("the cluster is gone");
    wait_until("the memory of one that is gone", 10, || {
        has_all(&world, &value)
    });
}

/// New seeds of the same cluster count; those of another one change nothing, and the log says what to do.
#[test]
fn seeds_of_another_cluster_need_another_name() {
    let own = "default = true\nserver_names = [\"b.test\"]";
    let [served, other] = [2, 1].map(|shards| RealCluster::start(Version::V9_1, shards, 0));
    let world = start(&served);
    let keyway = &world.keyway;
    let mut client = world.unnamed();
    assert_eq!(text(&client.cmd(&["SET", "k", "served"])), "OK");
    assert_eq!(text(&other.client(0).cmd(&["SET", "k", "other"])), "OK");
    let wrong = "the new seeds are of another cluster";
    let silent = "none of the new seeds answers";

    // Fewer of its own, with one that is not there, and by another name.
    let seeds = served.addrs();
    let (first, rest) = seeds.split_first().expect("a seed");
    let port = first.rsplit_once(':').expect("a port").1;
    keyway.reconfigure(|config| {
        let config = config.replace(&format!("{:?}", rest[0]), "\"127.0.0.1:1\"");
        config.replace(&format!("{first:?}"), &format!("\"localhost:{port}\""))
    });
    keyway.wait_logged("b: cluster.seeds");
    // Whose one does not answer yet: it is asked again.
    other.nodes()[0].freeze();
    keyway.reconfigure(|config| with(&config, &one("b", &other, own)));
    keyway.wait_logged(silent);
    assert!(!keyway.log().contains(wrong));
    other.nodes()[0].thaw();
    keyway.wait_logged(wrong);
    let log = keyway.log();
    let line = log.lines().find(|line| line.contains(wrong)).expect("it");
    for part in [
        &*other.addrs()[0],
        "another name",
        "restart Keyway",
        "\"b\"",
    ] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    assert_eq!(log.matches(wrong).count(), 1, "{log}");
    assert_eq!(text(&client.cmd(&["GET", "k"])), "served");
    assert_eq!(text(&world.unnamed().cmd(&["GET", "k"])), "served");

    // As the line says.
    keyway.reconfigure(|config| with(&config, &one("c", &other, own)));
    wait_until("the other cluster", 10, || {
        world.try_by_name("b.test").is_ok_and(|mut client| {
            let reply = client.try_cmd(&["GET", "k"]);
            reply.is_ok_and(|reply| text(&reply) == "other")
        })
    });
    assert!(is_closed(&mut client), "it was of the one that is gone");

    let nobody = ports::reserve();
    keyway.reconfigure(|config| {
        let at = format!("\"127.0.0.1:{}\"", nobody.number());
        config.replace(&format!("{:?}", other.addrs()[0]), &at)
    });
    wait_until("one more line", 10, || {
        keyway.log().matches(silent).count() == 2
    });
    assert_eq!(text(&world.unnamed().cmd(&["GET", "k"])), "other");
}

#[test]
fn ports_come_and_go() {
    let [a, b] = [with_user("alice"), with_user("bob")].map(RealCluster::with);
    let world = start(&b);
    let keyway = &world.keyway;
    let [port, next, reads] = [(); 3].map(|()| ports::reserve());
    let of = |port: &ports::Port, more: &str| {
        let own = format!(
            "[cluster.listen]\naddress = \"127.0.0.1:{}\"",
            port.number()
        );
        one("b", &b, "default = true") + &one("a", &a, &format!("{own}\n{more}"))
    };
    keyway.reconfigure(|text| with(&text, &of(&port, "")));
    let mut before = world.try_at(port.number()).expect("a client");
    let of_reads = format!(
        "[cluster.reads]\naddress = \"127.0.0.1:{}\"",
        reads.number()
    );
    keyway.reconfigure(|text| with(&text, &of(&next, &of_reads)));
    keyway.wait_logged("a: listen.address, a: reads.address");
    assert_eq!(text(&before.cmd(&["SET", "k", "v"])), "OK", "it stays");
    wait_until("the port to be closed", 10, || {
        world.try_at(port.number()).is_err()
    });
    for port in [&next, &reads] {
        let mut client = world.try_at(port.number()).expect("a client");
        assert_eq!(text(&client.cmd(&["GET", "k"])), "v");
    }
    // Everybody's, too.
    let mut of_all = world.try_by_name("b.test").expect("a client");
    let (old, new) = (keyway.port(), port.number());
    keyway.reconfigure(|text| {
        let [from, to] = [old, new].map(|port| format!("address = \"127.0.0.1:{port}\""));
        text.replacen(&from, &to, 1)
    });
    assert_eq!(text(&of_all.cmd(&["SET", "k", "of b"])), "OK", "it stays");
    let mut client = world.try_at(port.number()).expect("a client");
    assert_eq!(text(&client.cmd(&["GET", "k"])), "of b");
    wait_until("the port to be closed", 10, || {
        world.try_by_name("b.test").is_err()
    });
    assert!(!keyway.log().contains("needs_restart"));
}
