//! `[hot_keys]`: what is done about keys that many ask for.

use super::values::Checker;
use crate::config::{HotKeys, typed};

/// Prefixes at most: every change on every node is held against each of them.
const PREFIXES_MAX: usize = 32;
/// A prefix is short.
const PREFIX_BYTES_MAX: usize = 256;
/// For less it is not worth having.
const BYTES_MIN: i64 = 1024 * 1024;
const BYTES_MAX: i64 = 1 << 40;
/// No worker does more.
const OPS_MAX: i64 = 100_000_000;

impl Checker<'_> {
    pub(super) fn hot_keys(&mut self, typed: typed::HotKeys) -> HotKeys {
        let usual = HotKeys::default();
        let near_bytes_max = self.number(
            "hot_keys.near_bytes_max",
            typed.near_bytes_max,
            usual.near_bytes_max,
            (BYTES_MIN, BYTES_MAX),
        );
        let near_ops_min = self.number(
            "hot_keys.near_ops_min",
            typed.near_ops_min,
            usual.near_ops_min,
            (0, OPS_MAX),
        );
        HotKeys {
            coalesce: typed.coalesce.unwrap_or(usual.coalesce),
            near_prefixes: self.near_prefixes(typed.near_prefixes.unwrap_or_default()),
            near_ops_min,
            near_bytes_max,
        }
    }

    fn near_prefixes(&mut self, texts: Vec<String>) -> Vec<Box<str>> {
        const KEY: &str = "hot_keys.near_prefixes";
        if texts.len() > PREFIXES_MAX {
            self.wrong(
                KEY,
                format!("{} of them; up to {PREFIXES_MAX}", texts.len()),
            );
        }
        let mut found: Vec<Box<str>> = Vec::new();
        for text in texts {
            let covered = |known: &str, other: &str| known.starts_with(other);
            let clash = found
                .iter()
                .find(|known| covered(known, &text) || covered(&text, known));
            if text.is_empty() || text.len() > PREFIX_BYTES_MAX {
                self.wrong(KEY, format!("{text:?}: 1 to {PREFIX_BYTES_MAX} bytes"));
            } else if let Some(clash) = clash {
                self.wrong(
                    KEY,
                    format!("{text:?} and {clash:?}: one begins with the other"),
                );
            } else {
                found.push(text.into());
            }
        }
        found
    }
}
