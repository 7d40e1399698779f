//! `keyway autoscale`: nodes come from a warm pool when load rises and go back when it falls.
//!
//! One look after the other: what is left half done is finished, load is measured, `heat` decides, and
//! one step is done. Nothing is kept but what was measured; where a run before this one was, the
//! cluster itself tells.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use tokio::time::sleep;

use super::{
    Failure,
    rebalance::{failed, stop_on_signals},
    run,
    source::to_be_changed,
};
use crate::{
    clock,
    config::Config,
    fleet::{
        Fleet, Stop, Trouble, View,
        claim::{Attempt, Claim},
    },
    telemetry,
};

mod decide;
mod replicas;
mod step;
mod unusable;

use step::{Next, Steps};

/// A cluster that is not well for so long is none to begin with.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks while something is going on, at most.
const SOON: Duration = Duration::from_millis(500);

/// `keyway autoscale`
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The configuration whose `[cluster]` and `[autoscale]` are meant.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which of several clusters.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Say what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask whether somebody else changes the cluster (and tell nobody of this run).
    #[arg(long)]
    no_claim: bool,
}

/// Runs until a signal.
pub(crate) fn show(options: &Options) -> ExitCode {
    match run(autoscale(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}

async fn autoscale(options: &Options) -> Result<(), Failure> {
    let config = to_be_changed(&options.config, options.cluster.as_deref())?;
    telemetry::start(&config.log);
    let stop = stop_on_signals(|text| tracing::info!("{text}"))?;
    let fleet = Fleet::new(&config).map_err(Failure::Failed)?;
    let view = well(&fleet, &stop)
        .await
        .map_err(|trouble| failed(&trouble))?;
    tracing::info!(
        shards = view.primaries().count(),
        pool = config.autoscale.warm.len(),
        dry_run = options.dry_run,
        "scaling"
    );
    if options.dry_run || options.no_claim {
        look_after(&fleet, &config, options.dry_run, &stop).await;
    } else {
        in_turn(&fleet, &config, &stop).await?;
    }
    tracing::info!("ended; a new run goes on from what the cluster is");
    Ok(())
}

/// Looks after the cluster while nobody else changes it; stands by while somebody does.
async fn in_turn(fleet: &Fleet, config: &Config, stop: &Stop) -> Result<(), Failure> {
    let (mut told, mut first) = (String::new(), true);
    while !stop.requested() {
        let (which, text) = match Claim::attempt(fleet, "autoscale", stop).await {
            Ok(Attempt::Ours(claim)) => {
                told.clear();
                first = false;
                look_after(fleet, config, false, claim.stop()).await;
                if let Some(why) = claim.lost() {
                    tracing::warn!("nothing is done now: {why}");
                }
                claim.release().await;
                continue;
            }
            Ok(Attempt::Theirs(holder)) => {
                let text = format!("{} changes this cluster now", holder.told());
                (holder.id().to_owned(), text)
            }
            // It is not going to be allowed while it runs.
            Err(trouble @ Trouble::Refused { .. }) if first => return Err(failed(&trouble)),
            Err(trouble) => (trouble.to_string(), trouble.to_string()),
        };
        if which != told {
            tracing::warn!("standing by: {text}");
            told = which;
        }
        tokio::select! {
            biased;
            () = stop.heard() => {}
            () = sleep(config.autoscale.interval.min(SOON)) => {}
        }
    }
    Ok(())
}

/// Waits a little for a cluster that is well: a node that has just joined is not yet.
async fn well(fleet: &Fleet, stop: &Stop) -> Result<View, Trouble> {
    let until = clock::now() + PATIENCE;
    loop {
        let found = fleet.view().await;
        let found = found.and_then(|view| view.sound().map(|()| view));
        if found.is_ok() || clock::now() >= until || stop.requested() {
            return found;
        }
        sleep(SOON).await;
    }
}

async fn look_after(fleet: &Fleet, config: &Config, dry_run: bool, stop: &Stop) {
    let mut steps = Steps::new(fleet, &config.autoscale, dry_run);
    let mut told = String::new();
    while !stop.requested() {
        let next = match steps.step(stop).await {
            Ok(next) => {
                told.clear();
                next
            }
            Err(trouble) => {
                // Once, not at every look.
                let text = trouble.to_string();
                if text != told {
                    tracing::warn!("nothing is done now: {text}");
                }
                told = text;
                steps.forget();
                Next::Later
            }
        };
        let pause = match next {
            Next::Soon => config.autoscale.interval.min(SOON),
            Next::Later => config.autoscale.interval,
        };
        tokio::select! {
            biased;
            () = stop.heard() => return,
            () = sleep(pause) => {}
        }
    }
}
