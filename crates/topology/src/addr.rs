//! Addresses of nodes.

use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

/// Longest host name of the DNS.
const HOST_BYTES_MAX: usize = 253;

/// Where a node listens: a host name or an IP address, and a port. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeAddr {
    /// Name, IPv4 or IPv6 address (without brackets); never empty, nothing but ASCII.
    pub host: Arc<str>,
    /// Never 0.
    pub port: u16,
}

impl NodeAddr {
    /// An address, unless the host is no host name (letters, digits, `-`, `_`, `.`) and no IPv6
    /// address, or is too long, or the port is 0.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Option<Self> {
        let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let legal = host.bytes().all(name) || is_ipv6(host);
        let bounded = !host.is_empty() && host.len() <= HOST_BYTES_MAX && port != 0;
        (legal && bounded).then(|| Self {
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
        if digits {
            Self::new(host, port.parse().ok()?)
        } else {
            None
        }
    }
}

/// An IPv6 address, perhaps with the interface it is local to (`fe80::1%eth0`).
fn is_ipv6(host: &str) -> bool {
    let (addr, interface) = host.split_once('%').unwrap_or((host, "0"));
    let named = !interface.is_empty() && interface.bytes().all(|byte| byte.is_ascii_alphanumeric());
    named && addr.parse::<Ipv6Addr>().is_ok()
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
            ("[fe80::1%eth0]:1", "fe80::1%eth0", 1, "[fe80::1%eth0]:1"),
            ("my_node-0.x:1", "my_node-0.x", 1, "my_node-0.x:1"),
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
            "",
            ":1",
            "a",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a b:1",
            "a\n:1",
            "[::1:1",
            "é:1",
            &long,
            "[:1",
            "a]:1",
            "[a]b:1",
            "a:b:1",
            "[[::1]]:1",
            "::1%:1",
            "a/b:1",
            "a@b:1",
            "?:1",
        ] {
            assert_eq!(NodeAddr::parse(text), None, "{text:?}");
        }
    }
}
