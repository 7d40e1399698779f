//! Random scripts of one client, through Keyway before three shards and on one standalone server: no
//! reply differs.
//!
//! `SCRIPTS=5000 cargo test -p keyway-tests --test scripts` runs so many; a script that fails is named
//! by its number, and `SEED=that number` runs it alone.

use keyway_tests::{Client, Keyway, RealCluster, Standalone, Version};
use resp::Value;

/// What scripts are made of. `K`: any key; `T`: a key of one slot (all `T`s of a script); `V`: a
/// value; `N`: a small number; `F`: a field; `S`: a score; `P`: a percent chance of nothing.
const WORDS: &[&str] = &[
    // Strings.
    "SET K V",
    "SET K V NX",
    "SET K V XX",
    "SET K V GET",
    "SET K V EX 100",
    "SET K V KEEPTTL",
    "SET K V IFEQ V",
    "GET K",
    "GETDEL K",
    "GETEX K",
    "GETEX K PERSIST",
    "GETSET K V",
    "APPEND K V",
    "STRLEN K",
    "INCR K",
    "DECR K",
    "INCRBY K N",
    "DECRBY K N",
    "INCRBYFLOAT K 0.5",
    "GETRANGE K 0 N",
    "SETRANGE K N V",
    "SETNX K V",
    "SETEX K 100 V",
    "PSETEX K 100000 V",
    "MSETNX T V T V",
    "MGET K K K",
    "MGET K",
    "MSET K V K V",
    "MSET K N",
    "LCS T T",
    "LCS T T LEN",
    "DELIFEQ K V",
    "SETBIT K N 1",
    "GETBIT K N",
    "BITCOUNT K",
    "BITPOS K 1",
    "BITOP OR T T T",
    "BITFIELD K INCRBY u8 N 5",
    // Keys.
    "DEL K",
    "DEL K K",
    "UNLINK K K K",
    "EXISTS K",
    "EXISTS K K",
    "TOUCH K K",
    "TYPE K",
    "EXPIRE K 100",
    "EXPIRE K 100 NX",
    "PERSIST K",
    "TTL K",
    "EXPIRETIME {t}none",
    "RENAME T T",
    "RENAMENX T T",
    "COPY T T",
    "COPY T T REPLACE",
    "DBSIZE",
    "OBJECT ENCODING K",
    "DUMP {t}none",
    "SORT T",
    "SORT T ALPHA DESC",
    "SORT T LIMIT 0 2 STORE T",
    // Hashes.
    "HSET K F V",
    "HSET K F V F N",
    "HSETNX K F V",
    "HGET K F",
    "HMGET K F F",
    "HGETALL K",
    "HDEL K F",
    "HDEL K F F",
    "HEXISTS K F",
    "HLEN K",
    "HKEYS K",
    "HVALS K",
    "HINCRBY K F N",
    "HINCRBYFLOAT K F 0.5",
    "HSTRLEN K F",
    "HMSET K F V",
    "HSCAN {t}none 0",
    "HEXPIRE K 100 FIELDS 1 F",
    "HTTL K FIELDS 1 F",
    "HPERSIST K FIELDS 1 F",
    "HGETDEL K FIELDS 1 F",
    // Lists.
    "LPUSH K V",
    "RPUSH K V N",
    "LPUSHX K V",
    "RPUSHX K V",
    "LPOP K",
    "RPOP K",
    "LPOP K N",
    "LLEN K",
    "LRANGE K 0 -1",
    "LRANGE K N -1",
    "LINDEX K N",
    "LSET K N V",
    "LREM K 0 V",
    "LTRIM K 0 N",
    "LINSERT K BEFORE V V",
    "LPOS K V",
    "LMOVE T T LEFT RIGHT",
    "RPOPLPUSH T T",
    "LMPOP 2 T T LEFT COUNT N",
    // Sets.
    "SADD K V",
    "SADD K N N V",
    "SREM K V",
    "SCARD K",
    "SMEMBERS K",
    "SISMEMBER K V",
    "SMISMEMBER K V N",
    "SMOVE T T V",
    "SINTER T T",
    "SUNION T T",
    "SDIFF T T",
    "SINTERSTORE T T T",
    "SUNIONSTORE T T T",
    "SDIFFSTORE T T T",
    "SINTERCARD 2 T T",
    // Sorted sets.
    "ZADD K S V",
    "ZADD K NX S V",
    "ZADD K GT CH S V",
    "ZADD K INCR S V",
    "ZADD K S V S N",
    "ZREM K V",
    "ZSCORE K V",
    "ZMSCORE K V N",
    "ZINCRBY K S V",
    "ZCARD K",
    "ZCOUNT K -inf +inf",
    "ZRANGE K 0 -1",
    "ZRANGE K 0 -1 WITHSCORES",
    "ZRANGE K 0 N REV",
    "ZRANGE K -inf +inf BYSCORE LIMIT 0 2",
    "ZREVRANGE K 0 -1",
    "ZRANGEBYSCORE K 0 N WITHSCORES",
    "ZRANK K V",
    "ZREVRANK K V",
    "ZRANK K V WITHSCORE",
    "ZPOPMIN K",
    "ZPOPMAX K N",
    "ZMPOP 2 T T MIN",
    "ZUNION 2 T T WITHSCORES",
    "ZINTER 2 T T",
    "ZDIFF 2 T T",
    "ZUNIONSTORE T 2 T T",
    "ZINTERSTORE T 2 T T WEIGHTS 2 N",
    "ZRANGESTORE T T 0 -1",
    "ZREMRANGEBYRANK K 0 N",
    "ZLEXCOUNT K - +",
    // Streams.
    "XADD K N-N f V",
    "XADD K NOMKSTREAM N-5 f V",
    "XLEN K",
    "XRANGE K - +",
    "XREVRANGE K + - COUNT 2",
    "XDEL K N-N",
    "XTRIM K MAXLEN N",
    "XREAD COUNT 2 STREAMS K 0",
    "XREAD STREAMS T T 0 0",
    "XGROUP CREATE K g 0",
    "XGROUP CREATE K g 0 MKSTREAM",
    "XREADGROUP GROUP g c COUNT 1 STREAMS K >",
    "XACK K g N-N",
    "XPENDING K g",
    "XGROUP DESTROY K g",
    // Others.
    "PFADD K V",
    "PFCOUNT K",
    "PFMERGE T T T",
    "GEOADD K 13 38 V",
    "GEOPOS K V",
    "GEODIST K V V",
    "GEOSEARCH K FROMLONLAT 13 38 BYRADIUS 100 km ASC",
    "EVAL return\u{a0}redis.call('GET',KEYS[1]) 1 K",
    "EVAL return\u{a0}redis.call('SET',KEYS[1],ARGV[1]) 1 K V",
    "EVAL return\u{a0}redis.call('LPUSH',KEYS[1],ARGV[1]) 1 K V",
    "BLPOP K 0.001",
    "BLMOVE T T LEFT LEFT 0.001",
    "BZPOPMIN K 0.001",
    "PING",
    "ECHO V",
    "SELECT 0",
    "NOSUCH K",
    "GET",
    "SET K",
    "HSET K F",
    // Transactions.
    "MULTI",
    "EXEC",
    "EXEC",
    "DISCARD",
    "WATCH T",
    "UNWATCH",
];

