//! `CLIENT LIST`, `KILL`, `PAUSE`, `UNPAUSE` and `UNBLOCK`: about the clients of the whole proxy, of
//! which a worker knows its own.

use std::time::Duration;

use resp::Request;

use super::keyway::Question;
use crate::state::{Session, User};

/// What is asked of every worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inquiry {
    /// `CLIENT LIST`
    List(Filter),
    /// `CLIENT KILL`; `strict` in its old form, for which nobody is an error.
    Kill {
        /// Whom.
        filter: Filter,
        /// `CLIENT KILL addr`
        strict: bool,
    },
    /// `CLIENT PAUSE`
    Pause {
        /// For how long.
        time: Duration,
        /// Every command; otherwise those that may write.
        all: bool,
    },
    /// `CLIENT UNPAUSE`
    Unpause,
    /// `KEYWAY`, which no worker need be asked for.
    Keyway(Question),
    /// `CLIENT UNBLOCK`
    Unblock {
        /// The client.
        id: u64,
        /// With an error, not as if the time was over.
        error: bool,
    },
}

/// Which clients are meant: those for which everything that is said is true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    ids: Vec<u64>,
    not_ids: Vec<u64>,
    addr: Option<String>,
    laddr: Option<String>,
    user: Option<Vec<u8>>,
    name: Option<Vec<u8>>,
    ip: Option<String>,
    lib_name: Option<Vec<u8>>,
    database: Option<u32>,
    age_min: Option<u64>,
    /// Subscribers, or those who are not.
    subscriber: Option<bool>,
    /// A kind of client that never connects here.
    nobody: bool,
    not_self: bool,
}

pub(super) const SYNTAX: &str = "ERR syntax error";
const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn number<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

impl Inquiry {
    /// Reads one of the commands above, whose name is `subcommand`.
    ///
    /// # Errors
    /// The error line, without `-` and CRLF.
    pub fn parse(subcommand: &str, request: Request<'_>) -> Result<Self, String> {
        let args: Vec<&[u8]> = request.args().skip(2).collect();
        if let Some(question) = Question::parse(subcommand, &args) {
            return question.map(Self::Keyway);
        }
        match (subcommand, args.as_slice()) {
            ("list", args) => Ok(Self::List(Filter::parse(args, false)?)),
            ("kill", [addr]) => Ok(Self::Kill {
                filter: Filter {
                    addr: Some(text(addr)),
                    ..Filter::default()
                },
                strict: true,
            }),
            ("kill", args) => Ok(Self::Kill {
                filter: Filter::parse(args, true)?,
                strict: false,
            }),
            ("pause", [time, mode @ ..]) => pause(time, mode),
            ("unblock", [id, reason @ ..]) => unblock(id, reason),
            ("unpause", _) => Ok(Self::Unpause),
            _ => Err(SYNTAX.to_owned()),
        }
    }

    /// A command that a node refuses exactly when it would refuse this one to the same user, and that
    /// does nothing there.
    #[must_use]
    pub fn probe(&self) -> &'static [&'static str] {
        match self {
            Self::List(_) => &["CLIENT", "LIST", "ID", "9223372036854775807"],
            Self::Kill { .. } => &["CLIENT", "KILL", "ID", "9223372036854775807"],
            Self::Pause { .. } | Self::Unpause => &["CLIENT", "PAUSE", "none"],
            // What both show is what other clients do, keys among it.
            Self::Keyway(_) => &["SLOWLOG", "GET", "0"],
            Self::Unblock { .. } => &["CLIENT", "UNBLOCK", "9223372036854775807"],
        }
    }
}

fn pause(time: &[u8], mode: &[&[u8]]) -> Result<Inquiry, String> {
    let all = match mode {
        [] => true,
        [mode] if mode.eq_ignore_ascii_case(b"all") => true,
        [mode] if mode.eq_ignore_ascii_case(b"write") => false,
        [_] => return Err("ERR CLIENT PAUSE mode must be WRITE or ALL".to_owned()),
        _ => return Err(SYNTAX.to_owned()),
    };
    let time: i64 =
        number(time).ok_or_else(|| "ERR timeout is not an integer or out of range".to_owned())?;
    let time = u64::try_from(time).map_err(|_| "ERR timeout is negative".to_owned())?;
    Ok(Inquiry::Pause {
        time: Duration::from_millis(time),
        all,
    })
}

fn unblock(id: &[u8], reason: &[&[u8]]) -> Result<Inquiry, String> {
    let error = match reason {
        [] => false,
        [reason] if reason.eq_ignore_ascii_case(b"timeout") => false,
        [reason] if reason.eq_ignore_ascii_case(b"error") => true,
        _ => return Err("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR".to_owned()),
    };
    let id: i64 = number(id).ok_or_else(|| NOT_AN_INTEGER.to_owned())?;
    Ok(Inquiry::Unblock {
        id: u64::try_from(id).unwrap_or(u64::MAX),
        error,
    })
}

