//! `keyway heat`: where the load is, once or second by second.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use super::{
    Failure, run, say, say_json,
    source::{Source, page},
};
use crate::heat::report::{KeyHeat, Report};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Rows of a list.
const ROWS: usize = 10;
/// A bar of the busiest shard or part is so long.
const BAR: u32 = 24;
/// From nothing to the most, in eight steps.
const STEPS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// `keyway heat`
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    source: Source,
    /// Everything, as JSON.
    #[arg(long)]
    json: bool,
    /// Look again each second, until it is ended.
    #[arg(long)]
    watch: bool,
    /// The same, and end after so many looks.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// Shows it.
pub(crate) fn show(options: &Options) -> ExitCode {
    let told = run(async {
        let config = options.source.config()?;
        let admin = options.source.admin(config.as_ref())?;
        let mut left = options
            .count
            .unwrap_or(if options.watch { u64::MAX } else { 1 });
        let mut turns = tokio::time::interval(EVERY);
        while left > 0 {
            turns.tick().await;
            let report: Report = page(&admin, "/heat").await.map_err(Failure::Failed)?;
            if options.json {
                say_json(&report);
            } else {
                say(&text(&report));
            }
            left -= 1;
        }
        Ok(())
    });
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    let all = &report.all;
    let bytes = all.bytes_in_per_second + all.bytes_out_per_second;
    let _ = writeln!(
        out,
        "{:>10} commands/s  {:>9}/s  hottest slot {:.1} times the mean",
        whole(all.operations_per_second),
        size(bytes),
        report.slot_max_over_mean
    );
    let _ = writeln!(out, "slots 0 to 16383  |{}|", strip(&report.strip));
    let most = report
        .shards
        .iter()
        .map(|shard| shard.operations_per_second);
    let most = most.fold(0.0, f64::max);
    for shard in &report.shards {
        let _ = writeln!(
            out,
            "shard {:<4} {:>10}/s  {:>9}/s  {}",
            shard.index,
            whole(shard.operations_per_second),
            size(shard.bytes_per_second),
            bar(shard.operations_per_second, most)
        );
    }
    out.push_str("\nhot slots\n");
    for slot in report.slots.iter().take(ROWS) {
        let shard = slot
            .shard
            .map_or_else(|| "-".to_owned(), |shard| shard.to_string());
        let bytes = slot.load.bytes_in_per_second + slot.load.bytes_out_per_second;
        let _ = writeln!(
            out,
            "{:>10} {:>10}/s  {:>9}/s  shard {shard}",
            slot.slot,
            whole(slot.load.operations_per_second),
            size(bytes)
        );
    }
    keys(&mut out, "hot keys, by commands", &report.keys, whole);
    keys(&mut out, "hot keys, by bytes", &report.keys_by_bytes, size);
    out.push_str("\nbig values\n");
    for key in report.big_keys.iter().take(ROWS) {
        let _ = writeln!(
            out,
            "{:>10} {:>10}    {:>7} s ago  {}",
            slot_of(key.slot),
            size(float(key.bytes)),
            key.seen_seconds_ago,
            key.key.as_deref().unwrap_or("-")
        );
    }
    if !report.keys_shown {
        out.push_str("\nnames of keys: [admin] show_keys, or KEYWAY HOTKEYS\n");
    }
    out
}

fn keys(out: &mut String, title: &str, keys: &[KeyHeat], shown: fn(f64) -> String) {
    let _ = writeln!(out, "\n{title}");
    for key in keys.iter().take(ROWS) {
        let _ = writeln!(
            out,
            "{:>10} {:>10}/s  {:>8.1} %  {}",
            slot_of(key.slot),
            shown(key.per_second),
            key.percent,
            key.key.as_deref().unwrap_or("-")
        );
    }
}

fn slot_of(slot: Option<u16>) -> String {
    slot.map_or_else(|| "-".to_owned(), |slot| slot.to_string())
}

fn whole(number: f64) -> String {
    format!("{number:.0}")
}

/// Bytes as people read them.
fn size(bytes: f64) -> String {
    let mut rest = bytes;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if rest < 1024.0 {
            return format!("{rest:.0} {unit}");
        }
        rest /= 1024.0;
    }
    format!("{rest:.0} TiB")
}

#[expect(clippy::cast_precision_loss, reason = "a size to look at")]
fn float(count: u64) -> f64 {
    count as f64
}

fn bar(value: f64, most: f64) -> String {
    let length = (0..BAR).filter(|step| f64::from(*step) * most < value * f64::from(BAR));
    "█".repeat(length.count())
}

/// The parts of the slots as heights, four to a sign.
fn strip(parts: &[f64]) -> String {
    let sums: Vec<f64> = parts.chunks(4).map(|some| some.iter().sum()).collect();
    let most = sums.iter().copied().fold(0.0, f64::max);
    let height = |sum: &f64| {
        let steps = (1..STEPS.len()).zip(0_u32..);
        let reached = steps.filter(|(_, step)| f64::from(*step) * most < sum * 8.0);
        let step = reached.map(|(step, _)| step).last().unwrap_or_default();
        STEPS.get(step).copied().unwrap_or(' ')
    };
    sums.iter().map(height).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_go_from_nothing_to_the_most() {
        let mut parts = vec![0.0; 256];
        parts[0] = 800.0;
        parts[4] = 1.0;
        parts[9] = 401.0;
        let shown = strip(&parts);
        assert_eq!(shown.chars().count(), 64);
        assert!(shown.starts_with("█▁▅ "), "{shown:?}");
        assert_eq!(strip(&[0.0; 8]), "  ");
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 1023.0, 2048.0, 5e6, 3e12].map(size);
        assert_eq!(shown, ["0 B", "1023 B", "2 KiB", "5 MiB", "3 TiB"]);
        assert_eq!(bar(1.0, 2.0).chars().count(), 12);
        assert_eq!(bar(0.0, 0.0), "");
    }

    #[test]
    fn keys_without_names_say_where_the_names_are() {
        let mut report = Report {
            keys: vec![KeyHeat {
                slot: Some(7),
                per_second: 120.4,
                percent: 12.3,
                ..KeyHeat::default()
            }],
            ..Report::default()
        };
        let shown = text(&report);
        assert!(
            shown.contains("         7        120/s      12.3 %  -\n"),
            "{shown}"
        );
        assert!(shown.contains("KEYWAY HOTKEYS"), "{shown}");
        report.keys_shown = true;
        report.keys[0].key = Some("user:1".to_owned());
        let shown = text(&report);
        assert!(
            shown.contains("user:1") && !shown.contains("HOTKEYS"),
            "{shown}"
        );
    }
}