/// Replies of these have no order of their own.
const UNORDERED: &[&str] = &[
    "SMEMBERS", "SUNION", "SINTER", "SDIFF", "HGETALL", "HKEYS", "HVALS",
];

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap_or_default() % bound
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words.get(self.below(words.len())).copied().unwrap_or("x")
    }
}

fn script(seed: u64) -> Vec<Vec<String>> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut open = false;
    let mut lines = Vec::new();
    for _ in 0..8 + dice.below(40) {
        let mut line: Vec<String> = Vec::new();
        let template = dice.of(WORDS);
        match template.split(' ').next() {
            Some("MULTI") => open = true,
            Some("EXEC" | "DISCARD") => open = false,
            // In a transaction all keys are of one slot, and no shard is asked for itself.
            Some("DBSIZE" | "WATCH") if open => continue,
            _ => {}
        }
        for word in template.split(' ') {
            let word = match word {
                "K" if open => dice.of(&["{t}1", "{t}2", "{t}3"]).to_owned(),
                "K" => dice.of(&["a", "b", "c", "{t}1", "{t}2", "{t}3"]).to_owned(),
                "T" => dice.of(&["{t}1", "{t}2", "{t}3"]).to_owned(),
                "V" => dice
                    .of(&["1", "7", "hello", "", "x y", "\r\n", "3.5"])
                    .to_owned(),
                "N" => dice.of(&["0", "1", "2", "3", "5"]).to_owned(),
                "N-N" => dice.of(&["1-1", "2-1", "3-7", "5-5"]).to_owned(),
                "N-5" => "9-5".to_owned(),
                "F" => dice.of(&["f", "g", "h"]).to_owned(),
                "S" => dice.of(&["1", "2.5", "-3", "inf"]).to_owned(),
                word => word.replace('\u{a0}', " "),
            };
            line.push(word);
        }
        lines.push(line);
    }
    if open {
        lines.push(vec!["EXEC".to_owned()]);
    }
    // What is left is looked at too.
    lines.push(vec!["UNWATCH".to_owned()]);
    for key in ["a", "b", "c", "{t}1", "{t}2", "{t}3"] {
        lines.push(vec!["TYPE".to_owned(), key.to_owned()]);
    }
    lines.push(vec!["DBSIZE".to_owned()]);
    lines
}

