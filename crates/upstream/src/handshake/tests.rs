//! The setup against what Valkey 8.0.1 and 9.1.2 were seen to answer.

use proptest::prelude::*;
use resp::write;

use super::*;

const ID: &str = "5934ccc93e6952b48f225865fd34c333aabbccdd";

fn setup() -> Setup {
    Setup {
        protocol: Protocol::Resp3,
        credentials: None,
        database: 0,
        readonly: false,
        node_id: None,
        version: "1.2.3",
    }
}

fn checked() -> Setup {
    Setup {
        node_id: Some(ID.into()),
        ..setup()
    }
}

fn with_password() -> Setup {
    Setup {
        credentials: Some(Credentials {
            username: b"keyway"[..].into(),
            password: b"hunter2"[..].into(),
        }),
        ..setup()
    }
}

/// The reply of a node of the cluster to `HELLO`, field by field as 9.1.2 sends it.
fn hello(protocol: Protocol, role: &str, zone: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    write::map(&mut out, protocol, 7 + usize::from(zone.is_some()));
    let mut text = |key: &str, value: &str| {
        write::bulk(&mut out, key);
        write::bulk(&mut out, value);
    };
    text("server", "valkey");
    text("version", "9.1.2");
    write::bulk(&mut out, "proto");
    write::integer(&mut out, if protocol == Protocol::Resp3 { 3 } else { 2 });
    write::bulk(&mut out, "id");
    write::integer(&mut out, 59);
    let mut text = |key: &str, value: &str| {
        write::bulk(&mut out, key);
        write::bulk(&mut out, value);
    };
    text("mode", "cluster");
    text("role", role);
    write::bulk(&mut out, "modules");
    write::array(&mut out, 1);
    write::map(&mut out, protocol, 4);
    for (key, value) in [("name", "lua"), ("path", "lua")] {
        write::bulk(&mut out, key);
        write::bulk(&mut out, value);
    }
    write::bulk(&mut out, "ver");
    write::integer(&mut out, 1);
    write::bulk(&mut out, "args");
    write::array(&mut out, 0);
    if let Some(zone) = zone {
        write::bulk(&mut out, "availability_zone");
        write::bulk(&mut out, zone);
    }
    out
}

fn hello3() -> Vec<u8> {
    hello(Protocol::Resp3, "master", None)
}

/// The requests in `bytes`, as words.
fn words(bytes: &[u8]) -> Vec<String> {
    let (mut rest, mut found) = (bytes, Vec::new());
    while !rest.is_empty() {
        let (value, len) = Value::parse(rest).unwrap();
        let args = value.as_array().unwrap().iter();
        let args: Vec<_> = args.map(|arg| arg.as_str().unwrap()).collect();
        found.push(args.join(" "));
        rest = &rest[len..];
    }
    found
}

/// A handshake whose `HELLO` was sent and answered; what follows was sent.
fn greeted(setup: Setup) -> Handshake {
    let mut handshake = Handshake::new(setup);
    handshake.take_output();
    let hello = hello3();
    assert!(
        handshake
            .received(&hello)
            .is_ok_and(|(used, _)| used == hello.len())
    );
    handshake.take_output();
    handshake
}

/// What becomes of a handshake whose `HELLO` is answered so.
fn refusal(setup: Setup, reply: &str) -> HandshakeError {
    let mut handshake = Handshake::new(setup);
    handshake.take_output();
    let error = handshake.received(reply.as_bytes()).unwrap_err();
    assert!(handshake.take_output().is_empty(), "nothing more is sent");
    error
}

#[test]
fn hello_goes_alone_and_the_rest_in_one_write() {
    let mut handshake = Handshake::new(Setup {
        readonly: true,
        ..checked()
    });
    assert_eq!(words(&handshake.take_output()), ["HELLO 3"]);
    assert!(
        handshake.take_output().is_empty(),
        "nothing before its answer"
    );
    let reply = hello3();
    assert_eq!(handshake.received(&reply), Ok((reply.len(), false)));
    let expected = [
        "CLIENT SETINFO LIB-NAME keyway",
        "CLIENT SETINFO LIB-VER 1.2.3",
        "CLUSTER MYID",
        "READONLY",
    ];
    assert_eq!(words(&handshake.take_output()), expected);
    let mut answers = b"+OK\r\n+OK\r\n".to_vec();
    write::bulk(&mut answers, ID);
    answers.extend_from_slice(b"+OK\r\n");
    assert_eq!(handshake.received(&answers), Ok((answers.len(), true)));
    assert!(handshake.take_output().is_empty());
}

