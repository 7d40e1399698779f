//! What the captured replies do not show: the differences, other versions, and what stays secret.

mod captured;
mod script;

use std::time::{Duration, Instant};

use command::{CommandTable, Handling};
use resp::{OwnedRequest, Protocol};

use super::*;
use crate::state::{ReplyMode, User};

/// A proxy in front of a cluster, and one client.
struct Setup {
    facts: Facts,
    endpoint: Endpoint,
    zone: Option<String>,
    replica: Option<(Endpoint, String)>,
    node_id: String,
    shard_id: String,
    session: Session,
    now: Instant,
}

impl Setup {
    #[expect(
        clippy::disallowed_methods,
        reason = "the only way to an `Instant`; everything later is counted from it"
    )]
    fn new() -> Self {
        let now = Instant::now();
        let (peer, local) = ("192.0.2.7:40000", "192.0.2.1:6379");
        Self {
            facts: Facts {
                version: "9.1.2".into(),
                default_user_open: true,
                slots_covered: 16384,
                shards: 3,
                nodes: 6,
                epoch: 0,
                databases: 1,
                sums: Sums::default(),
            },
            endpoint: Endpoint {
                host: "cache.example".into(),
                port: 6379,
            },
            zone: None,
            replica: None,
            node_id: "0123456789abcdef0123456789abcdef01234567".into(),
            shard_id: "76543210fedcba9876543210fedcba9876543210".into(),
            session: Session::new(
                7,
                peer.parse().unwrap(),
                local.parse().unwrap(),
                User::Default,
                now,
            ),
            now,
        }
    }

    /// The outcome and the reply of a command that is answered here.
    fn ask(&mut self, request: &OwnedRequest) -> (Outcome, Vec<u8>) {
        let request = request.as_request();
        let table = CommandTable::builtin();
        let command = table.lookup(request).unwrap();
        let Handling::Local(kind) = command.handling(request) else {
            panic!("{} is not answered here", command.name());
        };
        let (context, session) = context(self);
        let mut out = b"before".to_vec();
        let outcome = answer(kind, request, session, &context, &mut out);
        (outcome, out.strip_prefix(b"before").unwrap().to_vec())
    }

    /// The reply to a command of words.
    fn text(&mut self, words: &str) -> String {
        let (outcome, reply) = self.ask(&OwnedRequest::from_args(words.split(' ')));
        assert_eq!(outcome, Outcome::Replied, "{words}");
        String::from_utf8(reply).unwrap()
    }
}

fn context(setup: &mut Setup) -> (Context<'_>, &mut Session) {
    let context = Context {
        now: setup.now,
        unix_ms: 1_795_228_795_393,
        facts: &setup.facts,
        table: CommandTable::builtin(),
        endpoint: &setup.endpoint,
        node_id: &setup.node_id,
        replica: setup
            .replica
            .as_ref()
            .map(|(endpoint, id)| (endpoint, id.as_str())),
        read_port: setup.session.read_port,
        shard_id: &setup.shard_id,
        zone: setup.zone.as_deref(),
        uptime: Duration::from_secs(200_000),
        clients: 11,
        clients_max: 10_000,
        clients_blocked: 2,
        commands_processed: 1234,
        connections_received: 56,
        used_memory: 3_246_240,
        process_id: 4242,
        run_id: "481e87d81c13dac2ebebd9db177401e0b16f8cd3",
        keyway_version: "0.1.0",
    };
    (context, &mut setup.session)
}