fn sorted(value: &Value) -> Value {
    let order = |values: &[Value]| {
        let mut values: Vec<Value> = values.iter().map(sorted).collect();
        values.sort_by_key(|value| format!("{value:?}"));
        values
    };
    match value {
        Value::Array(values) => Value::Array(order(values)),
        Value::Set(values) => Value::Set(order(values)),
        Value::Map(pairs) => {
            let mut pairs = pairs.clone();
            pairs.sort_by_key(|pair| format!("{pair:?}"));
            Value::Map(pairs)
        }
        other => other.clone(),
    }
}

fn replies(client: &mut Client, proto: &str, lines: &[Vec<String>]) -> Vec<Value> {
    client.cmd(&["RESET"]);
    client.cmd(&["FLUSHALL"]);
    client.cmd(&["HELLO", proto]);
    let requests: Vec<Vec<u8>> = lines
        .iter()
        .map(|line| {
            let mut request = Vec::new();
            resp::write::request(&mut request, line);
            request
        })
        .collect();
    client.pipeline(&requests)
}

#[test]
fn random_scripts_answer_as_one_server_does() {
    let number = |name: &str, default: u64| {
        let value = std::env::var(name)
            .ok()
            .and_then(|value| value.parse().ok());
        value.unwrap_or(default)
    };
    let alone = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = match alone {
        Some(seed) => seed..seed + 1,
        None => 1..number("SCRIPTS", 1_000) + 1,
    };
    let single = Standalone::start_9_1();
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let keyway = Keyway::start(&cluster);
    let (mut one, mut other) = (single.node().client(), keyway.client());
    let mut asked = 0;
    for seed in seeds {
        let lines = script(seed);
        let proto = if seed % 2 == 0 { "2" } else { "3" };
        let expected = replies(&mut one, proto, &lines);
        let got = replies(&mut other, proto, &lines);
        let queued = lines
            .iter()
            .any(|line| line.first().is_some_and(|name| name == "MULTI"));
        for ((line, expected), got) in lines.iter().zip(&expected).zip(&got) {
            let unordered =
                |name: &String| UNORDERED.contains(&name.as_str()) || (queued && name == "EXEC");
            let same = if line.first().is_some_and(unordered) {
                sorted(expected) == sorted(got)
            } else {
                expected == got
            };
            assert!(
                same,
                "script {seed} (RESP{proto}): {line:?}\n  server {expected:?}\n  keyway {got:?}\nin {lines:#?}"
            );
            asked += 1;
        }
    }
    println!("{asked} replies, no difference");
}
