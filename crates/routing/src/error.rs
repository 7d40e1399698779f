//! Error replies that say something about the cluster rather than about the command.

use topology::{NodeAddr, Slot};

/// A `MOVED` or `ASK` in the server's own form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `ASK`: once, behind `ASKING`. Otherwise `MOVED`: from now on.
    pub ask: bool,
    /// The slot that it speaks of.
    pub slot: Slot,
    /// Where to; `None` for an empty host, which means the host that answered, at this port.
    pub host: Option<String>,
    /// The port there.
    pub port: u16,
}

impl Redirect {
    /// Reads `MOVED <slot> <host>:<port>` or `ASK ...`, without `-` and CRLF; nothing looser.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut words = text.split(' ');
        let ask = match words.next()? {
            "MOVED" => false,
            "ASK" => true,
            _ => return None,
        };
        let slot = Slot::new(canonical_u16(words.next()?)?)?;
        let (host, port) = words.next()?.rsplit_once(':')?;
        if words.next().is_some() {
            return None;
        }
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let host = (!host.is_empty() && host != "?").then(|| host.to_owned());
        Some(Self {
            ask,
            slot,
            host,
            port: canonical_u16(port).filter(|port| *port != 0)?,
        })
    }

    /// The address, when the answer came from `asked`. `None`: no node can have such a host.
    #[must_use]
    pub fn address(&self, asked: &NodeAddr) -> Option<NodeAddr> {
        NodeAddr::new(self.host.as_deref().unwrap_or(&asked.host), self.port)
    }
}

fn canonical_u16(digits: &str) -> Option<u16> {
    let number: u16 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

/// What an error reply means for the way of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Another node serves the slot.
    Redirect(Redirect),
    /// Some of the keys are here and some are not yet; the same text at a later time may succeed.
    TryAgain,
    /// The node serves nothing, or not this slot.
    ClusterDown,
    /// The node reads its data from disk.
    Loading,
    /// A replica without its primary.
    MasterDown,
    /// A write reached a replica.
    ReadOnly,
    /// The node is no primary any more: a command that blocked there has not run.
    Demoted,
    /// The reply to the command, as any other.
    Other,
}

impl ErrorClass {
    /// Reads an error reply's text, without `-` and CRLF. Only the server's own words count.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        match text.first() {
            Some(b'M' | b'A' | b'T' | b'C' | b'L' | b'R' | b'U') => {}
            _ => return Self::Other,
        }
        if let Some(redirect) = Redirect::parse(text) {
            return Self::Redirect(redirect);
        }
        match text {
            b"TRYAGAIN Multiple keys request during rehashing of slot" => Self::TryAgain,
            b"CLUSTERDOWN The cluster is down"
            | b"CLUSTERDOWN Hash slot not served"
            | b"CLUSTERDOWN The cluster is down and only accepts read commands" => {
                Self::ClusterDown
            }
            b"LOADING Valkey is loading the dataset in memory"
            | b"LOADING Redis is loading the dataset in memory" => Self::Loading,
            b"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'." => {
                Self::MasterDown
            }
            b"READONLY You can't write against a read only replica." => Self::ReadOnly,
            b"UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)" => {
                Self::Demoted
            }
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_servers_own_form() {
        let moved = Redirect::parse(b"MOVED 8579 127.0.0.1:21002").unwrap();
        assert_eq!(
            (moved.ask, moved.slot.get(), moved.port),
            (false, 8579, 21002)
        );
        assert_eq!(moved.host.as_deref(), Some("127.0.0.1"));
        let v6 = Redirect::parse(b"ASK 1 ::1:7000").unwrap();
        assert_eq!((v6.ask, v6.host.as_deref()), (true, Some("::1")));
        let same_host = Redirect::parse(b"MOVED 1 :7000").unwrap();
        let asked = NodeAddr::new("10.0.0.9", 1).unwrap();
        assert_eq!(
            same_host.address(&asked).unwrap().to_string(),
            "10.0.0.9:7000"
        );
    }

    #[test]
    fn refuses_anything_looser() {
        for text in [
            "MOVED",
            "MOVED 1",
            "MOVED 16384 a:1",
            "MOVED 01 a:1",
            "MOVED 1 a:0",
            "MOVED 1 a:65536",
            "MOVED 1 a:1 b",
            "MOVED  1 a:1",
            "moved 1 a:1",
            "MOVED -1 a:1",
            "MOVED 1 a:+1",
            "ASKED 1 a:1",
            "MOVED 1 a",
            "MOVED x a:1",
            "",
        ] {
            assert_eq!(Redirect::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn only_whole_texts_of_the_server_count() {
        let of = |text: &str| ErrorClass::of(text.as_bytes());
        assert_eq!(
            of("TRYAGAIN Multiple keys request during rehashing of slot"),
            ErrorClass::TryAgain
        );
        assert_eq!(of("TRYAGAIN soon"), ErrorClass::Other);
        assert_eq!(
            of("CLUSTERDOWN Hash slot not served"),
            ErrorClass::ClusterDown
        );
        assert_eq!(of("READONLY my own words"), ErrorClass::Other);
        let unblocked = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
        assert_eq!(of(unblocked), ErrorClass::Other);
        assert_eq!(of("ERR unknown command"), ErrorClass::Other);
    }
}
