//! From the configuration to the dataplane's settings.

use std::{sync::Arc, time::Duration};

use dataplane::{Credentials, Limits, ReadPort, Settings, Unauthenticated};
use session::local::Endpoint;

use super::Shared;
use crate::{
    config::{self, Config, CrossSlot, HostPort},
    memory, users,
};

/// A node that does not accept a connection within this is taken for dead.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(3);
/// A replica that owes a read longer than this is left: the primary is asked.
const READ_REPLY_MAX: Duration = Duration::from_secs(1);
/// What may wait for all clients of one worker, with memory enough.
const WORKER_OUTPUT_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// A cluster's share of what may wait, with so many others.
fn memory_of_all(config: &Config, shared_by: usize) -> usize {
    waiting_bytes_max(config) / shared_by.max(1)
}

/// Bytes that may wait for the clients of all workers, and of all clusters that share them: what is configured, or
/// at most three eighths of the memory, for buffers double as they grow and the allocator keeps for some seconds
/// what was given back.
pub(crate) fn waiting_bytes_max(config: &Config) -> usize {
    let usual = WORKER_OUTPUT_BYTES_MAX.saturating_mul(config.listen.workers);
    let part = || memory::available().map_or(usual, |bytes| bytes / 8 * 3);
    let all = config.limits.memory_bytes_max;
    all.unwrap_or_else(|| usual.min(part()))
}

/// How many clients users may have, and how much they and all together may ask for.
fn set_seats(config: &Config, shared: &Shared) {
    let (limits, seats) = (&config.limits, &shared.seats);
    let rate = |max: Option<usize>| u64::try_from(max.unwrap_or_default()).unwrap_or(u64::MAX);
    seats.set_max(limits.clients_per_user_max.unwrap_or_default());
    seats.set_rates(
        rate(limits.user_commands_per_second_max),
        rate(limits.user_bytes_per_second_max),
    );
    seats.set_rates_of_all(
        rate(limits.commands_per_second_max),
        rate(limits.bytes_per_second_max),
    );
}

pub(super) fn of(config: &Config, shared: &Shared, worker: usize) -> Settings {
    let limits = &config.limits;
    let worker = u64::try_from(worker).unwrap_or_default();
    set_seats(config, shared);
    Settings {
        limits: Limits {
            deadline: limits.deadline,
            connect: limits.reply_timeout.min(CONNECT_TIMEOUT_MAX),
            reply: limits.reply_timeout,
            read_reply: limits.reply_timeout.min(READ_REPLY_MAX),
            request: limits.request_timeout,
            first_command: limits.auth_timeout,
            in_flight_max: limits.in_flight_max,
            request_bytes_max: limits.request_bytes_max,
            client_output_bytes_max: limits.client_output_bytes_max,
            idle: limits.idle_timeout,
            age: limits.max_connection_age,
            worker_output_bytes_max: memory_of_all(config, shared.shares.of(config))
                .checked_div(config.listen.workers)
                .unwrap_or(WORKER_OUTPUT_BYTES_MAX),
            leases_max: limits.leases_max.div_ceil(config.listen.workers.max(1)),
            clients_max: limits.clients_max,
        },
        cross_slot: match config.cluster.cross_slot {
            CrossSlot::Split => routing::CrossSlot::Split,
            CrossSlot::SplitTransactions => routing::CrossSlot::SplitTransactions,
            CrossSlot::Refuse => routing::CrossSlot::Refuse,
        },
        coalesce: config.hot_keys.coalesce,
        near_prefixes: near_prefixes(config),
        near_ops_min: config.hot_keys.near_ops_min,
        near_bytes_max: near_bytes(config),
        workers: config.listen.workers,
        service: config
            .cluster
            .credentials
            .as_ref()
            .map(|credentials| Credentials {
                username: credentials.username.as_bytes().into(),
                password: credentials.password.expose().into(),
            }),
        zone: config.reads.zone.as_deref().map(Into::into),
        readonly_flag: config.reads.readonly_flag,
        users: Arc::new(users::known(&config.users)),
        seats: Arc::clone(&shared.seats),
        audience: Arc::clone(&shared.audience),
        unauthenticated: match config.cluster.unauthenticated {
            config::Unauthenticated::Default => Unauthenticated::Default,
            config::Unauthenticated::Service => Unauthenticated::Service,
        },
        advertise: config.listen.advertise.as_ref().map(endpoint),
        port: config.listen.address.port(),
        read_port: config.reads.address.map(|address| ReadPort {
            port: address.port(),
            advertise: config.reads.advertise.as_ref().map(endpoint),
            node_id: hex40(shared.seed, 4),
        }),
        node_id: hex40(shared.seed, 1),
        shard_id: hex40(shared.seed, 2),
        run_id: hex40(shared.seed, 3),
        process_id: std::process::id(),
        version: env!("CARGO_PKG_VERSION"),
        seed: mix(shared.seed ^ worker.rotate_left(32)),
    }
}

fn near_prefixes(config: &Config) -> Arc<[Box<[u8]>]> {
    let prefixes = config.hot_keys.near_prefixes.iter();
    prefixes.map(|prefix| prefix.as_bytes().into()).collect()
}

/// What one worker keeps near.
fn near_bytes(config: &Config) -> usize {
    let all = config.hot_keys.near_bytes_max;
    all.checked_div(config.listen.workers).unwrap_or(all)
}

fn endpoint(advertise: &HostPort) -> Endpoint {
    Endpoint {
        host: advertise.host.to_string(),
        port: advertise.port,
    }
}

/// 40 hexadecimal digits that differ by both numbers.
fn hex40(seed: u64, salt: u64) -> String {
    let words = [1, 2, 3].map(|word| mix(seed ^ mix(salt << 8 | word)));
    let [first, second, third] = words;
    format!("{first:016x}{second:016x}{:08x}", third >> 32)
}

/// `SplitMix64`'s finaliser.
pub(crate) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_forty_digits_and_differ() {
        let (one, other) = (hex40(7, 1), hex40(7, 2));
        assert!(one.len() == 40 && one.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one, other);
        assert_ne!(one, hex40(8, 1));
    }
}
