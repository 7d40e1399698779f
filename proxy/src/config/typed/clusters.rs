//! `[cluster]` or `[[cluster]]`: one, or several with names; and what several inherit from the sections
//! that hold for all.

use std::fmt;

use serde::{
    Deserialize,
    de::{
        self, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

use super::{Cluster, ClusterListen, File, Limits, Listen, ListenTls, Reads};

/// What stands behind.
#[derive(Clone)]
pub(in super::super) enum Clusters {
    /// `[cluster]`
    One(Box<Cluster>),
    /// `[[cluster]]`
    Many(Vec<Cluster>),
}

impl Default for Clusters {
    fn default() -> Self {
        Self::One(Box::default())
    }
}

impl<'de> Deserialize<'de> for Clusters {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Clusters;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[cluster] or [[cluster]]")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Clusters, A::Error> {
                let one = Cluster::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Clusters::One(Box::new(one)))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, all: A) -> Result<Clusters, A::Error> {
                let all = Vec::deserialize(SeqAccessDeserializer::new(all))?;
                Ok(Clusters::Many(all))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A section whose own values count before those of another.
macro_rules! over {
    ($own:expr, $usual:expr, $type:ident { $($field:ident),* $(,)? }) => {
        $type {
            $($field: $own.$field.or_else(|| $usual.$field.clone()),)*
        }
    };
}

fn reads_over(own: Reads, usual: &Reads, own_port: bool) -> Reads {
    let zone_is_own = own.zone.is_some() || own.zone_file.is_some();
    let port_is_own = own_port || own.address.is_some();
    let none = Reads::default();
    let of_zone = if zone_is_own { &none } else { usual };
    let of_port = if port_is_own { &none } else { usual };
    Reads {
        address: own.address.or_else(|| of_port.address.clone()),
        advertise: own.advertise.or_else(|| of_port.advertise.clone()),
        zone: own.zone.or_else(|| of_zone.zone.clone()),
        zone_file: own.zone_file.or_else(|| of_zone.zone_file.clone()),
        zones: own.zones.or_else(|| usual.zones.clone()),
        max_lag_ms: own.max_lag_ms.or(usual.max_lag_ms),
        readonly_flag: own.readonly_flag.or(usual.readonly_flag),
    }
}

fn tls_over(own: ListenTls, usual: &ListenTls) -> ListenTls {
    let none = ListenTls::default();
    let has_pair = own.certificate.is_some() || own.key.is_some();
    let pair = if has_pair { &none } else { usual };
    let has_authority = own.client_ca.is_some() || own.client_auth.is_some();
    let authority = if has_authority { &none } else { usual };
    ListenTls {
        certificate: own.certificate.or_else(|| pair.certificate.clone()),
        key: own.key.or_else(|| pair.key.clone()),
        certificates: own.certificates.or_else(|| pair.certificates.clone()),
        client_ca: own.client_ca.or_else(|| authority.client_ca.clone()),
        client_crl: own.client_crl.or_else(|| authority.client_crl.clone()),
        client_auth: own.client_auth.or_else(|| authority.client_auth.clone()),
        min_version: own.min_version.or_else(|| usual.min_version.clone()),
    }
}

fn limits_over(own: Limits, usual: &Limits) -> Limits {
    over!(
        own,
        usual,
        Limits {
            clients_max,
            handshake_timeout_ms,
            handshakes_max,
            auth_timeout_ms,
            request_timeout_ms,
            deadline_ms,
            reply_timeout_ms,
            client_output_bytes_max,
            in_flight_max,
            leases_max,
            request_bytes_max,
            clients_per_address_max,
            clients_per_user_max,
            user_commands_per_second_max,
            user_bytes_per_second_max,
            commands_per_second_max,
            bytes_per_second_max,
            idle_timeout_ms,
            max_connection_age_ms,
            memory_bytes_max,
        }
    )
}

impl File {
    /// The file that would have this cluster alone.
    pub(in super::super) fn of_cluster(&self, cluster: &Cluster) -> Self {
        let mut own = cluster.clone();
        let listen: ClusterListen = own.listen.take().unwrap_or_default();
        let own_port = listen.address.is_some();
        let usual_name = || self.listen.advertise.clone().filter(|_| !own_port);
        let reads = own.reads.take().unwrap_or_default();
        let limits = own.limits.take().unwrap_or_default();
        Self {
            listen: Listen {
                advertise: listen.advertise.or_else(usual_name),
                address: listen.address.or_else(|| self.listen.address.clone()),
                tls: tls_over(listen.tls, &self.listen.tls),
                ..self.listen.clone()
            },
            reads: reads_over(reads, &self.reads, own_port),
            users: own.users.take().unwrap_or_default(),
            limits: limits_over(limits, &self.limits),
            cluster: Clusters::One(Box::new(own)),
            ..self.clone()
        }
    }
}
