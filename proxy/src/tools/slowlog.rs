//! `keyway slowlog`: commands that took long.

use std::{fmt::Write as _, process::ExitCode};

use super::{
    Failure, ago, run, say, say_json,
    source::{Source, page},
    time_of,
};
use crate::{events::unix_ms, slow::Slow};

/// `keyway slowlog`
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    source: Source,
    /// Everything, as JSON.
    #[arg(long)]
    json: bool,
}

/// Shows them, the last one at the end.
pub(crate) fn show(options: &Options) -> ExitCode {
    let told = run(async {
        let config = options.source.config()?;
        let admin = options.source.admin(config.as_ref())?;
        let slow: Vec<Slow> = page(&admin, "/slowlog").await.map_err(Failure::Failed)?;
        Ok(slow)
    });
    match told {
        Ok(slow) if options.json => say_json(&slow),
        Ok(slow) => say(&text(&slow, unix_ms())),
        Err(code) => return code,
    }
    ExitCode::SUCCESS
}

fn text(slow: &[Slow], now_ms: u64) -> String {
    let mut out = String::new();
    for one in slow {
        let _ = write!(
            out,
            "{:>12}  {:>7}  {:<16}  {}  {}",
            ago(one.at_ms, now_ms),
            time_of(one.took_us),
            one.command,
            one.client,
            one.user
        );
        if one.left_out > 0 {
            let _ = write!(out, "  ({} more before it)", one.left_out);
        }
        out.push('\n');
    }
    if slow.is_empty() {
        out.push_str("no command has taken long\n");
    }
    out
}
