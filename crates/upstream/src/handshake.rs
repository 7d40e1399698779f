//! What happens on a connection before the first command may use it.
//!
//! `HELLO` with the credentials goes alone, and its answer is awaited: Valkey 8.0 omits the reply
//! of an `AUTH` that fails behind another command in one write, and a missing reply would shift
//! every later one. What sets the connection up follows in one write.

use std::sync::Arc;

use resp::{Protocol, Value};

/// A user and password that a connection authenticates with.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub username: Arc<[u8]>,
    /// The password. Never logged: `Debug` leaves it out.
    pub password: Arc<[u8]>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username.len())
            .finish_non_exhaustive()
    }
}

/// What a connection is to be set up as.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The protocol that every later reply uses.
    pub protocol: Protocol,
    /// Who it runs as; `None` leaves it Valkey's `default` user without a password.
    pub credentials: Option<Credentials>,
    /// The database to `SELECT`, unless it is 0.
    pub database: u32,
    /// Whether to send `READONLY`, for reads from a replica.
    pub readonly: bool,
    /// The node id that must answer `CLUSTER MYID`; an address that another node took over is
    /// not believed. `None` skips the check.
    pub node_id: Option<Arc<str>>,
    /// What the node lists this connection as (`CLIENT SETINFO LIB-VER`).
    pub version: &'static str,
}

/// What the node said of itself in its reply to `HELLO`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// The server's version, such as `9.1.2`.
    pub version: Option<String>,
    /// `master` or `replica`.
    pub role: Option<String>,
    /// The node's availability zone (from 8.1 on, when set).
    pub zone: Option<String>,
    /// What the node calls this connection (`CLIENT ID`).
    pub client_id: Option<i64>,
}

/// Why a connection could not be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The node refused the credentials; its own words, without `-` and CRLF.
    #[error("the node refused the credentials: {0}")]
    Refused(String),
    /// The address belongs to another node now.
    #[error("the address belongs to node {found}, not {expected}")]
    WrongNode {
        /// The id that the topology knows.
        expected: String,
        /// The id that answered.
        found: String,
    },
    /// The node answered something else than was asked.
    #[error("the node's answer to {step} is not one of Valkey: {answer}")]
    Unexpected {
        /// The command.
        step: &'static str,
        /// The answer's beginning.
        answer: String,
    },
    /// The node cannot take connections now (`max number of clients`, `LOADING`).
    #[error("the node is not ready: {0}")]
    NotReady(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Hello,
    SetInfo,
    MyId,
    ReadOnly,
    Select,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Hello => "HELLO",
            Self::SetInfo => "CLIENT SETINFO",
            Self::MyId => "CLUSTER MYID",
            Self::ReadOnly => "READONLY",
            Self::Select => "SELECT",
        }
    }
}

/// Bytes of a setup. They may hold a password, so `Debug` says only how many they are.
#[derive(Default)]
pub(crate) struct SetupBytes(pub(crate) Vec<u8>);

impl std::fmt::Debug for SetupBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The setup of one connection: bytes to send, replies to take, and in the end a [`Greeting`].
#[derive(Debug)]
pub struct Handshake {
    setup: Setup,
    output: SetupBytes,
    awaited: std::collections::VecDeque<Step>,
    greeting: Greeting,
}

