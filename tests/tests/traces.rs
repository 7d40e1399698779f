//! OpenTelemetry traces: what a collector is told of commands, never with a key or a value, and what
//! becomes of commands when it is not there.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::{
    collections::HashMap,
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use keyway_tests::{
    Certificates, Client, Collector, Collects, Keyway, RealCluster, Settings, Signal, Taken,
    Version, attribute, slot_of, text, wait_until,
};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};

fn settings(collector: &Collector, more: &str) -> Settings {
    let endpoint = format!("http://{}/v1/traces", collector.addr());
    Settings {
        sections: format!("[traces]\nendpoint = \"{endpoint}\"\none_in = 1\n{more}"),
        ..Settings::default()
    }
}

fn of_kind<'a>(spans: &'a [Span], name: &str, kind: SpanKind) -> Vec<&'a Span> {
    let same = |span: &&Span| span.name == name && span.kind == i32::from(kind);
    spans.iter().filter(same).collect()
}

fn traces(keyway: &Keyway, result: &str) -> f64 {
    keyway.metric("keyway_traces_total", &[&format!("result=\"{result}\"")])
}

/// A server's span with its children, which are within it, one behind the other.
fn check_children(whole: &Span, spans: &[Span]) -> Vec<Span> {
    let mut children: Vec<Span> = spans
        .iter()
        .filter(|span| span.parent_span_id == whole.span_id)
        .cloned()
        .collect();
    children.sort_by_key(|span| (span.start_time_unix_nano, span.end_time_unix_nano));
    let mut from = whole.start_time_unix_nano;
    for child in &children {
        assert_eq!(child.trace_id, whole.trace_id);
        assert!(child.start_time_unix_nano >= from, "{child:?} of {whole:?}");
        from = child.end_time_unix_nano;
        assert!(from >= child.start_time_unix_nano, "{child:?}");
    }
    assert!(
        from <= whole.end_time_unix_nano,
        "{children:?} of {whole:?}"
    );
    children
}

/// One `SET`, by its attributes and parts. Returns its shard, and its node.
fn check_set(set: &Span, spans: &[Span], keyway: &Keyway) -> (String, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let children = check_children(set, spans);
    let names: Vec<_> = children.iter().map(|child| &*child.name).collect();
    assert_eq!(names, ["queue", "SET"]);
    let (queue, node) = (&children[0], &children[1]);
    assert_eq!(queue.kind, i32::from(SpanKind::Internal));
    assert_eq!(node.kind, i32::from(SpanKind::Client));
    let of = |name: &str| attribute(&node.attributes, name).unwrap_or_default();
    let addr = format!("{}:{}", of("network.peer.address"), of("server.port"));
    let of = |name: &str| attribute(&set.attributes, name).unwrap_or_default();
    assert_eq!(of("db.system.name"), "redis");
    assert_eq!(
        (of("db.operation.name"), of("db.namespace")),
        ("SET".to_owned(), "0".to_owned())
    );
    assert_eq!(of("server.port"), keyway.port().to_string());
    assert_eq!(of("client.address"), "127.0.0.1");
    assert_eq!(of("keyway.one_in"), "1");
    assert!(set.status.is_none());
    let ago = u64::try_from(now.as_nanos()).unwrap() - set.start_time_unix_nano;
    assert!(ago < 120_000_000_000, "{ago} ns ago");
    (of("keyway.shard"), addr)
}

/// Who sent what was taken, and that nothing secret is in it.
fn check_requests(collector: &Collector) {
    let resource = collector.resource().attributes;
    let of = |name: &str| attribute(&resource, name).unwrap_or_default();
    assert_eq!(
        (of("service.name"), of("k8s.pod.name")),
        ("cache".to_owned(), "cache-7".to_owned())
    );
    assert_eq!(of("deployment.environment.name"), "test");
    for taken in collector.taken() {
        assert!(
            taken.head.starts_with("POST /v1/traces HTTP/1.1\r\n"),
            "{}",
            taken.head
        );
        assert!(
            taken.head.contains("authorization: Bearer token\r\n"),
            "{}",
            taken.head
        );
        let shown = String::from_utf8_lossy(&taken.body).to_lowercase();
        assert!(
            !shown.contains("secret") && !shown.contains("token"),
            "{shown}"
        );
    }
}

