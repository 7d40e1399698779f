//! `simulate`: many seeds on all processors, with a progress bar. The first failure ends it with
//! code 1 and one number that replays it. See `tests/simulate`.
#![allow(clippy::print_stdout, reason = "a tool: what it found is its output")]

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use simulation::{Failure, Report};

const HELP: &str = "\
Runs the dataplane in a simulated world, one run per seed.

    simulate [--drivers] [--seeds N] [--from S]    N runs (default 500), the first with seed S (default 0)
    simulate [--drivers] --seed S [--trace]        one run; with --trace everything that happens in it

With --drivers, the proxy's own tasks for clients and nodes and its discovery run around the dataplane.

Ends with code 1 at the first run that shows what must not happen, and names its seed.";

struct Task {
    from: u64,
    seeds: u64,
    trace: bool,
    drivers: bool,
}

impl Task {
    fn simulate(&self, seed: u64) -> Result<Report, Failure> {
        #[cfg(feature = "drivers")]
        if self.drivers {
            return simulation::run_drivers(seed, None, self.trace);
        }
        simulation::run(seed, None, self.trace)
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Task, String> {
    let mut task = Task {
        from: 0,
        seeds: 500,
        trace: false,
        drivers: false,
    };
    while let Some(arg) = args.next() {
        let mut number = || {
            let text = args.next().ok_or_else(|| format!("{arg} needs a number"))?;
            text.parse::<u64>()
                .map_err(|_| format!("{arg}: `{text}` is no number"))
        };
        match arg.as_str() {
            "--seeds" => task.seeds = number()?,
            "--from" => task.from = number()?,
            "--seed" => (task.from, task.seeds) = (number()?, 1),
            "--trace" => task.trace = true,
            "--drivers" => task.drivers = true,
            _ => return Err(format!("{arg}?\n\n{HELP}")),
        }
    }
    if task.drivers && cfg!(not(feature = "drivers")) {
        return Err("--drivers needs the feature `drivers`".to_owned());
    }
    if task.trace && task.seeds != 1 {
        return Err("--trace is for one seed: give --seed".to_owned());
    }
    Ok(task)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let task = match parse(args.into_iter()) {
        Ok(task) => task,
        Err(trouble) => {
            eprintln!("{trouble}");
            return ExitCode::from(2);
        }
    };
    match run(&task) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(Failure { seed, what }) => {
            let drivers = if task.drivers { "--drivers " } else { "" };
            println!(
                "seed {seed}: {what}\n\nreplay: tests/simulate {drivers}--seed {seed} --trace"
            );
            ExitCode::FAILURE
        }
    }
}

/// All seeds, divided among the processors. Of several failures, the one with the lowest seed.
fn run(task: &Task) -> Result<String, Failure> {
    let began = Instant::now();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next, over) = (sender.clone(), &next, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= task.seeds {
                        break;
                    }
                    let seed = task.from.wrapping_add(at);
                    let result = task.simulate(seed);
                    over.fetch_or(result.is_err(), Ordering::Relaxed);
                    if sender.send(result).is_err() {
                        break; // nobody listens any more
                    }
                }
            });
        }
        drop(sender);
        follow(&results, task.seeds, began)
    })
}

/// Adds up what the runs report, and shows how far they are.
fn follow(
    results: &mpsc::Receiver<Result<Report, Failure>>,
    seeds: u64,
    began: Instant,
) -> Result<String, Failure> {
    let (mut done, mut sum, mut first) = (0, Report::default(), None::<Failure>);
    let mut shown = Instant::now();
    let bar = std::io::stderr().is_terminal();
    for result in results {
        done += 1;
        match result {
            Ok(report) => {
                sum.answered += report.answered;
                sum.unknown += report.unknown;
                sum.coalesced += report.coalesced;
                sum.near += report.near;
                sum.followed += report.followed;
                sum.set_back += report.set_back;
                sum.events += report.events;
                sum.digest = report.digest;
            }
            Err(failure) if first.as_ref().is_none_or(|first| failure.seed < first.seed) => {
                first = Some(failure);
            }
            Err(_) => {}
        }
        if bar && (shown.elapsed() > Duration::from_millis(100) || done == seeds) {
            shown = Instant::now();
            show(done, seeds, began);
        }
    }
    if bar {
        eprintln!();
    }
    let Report {
        answered,
        unknown,
        coalesced,
        near,
        followed,
        set_back,
        events,
        digest,
    } = sum;
    let took = began.elapsed().as_secs_f64();
    match first {
        Some(failure) => Err(failure),
        None => Ok(format!(
            "{seeds} seeds, {answered} replies checked, {unknown} writes with unknown outcome, \
             {coalesced} reads coalesced, {near} from near, {followed} followed, \
             {set_back} keys set back, {events} events, {took:.1} s, last trace {digest:016x}"
        )),
    }
}

fn show(done: u64, seeds: u64, began: Instant) {
    const WIDTH: usize = 40;
    let filled = (0..WIDTH as u64).filter(|at| (at + 1) * seeds <= done * WIDTH as u64);
    let filled = filled.count();
    let rate = done as f64 / began.elapsed().as_secs_f64().max(0.001);
    let left = (seeds - done) as f64 / rate.max(0.001);
    let (full, empty) = ("#".repeat(filled), " ".repeat(WIDTH - filled));
    eprint!("\r[{full}{empty}] {done}/{seeds} seeds, {rate:.0}/s, {left:.0} s left   ");
    let _ = std::io::stderr().flush(); // it is only a bar
}
