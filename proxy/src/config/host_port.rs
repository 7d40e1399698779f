//! `host:port` as written in a configuration: a name or an address, and a port that is not 0.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The longest name that DNS allows, in bytes.
const HOST_BYTES_MAX: usize = 253;

/// A host, by name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name, or an address without brackets.
    pub host: Box<str>,
    /// Never 0.
    pub port: u16,
}

/// Why a text is not a host and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostPortError {
    /// No `:port` at the end.
    #[error("no port; write `host:port`, for example `valkey-0:6379`")]
    NoPort,
    /// The port is not a number from 1 to 65535.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// The host is empty or has characters that no name or address has.
    #[error("the host must be a DNS name, an IPv4 address or an IPv6 address in brackets")]
    Host,
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let (host, port) = text.rsplit_once(':').ok_or(HostPortError::NoPort)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let valid = match bare {
            Some(inside) => inside.parse::<Ipv6Addr>().is_ok(),
            None => is_name_or_v4(host),
        };
        if !valid {
            return Err(HostPortError::Host);
        }
        let port = port
            .parse::<u16>()
            .ok()
            .filter(|port| *port != 0)
            .ok_or(HostPortError::Port)?;
        Ok(Self {
            host: bare.unwrap_or(host).into(),
            port,
        })
    }
}

fn is_name_or_v4(host: &str) -> bool {
    if host
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_ipv4())
    {
        return true;
    }
    let labels = host.strip_suffix('.').unwrap_or(host);
    // A name of digits and dots alone is a mistyped address, never a host.
    !labels.is_empty()
        && labels.len() <= HOST_BYTES_MAX
        && labels.bytes().any(|byte| byte.is_ascii_alphabetic())
        && labels.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

impl fmt::Display for HostPort {
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
    fn accepts_names_and_addresses_and_prints_them_back() {
        for text in [
            "valkey-0.valkey:6379",
            "10.0.0.5:6379",
            "[::1]:7000",
            "a:1",
            "x_y.svc.:65535",
        ] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_what_no_node_has() {
        use HostPortError::{Host, NoPort, Port};
        for (text, why) in [
            ("valkey", NoPort),
            ("valkey:", Port),
            ("valkey:0", Port),
            ("valkey:65536", Port),
            (":6379", Host),
            ("::1:6379", Host),
            ("[valkey]:6379", Host),
            ("10.0.0.500:6379", Host),
            ("a..b:1", Host),
            ("redis://a:1", Host),
            ("a b:1", Host),
        ] {
            assert_eq!(text.parse::<HostPort>(), Err(why), "{text}");
        }
    }
}
