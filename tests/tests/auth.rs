//! A command runs as the user who authenticated its connection; Valkey itself decides.

use std::thread;
use std::time::Duration;

use keyway_tests::{Client, ClusterOptions, Keyway, RealCluster, Settings, Version, text};
use resp::Value;

const PASSWORD: &str = "of-default";
const NOAUTH: &str = "-NOAUTH Authentication required.";
const WRONGPASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.";
const NO_KEY: &str = "-NOPERM No permissions to access a key";

struct World {
    keyway: Keyway,
    _cluster: RealCluster,
}

/// A cluster whose default user has a password, with the users `blue` (keys `blue:*`) and `green`.
fn start(version: Version, unauthenticated: &str) -> World {
    let user = |name: &str| (name.to_owned(), format!(">{name}-pw ~{name}:* +@all"));
    let service = ("service".to_owned(), ">service-pw ~* &* +@all".to_owned());
    let cluster = RealCluster::with(ClusterOptions {
        password: Some(PASSWORD.to_owned()),
        users: vec![user("blue"), user("green"), service],
        ..ClusterOptions::new(version, 3, 0)
    });
    let keyway = Keyway::with(
        &cluster,
        &Settings {
            cluster: format!(
                "username = \"service\"\npassword_env = \"KEYWAY_PW\"\nunauthenticated = \"{unauthenticated}\""
            ),
            environment: vec![("KEYWAY_PW".to_owned(), "service-pw".to_owned())],
            ..Settings::default()
        },
    );
    World {
        keyway,
        _cluster: cluster,
    }
}

#[track_caller]
fn assert_reply(client: &mut Client, args: &[&str], expected: &str) {
    assert_eq!(text(&client.cmd(args)), expected, "{args:?}");
}

fn identity_is_the_clients(version: Version) {
    let world = start(version, "default");
    let mut client = world.keyway.client();
    assert_reply(&mut client, &["GET", "blue:1"], NOAUTH);
    assert_reply(&mut client, &["AUTH", "wrong"], WRONGPASS);
    assert_reply(&mut client, &["AUTH", "nobody", "x"], WRONGPASS);
    assert_reply(&mut client, &["GET", "blue:1"], NOAUTH);
    assert_reply(&mut client, &["AUTH", "blue", "blue-pw"], "OK");
    assert_reply(&mut client, &["SET", "blue:1", "b"], "OK");
    assert_reply(&mut client, &["SET", "green:1", "b"], NO_KEY);
    // A failed AUTH leaves the user as it was.
    assert_reply(&mut client, &["AUTH", "green", "wrong"], WRONGPASS);
    assert_reply(&mut client, &["GET", "blue:1"], "b");
    assert_reply(&mut client, &["GET", "green:1"], NO_KEY);
    assert_reply(&mut client, &["AUTH", "green", "green-pw"], "OK");
    assert_reply(&mut client, &["GET", "blue:1"], NO_KEY);
    assert_reply(&mut client, &["SET", "green:1", "g"], "OK");
    assert_reply(&mut client, &["AUTH", PASSWORD], "OK");
    assert_reply(&mut client, &["GET", "blue:1"], "b");
    assert_reply(&mut client, &["RESET"], "RESET");
    assert_reply(&mut client, &["GET", "blue:1"], NOAUTH);
    // HELLO authenticates too, and sets the protocol.
    let hello = client.cmd(&["HELLO", "3", "AUTH", "green", "green-pw"]);
    assert!(matches!(hello, Value::Map(_)), "{hello:?}");
    assert_reply(&mut client, &["GET", "green:1"], "g");
    assert_reply(&mut client, &["GET", "blue:1"], NO_KEY);
}

#[test]
fn commands_run_as_the_user_who_authenticated_9_1() {
    identity_is_the_clients(Version::V9_1);
}

#[test]
fn commands_run_as_the_user_who_authenticated_8_0_over_tls() {
    identity_is_the_clients(Version::V8_0Tls);
}

