//! What commands are like, beyond what the server tells of them.

use crate::flags::{Flags, KeyFlags};
use crate::handling::{self, Disposition, Handling};
use crate::spec::KeySpec;
use crate::table::Row;

/// Commands that may take long, or answer a lot, beside scripts.
pub(crate) const SLOW: [&str; 16] = [
    "dump",
    "flushall",
    "flushdb",
    "keys",
    "lcs",
    "pfmerge",
    "restore",
    "sdiffstore",
    "sinterstore",
    "sort",
    "sort_ro",
    "sunionstore",
    "zdiffstore",
    "zinterstore",
    "zrangestore",
    "zunionstore",
];

/// Commands that read one key and whose replies follow from what it holds: a string or a number, the same
/// in both protocols. Nothing of a hash, whose fields expire apart from their key; nothing that may
/// answer with a list (`LPOS` with `COUNT`); nothing that keeps what it found in the key (`PFCOUNT`).
pub(crate) const OF_ONE_KEY: [&str; 14] = [
    "bitcount",
    "bitpos",
    "get",
    "getbit",
    "getrange",
    "lindex",
    "llen",
    "scard",
    "sismember",
    "strlen",
    "xlen",
    "zcard",
    "zcount",
    "zlexcount",
];

/// See [`Command::answers_alike`](crate::Command::answers_alike).
pub(crate) fn answers_alike(row: &Row, disposition: Disposition) -> bool {
    let shared = matches!(
        disposition,
        Disposition::Always(Handling::Shared | Handling::Split(_))
    );
    let by_chance = || {
        row.tips
            .iter()
            .any(|tip| &**tip == "nondeterministic_output")
    };
    let only_reads = |spec: &KeySpec| spec.flags.contains(KeyFlags::RO);
    shared
        && row.flags.contains(Flags::READONLY)
        && !row.flags.contains(Flags::BLOCKING)
        && handling::keys_are_known(row)
        && row.key_specs.iter().all(only_reads)
        // Beside the keys that it names it reads others.
        && !row.name.starts_with("sort")
        && !row.learned
        && !by_chance()
}
