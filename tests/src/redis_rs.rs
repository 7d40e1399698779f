//! The suite for redis-rs, standalone and cluster, in RESP2 and RESP3: the operations that all
//! clients share, and ten thousand commands in one pipeline.

use std::collections::BTreeMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use redis::cluster::{ClusterClient, ClusterClientBuilder, cluster_pipe};
use redis::{Client, ProtocolVersion, RedisResult, TlsCertificates, Value};
use serde_json::Value as Json;

use crate::suites::{Mode, Target};
use crate::tools::root;

const PIPELINE_COMMANDS: usize = 10_000;

/// Runs redis-rs in both protocols and in the modes of `target`.
///
/// # Panics
/// A reply is not the expected one.
#[track_caller]
pub fn run_redis_rs_suite(target: Target<'_>) {
    for (name, protocol) in [
        ("resp2", ProtocolVersion::RESP2),
        ("resp3", ProtocolVersion::RESP3),
    ] {
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: Some(fs::read(target.ca).expect("the CA")),
        };
        let url = format!("rediss://127.0.0.1:{}/?protocol={name}", target.port);
        if target.mode != Mode::Cluster {
            let client =
                Client::build_with_tls(url.as_str(), certificates.clone()).expect("a client");
            let mut connection = client.get_connection().expect("a connection");
            let skip: &[&str] = if target.splits { &[] } else { &["cross"] };
            let suite = Suite::new(&format!("redis-rs-{name}"));
            let count = suite.shared(skip, |command| command.query(&mut connection));
            suite.pipeline(|pipe| pipe.query(&mut connection));
            eprintln!("redis-rs-{name} ok {} operations", count + 1);
        }
        if target.mode != Mode::Standalone {
            let client: ClusterClient = ClusterClientBuilder::new(vec![url])
                .certs(certificates)
                .use_protocol(protocol)
                .build()
                .expect("a cluster client");
            let mut connection = client.get_connection().expect("a cluster connection");
            // This client splits MGET and its like itself, whatever the server does.
            let suite = Suite::new(&format!("redis-rs-cluster-{name}"));
            let count = suite.shared(&["standalone"], |command| command.query(&mut connection));
            suite.cluster_pipeline(|pipe| pipe.query(&mut connection));
            eprintln!("redis-rs-cluster-{name} ok {} operations", count + 1);
        }
    }
}

struct Suite {
    client: String,
    unique: String,
}