impl Handshake {
    /// A handshake whose first bytes are ready to be sent.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let mut output = Vec::with_capacity(96);
        let proto: &[u8] = if setup.protocol == Protocol::Resp3 {
            b"3"
        } else {
            b"2"
        };
        match &setup.credentials {
            Some(user) => resp::write::request(
                &mut output,
                &[b"HELLO", proto, b"AUTH", &user.username, &user.password],
            ),
            None => resp::write::request(&mut output, &[b"HELLO", proto]),
        }
        let awaited = [Step::Hello].into();
        Self {
            setup,
            output: SetupBytes(output),
            awaited,
            greeting: Greeting::default(),
        }
    }

    /// Bytes to send now; taken out.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output.0)
    }

    /// What the node said of itself so far.
    #[must_use]
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Takes bytes from the node. Returns how many it used, and whether the setup is complete.
    ///
    /// # Errors
    /// [`HandshakeError`]: the connection must be closed.
    pub fn received(&mut self, buf: &[u8]) -> Result<(usize, bool), HandshakeError> {
        let mut used = 0;
        while let Some(step) = self.awaited.front().copied() {
            let rest = buf.get(used..).unwrap_or_default();
            if step != Step::Hello && !rest.is_empty() && !self.output.0.is_empty() {
                // Taken for the answer, it would shift every later one.
                return Err(HandshakeError::Unexpected {
                    step: step.name(),
                    answer: "an answer before the question".to_owned(),
                });
            }
            let Some((reply, len)) = whole_value(rest, step)? else {
                return Ok((used, false));
            };
            used += len;
            self.awaited.pop_front();
            match step {
                Step::Hello => self.hello(&reply)?,
                Step::SetInfo => {} // a node that refuses it (older, or by ACL) is as good
                Step::MyId => self.my_id(&reply)?,
                Step::ReadOnly | Step::Select => must_be_ok(&reply, step)?,
            }
        }
        Ok((used, true))
    }

    fn hello(&mut self, reply: &Value) -> Result<(), HandshakeError> {
        if let Some(text) = error_text(reply) {
            let refused = ["WRONGPASS", "NOAUTH", "NOPERM", "ERR AUTH"];
            return Err(if refused.iter().any(|prefix| text.starts_with(prefix)) {
                HandshakeError::Refused(text)
            } else {
                HandshakeError::NotReady(text)
            });
        }
        let text = |key: &[u8]| {
            let value = reply.map_get(key)?.as_bytes()?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        let protocol = match self.setup.protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        };
        if reply.map_get(b"proto").and_then(Value::as_int) != Some(protocol) {
            return Err(unexpected(Step::Hello, reply));
        }
        self.greeting = Greeting {
            version: text(b"version"),
            role: text(b"role"),
            zone: text(b"availability_zone"),
            client_id: reply.map_get(b"id").and_then(Value::as_int),
        };
        self.ask(
            Step::SetInfo,
            &[b"CLIENT", b"SETINFO", b"LIB-NAME", b"keyway"],
        );
        self.ask(
            Step::SetInfo,
            &[
                b"CLIENT",
                b"SETINFO",
                b"LIB-VER",
                self.setup.version.as_bytes(),
            ],
        );
        if self.setup.node_id.is_some() {
            self.ask(Step::MyId, &[b"CLUSTER", b"MYID"]);
        }
        if self.setup.database != 0 {
            let database = self.setup.database.to_string();
            self.ask(Step::Select, &[b"SELECT", database.as_bytes()]);
        }
        if self.setup.readonly {
            self.ask(Step::ReadOnly, &[b"READONLY"]);
        }
        Ok(())
    }

    fn my_id(&self, reply: &Value) -> Result<(), HandshakeError> {
        let Some(expected) = self.setup.node_id.as_deref() else {
            return Ok(());
        };
        if let Some(text) = error_text(reply) {
            // A user without the right to ask cannot check; the topology's own connection does.
            return if text.starts_with("NOPERM") {
                Ok(())
            } else {
                Err(HandshakeError::NotReady(text))
            };
        }
        let found = reply.as_bytes().unwrap_or_default();
        if found == expected.as_bytes() {
            return Ok(());
        }
        Err(HandshakeError::WrongNode {
            expected: expected.to_owned(),
            found: String::from_utf8_lossy(found).chars().take(64).collect(),
        })
    }

    fn ask(&mut self, step: Step, args: &[&[u8]]) {
        resp::write::request(&mut self.output.0, args);
        self.awaited.push_back(step);
    }
}

/// The most bytes that one reply of the handshake may have.
const REPLY_BYTES_MAX: usize = 64 * 1024;

fn whole_value(buf: &[u8], step: Step) -> Result<Option<(Value, usize)>, HandshakeError> {
    let broken = |answer: &str| HandshakeError::Unexpected {
        step: step.name(),
        answer: answer.to_owned(),
    };
    let mut framer = resp::ReplyFramer::new();
    let walk = framer
        .advance(buf)
        .map_err(|error| broken(&error.to_string()))?;
    if !walk.done {
        return if buf.len() > REPLY_BYTES_MAX {
            Err(broken("too long"))
        } else {
            Ok(None)
        };
    }
    let frame = buf.get(..walk.consumed).unwrap_or_default();
    let (value, len) = Value::parse(frame).map_err(|error| broken(&error.to_string()))?;
    Ok(Some((value, len)))
}

fn must_be_ok(reply: &Value, step: Step) -> Result<(), HandshakeError> {
    match reply {
        Value::Simple(text) if text.as_ref() == b"OK" => Ok(()),
        other => Err(unexpected(step, other)),
    }
}

fn unexpected(step: Step, reply: &Value) -> HandshakeError {
    let answer = error_text(reply).unwrap_or_else(|| format!("{reply:?}"));
    HandshakeError::Unexpected {
        step: step.name(),
        answer: answer.chars().take(96).collect(),
    }
}

fn error_text(reply: &Value) -> Option<String> {
    match reply {
        Value::Error(text) | Value::BulkError(text) => {
            Some(String::from_utf8_lossy(text).into_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
