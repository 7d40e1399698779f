//! The simulator says what a real server said: `captured/` holds requests and the bytes that
//! valkey-server 9.1.2 replied to them (`capture.py` and `capture_cluster.py` write them).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test panics"
)]

use std::{collections::BTreeSet, fmt::Write as _, net::SocketAddr, time::Duration};

use cluster_sim::{Cluster, ConnectionId, Layout, NodeIndex};
use resp::OwnedRequest;

/// What the simulator refuses as unknown, among the commands that were asked.
const UNKNOWN: &str = "bitcount cluster config copy delifeq getbit hrandfield lcs lmpop lpos object \
    setbit sintercard sort zdiff zinter zintercard zinterstore zlexcount zmpop zrandmember \
    zrangebylex zrangestore zremrangebylex zrevrangebylex zunion zunionstore";

/// Requests whose reply differs, and why it may.
const LONG_DOUBLE: &str = "the server adds with 80 bits, Rust has no such type";
const DIFFERENT: [(&str, &str); 4] = [
    ("HINCRBYFLOAT h f 1e3", LONG_DOUBLE),
    ("HGETALL h", "it shows the sum above"),
    ("INCRBYFLOAT f 0.2", LONG_DOUBLE),
    ("INCRBYFLOAT f 5.0e3", LONG_DOUBLE),
];

/// `Layout` puts the primaries before the replicas.
const NODES: [(&str, NodeIndex); 3] = [("a", 0), ("b", 1), ("r", 2)];

/// One line of a captured file that matters.
#[derive(Debug)]
enum Step {
    /// `@ NODE [new]`
    Turn { node: NodeIndex, new: bool },
    /// `> REQUEST`, with the reply that belongs to the protocol.
    Ask {
        line: usize,
        request: String,
        reply: String,
    },
}

/// The client's side of a cluster in memory.
struct Session {
    cluster: Cluster,
    connections: [Option<ConnectionId>; 3],
    here: NodeIndex,
    proto: &'static str,
    ids: Vec<(String, String)>,
}

impl Session {
    fn new(layout: Layout, proto: &'static str) -> Self {
        let addresses: Vec<SocketAddr> = (7001..7005)
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
            .collect();
        let mut session = Self {
            cluster: Cluster::new(layout, &addresses),
            connections: [None; 3],
            here: 0,
            proto,
            ids: Vec::new(),
        };
        for (name, node) in NODES.iter().take(session.cluster.nodes()) {
            session.turn(*node, true);
            let id = session.ask(&["CLUSTER".into(), "MYID".into()]);
            let id = String::from_utf8(id[5..45].to_vec()).unwrap();
            session.ids.push((format!("<id {name}>"), id));
            let port = addresses[*node].port().to_string();
            session.ids.push((format!("<port {name}>"), port));
        }
        session.turn(0, true);
        session
    }

    fn turn(&mut self, node: NodeIndex, new: bool) {
        self.here = node;
        if new {
            self.connections[node] = self.cluster.connect(node, "", Duration::ZERO);
            self.ask(&["HELLO".into(), self.proto.into()]);
        }
    }

    fn ask(&mut self, request: &[Vec<u8>]) -> Vec<u8> {
        let connection = self.connections[self.here].unwrap();
        let request = OwnedRequest::from_args(request);
        self.cluster
            .received(connection, request.bytes(), Duration::ZERO);
        self.cluster.output(connection, Duration::ZERO)
    }

    /// The reply to a request as the file writes it, and the file's reply with this cluster's names.
    fn compare(&mut self, request: &str, reply: &str) -> (String, String) {
        let named = |text: &str| {
            self.ids
                .iter()
                .fold(text.to_owned(), |text, (name, value)| {
                    text.replace(name, value)
                })
        };
        let (request, expected) = (named(request), named(reply));
        let mut replies = [
            escape(&self.ask(&arguments(&request))),
            escape(&unescape(&expected)),
        ];
        // The order of a scan is nobody's promise.
        if request
            .split(' ')
            .next()
            .is_some_and(|name| name.ends_with("SCAN"))
        {
            for reply in &mut replies {
                let mut parts: Vec<&str> = reply.split("\\r\\n").collect();
                parts.sort_unstable();
                *reply = parts.join("\\r\\n");
            }
        }
        let [said, expected] = replies;
        (said, expected)
    }
}

