//! `[limits]`: numbers, sizes and times, each within its range.

use std::time::Duration;

use super::values::Checker;
use crate::config::{
    Limits,
    typed::{self, Whole},
};

const KIB: i64 = 1024;
const MIB: i64 = 1024 * KIB;
const GIB: i64 = 1024 * MIB;
/// A week; for times that are no timeouts of single commands.
const LASTING_MS_MAX: i64 = 7 * 24 * 3_600_000;

impl Checker<'_> {
    pub(super) fn limits(&mut self, typed: &typed::Limits) -> Limits {
        let usual = Limits::default();
        let mut limits = Limits {
            clients_per_address_max: self.some(
                "clients_per_address_max",
                typed.clients_per_address_max,
                (1, 1_000_000),
            ),
            clients_per_user_max: self.some(
                "clients_per_user_max",
                typed.clients_per_user_max,
                (1, 1_000_000),
            ),
            memory_bytes_max: self.some(
                "memory_bytes_max",
                typed.memory_bytes_max,
                (MIB, 1024 * GIB),
            ),
            idle_timeout: self.lasting("idle_timeout_ms", typed.idle_timeout_ms),
            max_connection_age: self.lasting("max_connection_age_ms", typed.max_connection_age_ms),
            ..usual
        };
        let mut number = |key: &str, value, place: &mut usize, range: (i64, i64)| {
            *place = self.number(&format!("limits.{key}"), value, *place, range);
        };
        let of = &mut limits;
        let (clients, handshakes) = (typed.clients_max, typed.handshakes_max);
        number("clients_max", clients, &mut of.clients_max, (1, 1_000_000));
        number(
            "handshakes_max",
            handshakes,
            &mut of.handshakes_max,
            (1, 100_000),
        );
        number(
            "client_output_bytes_max",
            typed.client_output_bytes_max,
            &mut of.client_output_bytes_max,
            (64 * KIB, 16 * GIB),
        );
        number(
            "in_flight_max",
            typed.in_flight_max,
            &mut of.in_flight_max,
            (1, 1_000_000),
        );
        number(
            "leases_max",
            typed.leases_max,
            &mut of.leases_max,
            (1, 100_000),
        );
        number(
            "request_bytes_max",
            typed.request_bytes_max,
            &mut of.request_bytes_max,
            (64 * KIB, GIB),
        );
        self.timeouts(typed, &mut limits);
        self.rates(typed, &mut limits);
        limits
    }

    fn rates(&mut self, typed: &typed::Limits, of: &mut Limits) {
        let most = 1024 * GIB;
        let rates = [
            (
                "user_commands_per_second_max",
                typed.user_commands_per_second_max,
                &mut of.user_commands_per_second_max,
            ),
            (
                "user_bytes_per_second_max",
                typed.user_bytes_per_second_max,
                &mut of.user_bytes_per_second_max,
            ),
            (
                "commands_per_second_max",
                typed.commands_per_second_max,
                &mut of.commands_per_second_max,
            ),
            (
                "bytes_per_second_max",
                typed.bytes_per_second_max,
                &mut of.bytes_per_second_max,
            ),
        ];
        for (key, value, place) in rates {
            *place = self.some(key, value, (1, most));
        }
    }

    fn timeouts(&mut self, typed: &typed::Limits, of: &mut Limits) {
        let times = [
            (
                "handshake_timeout_ms",
                typed.handshake_timeout_ms,
                &mut of.handshake_timeout,
            ),
            (
                "auth_timeout_ms",
                typed.auth_timeout_ms,
                &mut of.auth_timeout,
            ),
            (
                "request_timeout_ms",
                typed.request_timeout_ms,
                &mut of.request_timeout,
            ),
            ("deadline_ms", typed.deadline_ms, &mut of.deadline),
            (
                "reply_timeout_ms",
                typed.reply_timeout_ms,
                &mut of.reply_timeout,
            ),
        ];
        for (key, value, place) in times {
            *place = self.millis(&format!("limits.{key}"), value, *place);
        }
    }

    /// A number in its range, or 0, which is none.
    fn some(&mut self, key: &str, value: Option<Whole>, (min, max): (i64, i64)) -> Option<usize> {
        match value {
            None | Some(Whole(0)) => None,
            value => Some(self.number(&format!("limits.{key}"), value, 0, (min, max))),
        }
    }

    /// A time, which may be long, or 0, which is never.
    fn lasting(&mut self, key: &str, value: Option<Whole>) -> Option<Duration> {
        let millis = self.some(key, value, (1, LASTING_MS_MAX))?;
        Some(Duration::from_millis(
            u64::try_from(millis).unwrap_or(u64::MAX),
        ))
    }
}
