//! The simulated service: many tenants' clusters on shared hosts, scaled by the `heat` planner.
//!
//! A discrete-event simulation that its seed decides: demand rises and falls, nodes grow in place, come
//! from a warm pool and go, slots and nodes move at the speed of a network, queues make latency.
//! `docs/scale.md` says what the model assumes. It knows nothing of sockets or of this crate's
//! [`Cluster`](crate::Cluster), whose nodes answer real commands; here they are only counted.

mod change;
mod check;
mod control;
mod figure;
mod queue;
mod report;
mod run;
mod scenario;
mod table;
mod tick;
mod world;

#[cfg(test)]
mod tests;

pub use report::{Report, Sample, Summary};
pub use run::Checks;
pub use scenario::Scenario;

/// Shards that one tenant gets at most.
const SHARDS_MAX: usize = 500;

/// Runs a scenario with a seed.
///
/// # Errors
/// The hosts have no room for what is there in the beginning, or an invariant is broken.
pub fn simulate(scenario: &Scenario, seed: u64, checks: Checks) -> anyhow::Result<Report> {
    watch(scenario, seed, checks, |_| Ok(()))
}

/// The same, and shows what there is of the report after every tick.
///
/// # Errors
/// As [`simulate`], and what `show` says, which ends the run.
pub fn watch(
    scenario: &Scenario,
    seed: u64,
    checks: Checks,
    show: impl FnMut(&Report) -> anyhow::Result<()>,
) -> anyhow::Result<Report> {
    run::Run::new(scenario, seed, checks)?.finish(show)
}
