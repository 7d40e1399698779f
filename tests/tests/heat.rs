//! Where the load is: hot keys and slots over all workers, asked for with `KEYWAY` and at `/heat`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::time::Duration;

use keyway_tests::{
    Client, Keyway, RealCluster, Settings, Version, run_to_end, slot_of, text, tools, wait_until,
};
use resp::{OwnedRequest, Value};
use serde_json::Value as Json;

/// Limits of one wait, in seconds.
const SOON: u64 = 20;
/// The same, where what is past must fade: by half in ten seconds.
const LONG: u64 = 60;

fn request(words: &[&str]) -> Vec<u8> {
    OwnedRequest::from_args(words).bytes().to_vec()
}

fn rows(reply: &Value) -> Vec<Value> {
    reply
        .as_array()
        .unwrap_or_else(|| panic!("{reply:?}"))
        .to_vec()
}

/// A field of a map, in either protocol.
fn field(row: &Value, name: &str) -> Value {
    if let Some(value) = row.map_get(name) {
        return value.clone();
    }
    let flat = row.as_array().unwrap_or_else(|| panic!("{row:?}"));
    let mut pairs = flat.chunks(2);
    let pair = pairs.find(|pair| pair[0].as_bytes() == Some(name.as_bytes()));
    pair.unwrap_or_else(|| panic!("no {name} in {row:?}"))[1].clone()
}

fn number(row: &Value, name: &str) -> f64 {
    let value = field(row, name);
    match &value {
        Value::Double(number) => *number,
        Value::Integer(number) => *number as f64,
        other => text(other).parse().unwrap(),
    }
}

fn names(reply: &Value) -> Vec<String> {
    let rows = rows(reply);
    rows.iter().map(|row| text(&field(row, "key"))).collect()
}

