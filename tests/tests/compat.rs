//! Every command of Valkey 9.1, through Keyway before three shards and on one real node that has all
//! slots: the replies are the same, but for those in `tests/rows/differences.txt`.
//!
//! The rows are in `tests/rows/*.txt`, and in the files of requests that were recorded for the
//! simulator. A row begins with what is compared: `>` the replies (`>2`: two of them), `u` the
//! replies in any order, `~` their types alone, `!` nothing: Keyway refuses the command.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use command::{CommandTable, Handling};
use keyway_tests::tools::root;
use keyway_tests::{Client, Keyway, RealCluster, Version};
use resp::{OwnedRequest, Value};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    Same(usize),
    AnyOrder,
    Type,
    Refused,
}

fn row(mark: &str) -> Option<Row> {
    Some(match mark {
        ">" => Row::Same(1),
        "u" => Row::AnyOrder,
        "~" => Row::Type,
        "!" => Row::Refused,
        mark => Row::Same(mark.strip_prefix('>')?.parse().ok()?),
    })
}

fn files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in ["tests/rows", "cluster-sim/tests/captured"] {
        let entries = fs::read_dir(root().join(folder)).expect("the rows");
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(".txt") && name != "differences.txt" {
                let text = fs::read_to_string(&path).expect("a file of rows");
                files.push((format!("{folder}/{name}"), text));
            }
        }
    }
    files
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
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        bytes.push(match rest.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b'_') => b' ',
            Some(b'x') => {
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                let byte = high.zip(low).map(|(high, low)| high * 16 + low);
                u8::try_from(byte.expect("two hexadecimal digits")).unwrap_or_default()
            }
            other => other.unwrap_or(b'\\'),
        });
    }
    bytes
}

/// One side: the reference, or Keyway.
struct Side<'a> {
    connect: &'a dyn Fn() -> Client,
    client: Client,
    proto: &'static str,
}

impl<'a> Side<'a> {
    fn new(connect: &'a dyn Fn() -> Client, proto: &'static str) -> Self {
        let mut side = Self {
            connect,
            client: connect(),
            proto,
        };
        side.begin();
        side
    }

    fn begin(&mut self) {
        self.client = (self.connect)();
        self.client.cmd(&["FLUSHALL"]);
        self.client.cmd(&["HELLO", self.proto]);
    }

    fn ask(&mut self, request: &[u8], replies: usize) -> Vec<Value> {
        let mut said = Vec::new();
        if self.client.try_raw(request).is_ok() {
            for _ in 0..replies {
                let Ok(value) = self.client.try_read() else {
                    break;
                };
                said.push(value);
            }
        }
        if said.len() < replies {
            self.begin(); // it closed the connection
        }
        said
    }
}

fn in_order(value: &Value) -> Value {
    let sorted = |values: &[Value]| {
        let mut values = values.to_vec();
        values.sort_by_key(|value| format!("{value:?}"));
        values
    };
    match value {
        Value::Array(values) => Value::Array(sorted(values)),
        Value::Set(values) => Value::Set(sorted(values)),
        Value::Map(pairs) => {
            let mut pairs = pairs.clone();
            pairs.sort_by_key(|pair| format!("{pair:?}"));
            Value::Map(pairs)
        }
        other => other.clone(),
    }
}

fn equal(row: Row, one: &[Value], other: &[Value]) -> bool {
    let same = |(one, other): (&Value, &Value)| match row {
        Row::Type => std::mem::discriminant(one) == std::mem::discriminant(other),
        Row::AnyOrder => in_order(one) == in_order(other),
        Row::Same(_) | Row::Refused => one == other,
    };
    one.len() == other.len() && one.iter().zip(other).all(same)
}

fn shown(values: &[Value]) -> String {
    let text: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    let text = if text.is_empty() {
        "(closed)".to_owned()
    } else {
        text.join(" ")
    };
    text.chars().take(300).collect()
}

#[derive(Default)]
struct Outcome {
    asked: usize,
    equal: usize,
    refused: usize,
    seen: BTreeSet<String>,
    /// By file and request: what both said, and in how many protocols.
    different: BTreeMap<String, String>,
}

fn run(
    file: &str,
    text: &str,
    reference: &mut Side<'_>,
    keyway: &mut Side<'_>,
    outcome: &mut Outcome,
) {
    reference.begin();
    keyway.begin();
    let table = CommandTable::builtin();
    for line in text.lines() {
        let Some((row, request)) = line
            .split_once(' ')
            .and_then(|(mark, rest)| Some((row(mark)?, rest)))
        else {
            continue;
        };
        let owned = OwnedRequest::from_args(arguments(request));
        let command = table.lookup(owned.as_request()).ok();
        outcome
            .seen
            .extend(command.map(|command| command.name().to_owned()));
        let handling = command.map(|command| command.handling(owned.as_request()));
        if row == Row::Refused || matches!(handling, Some(Handling::Refused(_))) {
            let said = shown(&keyway.ask(owned.bytes(), 1));
            let name = command.map_or("", |command| command.name());
            assert!(
                said.contains(&format!("command '{name}'")),
                "{file}: {request}: {said}"
            );
            outcome.refused += 1;
            continue;
        }
        let replies = if let Row::Same(replies) = row {
            replies
        } else {
            1
        };
        let one = reference.ask(owned.bytes(), replies);
        let other = keyway.ask(owned.bytes(), replies);
        outcome.asked += 1;
        if equal(row, &one, &other) {
            outcome.equal += 1;
        } else {
            let proto = keyway.proto;
            let said = outcome
                .different
                .entry(format!("{file}: {request}"))
                .or_default();
            let _ = write!(
                said,
                "\n  RESP{proto} server {}\n        keyway {}",
                shown(&one),
                shown(&other)
            );
        }
    }
}

fn known_differences() -> BTreeMap<String, String> {
    let text = fs::read_to_string(root().join("tests/rows/differences.txt"));
    let lines = text.unwrap_or_default();
    let known = lines.lines().filter(|line| !line.starts_with('#'));
    known
        .filter_map(|line| line.split_once('\t'))
        .map(|(request, reason)| (request.to_owned(), reason.to_owned()))
        .collect()
}

#[test]
fn every_command_answers_as_one_server_does() {
    let single = RealCluster::start(Version::V9_1, 1, 0);
    let shards = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&shards);
    let direct = || single.client(0);
    let through = || keyway.client();
    let mut outcome = Outcome::default();
    for proto in ["2", "3"] {
        let mut reference = Side::new(&direct, proto);
        let mut proxied = Side::new(&through, proto);
        for (file, text) in files() {
            run(&file, &text, &mut reference, &mut proxied, &mut outcome);
        }
    }
    let known = known_differences();
    let mut problems = String::new();
    for (request, said) in &outcome.different {
        if !known.contains_key(request) {
            let _ = writeln!(problems, "{request}{said}");
        }
    }
    for request in known.keys() {
        if !outcome.different.contains_key(request) {
            let _ = writeln!(problems, "{request}: listed as different, and is not");
        }
    }
    for command in CommandTable::builtin().iter() {
        let name = command.name();
        let asked = command.is_container() || command.is_own() || outcome.seen.contains(name);
        if !asked {
            let _ = writeln!(problems, "{name}: no row asks for it");
        }
    }
    println!(
        "{} refused by name, {} known differences",
        outcome.refused,
        known.len()
    );
    println!("equal {} of {}", outcome.equal, outcome.asked);
    assert!(problems.is_empty(), "\n{problems}");
}
