//! One look at one node.

use std::{io, time::Duration};

use resp::{ReplyFramer, Value};
use session::local::Sums;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use topology::{Candidate, NodeAddr, ParseError, parse_shards, parse_slots};

use crate::{
    contract::DiscoveryContext,
    net::Stream,
    upstream::{ConnectError, connect},
};

/// The longest reply that a node may give: a thousand nodes need about half a megabyte.
const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a node says of its cluster.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) candidate: Candidate,
    pub(crate) version: String,
    pub(super) default_user_open: bool,
    pub(super) databases: u32,
    /// The reply to `COMMAND`, if it was asked for and given.
    pub(super) commands: Option<Value>,
}

/// Why a node told nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
    #[error(
        "it asks for a password: {0}; set username and password_file (or password_env) in [cluster]"
    )]
    NeedsPassword(String),
    #[error("it refused the credentials of [cluster]: {0}")]
    Refused(String),
    #[error("{command} failed: {text}")]
    Failed { command: &'static str, text: String },
    #[error("it is not part of a cluster (cluster-enabled no)")]
    NoCluster,
    #[error("its view of the cluster is unusable: {0}")]
    Parse(#[from] ParseError),
    #[error("its answer is not Valkey's protocol")]
    Malformed,
}

/// Connects to a node and asks what the cluster looks like.
pub(crate) async fn look_at(
    context: &DiscoveryContext,
    addr: &NodeAddr,
    with_commands: bool,
) -> Result<Look, LookError> {
    let tls = context.upstream_tls.as_ref();
    let stream = connect(tls, &context.reach, addr).await?;
    let mut node = Node {
        stream,
        unread: Vec::new(),
    };
    // Before anything else: whether Valkey's default user is open tells how unauthenticated
    // clients are to be treated.
    let pong = node.call(&[b"PING"]).await?;
    let default_user_open = !error_of(&pong).is_some_and(|text| text.starts_with("NOAUTH"));
    let greeting = node.hello(context).await?;
    let version = greeting.map_get(b"version").and_then(Value::as_bytes);
    let version = String::from_utf8_lossy(version.unwrap_or(b"8.0.0")).into_owned();

    // First: what follows is at least as new as the epoch that it goes by.
    let info = node.call(&[b"CLUSTER", b"INFO"]).await?;
    let shards = node.call(&[b"CLUSTER", b"SHARDS"]).await?;
    let candidate = match error_of(&shards) {
        None => parse_shards(&shards, addr, tls.is_some())?,
        Some(text) if text.contains("cluster support disabled") => {
            return Err(LookError::NoCluster);
        }
        Some(_) => {
            let slots = node.call(&[b"CLUSTER", b"SLOTS"]).await?;
            if let Some(text) = error_of(&slots) {
                return Err(LookError::Failed {
                    command: "CLUSTER SLOTS",
                    text,
                });
            }
            parse_slots(&slots, addr, tls.is_some())?
        }
    };
    let candidate = match epoch(&info) {
        Some(epoch) => candidate.with_epoch(epoch),
        None => candidate,
    };
    // 9.0 and newer; whoever may not ask has one.
    let answer = node
        .call(&[b"CONFIG", b"GET", b"cluster-databases"])
        .await?;
    let databases = answer
        .map_get(b"cluster-databases")
        .and_then(Value::as_bytes);
    let databases = databases.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
    let commands = if with_commands {
        let reply = node.call(&[b"COMMAND"]).await?;
        Some(reply).filter(|reply| error_of(reply).is_none())
    } else {
        None
    };
    Ok(Look {
        candidate,
        version,
        default_user_open,
        databases: databases.unwrap_or(1),
        commands,
    })
}

/// What a node counts: the sections of `INFO` that are added up.
pub(super) async fn counts_of(
    context: &DiscoveryContext,
    addr: &NodeAddr,
) -> Result<String, LookError> {
    let mut node = Node::connect(context, addr).await?;
    let mut request: Vec<&[u8]> = vec![b"INFO"];
    request.extend(Sums::SECTIONS.iter().map(|section| section.as_bytes()));
    let info = node.call(&request).await?;
    let text = info.as_bytes().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// A connection to a node, to ask it.
pub(crate) struct Node {
    stream: Stream,
    unread: Vec<u8>,
}

impl Node {
    /// Connects, and authenticates as the service user.
    pub(crate) async fn connect(
        context: &DiscoveryContext,
        addr: &NodeAddr,
    ) -> Result<Self, LookError> {
        let tls = context.upstream_tls.as_ref();
        let stream = connect(tls, &context.reach, addr).await?;
        let mut node = Self {
            stream,
            unread: Vec::new(),
        };
        node.hello(context).await?;
        Ok(node)
    }

    async fn hello(&mut self, context: &DiscoveryContext) -> Result<Value, LookError> {
        let config = context.config.get();
        let credentials = config.cluster.credentials.as_ref();
        let greeting = match credentials {
            Some(own) => {
                let (user, password) = (own.username.as_bytes(), own.password.expose());
                self.call(&[b"HELLO", b"3", b"AUTH", user, password])
                    .await?
            }
            None => self.call(&[b"HELLO", b"3"]).await?,
        };
        match error_of(&greeting) {
            None => Ok(greeting),
            Some(text) if text.starts_with("NOAUTH") => Err(LookError::NeedsPassword(text)),
            Some(text) if text.starts_with("WRONGPASS") => Err(LookError::Refused(text)),
            Some(text) => Err(LookError::Failed {
                command: "HELLO",
                text,
            }),
        }
    }

    pub(crate) async fn call(&mut self, args: &[&[u8]]) -> Result<Value, LookError> {
        let mut request = Vec::new();
        resp::write::request(&mut request, args);
        self.send(&request).await?;
        self.receive().await
    }

    /// Several requests in one write; their answers in order. The caller bounds their number.
    pub(crate) async fn call_all<A: AsRef<[u8]>>(
        &mut self,
        requests: &[Vec<A>],
    ) -> Result<Vec<Value>, LookError> {
        let mut bytes = Vec::new();
        for args in requests {
            resp::write::request(&mut bytes, args);
        }
        self.send(&bytes).await?;
        let mut answers = Vec::with_capacity(requests.len());
        for _ in requests {
            answers.push(self.receive().await?);
        }
        Ok(answers)
    }

    async fn send(&mut self, request: &[u8]) -> Result<(), LookError> {
        self.stream.write_all(request).await?;
        Ok(self.stream.flush().await?)
    }

    async fn receive(&mut self) -> Result<Value, LookError> {
        let mut framer = ReplyFramer::new();
        let mut walked = 0;
        loop {
            let rest = self.unread.get(walked..).unwrap_or_default();
            let walk = framer.advance(rest).map_err(|_| LookError::Malformed)?;
            walked += walk.consumed;
            if walk.done {
                let frame: Vec<u8> = self.unread.drain(..walked).collect();
                let (value, _) = Value::parse(&frame).map_err(|_| LookError::Malformed)?;
                return Ok(value);
            }
            if self.unread.len() > REPLY_BYTES_MAX {
                return Err(LookError::Malformed);
            }
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(LookError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

fn error_of(value: &Value) -> Option<String> {
    match value {
        Value::Error(text) | Value::BulkError(text) => {
            Some(String::from_utf8_lossy(text).chars().take(200).collect())
        }
        _ => None,
    }
}

/// `cluster_current_epoch` of `CLUSTER INFO`.
fn epoch(info: &Value) -> Option<u64> {
    let text = std::str::from_utf8(info.as_bytes()?).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("cluster_current_epoch:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_epoch() {
        let info = Value::Bulk("cluster_state:ok\r\ncluster_current_epoch:17\r\n".into());
        assert_eq!(epoch(&info), Some(17));
        assert_eq!(epoch(&Value::Bulk("cluster_state:ok\r\n".into())), None);
        assert_eq!(epoch(&Value::Error("NOPERM".into())), None);
    }
}