fn authentication(outcome: Outcome) -> AuthRequest {
    match outcome {
        Outcome::Authenticate(request) => request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_nodes_count_is_added_up() {
    let mut sums = Sums::default();
    sums.add(
        "# Memory\r\nused_memory:10\r\nother:5\r\n# Keyspace\r\ndb0:keys=2,expires=1,avg_ttl=9\r\n",
    );
    sums.add(
        "used_memory:32\r\nkeyspace_hits:7\r\ndb0:keys=3,expires=0\r\ndb2:keys=1,expires=1\r\n",
    );
    let mut setup = Setup::new();
    setup.facts.sums = sums;
    let info = setup.text("INFO");
    for line in [
        "used_memory:42\r\n",
        "keyspace_hits:7\r\n",
        "db0:keys=5,expires=1,avg_ttl=0\r\n",
    ] {
        assert!(info.contains(line), "{line} is not in {info}");
    }
    assert!(info.trim_end().ends_with("db2:keys=1,expires=1,avg_ttl=0"));
}

#[test]
fn select_says_what_the_clusters_version_says() {
    let mut setup = Setup::new();
    for (version, text) in [
        ("8.0.1", "-ERR SELECT is not allowed in cluster mode\r\n"),
        ("8.1.4", "-ERR SELECT is not allowed in cluster mode\r\n"),
        ("9.0.0", "-ERR DB index is out of range\r\n"),
        ("10.0.0", "-ERR DB index is out of range\r\n"),
        ("unstable", "-ERR DB index is out of range\r\n"),
    ] {
        setup.facts.version = version.into();
        assert_eq!(setup.text("SELECT 1"), text, "{version}");
        assert_eq!(setup.text("SELECT 0"), "+OK\r\n", "{version}");
    }
}

#[test]
fn before_9_1_no_module_is_told_of() {
    let mut setup = Setup::new();
    setup.facts.version = "8.0.1".into();
    assert_eq!(
        setup.text("HELLO 3"),
        "%7\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n$7\r\nversion\r\n$5\r\n8.0.1\r\n$5\r\nproto\r\n:3\r\n\
         $2\r\nid\r\n:7\r\n$4\r\nmode\r\n$7\r\ncluster\r\n$4\r\nrole\r\n$6\r\nmaster\r\n\
         $7\r\nmodules\r\n*0\r\n"
    );
    assert_eq!(setup.session.protocol, Protocol::Resp3);
}

#[test]
fn a_hello_with_credentials_changes_nothing_until_they_are_accepted() {
    let mut setup = Setup::new();
    let hello = OwnedRequest::from_args("HELLO 3 SETNAME bob AUTH alice s3cret".split(' '));
    let (outcome, reply) = setup.ask(&hello);
    let request = authentication(outcome);
    assert!(reply.is_empty());
    assert_eq!(request.username.as_deref(), Some(b"alice".as_slice()));
    assert_eq!(request.password, b"s3cret");
    assert!(!request.silent);
    assert_eq!(setup.session.protocol, Protocol::Resp2);
    assert!(setup.session.name.is_empty());
    assert_eq!(setup.session.user, User::Default);

    let alice = User::Named(b"alice".as_slice().into());
    let (context, session) = context(&mut setup);
    let mut out = Vec::new();
    authenticated(session, &request.then, alice.clone(), &context, &mut out);
    assert!(out.starts_with(b"%7\r\n"));
    assert_eq!(session.protocol, Protocol::Resp3);
    assert_eq!(session.name, b"bob");
    assert_eq!(session.user, alice);
    assert!(setup.text("CLIENT INFO").contains(" user=alice "));
}

#[test]
fn a_password_is_not_shown() {
    let mut setup = Setup::new();
    for words in ["HELLO 3 AUTH alice s3cret", "AUTH alice s3cret"] {
        let (outcome, _) = setup.ask(&OwnedRequest::from_args(words.split(' ')));
        let shown = format!("{outcome:?}");
        assert!(
            shown.contains("alice") && !shown.contains("s3cret"),
            "{shown}"
        );
    }
}

#[test]
fn an_auth_in_silence_is_silent() {
    let mut setup = Setup::new();
    setup.session.reply_mode = ReplyMode::SkipNext;
    let auth = OwnedRequest::from_args(["AUTH", "alice", "s3cret"]);
    assert!(authentication(setup.ask(&auth).0).silent);
    assert!(!authentication(setup.ask(&auth).0).silent);
    setup.session.reply_mode = ReplyMode::Off;
    assert!(authentication(setup.ask(&auth).0).silent);
    assert!(authentication(setup.ask(&auth).0).silent);
}

#[test]
fn quit_in_silence_closes_all_the_same() {
    let mut setup = Setup::new();
    setup.session.reply_mode = ReplyMode::Off;
    assert_eq!(
        setup.ask(&OwnedRequest::from_args(["QUIT"])),
        (Outcome::Close, Vec::new())
    );
}

#[test]
fn the_proxys_own_user_needs_no_password_and_is_not_named() {
    let mut setup = Setup::new();
    setup.facts.default_user_open = false;
    assert!(must_authenticate(&setup.session, &setup.facts));
    setup.session.user = User::Service;
    setup.session.initial_user = User::Service;
    assert!(!must_authenticate(&setup.session, &setup.facts));
    assert!(setup.text("CLIENT INFO").contains(" user=default "));
    assert_eq!(setup.text("RESET"), "+RESET\r\n");
    assert_eq!(setup.session.user, User::Service);
}

#[test]
fn names_are_words_of_bounded_length() {
    let mut setup = Setup::new();
    let refusal = b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n";
    for name in [
        b"a\0b".as_slice(),
        b"\0",
        b"a\0\r\n+OK",
        b"a b",
        b"\x7f",
        b"\xc3\xa9",
    ] {
        for prefix in [&["CLIENT", "SETNAME"][..], &["HELLO", "3", "SETNAME"]] {
            let args = prefix.iter().map(|arg| arg.as_bytes()).chain([name]);
            let (_, reply) = setup.ask(&OwnedRequest::from_args(args));
            assert_eq!(reply, refusal, "{name:?}");
        }
    }
    assert_eq!(setup.session.protocol, Protocol::Resp2);
    let longest = "n".repeat(client::NAME_BYTES_MAX);
    assert_eq!(setup.text(&format!("CLIENT SETNAME {longest}")), "+OK\r\n");
    assert_eq!(
        setup.text(&format!("CLIENT SETINFO LIB-NAME {longest}")),
        "+OK\r\n"
    );
    for words in [
        "CLIENT SETNAME",
        "HELLO 2 SETNAME",
        "CLIENT SETINFO LIB-VER",
    ] {
        let reply = setup.text(&format!("{words} {longest}n"));
        assert!(
            reply.ends_with(" cannot be longer than 4096 bytes.\r\n"),
            "{reply}"
        );
    }
    assert!(setup.session.lib_ver.is_empty());
}

#[test]
fn an_error_repeats_little_of_an_argument() {
    let mut setup = Setup::new();
    let long = "x".repeat(100_000);
    let shown = "x".repeat(128);
    assert_eq!(
        setup.text(&format!("HELLO 3 {long}")),
        format!("-ERR Syntax error in HELLO option '{shown}'\r\n")
    );
    assert_eq!(
        setup.text(&format!("CLIENT SETINFO {long} 1")),
        format!("-ERR Unrecognized option '{shown}'\r\n")
    );
}

#[test]
fn client_info_knows_the_time() {
    let mut setup = Setup::new();
    setup.session.last_command_at += Duration::from_millis(25_000);
    setup.now += Duration::from_millis(40_999);
    assert!(setup.text("CLIENT INFO").contains(" age=40 idle=15 "));
}

#[test]
fn a_host_name_is_told_where_an_address_would_be() {
    let mut setup = Setup::new();
    setup.zone = Some("az-1".into());
    setup.facts.epoch = 9;
    let id = setup.node_id.clone();
    assert_eq!(
        setup.text("CLUSTER SLOTS"),
        format!(
            "*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n$13\r\ncache.example\r\n:6379\r\n$40\r\n{id}\r\n\
             *2\r\n$17\r\navailability-zone\r\n$4\r\naz-1\r\n"
        )
    );
    let line = format!("{id} cache.example:6379@16379 myself,master - 0 0 9 connected 0-16383\n");
    assert_eq!(
        setup.text("CLUSTER NODES"),
        format!("${}\r\n{line}\r\n", line.len())
    );
    setup.zone = Some(String::new());
    assert!(setup.text("CLUSTER SLOTS").ends_with("\r\n*0\r\n"));
    setup.endpoint.port = 60_000;
    assert!(
        setup
            .text("CLUSTER NODES")
            .contains(" cache.example:60000@65535 ")
    );
}

#[test]
fn the_state_of_the_cluster_is_ok_while_it_owns_any_slot() {
    let mut setup = Setup::new();
    for (covered, lines) in [
        (
            16384,
            [
                "cluster_state:ok",
                "cluster_slots_assigned:16384",
                "cluster_size:1",
            ],
        ),
        (
            16000,
            [
                "cluster_state:ok",
                "cluster_slots_assigned:16000",
                "cluster_size:1",
            ],
        ),
        (
            0,
            [
                "cluster_state:fail",
                "cluster_slots_assigned:0",
                "cluster_size:0",
            ],
        ),
    ] {
        setup.facts.slots_covered = covered;
        let reply = setup.text("CLUSTER INFO");
        for line in lines {
            assert!(reply.contains(&format!("{line}\r\n")), "{line} in {reply}");
        }
    }
}

#[test]
fn info_tells_what_the_proxy_knows() {
    let mut setup = Setup::new();
    setup.facts.epoch = 3;
    let reply = setup.text("INFO");
    let text = reply.split_once("\r\n").unwrap().1;
    assert_eq!(
        text,
        "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n\
         server_mode:cluster\r\narch_bits:64\r\nprocess_id:4242\r\n\
         run_id:481e87d81c13dac2ebebd9db177401e0b16f8cd3\r\ntcp_port:6379\r\n\
         server_time_usec:1795228795393000\r\nuptime_in_seconds:200000\r\nuptime_in_days:2\r\n\
         availability_zone:\r\n\r\n\
         # Clients\r\nconnected_clients:11\r\nmaxclients:10000\r\nblocked_clients:2\r\n\r\n\
         # Memory\r\nused_memory:0\r\nused_memory_human:0B\r\n\r\n\
         # Persistence\r\nloading:0\r\nasync_loading:0\r\nrdb_bgsave_in_progress:0\r\n\
         aof_rewrite_in_progress:0\r\n\r\n\
         # Stats\r\ntotal_connections_received:56\r\ntotal_commands_processed:1234\r\n\r\n\
         # Replication\r\nrole:master\r\nconnected_slaves:0\r\n\r\n\
         # Cluster\r\ncluster_enabled:1\r\n\r\n\
         # Keyway\r\nkeyway_version:0.1.0\r\nkeyway_used_memory:3246240\r\nkeyway_shards:3\r\nkeyway_nodes:6\r\n\
         keyway_slots_covered:16384\r\n\r\n\
         # Keyspace\r\n\r\n"
    );
    for words in [
        "INFO default",
        "INFO ALL",
        "INFO everything",
        "INFO keyspace all",
    ] {
        assert_eq!(setup.text(words), reply, "{words}");
    }
    let keyway = setup.text("INFO nosuch keyspace KEYWAY");
    assert!(
        keyway.contains("\r\n# Keyway\r\nkeyway_version:"),
        "{keyway}"
    );
    assert!(keyway.ends_with("\r\n\r\n# Keyspace\r\n\r\n"), "{keyway}");
}