fn heat(keyway: &Keyway, query: &str) -> Json {
    let (status, body) = keyway.http(&format!("/heat{query}")).unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Chance from a seed (xorshift).
struct Chance(u64);

impl Chance {
    fn fraction(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Reads of 5,000 keys by Zipf's law, and how often each was read.
struct Zipf {
    chance: Chance,
    sums: Vec<f64>,
    counts: HashMap<String, u64>,
}

impl Zipf {
    fn new() -> Self {
        let mut sums: Vec<f64> = (1..=5_000).map(|rank| 1.0 / f64::from(rank)).collect();
        for index in 1..sums.len() {
            sums[index] += sums[index - 1];
        }
        Self {
            chance: Chance(88_172_645_463_325_252),
            sums,
            counts: HashMap::new(),
        }
    }

    fn read(&mut self, client: &mut Client, prefix: &str, requests: usize) {
        let all = self.sums[self.sums.len() - 1];
        let mut batch = Vec::new();
        for number in 0..requests {
            let at = self.chance.fraction() * all;
            let rank = self.sums.partition_point(|sum| *sum < at);
            let key = format!("{prefix}:{rank}");
            batch.push(request(&["GET", &key]));
            *self.counts.entry(key).or_default() += 1;
            if batch.len() == 500 || number + 1 == requests {
                client.pipeline(&batch);
                batch.clear();
            }
        }
    }

    /// The keys with this prefix, the hottest first.
    fn truth(&self, prefix: &str) -> Vec<(u64, String)> {
        let keys = self
            .counts
            .iter()
            .filter(|(key, _)| key.starts_with(prefix));
        let mut all: Vec<_> = keys.map(|(key, n)| (*n, key.clone())).collect();
        all.sort_by(|a, b| b.cmp(a));
        all
    }

    /// Whether these are the hottest ten of that prefix, but for those that differ by less than a
    /// fifth and may change places in a sample.
    fn knows(&self, shown: &[String], prefix: &str) -> bool {
        let truth = self.truth(prefix);
        let hot = |key: &String| key.starts_with(prefix) && self.counts[key] * 10 >= truth[9].0 * 8;
        shown.len() == 10
            && shown.iter().all(hot)
            && truth[..5].iter().all(|(_, key)| shown.contains(key))
    }
}

#[test]
fn the_hottest_keys_are_found_and_forgotten() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    // Several clients, so that both workers have a part.
    let mut clients: Vec<Client> = (0..4).map(|_| keyway.client()).collect();
    let mut zipf = Zipf::new();
    wait_until("the hottest ten", LONG, || {
        for client in &mut clients {
            zipf.read(client, "first", 5_000);
        }
        zipf.knows(&names(&clients[0].cmd(&["KEYWAY", "HOTKEYS"])), "first")
    });
    let truth = zipf.truth("first");
    let reply = clients[0].cmd(&["KEYWAY", "HOTKEYS", "COUNT", "3"]);
    let hot = &rows(&reply)[0];
    assert_eq!(rows(&reply).len(), 3);
    assert_eq!(text(&field(hot, "key")), "first:0");
    let all: u64 = truth.iter().map(|(n, _)| n).sum();
    let share = 100.0 * truth[0].0 as f64 / all as f64;
    let percent = number(hot, "percent");
    assert!((percent / share - 1.0).abs() < 0.3, "{percent} for {share}");
    assert_eq!(number(hot, "slot"), f64::from(slot_of("first:0")));
    assert!(number(hot, "ops-per-second") >= number(hot, "ops-per-second-at-least"));

    // The load goes elsewhere, and what was hot fades.
    wait_until("the hottest ten after the change", LONG, || {
        for client in &mut clients {
            zipf.read(client, "second", 5_000);
        }
        zipf.knows(&names(&clients[0].cmd(&["KEYWAY", "HOTKEYS"])), "second")
    });

    // Nobody who has not asked is shown a key.
    let hidden = heat(&keyway, "");
    assert_eq!(hidden["keys_shown"], false);
    assert!(hidden["keys"].as_array().unwrap().len() > 5, "{hidden}");
    for (place, text) in [
        ("/heat", hidden.to_string()),
        ("/metrics", keyway.http("/metrics").unwrap().1),
        ("/status", keyway.http("/status").unwrap().1),
        ("the log", keyway.log()),
    ] {
        assert!(
            !text.contains("first:") && !text.contains("second:"),
            "{place}: {text}"
        );
    }
    keyway.reconfigure(|config| config.replace("[admin]\n", "[admin]\nshow_keys = true\n"));
    keyway.signal(keyway_tests::Signal::HUP);
    wait_until("keys at the admin port", SOON, || {
        heat(&keyway, "").to_string().contains("second:0")
    });
}

/// What was sent to each slot: reads, writes, bytes of requests and of replies.
#[derive(Default)]
struct Sent(BTreeMap<u16, [u64; 4]>);

impl Sent {
    fn note(&mut self, key: &str, [reads, writes]: [u64; 2], requests: &[&[&str]], reply: usize) {
        let slot = self.0.entry(slot_of(key)).or_default();
        let bytes: usize = requests.iter().map(|words| request(words).len()).sum();
        for (count, more) in slot
            .iter_mut()
            .zip([reads, writes, bytes as u64, reply as u64])
        {
            *count += more;
        }
    }

    /// Writes of one key, in a pipeline with commands that have none.
    fn writes(&mut self, client: &mut Client, keys: usize) {
        let key = |index: usize| format!("key:{}", index % keys);
        let value = "v".repeat(97);
        let batch: Vec<Vec<String>> = (0..500)
            .map(|index| match index % 3 {
                0 => vec!["SET".to_owned(), key(index), "value".to_owned()],
                1 => vec!["ECHO".to_owned(), "nobody's".to_owned()],
                _ => ["SETRANGE", &key(index), "0", &value[..index % 97]]
                    .map(str::to_owned)
                    .to_vec(),
            })
            .collect();
        let words = |one: &[String]| -> Vec<u8> { OwnedRequest::from_args(one).bytes().to_vec() };
        let requests: Vec<Vec<u8>> = batch.iter().map(|one| words(one)).collect();
        for (one, reply) in batch.iter().zip(client.pipeline(&requests)) {
            let one: Vec<&str> = one.iter().map(String::as_str).collect();
            // "+OK\r\n", or ":5\r\n" and its like.
            let reply = text(&reply).len() + 3;
            if one[0] != "ECHO" {
                self.note(one[1], [0, 1], &[&one], reply);
            }
        }
    }

    /// A command over several slots counts for each of them, one in a transaction like any other,
    /// and so does what waits for a list.
    fn others(&mut self, client: &mut Client) {
        client.cmd(&["MGET", "one", "two", "three"]);
        for key in ["one", "two", "three"] {
            self.note(key, [1, 0], &[&["MGET", key]], "*1\r\n$-1\r\n".len());
        }
        let block: [&[&str]; 4] = [
            &["MULTI"],
            &["SET", "{t}a", "1"],
            &["SET", "{t}b", "2"],
            &["EXEC"],
        ];
        for words in block {
            client.cmd(words);
        }
        self.note("{t}", [0, 2], &block, "*2\r\n+OK\r\n+OK\r\n".len());
        let (push, pop) = (["RPUSH", "list", "x"], ["BLPOP", "list", "1"]);
        client.cmd(&push);
        client.cmd(&pop);
        let reply = ":1\r\n*2\r\n$4\r\nlist\r\n$1\r\nx\r\n".len();
        self.note("list", [0, 2], &[&push, &pop], reply);
        client.cmd(&["DBSIZE"]);
    }
}

fn counted(keyway: &Keyway) -> BTreeMap<u16, [u64; 4]> {
    let heat = heat(keyway, "?slots=16384");
    let slots = heat["slots"].as_array().unwrap().iter();
    let count = |slot: &Json| {
        ["reads", "writes", "bytes_in", "bytes_out"].map(|name| slot[name].as_u64().unwrap())
    };
    let number = |slot: &Json| u16::try_from(slot["slot"].as_u64().unwrap()).unwrap();
    slots.map(|slot| (number(slot), count(slot))).collect()
}

#[test]
fn slots_are_counted_exactly() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let mut sent = Sent::default();
    for number in 0..6 {
        let mut client = keyway.client();
        sent.writes(&mut client, 40 + number);
        sent.others(&mut client);
    }
    let operations = |counts: &BTreeMap<u16, [u64; 4]>| -> u64 {
        counts.values().map(|count| count[0] + count[1]).sum()
    };
    wait_until("all commands", SOON, || {
        operations(&counted(&keyway)) >= operations(&sent.0)
    });
    assert_eq!(counted(&keyway), sent.0);
    let heat = heat(&keyway, "");
    let sum = |index: usize| -> u64 { sent.0.values().map(|count| count[index]).sum() };
    assert_eq!(heat["all"]["writes"], sum(1));
    assert_eq!(heat["all"]["bytes_in"], sum(2));
    let metric = |name, label| keyway.metric(name, &[label]);
    let written = metric("keyway_slot_operations_total", "write");
    assert_eq!(written, sum(1) as f64);
    assert_eq!(metric("keyway_slot_bytes_total", "out"), sum(3) as f64);
    assert!(keyway.metric("keyway_slot_max_over_mean", &[]) > 1.0);
    assert_eq!(heat["shards"].as_array().unwrap().len(), 3);
    assert_eq!(heat["strip"].as_array().unwrap().len(), 256);

    let mut command = Command::new(tools::keyway());
    command.args(["heat", "--admin", &keyway.admin()]);
    let shown = run_to_end(&mut command, Duration::from_secs(SOON));
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert!(shown.stdout.contains("shard 2 "), "{}", shown.stdout);
    assert!(shown.stdout.contains("KEYWAY HOTKEYS"), "{}", shown.stdout);

    let mut client = keyway.client();
    let reply = client.cmd(&["KEYWAY", "HOTSLOTS", "COUNT", "16384", "BY", "BYTES"]);
    let shown: f64 = rows(&reply).iter().map(|row| number(row, "writes")).sum();
    assert_eq!(shown, sum(1) as f64);
    let first = &rows(&reply)[0];
    assert!(number(first, "bytes-in-per-second") > 0.0, "{first:?}");
    assert!(number(first, "shard") < 3.0);
}

#[test]
fn big_values_and_slow_commands_are_told() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let settings = Settings {
        sections: "[log]\nslow_ms = 20\n".to_owned(),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    for hello in ["2", "3"] {
        let mut client = keyway.client();
        client.cmd(&["HELLO", hello]);
        client.cmd(&["SET", "bigger", &"x".repeat(300_000)]);
        client.cmd(&["SETRANGE", "big", "99999", "x"]);
        client.cmd(&["SET", "small", &"x".repeat(1_000)]);
        assert_eq!(text(&client.cmd(&["GET", "big"])).len(), 100_000);
        wait_until("both big ones", SOON, || {
            names(&client.cmd(&["KEYWAY", "BIGKEYS"])) == ["bigger", "big"]
        });
        let row = rows(&client.cmd(&["KEYWAY", "BIGKEYS", "COUNT", "5"]))[1].clone();
        assert_eq!(number(&row, "bytes"), 100_011.0, "with its frame");

        let busy = "local sum = 0 for i = 1, 30000000 do sum = sum + i end return sum";
        client.cmd(&["EVAL", busy, "1", "secretkey"]);
        // A busy machine makes others slow too.
        let len: usize = text(&client.cmd(&["KEYWAY", "SLOWLOG", "LEN"]))
            .parse()
            .unwrap();
        assert!(len >= 1);
        let script = |client: &mut Client| -> Option<Value> {
            let all = rows(&client.cmd(&["KEYWAY", "SLOWLOG", "GET", "256"]));
            all.into_iter()
                .find(|one| text(&field(one, "command")) == "eval")
        };
        let slow = script(&mut client).unwrap();
        assert!(number(&slow, "took-us") >= 20_000.0);
        assert_eq!(text(&client.cmd(&["KEYWAY", "SLOWLOG", "RESET"])), "OK");
        assert_eq!(script(&mut client), None);
        let is_map = matches!(slow, Value::Map(_));
        assert_eq!(is_map, hello == "3", "{slow:?}");
    }
}

#[test]
fn what_nodes_count_of_hot_slots_is_shown_beside() {
    for version in [Version::V9_1, Version::V8_0Tls] {
        let cluster = RealCluster::start(version, 2, 0);
        let mut knows_cpu = false;
        for index in 0..cluster.nodes().len() {
            let set = ["CONFIG", "SET", "cluster-slot-stats-enabled", "yes"];
            knows_cpu = text(&cluster.client(index).cmd(&set)) == "OK";
        }
        let keyway = Keyway::start(&cluster);
        let mut client = keyway.client();
        for number in 0..50 {
            client.cmd(&["SET", &format!("{{one}}{number}"), "value"]);
            client.cmd(&["GET", &format!("{{two}}{number}")]);
        }
        let of_slot = |name: &str| -> Json {
            let heat = heat(&keyway, "");
            let slots = heat["slots"].as_array().unwrap();
            let slot = slots.iter().find(|slot| slot["slot"] == slot_of(name));
            slot.map_or(Json::Null, |slot| slot["node"].clone())
        };
        wait_until("counts of the owners", SOON, || {
            of_slot("one")["key_count"] == 50 && of_slot("two")["key_count"] == 0
        });
        assert!(knows_cpu, "{version:?} has the command");
        wait_until("processor time", SOON, || {
            of_slot("one")["cpu_usec"].as_u64() > Some(0)
        });
        let reply = client.cmd(&["KEYWAY", "HOTSLOTS"]);
        let one = f64::from(slot_of("one"));
        let row = rows(&reply)
            .into_iter()
            .find(|row| number(row, "slot") == one);
        assert_eq!(number(&row.unwrap(), "key-count"), 50.0, "{version:?}");
    }
}

#[test]
fn keyway_answers_whoever_may_see_the_slow_log() {
    let cluster = RealCluster::start(Version::V9_1, 2, 0);
    for index in 0..cluster.nodes().len() {
        let user = "ACL SETUSER reader on >pw ~* +@all -slowlog";
        let words: Vec<&str> = user.split(' ').collect();
        cluster.client(index).cmd(&words);
    }
    let keyway = Keyway::start(&cluster);
    let mut client = keyway.client();
    let said = |client: &mut Client, line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        text(&client.cmd(&words))
    };
    assert_eq!(
        rows(&client.cmd(&["KEYWAY", "HOTKEYS", "COUNT", "0"])).len(),
        0
    );
    assert!(said(&mut client, "KEYWAY").starts_with("-ERR wrong number of arguments"));
    assert!(said(&mut client, "KEYWAY NOTHING").starts_with("-ERR unknown subcommand"));
    assert!(said(&mut client, "KEYWAY HOTKEYS BY HEAT").starts_with("-ERR "));
    assert_eq!(said(&mut client, "MULTI"), "OK");
    assert!(said(&mut client, "KEYWAY HOTKEYS").contains("cannot be part of a transaction"));
    assert_eq!(said(&mut client, "DISCARD"), "OK");

    assert_eq!(said(&mut client, "AUTH reader pw"), "OK");
    for line in [
        "HOTKEYS",
        "HOTSLOTS",
        "BIGKEYS",
        "SLOWLOG GET",
        "SLOWLOG RESET",
    ] {
        let said = said(&mut client, &format!("KEYWAY {line}"));
        assert!(said.starts_with("-NOPERM "), "{line}: {said}");
    }
    let help = client.cmd(&["KEYWAY", "HELP"]);
    assert!(text(&rows(&help)[0]).starts_with("KEYWAY <subcommand>"));
}