impl Suite {
    fn new(client: &str) -> Self {
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.subsec_nanos());
        Self {
            client: client.to_owned(),
            unique: format!("{client}-{nanos:x}-{}", std::process::id()),
        }
    }

    /// Runs the shared operations, less those marked with one of `skip`; returns their number.
    fn shared(
        &self,
        skip: &[&str],
        mut query: impl FnMut(&redis::Cmd) -> RedisResult<Value>,
    ) -> usize {
        let file =
            fs::read_to_string(root().join("tests/clients/operations.json")).expect("operations");
        let file: Json = serde_json::from_str(&file).expect("operations.json");
        let mut count = 0;
        for operation in file["operations"].as_array().expect("a list") {
            if operation["only"]
                .as_str()
                .is_some_and(|only| skip.contains(&only))
            {
                continue;
            }
            let mut command = redis::Cmd::new();
            for argument in operation["do"].as_array().expect("a command") {
                command.arg(self.bytes(argument));
            }
            let got = query(&command);
            assert!(
                self.same(&got, &operation["want"]),
                "{}: {}: expected {}, got {got:?}",
                self.client,
                operation["do"],
                operation["want"]
            );
            count += 1;
        }
        count
    }

    fn pipeline(&self, query: impl FnOnce(&redis::Pipeline) -> RedisResult<Vec<Value>>) {
        let mut pipe = redis::pipe();
        for i in 0..PIPELINE_COMMANDS / 2 {
            let (key, value) = (
                format!("{}:p{i}", self.unique),
                format!("{}:v{i}", self.unique),
            );
            pipe.cmd("SET").arg(&key).arg(&value).cmd("GET").arg(&key);
        }
        self.check_pipeline(&query(&pipe).expect("a pipeline"));
    }

    fn cluster_pipeline(
        &self,
        query: impl FnOnce(&redis::cluster::ClusterPipeline) -> RedisResult<Vec<Value>>,
    ) {
        let mut pipe = cluster_pipe();
        for i in 0..PIPELINE_COMMANDS / 2 {
            let (key, value) = (
                format!("{}:p{i}", self.unique),
                format!("{}:v{i}", self.unique),
            );
            pipe.cmd("SET").arg(&key).arg(&value).cmd("GET").arg(&key);
        }
        self.check_pipeline(&query(&pipe).expect("a pipeline"));
    }

    fn check_pipeline(&self, replies: &[Value]) {
        assert_eq!(replies.len(), PIPELINE_COMMANDS, "{}: replies", self.client);
        for (i, pair) in replies.chunks(2).enumerate() {
            let want = format!("{}:v{i}", self.unique);
            assert_eq!(pair[0], Value::Okay, "{}: SET {i}", self.client);
            assert_eq!(
                text(&pair[1]).as_deref(),
                Some(want.as_bytes()),
                "{}: GET {i}",
                self.client
            );
        }
    }

    /// The bytes that a string, `{hex}` or `{repeat}` of operations.json stands for.
    fn bytes(&self, json: &Json) -> Vec<u8> {
        if let Some(text) = json.as_str() {
            return text.replace('~', &self.unique).into_bytes();
        }
        if let Some(hex) = json["hex"].as_str() {
            let digits: Vec<u8> = hex
                .bytes()
                .map(|d| u8::from_str_radix(&(d as char).to_string(), 16).unwrap())
                .collect();
            return digits
                .chunks(2)
                .map(|pair| pair[0] * 16 + pair[1])
                .collect();
        }
        let times = usize::try_from(json["repeat"][1].as_u64().expect("times")).unwrap();
        self.bytes(&json["repeat"][0]).repeat(times)
    }

    fn same(&self, got: &RedisResult<Value>, want: &Json) -> bool {
        let got = match got {
            Ok(got) => got,
            Err(error) => {
                // The library cuts the code off some errors.
                let said = error.to_string();
                let wanted = self.bytes(&want["error"]);
                let wanted = String::from_utf8_lossy(&wanted);
                return wanted
                    .split_once(' ')
                    .is_some_and(|(_, rest)| said.contains(rest));
            }
        };
        match want {
            Json::Null => *got == Value::Nil,
            Json::Number(number) => match got {
                Value::Int(int) => Some(*int) == number.as_i64(),
                Value::Boolean(yes) => Some(i64::from(*yes)) == number.as_i64(),
                _ => false,
            },
            Json::String(_) => text(got) == Some(self.bytes(want)),
            Json::Object(_) => self.same_kind(got, want),
            _ => false,
        }
    }

    fn same_kind(&self, got: &Value, want: &Json) -> bool {
        let list = |json: &Json| {
            json.as_array()
                .expect("a list")
                .iter()
                .map(|item| self.bytes(item))
                .collect::<Vec<_>>()
        };
        if want["hex"].is_string() || want["repeat"].is_array() {
            return text(got) == Some(self.bytes(want));
        }
        if let Some(float) = want["float"].as_f64() {
            return number(got) == Some(float);
        }
        if let Some(range) = want["between"].as_array() {
            return matches!(got, Value::Int(int) if range[0].as_i64() <= Some(*int) && Some(*int) <= range[1].as_i64());
        }
        if let Some(items) = want["list"].as_array() {
            let Value::Array(values) = got else {
                return false;
            };
            return values.len() == items.len()
                && values
                    .iter()
                    .zip(items)
                    .all(|(value, item)| self.same(&Ok(value.clone()), item));
        }
        if want["set"].is_array() {
            let (Value::Array(values) | Value::Set(values)) = got else {
                return false;
            };
            let mut values: Vec<_> = values.iter().filter_map(text).collect();
            let mut wanted = list(&want["set"]);
            values.sort();
            wanted.sort();
            return values == wanted;
        }
        if let Some(map) = want["map"].as_object() {
            return pairs(got) == Some(self.text_map(map));
        }
        if let Some(scores) = want["scores"].as_array() {
            let flat: Vec<&Value> = flatten(got);
            return flat.len() == 2 * scores.len()
                && flat.chunks(2).zip(scores).all(|(pair, score)| {
                    text(pair[0]) == Some(self.bytes(&score[0]))
                        && number(pair[1]) == score[1].as_f64()
                });
        }
        if let Some(entries) = want["entries"].as_array() {
            let Value::Array(values) = got else {
                return false;
            };
            return values.len() == entries.len()
                && values.iter().zip(entries).all(|(value, entry)| {
                    let Value::Array(parts) = value else {
                        return false;
                    };
                    text(&parts[0]) == Some(self.bytes(&entry[0]))
                        && pairs(&parts[1]) == entry[1].as_object().map(|map| self.text_map(map))
                });
        }
        panic!("operations.json: unknown expectation {want}")
    }

    fn text_map(&self, map: &serde_json::Map<String, Json>) -> BTreeMap<Vec<u8>, Vec<u8>> {
        map.iter()
            .map(|(key, value)| (key.clone().into_bytes(), self.bytes(value)))
            .collect()
    }
}

fn text(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes.clone()),
        Value::SimpleString(text) => Some(text.clone().into_bytes()),
        Value::Okay => Some(b"OK".to_vec()),
        _ => None,
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Double(number) => Some(*number),
        other => String::from_utf8(text(other)?).ok()?.parse().ok(),
    }
}

fn flatten(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().flat_map(flatten).collect(),
        other => vec![other],
    }
}

fn pairs(value: &Value) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    match value {
        Value::Map(map) => map
            .iter()
            .map(|(k, v)| Some((text(k)?, text(v)?)))
            .collect(),
        Value::Array(items) => items
            .chunks_exact(2)
            .map(|pair| Some((text(&pair[0])?, text(&pair[1])?)))
            .collect(),
        _ => None,
    }
}
