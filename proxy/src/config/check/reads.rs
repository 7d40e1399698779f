//! `[reads]`: where reads may go, and where Keyway itself is.

use std::net::IpAddr;

use super::values::Checker;
use crate::config::{Listen, Reads, ZoneOf, typed};

/// The environment variable that names the own zone when the file does not.
const ZONE_VARIABLE: &str = "KEYWAY_ZONE";
/// What a label of Kubernetes' node topology is called in a file of the downward API.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// A zone's name is short.
const ZONE_BYTES_MAX: usize = 128;
/// Networks at most.
const ZONES_MAX: usize = 1000;

impl Checker<'_> {
    pub(super) fn reads(&mut self, typed: typed::Reads, listen: Option<&Listen>) -> Reads {
        let usual = Reads::default();
        let address = typed
            .address
            .and_then(|text| self.socket_address("reads.address", &text));
        if let (Some(address), Some(listen)) = (address, listen)
            && address == listen.address
            && address.port() != 0
        {
            self.wrong(
                "reads.address",
                "is listen.address; give reads a port of their own",
            );
        }
        let advertise = typed
            .advertise
            .and_then(|text| self.host_port("reads.advertise", &text));
        if advertise.is_some() && address.is_none() {
            self.wrong(
                "reads.advertise",
                "needs reads.address: nobody listens there",
            );
        }
        let max_lag = self.millis("reads.max_lag_ms", typed.max_lag_ms, usual.max_lag);
        Reads {
            address,
            advertise,
            zone: self.zone(typed.zone, typed.zone_file),
            zones: self.zones(typed.zones),
            max_lag,
            readonly_flag: typed.readonly_flag.unwrap_or(usual.readonly_flag),
        }
    }

    fn zone(&mut self, zone: Option<String>, file: Option<String>) -> Option<Box<str>> {
        let (key, zone) = match (zone, file) {
            (Some(_), Some(_)) => {
                let message = "zone and zone_file contradict; leave out one of them";
                self.wrong("reads.zone_file", message);
                return None;
            }
            (Some(zone), None) => ("reads.zone", zone),
            (None, Some(file)) => {
                let path = self.path("reads.zone_file", &file)?;
                match std::fs::read_to_string(&path) {
                    Ok(text) => ("reads.zone_file", zone_in(&text)?.to_owned()),
                    Err(error) => {
                        let message = format!("cannot read {}: {error}", path.display());
                        self.wrong("reads.zone_file", message);
                        return None;
                    }
                }
            }
            (None, None) => {
                let zone = (self.environment)(ZONE_VARIABLE)?.into_string().ok()?;
                if zone.is_empty() {
                    return None;
                }
                ("reads.zone", zone)
            }
        };
        self.zone_name(key, &zone)
    }

    fn zone_name(&mut self, key: &str, zone: &str) -> Option<Box<str>> {
        let legal = zone.bytes().all(|byte| byte.is_ascii_graphic());
        if zone.is_empty() || zone.len() > ZONE_BYTES_MAX || !legal {
            let message = format!(
                "{zone:?} is no name of a zone: 1 to {ZONE_BYTES_MAX} letters, digits and signs"
            );
            self.wrong(key, message);
            return None;
        }
        Some(zone.into())
    }

    fn zones(&mut self, typed: Option<std::collections::BTreeMap<String, String>>) -> Vec<ZoneOf> {
        const KEY: &str = "reads.zones";
        let typed = typed.unwrap_or_default();
        if typed.len() > ZONES_MAX {
            self.wrong(KEY, format!("{} networks; 0 to {ZONES_MAX}", typed.len()));
            return Vec::new();
        }
        let mut zones = Vec::new();
        for (network, zone) in typed {
            let zone = self.zone_name(KEY, &zone);
            match network_of(&network) {
                Some((address, bits)) => zones.extend(zone.map(|zone| ZoneOf {
                    address,
                    bits,
                    zone,
                })),
                None => {
                    let message = format!(
                        "\"{network}\" is no network, like \"10.0.1.0/24\" or \"fd00:1::/64\""
                    );
                    self.wrong(KEY, message);
                }
            }
        }
        // The smallest network that an address is in decides.
        zones.sort_by_key(|zone| std::cmp::Reverse(zone.bits));
        zones
    }
}

/// The zone that a file names: all of it, or the label of the downward API. A pod without that label
/// has an empty file, or one with other labels; it must start all the same.
fn zone_in(text: &str) -> Option<&str> {
    let label = text.lines().find_map(|line| {
        let value = line.strip_prefix(ZONE_LABEL)?.strip_prefix('=')?;
        Some(value.trim().trim_matches('"'))
    });
    let is_label = |line: &str| line.trim_end().ends_with('"') && line.contains("=\"");
    let zone = match label {
        None if text.lines().all(is_label) => "",
        None => text.trim(),
        Some(zone) => zone,
    };
    (!zone.is_empty()).then_some(zone)
}

fn network_of(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits = bits.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (bits <= most).then_some((address, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_file_has_the_name_or_labels() {
        assert_eq!(zone_in("eu-1a\n"), Some("eu-1a"));
        let labels = "app=\"keyway\"\ntopology.kubernetes.io/region=\"eu\"\n\
                      topology.kubernetes.io/zone=\"eu-1b\"\n";
        assert_eq!(zone_in(labels), Some("eu-1b"));
    }

    #[test]
    fn a_pod_without_the_label_has_no_zone() {
        let others = "app=\"keyway\"\nteam=\"a = b\"\n";
        let empty = "topology.kubernetes.io/zone=\"\"\n";
        for text in ["", "\n", others, empty] {
            assert_eq!(zone_in(text), None, "{text:?}");
        }
    }

    #[test]
    fn networks_are_addresses_with_bits() {
        assert_eq!(
            network_of("10.0.1.0/24"),
            Some(("10.0.1.0".parse().unwrap(), 24))
        );
        assert_eq!(network_of("fd00::/64").map(|(_, bits)| bits), Some(64));
        for text in [
            "10.0.1.0",
            "10.0.1.0/33",
            "fd00::/129",
            "a/8",
            "10.0.0.0/-1",
        ] {
            assert_eq!(network_of(text), None, "{text}");
        }
    }
}
