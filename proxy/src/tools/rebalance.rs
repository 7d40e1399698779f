//! `keyway rebalance`: slots move until all nodes are equally busy.
//!
//! What it does can be stopped anywhere and begun again: the nodes know what they own, and the next
//! run finishes what was left half done before it plans anew.

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode, time::Duration};

use heat::BalanceRules;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use topology::{NodeAddr, NodeId};

use super::{
    FAILED, Failure, run, say, say_json,
    source::{Admin, page, to_be_changed},
};
use crate::{
    config::Config,
    fleet::{
        Agenda, Board, Fleet, Load, Mover, Reading, Source, Stop, Trouble, View,
        claim::{Attempt, Claim},
        heal::heal,
    },
    heat::report::Report,
    tools::rebalance::progress::Progress,
};

mod progress;
mod show;

/// Exit code of a command that a signal stopped.
const STOPPED: u8 = 130;
/// Between two looks whether somebody else still changes the cluster.
const TURN: Duration = Duration::from_millis(500);
/// What a Keyway has counted of every slot.
const ALL_SLOTS: &str = "/heat?slots=16384";

/// `keyway rebalance`
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The configuration whose `[cluster]` is meant.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which of several clusters.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Print what would move, and change nothing (what happens without --apply too).
    #[arg(long, conflicts_with = "apply")]
    plan: bool,
    /// Move the slots.
    #[arg(long)]
    apply: bool,
    /// Measure the load for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    over: f64,
    /// What is made even; `slots` where nothing is counted.
    #[arg(long, value_enum, default_value_t = By::Cpu)]
    by: By,
    /// How far from the mean a node may stay, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
    tolerance: u8,
    /// Leave this node without slots; may be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    empty: Vec<String>,
    #[command(flatten)]
    turn: Turn,
    /// JSON: the plan, and with --apply one line for each event.
    #[arg(long)]
    json: bool,
}

/// What to do when another one changes the cluster.
#[derive(Debug, clap::Args)]
struct Turn {
    /// Wait until nobody else changes the cluster.
    #[arg(long, requires = "apply")]
    wait: bool,
    /// Do not ask whether somebody else changes the cluster (and tell nobody of this run).
    #[arg(long, requires = "apply", conflicts_with = "wait")]
    no_claim: bool,
}

/// What weighs a slot.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum By {
    /// Its CPU time.
    Cpu,
    /// The number of its keys.
    Keys,
    /// Nothing: all are the same.
    Slots,
}

impl By {
    fn weigh(self, load: Load) -> Load {
        match self {
            Self::Cpu => load,
            Self::Keys => load.by_keys(),
            Self::Slots => load.by_slots("--by slots"),
        }
    }
}

/// How it ended.
enum End {
    Fine,
    Stopped,
    Failed(String),
}

/// Plans, and does it if it is asked to.
pub(crate) fn show(options: &Options) -> ExitCode {
    match run(rebalance(options)) {
        Ok(End::Fine) => ExitCode::SUCCESS,
        Ok(End::Stopped) => ExitCode::from(STOPPED),
        Ok(End::Failed(text)) => {
            eprintln!("{text}");
            ExitCode::from(FAILED)
        }
        Err(code) => code,
    }
}

/// Said at the first signal.
const STOPPING: &str = "stopping: what has begun is finished first; a second signal ends at once";

/// Stops at SIGINT and SIGTERM, and tells that it has begun to; at once at the second one: nothing is
/// lost by it.
pub(super) fn stop_on_signals(tell: impl Fn(&str) + Send + 'static) -> Result<Stop, Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("no signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let (sender, stop) = Stop::new();
    tokio::spawn(async move {
        for second in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if second {
                std::process::exit(i32::from(STOPPED));
            }
            tell(STOPPING);
            let _ = sender.send(true);
        }
    });
    Ok(stop)
}

pub(super) fn failed(trouble: &Trouble) -> Failure {
    Failure::Failed(trouble.to_string())
}

async fn rebalance(options: &Options) -> Result<End, Failure> {
    let config = to_be_changed(&options.config, options.cluster.as_deref())?;
    let over = Duration::try_from_secs_f64(options.over)
        .map_err(|error| Failure::Mistake(format!("--over {}: {error}", options.over)))?;
    let over = match options.by {
        By::Cpu => over,
        By::Keys | By::Slots => Duration::ZERO,
    };
    let emptied = addresses(&options.empty)?;
    let json = options.json;
    let stop = stop_on_signals(move |text| progress::interrupted(json, text))?;
    let fleet = Fleet::new(&config).map_err(Failure::Failed)?;
    let claim = claimed(&fleet, options, &stop).await?;
    let stop = claim.as_ref().map_or(&stop, Claim::stop);
    let end = plan(options, &config, &fleet, over, &emptied, stop).await;
    let lost = claim.as_ref().and_then(Claim::lost);
    if let Some(claim) = claim {
        claim.release().await;
    }
    match (end, lost) {
        (Ok(End::Stopped), Some(why)) => Ok(End::Failed(why)),
        (end, _) => end,
    }
}

/// Changes begin when nobody else changes the cluster.
async fn claimed(fleet: &Fleet, options: &Options, stop: &Stop) -> Result<Option<Claim>, Failure> {
    if !options.apply || options.turn.no_claim {
        return Ok(None);
    }
    let view = fleet.view().await;
    let view = view.and_then(|view| view.sound());
    view.map_err(|trouble| failed(&trouble))?;
    let mut told = false;
    loop {
        let attempt = Claim::attempt(fleet, "rebalance", stop).await;
        let holder = match attempt.map_err(|trouble| failed(&trouble))? {
            Attempt::Ours(claim) => return Ok(Some(claim)),
            Attempt::Theirs(holder) => holder.told(),
        };
        if !options.turn.wait {
            return Err(Failure::Failed(format!(
                "{holder} changes this cluster now: wait for its end (--wait does), or stop it; if it was \
                 killed, its claim ends by itself within seconds"
            )));
        }
        if !told {
            progress::note(options.json, &format!("waiting for {holder}"));
            told = true;
        }
        tokio::select! {
            biased;
            () = stop.heard() => return Err(Failure::Failed("stopped while waiting".to_owned())),
            () = sleep(TURN) => {}
        }
    }
}