#[test]
fn only_what_is_wanted_is_asked() {
    let mut handshake = Handshake::new(Setup {
        protocol: Protocol::Resp2,
        ..with_password()
    });
    let expected = ["HELLO 2 AUTH keyway hunter2"];
    assert_eq!(words(&handshake.take_output()), expected);
    let reply = hello(Protocol::Resp2, "master", None);
    assert_eq!(handshake.received(&reply), Ok((reply.len(), false)));
    assert_eq!(words(&handshake.take_output()).len(), 2, "SETINFO twice");
    assert_eq!(handshake.received(b"+OK\r\n+OK\r\n"), Ok((10, true)));
}

#[test]
fn the_greeting_is_read_in_both_protocols() {
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        for (role, zone) in [("master", None), ("replica", Some("eu-central-1a"))] {
            let mut handshake = Handshake::new(Setup {
                protocol,
                ..setup()
            });
            handshake.take_output();
            assert_eq!(*handshake.greeting(), Greeting::default());
            handshake.received(&hello(protocol, role, zone)).unwrap();
            let expected = Greeting {
                version: Some("9.1.2".to_owned()),
                role: Some(role.to_owned()),
                zone: zone.map(str::to_owned),
                client_id: Some(59),
            };
            assert_eq!(*handshake.greeting(), expected);
        }
    }
}

#[test]
fn refused_credentials_are_told_in_the_servers_words() {
    for text in [
        "WRONGPASS invalid username-password pair or user is disabled.",
        "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
         <proto> AUTH <user> <pass> option can be used to authenticate the client and select the \
         RESP protocol version at the same time",
        "NOPERM User keyway has no permissions to run the 'hello' command",
    ] {
        let error = refusal(with_password(), &format!("-{text}\r\n"));
        assert_eq!(error, HandshakeError::Refused(text.to_owned()));
    }
}

#[test]
fn a_node_that_cannot_now_is_not_ready() {
    for text in [
        "LOADING Valkey is loading the dataset in memory",
        "ERR max number of clients reached",
        "NOPROTO unsupported protocol version",
    ] {
        let error = refusal(setup(), &format!("-{text}\r\n"));
        assert_eq!(error, HandshakeError::NotReady(text.to_owned()));
    }
    // HELLO works while the data is read from disk, CLUSTER does not.
    let mut handshake = greeted(checked());
    let text = "LOADING Valkey is loading the dataset in memory";
    let answers = format!("+OK\r\n+OK\r\n-{text}\r\n");
    let error = HandshakeError::NotReady(text.to_owned());
    assert_eq!(handshake.received(answers.as_bytes()), Err(error));
}

#[test]
fn another_answer_to_hello_is_unexpected() {
    for reply in [
        "+OK\r\n",
        "$2\r\nhi\r\n",
        "*0\r\n",
        "%0\r\n",
        "_\r\n",
        "%1\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n",
        "%1\r\n$5\r\nproto\r\n:2\r\n", // it was asked for 3
        "HTTP/1.1 400 Bad Request\r\n",
        "$9999999999\r\n",
    ] {
        let error = refusal(setup(), reply);
        let unexpected = matches!(error, HandshakeError::Unexpected { step: "HELLO", .. });
        assert!(unexpected, "{reply:?}: {error}");
        assert!(error.to_string().len() < 200, "a log line has an end");
    }
}

#[test]
fn an_answer_without_an_end_is_given_up() {
    let mut handshake = Handshake::new(setup());
    handshake.take_output();
    let mut reply = b"*1000\r\n$70000\r\n".to_vec();
    assert_eq!(handshake.received(&reply), Ok((0, false)));
    reply.resize(REPLY_BYTES_MAX + 1, b'x');
    let error = handshake.received(&reply).unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
}

#[test]
fn an_address_of_another_node_is_not_believed() {
    let other = "482199d0ad9859b4ab789c2ba8e6ae27aabbccdd";
    for (found, reply) in [
        (other, format!("$40\r\n{other}\r\n")),
        ("", ":1\r\n".to_owned()),
        ("", "$-1\r\n".to_owned()),
        (&ID[..39], format!("$39\r\n{}\r\n", &ID[..39])),
    ] {
        let error = greeted(checked())
            .received(format!("+OK\r\n+OK\r\n{reply}").as_bytes())
            .unwrap_err();
        let expected = HandshakeError::WrongNode {
            expected: ID.to_owned(),
            found: found.to_owned(),
        };
        assert_eq!(error, expected);
    }
}