impl Filter {
    fn parse(args: &[&[u8]], kill: bool) -> Result<Self, String> {
        let syntax = || SYNTAX.to_owned();
        let mut filter = Self {
            not_self: kill,
            ..Self::default()
        };
        let mut args = args.iter().peekable();
        while let Some(word) = args.next() {
            let word = text(word).to_ascii_lowercase();
            let value: &[u8] = args.next().ok_or_else(syntax)?;
            match word.as_str() {
                "id" | "not-id" => {
                    let ids = if word == "id" {
                        &mut filter.ids
                    } else {
                        &mut filter.not_ids
                    };
                    ids.push(number(value).filter(|id| *id > 0).ok_or_else(syntax)?);
                    while let Some(id) = args.peek().and_then(|arg| number(arg)) {
                        ids.push(id);
                        args.next();
                    }
                }
                "type" => filter.kind(value)?,
                "addr" => filter.addr = Some(text(value)),
                "laddr" => filter.laddr = Some(text(value)),
                "ip" => filter.ip = Some(text(value)),
                "user" => filter.user = Some(value.to_vec()),
                "name" => filter.name = Some(value.to_vec()),
                "lib-name" => filter.lib_name = Some(value.to_vec()),
                "db" => filter.database = Some(number(value).ok_or_else(syntax)?),
                "maxage" => filter.age_min = Some(number(value).ok_or_else(syntax)?),
                "skipme" if value.eq_ignore_ascii_case(b"yes") => filter.not_self = true,
                "skipme" if value.eq_ignore_ascii_case(b"no") => filter.not_self = false,
                _ => return Err(syntax()),
            }
        }
        Ok(filter)
    }

    fn kind(&mut self, value: &[u8]) -> Result<(), String> {
        match text(value).to_ascii_lowercase().as_str() {
            "normal" => self.subscriber = Some(false),
            "pubsub" => self.subscriber = Some(true),
            "master" | "primary" | "replica" | "slave" => self.nobody = true,
            _ => return Err(format!("ERR Unknown client type '{}'", text(value))),
        }
        Ok(())
    }

    /// Whether a client is meant. `asker` is the id of the client that asks.
    #[must_use]
    pub fn means(&self, session: &Session, subscriber: bool, age_s: u64, asker: u64) -> bool {
        let user: &[u8] = match &session.user {
            User::Default | User::Service => b"default",
            User::Named(name) => name,
        };
        let is = |wanted: &Option<String>, shown: String| {
            wanted.as_ref().is_none_or(|wanted| *wanted == shown)
        };
        let same = |wanted: &Option<Vec<u8>>, shown: &[u8]| {
            wanted.as_ref().is_none_or(|wanted| wanted == shown)
        };
        !self.nobody
            && (self.ids.is_empty() || self.ids.contains(&session.id))
            && !self.not_ids.contains(&session.id)
            && !(self.not_self && session.id == asker)
            && is(&self.addr, session.peer.to_string())
            && is(&self.laddr, session.local.to_string())
            && is(&self.ip, session.peer.ip().to_string())
            && same(&self.user, user)
            && same(&self.name, &session.name)
            && same(&self.lib_name, &session.lib_name)
            && self
                .database
                .is_none_or(|database| database == session.database)
            && self.age_min.is_none_or(|age| age_s >= age)
            && self.subscriber.is_none_or(|wanted| wanted == subscriber)
    }
}

#[cfg(test)]
mod tests {
    use resp::OwnedRequest;

    use super::*;

    fn parse(line: &str) -> Result<Inquiry, String> {
        let request = OwnedRequest::from_args(line.split(' '));
        let subcommand = line.split(' ').nth(1).unwrap().to_lowercase();
        Inquiry::parse(&subcommand, request.as_request())
    }

    /// The texts are those of valkey-server 9.1.2.
    #[test]
    fn mistakes_have_the_servers_words() {
        for (line, error) in [
            ("CLIENT KILL ID x", SYNTAX),
            ("CLIENT KILL ID 1 SKIPME", SYNTAX),
            ("CLIENT KILL FOO bar", SYNTAX),
            (
                "CLIENT KILL TYPE nosuch",
                "ERR Unknown client type 'nosuch'",
            ),
            ("CLIENT LIST FOO", SYNTAX),
            ("CLIENT LIST ID x", SYNTAX),
            (
                "CLIENT LIST TYPE nosuch",
                "ERR Unknown client type 'nosuch'",
            ),
            (
                "CLIENT PAUSE x",
                "ERR timeout is not an integer or out of range",
            ),
            ("CLIENT PAUSE -1", "ERR timeout is negative"),
            (
                "CLIENT PAUSE 1 FOO",
                "ERR CLIENT PAUSE mode must be WRITE or ALL",
            ),
            ("CLIENT UNBLOCK x", NOT_AN_INTEGER),
            (
                "CLIENT UNBLOCK 9 FOO",
                "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR",
            ),
        ] {
            assert_eq!(parse(line), Err(error.to_owned()), "{line}");
        }
    }

    #[test]
    fn filters_are_joined() {
        let Ok(Inquiry::Kill { filter, strict }) =
            parse("CLIENT KILL ID 3 4 USER u SKIPME no MAXAGE 10")
        else {
            panic!()
        };
        assert!(!strict && !filter.not_self);
        assert_eq!((filter.ids, filter.age_min), (vec![3, 4], Some(10)));
        assert_eq!(filter.user.as_deref(), Some(&b"u"[..]));
        let Ok(Inquiry::Kill { filter, strict }) = parse("CLIENT KILL 1.2.3.4:5") else {
            panic!()
        };
        assert!(strict && filter.addr.as_deref() == Some("1.2.3.4:5"));
    }
}
