//! What was asked for on the command line.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Parser;

use crate::proxies::Flush;

/// Rotations of a duel in a quick run.
const QUICK_ROTATIONS: &str = "6";

/// Compares Keyway with Envoy, HAProxy and no proxy at all, side by side in one run.
///
/// Exit code 0: all replies right, and with --check all bounds held. 1: not so. 2: bad usage.
#[derive(Debug, Parser)]
#[command(name = "compare")]
pub(crate) struct Wish {
    /// Only the loads that have bounds, briefly: under a minute
    #[arg(long)]
    pub(crate) quick: bool,
    /// Fail when a bound is missed
    #[arg(long)]
    pub(crate) check: bool,
    /// Only what has this in its name; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Everything as JSON, too
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Turns of each target in a duel
    #[arg(long, value_name = "N", default_value_t = 24,
          default_value_if("quick", "true", QUICK_ROTATIONS),
          value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub(crate) rotations: u32,
    /// How long Envoy collects commands before it writes them; 0 is not at all, as it ships
    #[arg(long, value_name = "MICROSECONDS", default_value_t = Flush::BEST.micros)]
    pub(crate) envoy_flush_us: u32,
}

impl Wish {
    /// Whether the case is to be measured.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }

    /// Says what is going on.
    #[expect(
        clippy::unused_self,
        reason = "what is told may come to depend on what was asked for"
    )]
    pub(crate) fn tell(&self, what: &str) {
        // Without a stderr there is nobody to tell.
        let _ = writeln!(io::stderr(), "compare: {what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(line: &str) -> Wish {
        let words = std::iter::once("compare").chain(line.split_whitespace());
        Wish::try_parse_from(words).expect("a command line")
    }

    #[test]
    fn a_quick_run_is_shorter_unless_asked_otherwise() {
        assert_eq!(wish("").rotations, 24);
        assert_eq!(wish("--quick").rotations.to_string(), QUICK_ROTATIONS);
        assert_eq!(wish("--quick --rotations 40").rotations, 40);
    }

    #[test]
    fn only_chooses_by_a_part_of_the_name() {
        assert!(wish("").wants("get-50"));
        let some = wish("--only get-50 --only mget");
        assert!(some.wants("get-50-p16") && some.wants("mget-10"));
        assert!(!some.wants("set-1k"));
    }
}
