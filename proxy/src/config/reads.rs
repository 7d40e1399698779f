//! `[reads]`: where reads may go, and in which zone nodes are.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::HostPort;

/// `[reads]`: reads from replicas, and from the own zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reads {
    /// Address to bind for clients whose reads may all go to replicas; `None` is no read port.
    pub address: Option<SocketAddr>,
    /// What `CLUSTER SLOTS` and its like tell of the read port; `None` is the host of the main port.
    pub advertise: Option<HostPort>,
    /// The zone that Keyway is in.
    pub zone: Option<Box<str>>,
    /// Zones by the addresses of nodes, the smallest network first.
    pub zones: Vec<ZoneOf>,
    /// A replica that is behind its primary for longer is not read from.
    pub max_lag: Duration,
    /// `READONLY` counts on the main port too.
    pub readonly_flag: bool,
}

/// The zone of the nodes in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneOf {
    /// Any address of the network.
    pub address: IpAddr,
    /// The leading bits that all of its addresses share.
    pub bits: u8,
    /// The zone's name.
    pub zone: Box<str>,
}

impl ZoneOf {
    /// Whether an address is in the network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = u32::from(self.bits);
        match (self.address, address) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                let differ = u32::from(one) ^ u32::from(other);
                differ.checked_shr(32_u32.saturating_sub(bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => {
                let differ = u128::from(one) ^ u128::from(other);
                differ
                    .checked_shr(128_u32.saturating_sub(bits))
                    .unwrap_or(0)
                    == 0
            }
            _ => false,
        }
    }
}

impl Default for Reads {
    fn default() -> Self {
        Self {
            address: None,
            advertise: None,
            zone: None,
            zones: Vec::new(),
            max_lag: Duration::from_secs(10),
            readonly_flag: true,
        }
    }
}
