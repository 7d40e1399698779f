use resp::{OwnedRequest, Protocol};

use super::*;
use crate::testing::{decode, request};
use crate::{CommandTable, introspect};

/// What a 9.1.2 answered for each command: the command, how a cluster node routed it, and
/// `COMMAND GETKEYSANDFLAGS`. See `data/README.md`.
const CAPTURED: &str = include_str!("../../data/captured/keys.tsv");

fn captured() -> impl Iterator<Item = (OwnedRequest, &'static str, &'static str)> {
    CAPTURED.lines().map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [words, way, answer] = fields[..] else {
            panic!("{line}")
        };
        (
            OwnedRequest::from_args(words.split(' ').map(decode)),
            way,
            answer,
        )
    })
}

/// The first node of a cluster that owns nothing answers MOVED with the slot that it found,
/// CROSSSLOT if it found two, and anything else if it found none.
#[test]
fn routes_as_a_node_does() {
    let (mut one, mut several, mut none) = (0, 0, 0);
    for (request, way, _) in captured() {
        let request = request.as_request();
        if request.name() == b"msetex" {
            // A 9.1.2 runs it wherever it is sent: see `refused` in `handling`.
            assert_eq!(way, "-");
            continue;
        }
        let mut keys = KeyRefs::new();
        if let Ok(command) = CommandTable::builtin().lookup(request) {
            let found = command.keys(request, &mut keys);
            assert!(found.is_ok() || keys.is_empty());
        }
        let mut names: Vec<&[u8]> = keys
            .iter()
            .map(|key| request.arg(key.index()).expect("a key of the request"))
            .collect();
        names.sort_unstable();
        names.dedup();
        match names[..] {
            [] => assert_eq!(way, "-", "{request:?} has no keys"),
            [name] => assert_eq!(decode(way), name, "{request:?}"),
            _ => assert_eq!(way, "*", "{request:?} has several keys"),
        }
        match names.len() {
            0 => none += 1,
            1 => one += 1,
            _ => several += 1,
        }
    }
    assert!(
        one > 500 && several > 200 && none > 500,
        "{one} {several} {none}"
    );
}

#[test]
fn get_keys_answers_as_the_server_does() {
    for (request, _, answer) in captured() {
        let request = request.as_request();
        let words = [b"COMMAND".as_slice(), b"GETKEYSANDFLAGS"]
            .into_iter()
            .chain(request.args());
        let ask = OwnedRequest::from_args(words);
        let mut expected = Vec::new();
        if let Some(error) = answer.strip_prefix('!') {
            resp::write::error(&mut expected, error);
        } else {
            let keys: Vec<&str> = answer.split(' ').filter(|key| !key.is_empty()).collect();
            resp::write::array(&mut expected, keys.len());
            for key in keys {
                let (key, flags) = key.rsplit_once('=').unwrap();
                let flags: Vec<&str> = flags.split('|').filter(|flag| !flag.is_empty()).collect();
                resp::write::array(&mut expected, 2);
                resp::write::bulk(&mut expected, decode(key));
                resp::write::set(&mut expected, Protocol::Resp3, flags.len());
                flags
                    .iter()
                    .for_each(|flag| resp::write::simple(&mut expected, flag));
            }
        }
        let mut reply = Vec::new();
        let table = CommandTable::builtin();
        introspect::reply(table, ask.as_request(), Protocol::Resp3, &mut reply);
        let (reply, expected) = (
            String::from_utf8_lossy(&reply),
            String::from_utf8_lossy(&expected),
        );
        assert_eq!(reply, expected, "{request:?}");
    }
}

fn keys_of(line: &str) -> Result<Vec<(u32, KeyFlags)>, KeyError> {
    let request = request(line);
    let command = CommandTable::builtin()
        .lookup(request.as_request())
        .unwrap();
    let mut keys = KeyRefs::new();
    command.keys(request.as_request(), &mut keys)?;
    Ok(keys.iter().map(|key| (key.index, key.flags)).collect())
}

#[test]
fn flags_are_told_when_known() {
    let (read, overwrite) = (
        KeyFlags::RO.with(KeyFlags::ACCESS),
        KeyFlags::OW.with(KeyFlags::UPDATE),
    );
    assert_eq!(keys_of("GET k"), Ok(vec![(1, read)]));
    assert_eq!(
        keys_of("SORT k STORE d"),
        Ok(vec![(1, read), (3, overwrite)])
    );
    assert_eq!(
        keys_of("ZUNIONSTORE d 1 a"),
        Ok(vec![(3, read), (1, overwrite)])
    );
    assert_eq!(keys_of("SPUBLISH c m"), Ok(vec![(1, KeyFlags::NOT_KEY)]));
    assert_eq!(keys_of("PFMERGE d"), Ok(vec![(1, KeyFlags::NONE)]));
}

#[test]
fn missing_keys_are_an_error_only_where_there_must_be_some() {
    assert_eq!(keys_of("PING"), Ok(vec![]));
    assert_eq!(keys_of("EVAL s 0"), Ok(vec![]));
    assert_eq!(keys_of("SUNSUBSCRIBE"), Ok(vec![]));
    assert_eq!(keys_of("ZUNION 0 a"), Err(KeyError));
    assert_eq!(keys_of("ZUNION x a"), Err(KeyError));
    assert_eq!(keys_of("MSETEX 5 a v"), Err(KeyError));
    assert_eq!(keys_of("XREAD COUNT 1 a"), Err(KeyError));
    assert_eq!(
        KeyError.to_string(),
        "ERR Invalid arguments specified for command"
    );
}

proptest::proptest! {
    /// Whatever the arguments are: keys are arguments, never the name.
    #[test]
    fn keys_lie_within_the_request(
        command in 0..399_usize,
        args in proptest::collection::vec(
            proptest::sample::select(vec![
                "a", "0", "1", "2", "-1", "9999999999", "", "STREAMS", "STORE", "KEYS", "BLOCK", "GET",
            ]),
            0..12,
        ),
    ) {
        let command = CommandTable::builtin().iter().nth(command).unwrap();
        let request = OwnedRequest::from_args(command.name().split('|').chain(args));
        let mut keys = KeyRefs::new();
        let _ = command.keys(request.as_request(), &mut keys);
        proptest::prop_assert!(keys.iter().all(|key| (1..request.as_request().argc()).contains(&key.index())));
    }
}
