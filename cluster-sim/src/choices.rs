//! The table of choices: what two random choices are worth, beside other ways and beside theory.

use std::fmt::Write;

use heat::{Chooser, EvictionRules, HostHeat, NodeHeat, Policy, Rng};

/// What is compared, and how it is called.
const POLICIES: [(Policy, &str); 4] = [
    (Policy::TwoChoices, "second hottest, better of two"),
    (Policy::Random, "second hottest, one at random"),
    (Policy::LeastLoaded, "second hottest, least busy of all"),
    (Policy::HottestFirst, "hottest, better of two"),
];

/// Rounds after which a fleet that still moves is called unsettled.
const ROUNDS_MAX: usize = 60;

/// The hosts' mean heat: some are above the 80 % from which they send nodes away.
const HEAT_MEAN: f64 = 0.6;

/// The world of the table.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    /// Hosts.
    pub hosts: usize,
    /// Nodes on each, on average.
    pub nodes_per_host: usize,
}

/// Means over seeds of what one way of choosing did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Outcome {
    ratio: f64,
    moves: f64,
    again: f64,
    rounds: f64,
    heat_moved: f64,
}

/// The table as text, Markdown: nodes put one after the other, then busy hosts relieved.
#[must_use]
pub fn table(fleet: Fleet, seeds: u64) -> String {
    let mut text = String::new();
    let hosts = fleet.hosts as f64;
    let _ = writeln!(
        text,
        "Equal nodes put onto {} hosts one after the other, {seeds} seeds: the fullest host's nodes.\n\n\
         | nodes | at random | theory | better of two | theory |\n|---|---|---|---|---|",
        fleet.hosts
    );
    for per_host in [1, fleet.nodes_per_host] {
        let mean = |choices| {
            let runs = (0..seeds).map(|seed| fullest(fleet.hosts, per_host, choices, seed));
            runs.sum::<f64>() / seeds.max(1) as f64
        };
        let load = per_host as f64;
        let _ = writeln!(
            text,
            "| {} | {:.2} | {:.2} | {:.2} | {:.2} |",
            per_host * fleet.hosts,
            mean(1),
            one_choice(hosts, load),
            mean(2),
            load + hosts.ln().ln() / 2_f64.ln(),
        );
    }
    let _ = writeln!(
        text,
        "\nHosts above 80 % send one node away every round, all at once, by what was known at its \
         beginning; {seeds} seeds, {} hosts, {} nodes.\n\n\
         | who leaves, for where | max over mean heat after | moves | of nodes moved before | rounds | \
         heat moved, hosts |\n|---|---|---|---|---|---|",
        fleet.hosts,
        fleet.hosts * fleet.nodes_per_host
    );
    let before = (0..seeds).map(|seed| ratio(&begin(fleet, seed)));
    let before = before.sum::<f64>() / seeds.max(1) as f64;
    let _ = writeln!(text, "| nobody | {before:.2} | 0 | 0 | 0 | 0 |");
    for (policy, name) in POLICIES {
        let mut mean = Outcome::default();
        for seed in 0..seeds {
            let one = relieve(begin(fleet, seed), policy, seed);
            let share = 1.0 / seeds.max(1) as f64;
            mean.ratio += one.ratio * share;
            mean.moves += one.moves * share;
            mean.again += one.again * share;
            mean.rounds += one.rounds * share;
            mean.heat_moved += one.heat_moved * share;
        }
        let _ = writeln!(
            text,
            "| {name} | {:.2} | {:.1} | {:.1} | {:.1} | {:.1} |",
            mean.ratio, mean.moves, mean.again, mean.rounds, mean.heat_moved
        );
    }
    text
}

/// The fullest of `hosts` after each got `per_host` equal nodes on average.
fn fullest(hosts: usize, per_host: usize, choices: usize, seed: u64) -> f64 {
    let mut rng = Rng::new(seed);
    let mut load = vec![0_usize; hosts];
    for _ in 0..hosts * per_host {
        let drawn = (0..choices).map(|_| rng.below(hosts));
        let at = drawn.min_by_key(|host| load.get(*host).copied().unwrap_or(0));
        if let Some(count) = at.and_then(|host| load.get_mut(host)) {
            *count += 1;
        }
    }
    load.into_iter().max().unwrap_or(0) as f64
}

/// Theory for one choice: `ln n / ln ln n` for one node a host, `m + sqrt(2 m ln n)` for `m`.
fn one_choice(hosts: f64, per_host: f64) -> f64 {
    if per_host <= 1.0 {
        hosts.ln() / hosts.ln().ln()
    } else {
        per_host + (2.0 * per_host * hosts.ln()).sqrt()
    }
}

