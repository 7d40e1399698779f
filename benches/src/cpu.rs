//! The CPU time of a process, out of /proc.

use std::fs;
use std::io;

/// What a process has used since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    /// User and system, in nanoseconds: the sum over /proc/PID/task/*/schedstat, which is exact
    /// to a few milliseconds at worst. A thread that ends between two samples is not in the
    /// second; proxies and servers keep theirs.
    pub run_ns: u64,
    /// User time in clock ticks (10 ms as a rule): only good for the split over a long run.
    pub user_ticks: u64,
    /// System time in clock ticks.
    pub system_ticks: u64,
}

impl CpuTime {
    /// Now, of the process `pid`; of a few of them, their sum.
    ///
    /// # Errors
    /// One of them is gone.
    pub fn of(pids: &[u32]) -> io::Result<Self> {
        pids.iter().try_fold(Self::default(), |sum, pid| {
            let one = Self::of_one(*pid)?;
            Ok(Self {
                run_ns: sum.run_ns + one.run_ns,
                user_ticks: sum.user_ticks + one.user_ticks,
                system_ticks: sum.system_ticks + one.system_ticks,
            })
        })
    }

    /// Of this process.
    pub(crate) fn of_self() -> io::Result<Self> {
        Self::of(&[std::process::id()])
    }

    /// What was used since an `earlier` sample.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            run_ns: self.run_ns.saturating_sub(earlier.run_ns),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
        }
    }

    /// In microseconds.
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 nanoseconds")]
    #[must_use]
    pub fn micros(self) -> f64 {
        self.run_ns as f64 / 1000.0
    }

    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            run_ns: self.run_ns + other.run_ns,
            user_ticks: self.user_ticks + other.user_ticks,
            system_ticks: self.system_ticks + other.system_ticks,
        }
    }

    fn of_one(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (user_ticks, system_ticks) =
            ticks(&stat).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is odd")))?;
        let run_ns = match tasks_ns(pid) {
            Ok(ns) => ns,
            // A kernel without schedstat: the coarse figure is better than none.
            Err(_) => {
                (user_ticks + system_ticks) * 1_000_000_000
                    / rustix::param::clock_ticks_per_second().max(1)
            }
        };
        Ok(Self {
            run_ns,
            user_ticks,
            system_ticks,
        })
    }
}

/// Fields 14 and 15 of /proc/PID/stat; the name before them may hold anything, in parentheses.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn tasks_ns(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A task that ends while we look is skipped.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        sum += text
            .split_ascii_whitespace()
            .next()
            .and_then(|ns| ns.parse::<u64>().ok())
            .unwrap_or(0);
    }
    if sum == 0 {
        return Err(io::Error::other("no schedstat"));
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// How long it takes in wall time is the neighbours' business; that it is seen is ours.
    #[test]
    fn spinning_is_seen() {
        let before = CpuTime::of_self().expect("/proc");
        let begun = Instant::now();
        loop {
            let used = CpuTime::of_self().expect("/proc").since(before);
            if used.run_ns > 50_000_000 {
                let wall = begun.elapsed().as_nanos() * 64;
                assert!(
                    u128::from(used.run_ns) < wall,
                    "more than 64 cores: {used:?}"
                );
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{used:?}");
        }
    }

    #[test]
    fn a_name_may_hold_spaces_and_parentheses() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 55 66 0 0";
        assert_eq!(ticks(stat), Some((55, 66)));
    }

    #[test]
    fn no_such_process_is_an_error() {
        assert!(CpuTime::of(&[u32::MAX]).is_err());
    }
}
