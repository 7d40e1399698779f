//! `./tests/chaos --table`: what clients of Keyway see while a real cluster behind it changes and
//! fails, as a table; the exit code is 1 when a row falls short.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for developers: it prints"
)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use keyway_tests::chaos::{
    Ground, Row, atomic, killed, legacy, planned, scaled, stopped, table_load, zones,
};
use keyway_tests::{ClusterOptions, LoadOptions, Version};

const USAGE: &str = "\
usage: ./tests/chaos --table [--quick] [--valkey 8.0] [--only WORD] [--minutes N] [--clients N] [--pause MS] [--seed N]
  --quick       each case once, under a minute in all
  --valkey 8.0  the cases that 8.0 can, with TLS to the nodes; 9.1 unless given
  --only WORD   the cases whose name contains WORD; may be given more than once
  --minutes N   all of it again and again for so long, with other choices each time
  --clients N   connections, 200 unless given
  --pause MS    a client's mean pause between two pipelines, in milliseconds
  --seed N      what the clients choose follows from it";

/// How often each case is done.
struct Times {
    moves: usize,
    planned: usize,
    killed: usize,
    stopped: usize,
    scaled: usize,
    reads: usize,
    /// How long a node stops.
    stop: Duration,
}

const FULL: Times = Times {
    moves: 5,
    planned: 20,
    killed: 20,
    stopped: 3,
    scaled: 2,
    reads: 100,
    stop: Duration::from_secs(10),
};
const QUICK: Times = Times {
    moves: 1,
    planned: 1,
    killed: 1,
    stopped: 1,
    scaled: 1,
    reads: 20,
    stop: Duration::from_secs(6),
};

/// They need CLUSTER MIGRATESLOTS.
const NOT_BEFORE_9: [&str; 2] = ["atomic", "scale"];
const LEGACY_SLOTS: u16 = 2_000;
const SHARDS_MAX: usize = 6;

struct Wish {
    quick: bool,
    version: Version,
    only: Vec<String>,
    minutes: u64,
    load: LoadOptions,
}

impl Wish {
    fn read(args: impl Iterator<Item = String>) -> Option<Self> {
        let mut args = args.peekable();
        let mut wish = Self {
            quick: false,
            version: Version::V9_1,
            only: Vec::new(),
            minutes: 0,
            load: table_load(),
        };
        let mut table = false;
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--table" => table = true,
                "--quick" => wish.quick = true,
                "--valkey" => {
                    wish.version = match args.next()?.as_str() {
                        "8.0" => Version::V8_0Tls,
                        "9.1" => Version::V9_1,
                        _ => return None,
                    };
                }
                "--only" => wish.only.push(args.next()?),
                "--minutes" => wish.minutes = args.next()?.parse().ok()?,
                "--clients" => wish.load.clients = args.next()?.parse().ok()?,
                "--pause" => wish.load.pause = Duration::from_millis(args.next()?.parse().ok()?),
                "--seed" => wish.load.seed = args.next()?.parse().ok()?,
                _ => return None,
            }
        }
        table.then_some(wish)
    }

    fn wants(&self, case: &str) -> bool {
        if self.version == Version::V8_0Tls && NOT_BEFORE_9.contains(&case) {
            return false;
        }
        self.only.is_empty() || self.only.iter().any(|word| case.contains(word.as_str()))
    }
}

fn tell(row: &Row, began: Instant) {
    let [
        case,
        done,
        verified,
        errors,
        closed,
        order,
        swapped,
        twice,
        lost,
        longest,
        verdict,
    ] = row.cells();
    println!(
        "| {case} | {done} | {verified} | {errors} | {closed} | {order} | {swapped} | {twice} | {lost} | {longest} | {verdict} |"
    );
    print!("{}", row.details());
    eprintln!("{}: {:.1} s", row.case, began.elapsed().as_secs_f64());
}

/// The cases that change one cluster of three shards with a replica each.
fn on_one_cluster(wish: &Wish, times: &Times, rows: &mut Vec<Row>) {
    type Case<'a> = (&'a str, Box<dyn Fn(&mut Ground) -> Row + 'a>);
    let cases: [Case<'_>; 5] = [
        (
            "legacy",
            Box::new(|ground| legacy(ground, LEGACY_SLOTS, times.moves)),
        ),
        ("atomic", Box::new(|ground| atomic(ground, times.moves))),
        ("planned", Box::new(|ground| planned(ground, times.planned))),
        ("kill", Box::new(|ground| killed(ground, times.killed))),
        (
            "stop",
            Box::new(|ground| stopped(ground, times.stopped, times.stop)),
        ),
    ];
    let wanted: Vec<_> = cases.iter().filter(|(name, _)| wish.wants(name)).collect();
    if wanted.is_empty() {
        return;
    }
    let mut ground = Ground::new(ClusterOptions::new(wish.version, 3, 1), wish.load.clone());
    for (_, case) in wanted {
        let began = Instant::now();
        let row = case(&mut ground);
        tell(&row, began);
        rows.push(row);
    }
}

/// Every case that is wanted, once through.
fn all_cases(wish: &Wish, times: &Times, rows: &mut Vec<Row>) {
    on_one_cluster(wish, times, rows);
    if wish.wants("scale") {
        let options = ClusterOptions::new(wish.version, 1, 0);
        let mut ground = Ground::new(options, wish.load.clone());
        let began = Instant::now();
        let row = scaled(&mut ground, SHARDS_MAX, times.scaled);
        tell(&row, began);
        rows.push(row);
    }
    if wish.wants("zones") {
        let began = Instant::now();
        let row = zones(wish.version, times.reads);
        tell(&row, began);
        rows.push(row);
    }
}

fn main() -> ExitCode {
    let Some(mut wish) = Wish::read(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let times = if wish.quick { &QUICK } else { &FULL };
    let begin = Instant::now();
    println!("| {} |", Row::COLUMNS.join(" | "));
    println!("|{}", "---|".repeat(Row::COLUMNS.len()));
    let mut rows = Vec::new();
    loop {
        all_cases(&wish, times, &mut rows);
        if begin.elapsed() >= Duration::from_secs(60 * wish.minutes) || rows.is_empty() {
            break;
        }
        wish.load.seed += 1;
    }
    let short = rows
        .iter()
        .filter(|row| !row.shortfalls().is_empty())
        .count();
    println!(
        "{} clients, {} of {} rows as they must be, {} s",
        wish.load.clients,
        rows.len() - short,
        rows.len(),
        begin.elapsed().as_secs()
    );
    if rows.is_empty() || short > 0 {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