/// Nodes on random hosts, with heats of which few are many times the mean (Pareto, exponent 2).
fn begin(fleet: Fleet, seed: u64) -> Vec<HostHeat> {
    let mut rng = Rng::new(seed).fork(7);
    let empty = HostHeat {
        zone: 0,
        heat: 0.0,
        bytes_free: u64::MAX,
        moves: 0,
        nodes: Vec::new(),
    };
    let mut hosts = vec![empty; fleet.hosts];
    let scale = HEAT_MEAN / (2.0 * fleet.nodes_per_host as f64);
    for id in 0..fleet.hosts * fleet.nodes_per_host {
        let heat = (scale / (1.0 - rng.fraction()).sqrt()).min(0.6);
        let at = rng.below(fleet.hosts);
        if let Some(host) = hosts.get_mut(at) {
            host.heat += heat;
            host.nodes.push(NodeHeat {
                id,
                heat,
                bytes: 1,
                movable: true,
                leaving: false,
            });
        }
    }
    hosts
}

fn ratio(hosts: &[HostHeat]) -> f64 {
    let all: f64 = hosts.iter().map(|host| host.heat).sum();
    let hottest = hosts.iter().map(|host| host.heat).fold(0.0, f64::max);
    hottest * hosts.len() as f64 / all.max(f64::MIN_POSITIVE)
}

/// Rounds until nobody is sent away.
fn relieve(mut hosts: Vec<HostHeat>, policy: Policy, seed: u64) -> Outcome {
    // Hosts decide without asking each other: nothing bounds how many come to one at once, and nobody
    // is sent back because the host is full by now.
    let rules = EvictionRules {
        full_above: f64::INFINITY,
        moves_per_host: usize::MAX,
        draws_max: 64,
        ..EvictionRules::default()
    };
    let chooser = Chooser {
        policy,
        rules: &rules,
    };
    let mut rng = Rng::new(seed).fork(8);
    let mut moved = std::collections::BTreeSet::new();
    let mut outcome = Outcome::default();
    for _ in 0..ROUNDS_MAX {
        let evictions = chooser.evictions(&hosts, &mut rng, |_, _| true);
        if evictions.is_empty() {
            break;
        }
        outcome.rounds += 1.0;
        for eviction in evictions {
            let from = hosts.get_mut(eviction.from);
            let node = from.and_then(|host| {
                let place = host
                    .nodes
                    .iter()
                    .position(|node| node.id == eviction.node)?;
                let node = host.nodes.swap_remove(place);
                host.heat -= node.heat;
                Some(node)
            });
            if let (Some(node), Some(to)) = (node, hosts.get_mut(eviction.to)) {
                outcome.moves += 1.0;
                outcome.heat_moved += node.heat;
                outcome.again += f64::from(u8::from(!moved.insert(node.id)));
                to.heat += node.heat;
                to.nodes.push(node);
            }
        }
    }
    outcome.ratio = ratio(&hosts);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEET: Fleet = Fleet {
        hosts: 300,
        nodes_per_host: 12,
    };

    fn mean(policy: Policy) -> Outcome {
        let runs: Vec<_> = (0..20)
            .map(|seed| relieve(begin(FLEET, seed), policy, seed))
            .collect();
        let of = |value: fn(&Outcome) -> f64| runs.iter().map(value).sum::<f64>() / 20.0;
        Outcome {
            ratio: of(|o| o.ratio),
            moves: of(|o| o.moves),
            again: of(|o| o.again),
            rounds: of(|o| o.rounds),
            heat_moved: of(|o| o.heat_moved),
        }
    }

    #[test]
    fn two_choices_need_no_more_moves_than_the_best_of_all_and_fewer_than_chance() {
        let (two, random) = (mean(Policy::TwoChoices), mean(Policy::Random));
        let (best, hottest) = (mean(Policy::LeastLoaded), mean(Policy::HottestFirst));
        assert!(two.moves < random.moves, "{two:?} {random:?}");
        assert!(
            two.moves < best.moves,
            "all go to the same host: {two:?} {best:?}"
        );
        assert!(two.heat_moved < hottest.heat_moved, "{two:?} {hottest:?}");
    }

    /// max/mean <= 1 + O(log log n): what two choices leave behind, with slack for the heavy ones.
    #[test]
    fn what_is_left_is_within_its_bound() {
        for seed in 0..20 {
            let after = relieve(begin(FLEET, seed), Policy::TwoChoices, seed);
            let bound = 1.0 + (FLEET.hosts as f64).ln().ln() / 2_f64.ln();
            assert!(
                after.ratio <= bound,
                "seed {seed}: {after:?}, bound {bound}"
            );
        }
    }

    #[test]
    fn equal_nodes_lie_as_theory_has_it() {
        let mean = |choices| (0..20).map(|s| fullest(1_000, 10, choices, s)).sum::<f64>() / 20.0;
        let (one, two) = (mean(1), mean(2));
        assert!((one - one_choice(1_000.0, 10.0)).abs() < 2.5, "{one}");
        assert!(
            (two - 10.0 - 1_000_f64.ln().ln() / 2_f64.ln()).abs() < 1.0,
            "{two}"
        );
    }
}