#[test]
fn every_traced_command_is_a_span_with_its_parts_and_without_keys_and_values() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let collector = Collector::start(None);
    let folder = tempfile::tempdir().unwrap();
    let headers = folder.path().join("headers");
    fs::write(&headers, "authorization=Bearer token,x-scope=shop\n").unwrap();
    let more = format!(
        "service_name = \"cache\"\nheaders_file = {headers:?}\n\
         attributes = {{ \"deployment.environment.name\" = \"test\" }}\n"
    );
    let settings = Settings {
        environment: vec![("POD_NAME".to_owned(), "cache-7".to_owned())],
        ..settings(&collector, &more)
    };
    let keyway = Keyway::with(&cluster, &settings);
    let mut client = keyway.client();
    for number in 0..20 {
        let key = format!("secret:{number}");
        assert_eq!(text(&client.cmd(&["SET", &key, "secretvalue"])), "OK");
    }
    let _ = client.cmd(&["LPUSH", "secret:7", "secretvalue"]); // WRONGTYPE
    let script = "return redis.error_reply('SECRETWORD of a script')";
    let _ = client.cmd(&["EVAL", script, "1", "secret:7"]);
    let _ = client.cmd(&["MGET", "secret:1", "secret:2", "secret:3"]);
    wait_until("all traces", 20, || {
        of_kind(&collector.spans(), "MGET", SpanKind::Server).len() == 1
    });
    let spans = collector.spans();
    let sets = of_kind(&spans, "SET", SpanKind::Server);
    assert_eq!(sets.len(), 20);
    let mut nodes = HashMap::new();
    for set in &sets {
        let (shard, addr) = check_set(set, &spans, &keyway);
        assert!(cluster.addrs().contains(&addr), "{addr}");
        let known = nodes.entry(shard).or_insert_with(|| addr.clone());
        assert_eq!(*known, addr);
    }
    let slots: Vec<_> = sets
        .iter()
        .filter_map(|set| attribute(&set.attributes, "keyway.slot"))
        .collect();
    assert!(
        slots.contains(&slot_of("secret:7").to_string()),
        "{slots:?}"
    );
    for (name, error) in [("LPUSH", "WRONGTYPE"), ("EVAL", "_OTHER")] {
        let failed = of_kind(&spans, name, SpanKind::Server)[0];
        let code = attribute(&failed.attributes, "db.response.status_code");
        assert_eq!(code.as_deref(), Some(error));
        let status = failed.status.as_ref().unwrap();
        assert_eq!(status.code, i32::from(StatusCode::Error));
    }
    check_children(of_kind(&spans, "MGET", SpanKind::Server)[0], &spans);

    check_requests(&collector);
    assert!(!keyway.log().contains("Bearer"));
    assert!((traces(&keyway, "exported") - 23.0).abs() < 0.1);
}

/// The only span of a command that went to no node: who answered it, and its error.
#[track_caller]
fn answered_by(spans: &[Span], name: &str) -> (String, Option<String>) {
    let same: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
    let [whole] = same[..] else {
        panic!("not one {name}: {same:?}");
    };
    assert_eq!(whole.kind, i32::from(SpanKind::Server));
    assert!(check_children(whole, spans).is_empty(), "{name}");
    assert!(whole.end_time_unix_nano >= whole.start_time_unix_nano);
    let of = |key: &str| attribute(&whole.attributes, key);
    let by = of("keyway.answered_by").unwrap_or_default();
    (by, of("db.response.status_code"))
}