fn arguments(text: &str) -> Vec<Vec<u8>> {
    let argument = |word: &str| match word {
        "\"\"" => Vec::new(),
        word => unescape(word),
    };
    text.split(' ').map(argument).collect()
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next().unwrap() {
            b'r' => b'\r',
            b'n' => b'\n',
            b'_' => b' ',
            b'x' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            byte => byte,
        });
    }
    bytes
}

fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn steps(text: &str, proto: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some((kind, rest)) = line.split_once(' ') else {
            continue;
        };
        match (kind, steps.last_mut()) {
            ("@", _) => {
                let (name, new) = rest
                    .split_once(' ')
                    .map_or((rest, false), |(name, _)| (name, true));
                let node = NODES.iter().find(|(known, _)| *known == name).unwrap().1;
                steps.push(Step::Turn { node, new });
            }
            (">", _) => steps.push(Step::Ask {
                line: index + 1,
                request: rest.into(),
                reply: String::new(),
            }),
            ("<", Some(Step::Ask { reply, .. })) => rest.clone_into(reply),
            ("3", Some(Step::Ask { reply, .. })) if proto == "3" => rest.clone_into(reply),
            ("#" | "3", _) => {}
            _ => panic!("line {}: {line}", index + 1),
        }
    }
    steps
}

/// Asks everything in a file; says where the replies differ, and which commands are not known.
fn replay(
    file: &str,
    text: &str,
    layout: &Layout,
    unknown: &mut BTreeSet<String>,
) -> (usize, String) {
    let (mut asked, mut differences) = (0, String::new());
    for proto in ["2", "3"] {
        // Keys that an unknown command would have changed.
        let mut missed = BTreeSet::new();
        let mut session = Session::new(layout.clone(), proto);
        for step in steps(text, proto) {
            let (line, request, reply) = match step {
                Step::Turn { node, new } => {
                    session.turn(node, new);
                    continue;
                }
                Step::Ask {
                    line,
                    request,
                    reply,
                } => (line, request, reply),
            };
            assert!(
                !reply.is_empty(),
                "{file}:{line} has no reply: run the capture"
            );
            asked += 1;
            let (said, expected) = session.compare(&request, &reply);
            if said == expected {
                continue;
            }
            if said.starts_with("-ERR unknown command") {
                let mut words = request.split(' ').map(ToOwned::to_owned);
                unknown.insert(words.next().unwrap_or_default().to_ascii_lowercase());
                missed.extend(words);
                continue;
            }
            let different = DIFFERENT.iter().any(|(known, _)| *known == request);
            if different || request.split(' ').any(|word| missed.contains(word)) {
                continue;
            }
            writeln!(
                differences,
                "{file}:{line} RESP{proto}: {request}\n  server    {expected}\n  simulator {said}"
            )
            .unwrap();
        }
    }
    (asked, differences)
}

#[test]
fn one_node_answers_as_a_server() {
    let layout = Layout {
        shards: 1,
        replicas: 0,
        ..Layout::default()
    };
    let mut unknown = BTreeSet::new();
    let (mut asked, mut differences) = (0, String::new());
    for (file, text) in [
        ("connection", include_str!("captured/connection.txt")),
        ("hashes", include_str!("captured/hashes.txt")),
        ("keys", include_str!("captured/keys.txt")),
        ("lists", include_str!("captured/lists.txt")),
        ("sets", include_str!("captured/sets.txt")),
        ("strings", include_str!("captured/strings.txt")),
        ("zsets", include_str!("captured/zsets.txt")),
    ] {
        let (count, different) = replay(file, text, &layout, &mut unknown);
        asked += count;
        differences += &different;
    }
    assert!(differences.is_empty(), "{differences}");
    let unknown: Vec<String> = unknown.into_iter().collect();
    assert_eq!(unknown.join(" "), UNKNOWN, "what is refused as unknown");
    assert!(asked > 1500, "{asked}");
}

#[test]
fn a_cluster_redirects_as_servers_do() {
    let layout = Layout {
        shards: 2,
        replicas: 1,
        ..Layout::default()
    };
    let mut unknown = BTreeSet::new();
    let text = include_str!("captured/cluster/routing.txt");
    let (asked, differences) = replay("routing", text, &layout, &mut unknown);
    assert!(differences.is_empty(), "{differences}");
    // CLUSTER REPLICAS
    assert_eq!(unknown, BTreeSet::from(["cluster".to_owned()]));
    assert!(asked > 200, "{asked}");
}