async fn plan(
    options: &Options,
    config: &Config,
    fleet: &Fleet,
    over: Duration,
    emptied: &[NodeAddr],
    stop: &Stop,
) -> Result<End, Failure> {
    let mut view = fleet.view().await.map_err(|trouble| failed(&trouble))?;
    view.sound().map_err(|trouble| failed(&trouble))?;
    if options.apply {
        let tell = &mut |text: String| progress::note(options.json, &text);
        view = heal(fleet, view, stop, tell)
            .await
            .map_err(|trouble| failed(&trouble))?;
    }
    let emptied = ids(&view, emptied)?;
    let load = tokio::select! {
        biased;
        () = stop.heard() => return Ok(End::Stopped),
        load = measure(fleet, &view, over) => load.map_err(|trouble| failed(&trouble))?,
    };
    let load = counted(options.by.weigh(load), options, config).await;
    let board = Board::new(&view, &load, &emptied);
    let agenda = Agenda::draw(
        &board.nodes,
        board.slots.clone(),
        &load.keys,
        &rules(options),
    );
    let plan = show::Plan::of(&view, &board, &load, &agenda);
    if !options.json {
        say(&plan.text(options.apply));
    } else if options.apply {
        progress::line(&plan);
    } else {
        say_json(&plan);
    }
    if !options.apply || agenda.rounds.is_empty() {
        return Ok(End::Fine);
    }
    let mut progress = Progress::new(agenda.slots(), options.json);
    let end = apply(fleet, &board, &agenda, &load.keys, stop, &mut progress).await;
    progress.end();
    Ok(end)
}

/// Where no node counts what its slots cost, what a Keyway that runs with this configuration has
/// counted is better than nothing.
async fn counted(load: Load, options: &Options, config: &Config) -> Load {
    if !matches!((&load.source, options.by), (Source::Even(_), By::Cpu)) {
        return load;
    }
    let admin = Admin::of(config.admin.address, options.cluster.as_deref());
    match page::<Report>(&admin, ALL_SLOTS).await {
        Ok(report) if !report.slots.is_empty() => {
            let slots = report.slots.iter();
            let counted = slots.map(|slot| (slot.slot, slot.load.operations_per_second));
            load.by_commands(counted, admin.to_string())
        }
        _ => load, // none runs, or it has nothing to do
    }
}

fn rules(options: &Options) -> BalanceRules {
    let off = 1.0 + f64::from(options.tolerance) / 100.0;
    BalanceRules {
        begin_off: off,
        end_off: off,
        ..BalanceRules::default()
    }
}

fn addresses(texts: &[String]) -> Result<Vec<NodeAddr>, Failure> {
    let address = |text: &String| {
        let mistake = || Failure::Mistake(format!("--empty {text}: write HOST:PORT"));
        NodeAddr::parse(text).ok_or_else(mistake)
    };
    texts.iter().map(address).collect()
}

fn ids(view: &View, addresses: &[NodeAddr]) -> Result<BTreeSet<NodeId>, Failure> {
    let id = |addr: &NodeAddr| {
        let found = view
            .primaries()
            .find(|peer| peer.addr == *addr || peer.inner == *addr);
        let known: Vec<String> = view.primaries().map(|peer| peer.addr.to_string()).collect();
        let mistake = || {
            format!(
                "--empty {addr}: no primary of the cluster; it has {}",
                known.join(", ")
            )
        };
        found
            .map(|peer| peer.id)
            .ok_or_else(|| Failure::Mistake(mistake()))
    };
    let found: BTreeSet<NodeId> = addresses.iter().map(id).collect::<Result<_, _>>()?;
    if found.len() == view.primaries().count() {
        let message = "--empty names all primaries: who shall have the slots?";
        return Err(Failure::Mistake(message.to_owned()));
    }
    Ok(found)
}

async fn measure(fleet: &Fleet, view: &View, over: Duration) -> Result<Load, Trouble> {
    let earlier = Reading::take(fleet, view).await?;
    sleep(over).await;
    let later = Reading::take(fleet, view).await?;
    Ok(Load::between(&earlier, &later))
}

/// Round by round; ends at the first that fails.
async fn apply(
    fleet: &Fleet,
    board: &Board,
    agenda: &Agenda,
    keys: &[u64],
    stop: &Stop,
    progress: &mut Progress,
) -> End {
    for round in &agenda.rounds {
        let view = match fleet
            .view()
            .await
            .and_then(|view| view.sound().map(|()| view))
        {
            Ok(view) => view,
            Err(trouble) => return End::Failed(progress.given_up(&trouble)),
        };
        let mover = Mover::new(fleet, &view);
        let mut lanes = Vec::new();
        for planned in round {
            let (jobs, left_out) = board.jobs(&mover, &view, planned, keys);
            progress.left_out(left_out);
            lanes.push(jobs);
        }
        let done = mover
            .run(lanes, stop, &mut |event| progress.tell(event))
            .await;
        if let Some(first) = done.failed.first() {
            return End::Failed(progress.given_up(first));
        }
        if stop.requested() {
            progress.stopped();
            return End::Stopped;
        }
    }
    End::Fine
}