#[test]
fn what_keyway_answers_itself_is_one_span_with_no_node_in_it() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let collector = Collector::start(None);
    let settings = settings(
        &collector,
        "[hot_keys]\nnear_prefixes = [\"secret:near\"]\n",
    );
    let keyway = Keyway::with(&cluster, &settings);
    let timed = |phase: &str| {
        let labels = [&*format!("phase=\"{phase}\"")];
        keyway.metric("keyway_request_phase_seconds_count", &labels)
    };
    let mut client = keyway.client();
    let commands: [(&[&str], &str, Option<&str>); 10] = [
        (&["PING"], "PING", None),
        (&["HELLO", "3"], "HELLO", None),
        (&["CLUSTER", "SLOTS"], "CLUSTER SLOTS", None),
        (&["CLIENT", "ID"], "CLIENT ID", None),
        (&["KEYWAY", "HELP"], "KEYWAY HELP", None),
        (&["NOSUCHCOMMAND", "secret:1"], "OTHER", Some("ERR")),
        (
            &["RENAME", "secret:1", "secret:2"],
            "RENAME",
            Some("CROSSSLOT"),
        ),
        (&["SHUTDOWN"], "SHUTDOWN", Some("ERR")),
        (&["AUTH", "secret", "secretpw"], "AUTH", Some("WRONGPASS")),
        (&["SUBSCRIBE", "secret"], "SUBSCRIBE", None),
    ];
    for (command, ..) in commands {
        let _ = client.cmd(command);
    }
    assert!(timed("client_tls") >= 8.0, "{}", timed("client_tls"));
    assert!(timed("queue") < 1.0, "{}", timed("queue"));

    // In a transaction, behind a command that is on its way, and when nobody wants a reply.
    let mut client = keyway.client();
    let lines = "SET secret:1 v\r\nECHO secret\r\nMULTI\r\nINCR secret:n\r\nEXEC\r\n\
                 CLIENT REPLY OFF\r\nTIME\r\nCLIENT REPLY ON\r\n";
    client.raw(lines.as_bytes());
    for _ in 0..6 {
        let _ = client.read();
    }
    assert_eq!(text(&client.cmd(&["SET", "secret:near", "secret"])), "OK");
    wait_until("an answer from nearby", 20, || {
        assert_eq!(text(&client.cmd(&["GET", "secret:near"])), "secret");
        let spans = collector.spans();
        let mut gets = of_kind(&spans, "GET", SpanKind::Server).into_iter();
        gets.any(|get| {
            let by = attribute(&get.attributes, "keyway.answered_by");
            by.as_deref() == Some("near_cache") && check_children(get, &spans).is_empty()
        })
    });
    let spans = collector.spans();
    for (_, name, error) in commands {
        let expected = ("keyway".to_owned(), error.map(str::to_owned));
        assert_eq!(answered_by(&spans, name), expected, "{name}");
    }
    for name in ["ECHO", "MULTI", "INCR"] {
        assert_eq!(answered_by(&spans, name).0, "keyway", "{name}");
    }
    assert!(of_kind(&spans, "TIME", SpanKind::Server).is_empty());
    for whole in of_kind(&spans, "EXEC", SpanKind::Server) {
        assert_eq!(attribute(&whole.attributes, "keyway.answered_by"), None);
        assert_eq!(check_children(whole, &spans).len(), 2);
    }
    for taken in collector.taken() {
        let shown = String::from_utf8_lossy(&taken.body).to_lowercase();
        assert!(!shown.contains("secret"), "{shown}");
    }
}

/// Commands until a collector takes some that fit.
#[track_caller]
fn traced(client: &mut Client, there: &Collector, fits: impl Fn(&Taken) -> bool) {
    let before = there.taken().len();
    wait_until("traces", 20, || {
        assert_eq!(text(&client.cmd(&["SET", "k", "v"])), "OK");
        there.taken()[before..].iter().any(&fits)
    });
}

fn last_report(keyway: &Keyway) -> String {
    let log = keyway.log();
    let mut reports = log.lines();
    let report = reports.rfind(|line| line.contains("configuration reloaded"));
    report.unwrap().to_owned()
}

#[test]
fn traces_begin_go_elsewhere_and_end_while_it_runs() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let [one, two] = [(); 2].map(|()| Collector::start(None));
    let folder = tempfile::tempdir().unwrap();
    let headers = folder.path().join("headers");
    fs::write(&headers, "authorization=Bearer one\n").unwrap();
    let settings = Settings {
        sections: "[traces]\nservice_name = \"early\"\n".to_owned(),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let mut client = keyway.client();
    keyway.reconfigure(|config| {
        let endpoint = format!("endpoint = \"http://{}\"", one.addr());
        let own = format!("{endpoint}\none_in = 1\nheaders_file = {headers:?}\n");
        config.replace("service_name = \"early\"", &own)
    });
    let report = last_report(&keyway);
    for key in ["endpoint", "one_in", "headers", "service_name"] {
        assert!(report.contains(&format!("traces.{key}")), "{report}");
    }
    assert!(!report.contains("needs_restart"), "{report}");
    traced(&mut client, &one, |_| true);

    // What a file says that the configuration only names.
    fs::write(&headers, "authorization=Bearer two\n").unwrap();
    keyway.reconfigure(|config| config);
    let report = last_report(&keyway);
    assert!(
        report.contains("\"changed\":\"traces.headers\""),
        "{report}"
    );
    traced(&mut client, &one, |taken| {
        taken.head.contains("authorization: Bearer two\r\n")
    });

    keyway.reconfigure(|config| {
        let config = config.replace(&one.addr(), &two.addr());
        config.replace("[traces]\n", "[traces]\nservice_name = \"other\"\n")
    });
    traced(&mut client, &two, |_| true);
    let of = |from: &Collector, name: &str| attribute(&from.resource().attributes, name).unwrap();
    let names = [&one, &two].map(|from| of(from, "service.name"));
    assert_eq!(names, ["keyway", "other"]);
    let instances = [&one, &two].map(|from| of(from, "service.instance.id"));
    assert_eq!(instances[0], instances[1], "it is one process");

    keyway.reconfigure(|config| config.replace("endpoint = ", "# endpoint = "));
    for _ in 0..100 {
        assert_eq!(text(&client.cmd(&["GET", "k"])), "v");
    }
    assert!(keyway.stop().success());
    assert!(of_kind(&two.spans(), "GET", SpanKind::Server).is_empty());
}

