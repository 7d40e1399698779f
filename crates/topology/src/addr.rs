//! Addresses of nodes.

use std::fmt;
use std::sync::Arc;

/// Longest host name of the DNS.
const HOST_BYTES_MAX: usize = 253;

/// Where a node listens: a host name or an IP address, and a port. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeAddr {
    /// Name, IPv4 or IPv6 address (without brackets); never empty, printable ASCII.
    pub host: Arc<str>,
    /// Never 0.
    pub port: u16,
}

impl NodeAddr {
    /// An address, unless the host is empty, too long, or holds anything that is not printable
    /// ASCII, or the port is 0.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Option<Self> {
        let printable = host.bytes().all(|byte| byte.is_ascii_graphic());
        let legal = printable && !host.is_empty() && host.len() <= HOST_BYTES_MAX && port != 0;
        legal.then(|| Self {
            host: host.into(),
            port,
        })
    }

    /// Reads `host:port`, `[v6]:port`, and also `v6:port` as servers write it in redirects: the
    /// port is what follows the last colon.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        if digits && !host.contains(['[', ']']) {
            Self::new(host, port.parse().ok()?)
        } else {
            None
        }
    }
}

impl fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_they_are_shown() {
        for (text, host, port, shown) in [
            ("a.b:1", "a.b", 1, "a.b:1"),
            ("10.0.0.1:6379", "10.0.0.1", 6379, "10.0.0.1:6379"),
            ("[::1]:6379", "::1", 6379, "[::1]:6379"),
            ("fe80::1:6379", "fe80::1", 6379, "[fe80::1]:6379"),
        ] {
            let addr = NodeAddr::parse(text).unwrap();
            assert_eq!((&*addr.host, addr.port), (host, port));
            assert_eq!(addr.to_string(), shown);
            assert_eq!(NodeAddr::parse(shown), Some(addr));
        }
    }

    #[test]
    fn nonsense_is_no_address() {
        let long = format!("{}:1", "a".repeat(254));
        for text in [
            "", ":1", "a", "a:", "a:0", "a:65536", "a:+1", "a b:1", "a\n:1", "[::1:1", "é:1", &long,
        ] {
            assert_eq!(NodeAddr::parse(text), None, "{text:?}");
        }
    }
}
