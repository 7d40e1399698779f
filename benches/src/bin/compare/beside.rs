//! What something does to those who are served beside it: they are driven without it and with it, in turns.
//!
//! What counts is the p99 of all the seconds with it by that of all the seconds without, in pairs, for seconds that
//! follow one another see the same neighbours. A virtual machine pauses for some milliseconds about once a second, and
//! such a tail is the machine's first: the p99 of the median turn of 250 ms is shown beside it.

use anyhow::{Context, Result};
use keyway_bench::stats::Quartiles;

use crate::findings::{Cell, Findings};
use crate::ground::{Ground, Outcome, P99, Target};
use crate::process::Ahead;

/// Whoever is served, with it and without it; for how long comes on top of it.
const SERVED: &str = "--clients 50 --rate 5000 --pipeline 16 --mix get=80,set=20 --shared 0 \
                      --keys 20000 --warmup 400ms --turn 250ms";

/// Some seconds of the served.
#[derive(Debug)]
struct Served {
    p50_us: f64,
    p99_us: f64,
    /// Of the median turn.
    turn_p99_us: f64,
    /// How late the load itself was, p99.
    delay_us: f64,
    /// What the machine's neighbours took of its cores, in percent.
    stolen: f64,
}

/// In pairs: without it, and with it.
#[derive(Debug, Default)]
pub(crate) struct Beside(Vec<[Served; 2]>);

impl Beside {
    /// One more pair, of so many seconds each: `begin` has it come before the second, and what that returns is to be
    /// ended by the caller.
    pub(crate) fn pair<T>(
        &mut self,
        (ground, target, seconds): (&Ground, &Target, u32),
        findings: &mut Findings,
        begin: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let without = serve(ground, target, seconds, findings).context("without it")?;
        let it = begin()?;
        let with = serve(ground, target, seconds, findings).context("beside it")?;
        self.0.push([without, with]);
        Ok(it)
    }

    /// p99 with it by p99 without.
    pub(crate) fn ratio(&self) -> Option<Quartiles> {
        self.ratio_of(|served| served.p99_us)
    }

    fn ratio_of(&self, figure: fn(&Served) -> f64) -> Option<Quartiles> {
        let ratios = self.0.iter();
        let ratios = ratios.map(|[without, with]| figure(with) / figure(without));
        Quartiles::of(ratios.collect())
    }

    /// The columns that [`cells`](Self::cells) fills.
    pub(crate) const COLUMNS: [&'static str; 10] = [
        "p50 without",
        "p99 without",
        "p50 with",
        "p99 with",
        "p99 with / without",
        "the same of the median turn",
        "the load's own delay, p99: without",
        "with",
        "stolen from the machine: without",
        "with, %",
    ];

    /// Medians over the pairs, milliseconds.
    pub(crate) fn cells(&self) -> [Cell; 10] {
        let median = |which: usize, figure: fn(&Served) -> f64| {
            let served = self.0.iter().filter_map(|pair| pair.get(which));
            Quartiles::of(served.map(figure).collect()).map(|quartiles| quartiles.median)
        };
        let ms = |which, figure| {
            let us = median(which, figure);
            Cell::maybe(us.map(|us| us / 1000.0), 2)
        };
        [
            ms(0, |served| served.p50_us),
            ms(0, |served| served.p99_us),
            ms(1, |served| served.p50_us),
            ms(1, |served| served.p99_us),
            Cell::Ratio(self.ratio()),
            Cell::Ratio(self.ratio_of(|served| served.turn_p99_us)),
            ms(0, |served| served.delay_us),
            ms(1, |served| served.delay_us),
            Cell::maybe(median(0, |served| served.stolen), 1),
            Cell::maybe(median(1, |served| served.stolen), 1),
        ]
    }
}

fn serve(
    ground: &Ground,
    target: &Target,
    seconds: u32,
    findings: &mut Findings,
) -> Result<Served> {
    let ahead = Ahead::step(&ground.nodes.pids())?;
    let before = Ticks::now()?;
    let arguments = format!("{SERVED} --duration {seconds}s");
    let outcome = ground.run(std::slice::from_ref(target), &arguments)?;
    drop(ahead);
    let stolen = Ticks::now()?.stolen_since(before);
    let failures = outcome.0.failures.iter();
    findings
        .failures
        .extend(failures.map(|failure| format!("{}: {failure}", target.name)));
    figures(&outcome, &target.name, stolen).context("no figures")
}

fn figures(outcome: &Outcome, name: &str, stolen: f64) -> Option<Served> {
    let latency = &outcome.target(name)?.latency_us;
    Some(Served {
        p50_us: latency.p50,
        p99_us: latency.p99,
        turn_p99_us: outcome.median(name, P99)?,
        delay_us: outcome.delay_us(name)?,
        stolen,
    })
}

/// Time of all cores, out of the first line of /proc/stat (see `proc_stat(5)`).
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ticks {
    all: u64,
    stolen: u64,
}

impl Ticks {
    fn now() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/stat").context("/proc/stat")?;
        Self::of(&text).context("/proc/stat is odd")
    }

    /// user nice system idle iowait irq softirq steal; a guest's time is in the first two already.
    fn of(text: &str) -> Option<Self> {
        let fields = text.lines().next()?.strip_prefix("cpu ")?;
        let times = fields.split_ascii_whitespace().take(8);
        let times: Vec<u64> = times.map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self {
            all: times.iter().sum(),
            stolen: times.get(7).copied()?,
        })
    }

    /// In percent.
    #[expect(clippy::cast_precision_loss, reason = "ticks of a few seconds")]
    fn stolen_since(self, earlier: Self) -> f64 {
        let of = |figure: fn(Self) -> u64| figure(self).saturating_sub(figure(earlier)) as f64;
        100.0 * of(|ticks| ticks.stolen) / of(|ticks| ticks.all).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(p99_us: f64) -> Served {
        Served {
            p50_us: 50.0,
            p99_us,
            turn_p99_us: p99_us / 10.0,
            delay_us: 10.0,
            stolen: 0.0,
        }
    }

    #[test]
    fn what_follows_one_another_is_compared() {
        // The machine is ten times as slow in the second pair, and has a hiccup in the third.
        let beside = Beside(vec![
            [served(100.0), served(200.0)],
            [served(1000.0), served(2000.0)],
            [served(100.0), served(9000.0)],
        ]);
        let ratio = beside.ratio().expect("three pairs");
        assert_eq!(ratio.median, 2.0);
        assert_eq!(Beside::default().ratio(), None);
        assert_eq!(Beside::default().cells().len(), Beside::COLUMNS.len());
    }

    #[test]
    fn stolen_time_is_the_eighth_field() {
        let ticks = |text| Ticks::of(text).expect("a first line");
        let before = ticks("cpu  10 20 30 40 0 0 0 0 5 5\ncpu0 1 2 3 4 5 6 7 8 9 10\n");
        assert_eq!((before.all, before.stolen), (100, 0));
        let after = ticks("cpu  10 20 30 210 0 0 0 30 5 5\n");
        assert_eq!(after.stolen_since(before), 15.0);
        assert_eq!(after.stolen_since(after), 0.0);
        for odd in [
            "",
            "cpu0 1 2 3 4 5 6 7 8",
            "cpu  1 2 3",
            "cpu  1 2 3 4 x 6 7 8",
        ] {
            assert_eq!(Ticks::of(odd), None, "{odd}");
        }
    }
}