#[test]
fn who_vouches_for_a_collector_changes_while_it_runs() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let [first, second] = [(); 2].map(|()| Certificates::loopback());
    let [one, two] = [&first, &second].map(|own| Collector::start(Some(own.server_config())));
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    fs::copy(&first.ca, &ca).unwrap();
    let endpoint = one.addr();
    let settings = Settings {
        sections: format!("[traces]\nendpoint = \"https://{endpoint}\"\nca = {ca:?}\none_in = 1\n"),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let mut client = keyway.client();
    traced(&mut client, &one, |taken| {
        taken.head.starts_with("POST /v1/traces ")
    });

    // Another collector, first with the wrong authorities; nobody asks for the right ones.
    keyway.reconfigure(|config| config.replace(&endpoint, &two.addr()));
    assert_eq!(text(&client.cmd(&["SET", "k", "v"])), "OK");
    keyway.wait_logged("traces cannot be sent");
    fs::copy(&second.ca, &ca).unwrap();
    traced(&mut client, &two, |_| true);
    keyway.wait_logged("\"changed\":\"traces.ca\"");

    // What cannot be used changes nothing.
    let missing = folder.path().join("missing.pem");
    keyway.reconfigure(|config| config.replace(&format!("{ca:?}"), &format!("{missing:?}")));
    keyway.wait_logged("traces.ca: cannot read");
    traced(&mut client, &two, |_| true);
}

#[test]
fn a_collector_that_stalls_costs_nothing_but_traces() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let collector = Collector::start(None);
    collector.set(Collects::Stalls);
    let mut keyway = Keyway::with(&cluster, &settings(&collector, ""));
    let mut client = keyway.client();
    wait_until("what finds no room", 60, || {
        for _ in 0..500 {
            assert_eq!(text(&client.cmd(&["SET", "k", "v"])), "OK");
        }
        traces(&keyway, "dropped") > 0.0
    });
    collector.set(Collects::All);
    wait_until("traces", 30, || traces(&keyway, "exported") > 0.0);
    assert!(!collector.spans().is_empty());

    // What is refused for good is not tried again; and the end does not wait for a collector.
    collector.set(Collects::Refuses(400));
    wait_until("traces that are refused", 30, || {
        assert_eq!(text(&client.cmd(&["SET", "k", "v"])), "OK");
        traces(&keyway, "failed") > 0.0
    });
    keyway.wait_logged("the collector says 400");
    collector.set(Collects::Stalls);
    assert_eq!(text(&client.cmd(&["SET", "k", "v"])), "OK");
    keyway.signal(Signal::TERM);
    assert!(keyway.wait_end().success());
}

#[test]
fn what_is_traced_last_is_sent_before_the_end_and_nobody_there_is_no_trouble() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let collector = Collector::start(None);
    let mut keyway = Keyway::with(&cluster, &settings(&collector, ""));
    let mut client = keyway.client();
    assert_eq!(text(&client.cmd(&["SET", "k", "v"])), "OK");
    keyway.signal(Signal::TERM);
    assert!(keyway.wait_end().success());
    assert_eq!(
        of_kind(&collector.spans(), "SET", SpanKind::Server).len(),
        1
    );

    let mut nowhere = settings(&collector, "");
    nowhere.sections = nowhere.sections.replace(&collector.addr(), "127.0.0.1:1");
    let keyway = Keyway::with(&cluster, &nowhere);
    let mut client = keyway.client();
    wait_until("traces that cannot be sent", 60, || {
        assert_eq!(text(&client.cmd(&["SET", "k", "v"])), "OK");
        traces(&keyway, "failed") > 0.0
    });
    keyway.wait_logged("traces cannot be sent");
}