#[test]
fn auth_is_a_barrier_in_a_pipeline() {
    let world = start(Version::V9_1, "default");
    let requests: [(&[&str], &str); 9] = [
        (&["GET", "blue:p"], NOAUTH),
        (&["AUTH", "blue", "wrong"], WRONGPASS),
        (&["SET", "blue:p", "1"], NOAUTH),
        (&["AUTH", "blue", "blue-pw"], "OK"),
        (&["SET", "blue:p", "2"], "OK"),
        (&["SET", "green:p", "3"], NO_KEY),
        (&["AUTH", "green", "green-pw"], "OK"),
        (&["SET", "green:p", "4"], "OK"),
        (&["GET", "blue:p"], NO_KEY),
    ];
    let mut bytes = Vec::new();
    requests
        .iter()
        .for_each(|(args, _)| resp::write::request(&mut bytes, args));
    // Whole, and cut anywhere.
    for at in (0..bytes.len()).step_by(7) {
        let mut client = world.keyway.client();
        let (first, rest) = bytes.split_at(at);
        client.raw(first);
        client.raw(rest);
        for (args, expected) in &requests {
            assert_eq!(text(&client.read()), *expected, "{args:?}, cut at {at}");
        }
    }
}

#[test]
fn users_side_by_side_keep_apart() {
    let world = start(Version::V9_1, "default");
    thread::scope(|scope| {
        for (own, other) in [
            ("blue", "green"),
            ("green", "blue"),
            ("blue", "green"),
            ("green", "blue"),
        ] {
            let keyway = &world.keyway;
            scope.spawn(move || {
                let mut client = keyway.client();
                assert_reply(&mut client, &["AUTH", own, &format!("{own}-pw")], "OK");
                for i in 0..300 {
                    let (mine, theirs) = (format!("{own}:{i}"), format!("{other}:{i}"));
                    let requests = [["SET", &mine, own], ["SET", &theirs, own]].map(|args| {
                        let mut frame = Vec::new();
                        resp::write::request(&mut frame, &args);
                        frame
                    });
                    let replies: Vec<_> = client.pipeline(&requests).iter().map(text).collect();
                    assert_eq!(replies, ["OK", NO_KEY]);
                    assert_reply(&mut client, &["GET", &mine], own);
                }
            });
        }
    });
}

#[test]
fn limits_are_tighter_before_authentication() {
    let world = start(Version::V9_1, "default");
    let said = |bytes: &[u8]| {
        let mut client = world.keyway.client();
        client.raw(bytes);
        let said = client
            .read_to_end(Duration::from_secs(3))
            .expect("the connection is closed");
        String::from_utf8_lossy(&said).into_owned()
    };
    assert_eq!(
        said(b"*11\r\n"),
        "-ERR Protocol error: unauthenticated multibulk length\r\n"
    );
    assert_eq!(
        said(b"*2\r\n$3\r\nGET\r\n$16385\r\n"),
        "-ERR Protocol error: unauthenticated bulk length\r\n"
    );
    let mut client = world.keyway.client();
    assert_reply(&mut client, &["GET", &"x".repeat(16_384)], NOAUTH);
    assert_reply(&mut client, &["AUTH", PASSWORD], "OK");
    assert_reply(&mut client, &["SET", "big", &"x".repeat(100_000)], "OK");
    let keys: Vec<String> = (0..100).map(|i| format!("k{i}")).collect();
    let many: Vec<&str> = ["EXISTS"]
        .into_iter()
        .chain(keys.iter().map(String::as_str))
        .collect();
    assert_reply(&mut client, &many, "0");
}

#[test]
fn clients_may_be_let_in_as_the_service_user() {
    let world = start(Version::V9_1, "service");
    let mut client = world.keyway.client();
    assert_reply(&mut client, &["SET", "anything", "1"], "OK");
    assert_reply(&mut client, &["AUTH", "blue", "blue-pw"], "OK");
    assert_reply(&mut client, &["GET", "anything"], NO_KEY);
}