#[test]
fn a_user_who_may_not_ask_for_the_id_is_let_through() {
    let text = "-NOPERM User ro has no permissions to run the 'cluster|myid' command\r\n";
    let answers = format!("+OK\r\n+OK\r\n{text}");
    let result = greeted(checked()).received(answers.as_bytes());
    assert_eq!(result, Ok((answers.len(), true)));
}

#[test]
fn setinfo_may_fail() {
    for refusal in [
        "-ERR unknown subcommand 'SETINFO'. Try CLIENT HELP.\r\n",
        "-NOPERM User ro has no permissions to run the 'client|setinfo' command\r\n",
    ] {
        let answers = refusal.repeat(2);
        let result = greeted(setup()).received(answers.as_bytes());
        assert_eq!(result, Ok((answers.len(), true)));
    }
}

#[test]
fn readonly_must_succeed() {
    let readonly = || Setup {
        readonly: true,
        ..setup()
    };
    let ok = b"+OK\r\n+OK\r\n+OK\r\n";
    assert_eq!(greeted(readonly()).received(ok), Ok((15, true)));
    for answer in [
        "-NOPERM User ro has no permissions to run the 'readonly' command\r\n",
        "+QUEUED\r\n",
        "$2\r\nhi\r\n",
    ] {
        let answers = format!("+OK\r\n+OK\r\n{answer}");
        let error = greeted(readonly())
            .received(answers.as_bytes())
            .unwrap_err();
        let step = "READONLY";
        assert!(matches!(error, HandshakeError::Unexpected { step: s, .. } if s == step));
    }
}

#[test]
fn an_answer_to_what_was_not_asked_yet_is_unexpected() {
    let mut handshake = Handshake::new(checked());
    handshake.take_output();
    // A shift by one: the answers that follow would all belong to the request before.
    let stream = [hello3(), b"+OK\r\n".to_vec()].concat();
    let error = handshake.received(&stream).unwrap_err();
    assert!(
        matches!(error, HandshakeError::Unexpected { .. }),
        "{error}"
    );
}

#[test]
fn bytes_behind_the_setup_are_left() {
    let result = greeted(setup()).received(b"+OK\r\n+OK\r\n+OK\r\n");
    assert_eq!(result, Ok((10, true)));
}

#[test]
fn the_password_is_never_shown() {
    let handshake = Handshake::new(with_password());
    let shown = format!("{handshake:?} {handshake:#?} {:?}", with_password());
    assert!(!shown.contains("hunter2"));
    let as_numbers = format!("{:?}", b"hunter2");
    assert!(
        !shown.contains(as_numbers.trim_matches(['[', ']'])),
        "{shown}"
    );
    assert!(
        shown.contains("Handshake") && shown.contains("1.2.3"),
        "{shown}"
    );
}

proptest! {
    #[test]
    fn split_bytes_change_nothing(
        cuts in prop::collection::vec(0..400_usize, 0..20),
        zone in prop::option::of("[a-z0-9-]{1,20}"),
        readonly: bool,
    ) {
        let mut handshake = Handshake::new(Setup { readonly, ..checked() });
        let mut id = Vec::new();
        write::bulk(&mut id, ID);
        let behind = [&b"+OK\r\n-ERR no\r\n"[..], &id, if readonly { &b"+OK\r\n"[..] } else { b"" }];
        let halves = [hello(Protocol::Resp3, "replica", zone.as_deref()), behind.concat()];
        let mut ready = false;
        for half in halves {
            prop_assert!(!ready);
            prop_assert!(!handshake.take_output().is_empty());
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % half.len()).collect();
            cuts.push(half.len());
            cuts.sort_unstable();
            let mut start = 0;
            for end in cuts {
                prop_assert!(!ready || end == half.len());
                let (used, done) = handshake.received(&half[start..end]).unwrap();
                start += used;
                ready = done;
            }
            prop_assert_eq!(start, half.len());
        }
        prop_assert!(ready);
        prop_assert_eq!(handshake.greeting().zone.as_deref(), zone.as_deref());
    }
}
