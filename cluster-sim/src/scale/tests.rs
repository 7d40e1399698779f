//! The invariants of the control plane, over seeds and scenarios that chance makes.

use heat::Rng;

use super::*;

const BASE: &str = include_str!("../../scenarios/flash-sale.toml");

/// A small service whose tenants come and go as the seed has it.
fn small(seed: u64) -> Scenario {
    let mut rng = Rng::new(seed).fork(9);
    let mut scenario = Scenario::parse(BASE).unwrap();
    scenario.duration_s = 1_000.0;
    scenario.hosts.count = 18 + rng.below(12);
    scenario.hosts.cpus = 64.0;
    scenario.hosts.network_gbit = [3.0, 10.0, 25.0][rng.below(3)];
    scenario.pool.nodes = 16 + rng.below(40);
    scenario.pool.provision_s = 30.0 + 120.0 * rng.fraction();
    scenario.moves.per_host = 2 + rng.below(6);
    scenario.scaling.shrink_after_s = 60.0 + 200.0 * rng.fraction();
    scenario.node.replicas = rng.below(3);
    let rise = 100.0 + 200.0 * rng.fraction();
    for tenant in &mut scenario.tenant {
        if tenant.focus {
            tenant.slots = 512;
            tenant.demand = vec![
                scenario::Curve::Constant { rps: 30_000.0 },
                scenario::Curve::Flash {
                    at_s: 100.0,
                    rise_s: rise,
                    hold_s: 200.0,
                    fall_s: 50.0 + rise,
                    peak: 200_000.0 + 300_000.0 * rng.fraction(),
                },
            ];
            tenant.hot = Some(scenario::Hot {
                at_s: 150.0,
                slots: 3,
                share: 0.1,
            });
        } else {
            (tenant.count, tenant.slots) = (40 + rng.below(40), 16);
        }
    }
    scenario
}

fn checked() -> Checks {
    Checks {
        always: true,
        ..Checks::default()
    }
}

#[test]
fn invariants_hold_whatever_the_seed() {
    let (mut moves, mut evictions, mut shrunk) = (0, 0, 0);
    for seed in 0..12 {
        let scenario = small(seed);
        let report = simulate(&scenario, seed, checked())
            .unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
        let summary = &report.summary;
        moves += summary.moves;
        evictions += summary.evictions;
        let last = report.samples.last().unwrap();
        shrunk += usize::from(last.nodes < summary.nodes_max);
        assert!(
            summary.host_full_s_max <= 120.0,
            "seed {seed}: a host was full for {} s",
            summary.host_full_s_max
        );
        grows_no_faster_than_allowed(seed, &scenario, &report);
    }
    assert!(
        moves > 1_000 && evictions > 20 && shrunk > 6,
        "{moves} {evictions} {shrunk}"
    );
}

/// Within a period of growth nodes become `growth_max` times as many at most, or one more.
fn grows_no_faster_than_allowed(seed: u64, scenario: &Scenario, report: &Report) {
    let each = 1 + scenario.node.replicas;
    let period = scenario.scaling.growth_period_s;
    for (index, sample) in report.samples.iter().enumerate() {
        let began = report.samples[..index]
            .iter()
            .rev()
            .find(|before| sample.t_s - before.t_s > period);
        // What leaves is still there, and two periods may meet.
        let bound = began.map(|before| (before.nodes / each) as f64);
        let bound =
            bound.map(|shards| (shards * scenario.scaling.growth_max.powi(2)).max(shards + 2.0));
        if let Some(bound) = bound {
            assert!(
                (sample.nodes / each) as f64 <= bound,
                "seed {seed}: {sample:?}"
            );
        }
    }
}

#[test]
fn a_seed_is_a_run() {
    let scenario = small(3);
    let run = |seed| simulate(&scenario, seed, Checks::default()).unwrap();
    let (one, two, other) = (run(3), run(3), run(4));
    assert_eq!(one.summary, two.summary);
    assert_eq!(one.csv(), two.csv());
    assert_ne!(one.summary.trace, other.summary.trace);
}

#[test]
fn a_control_plane_that_dies_goes_on_from_its_log() {
    for seed in 0..2 {
        let scenario = small(seed);
        let run = |restart_at_s| {
            let checks = Checks {
                restart_at_s,
                ..checked()
            };
            simulate(&scenario, seed, checks).unwrap().summary.trace
        };
        let undisturbed = run(None);
        for at in [7.0, 117.0, 133.0, 162.0, 222.0, 702.0] {
            assert_eq!(run(Some(at)), undisturbed, "seed {seed}, killed at {at} s");
        }
    }
}

#[test]
fn capacity_follows_a_demand_that_doubles() {
    let mut scenario = small(1);
    scenario.node.replicas = 1;
    scenario.pool.nodes = 120;
    scenario.pool.provision_s = 60.0;
    scenario.hosts.count = 30;
    scenario.hosts.network_gbit = 25.0;
    scenario.moves.per_host = 8;
    for tenant in &mut scenario.tenant {
        if tenant.focus {
            (tenant.slots, tenant.shards, tenant.hot) = (4_096, 1, None);
            tenant.skew = 0.6;
            tenant.demand = vec![scenario::Curve::Steps {
                at_s: 20.0,
                from: 80_000.0,
                factor: 2.0,
                every_s: 80.0,
                to: 1_280_000.0,
            }];
        }
    }
    for seed in 0..2 {
        let report = simulate(&scenario, seed, checked()).unwrap();
        let summary = &report.summary;
        assert!(summary.doubling_s_max <= 120.0, "{summary:?}");
        assert!(
            summary.p50_ms_max < 1.0 && summary.p99_recovery_s_max <= 30.0,
            "{summary:?}"
        );
        assert_eq!(summary.starved, 0, "{summary:?}");
        let after = report.samples.iter().filter(|sample| sample.t_s > 480.0);
        for sample in after {
            assert!(sample.capacity_rps >= sample.demand_rps, "{sample:?}");
        }
        let refilled = |sample: &Sample| sample.t_s > 480.0 && sample.pool == scenario.pool.nodes;
        assert!(
            report.samples.iter().any(refilled),
            "the pool is not refilled"
        );
    }
}

#[test]
fn without_a_pool_demand_is_not_met() {
    // The figures come of the model: without nodes to take, they are bad.
    let mut scenario = small(1);
    scenario.pool.nodes = 0;
    let summary = simulate(&scenario, 1, checked()).unwrap().summary;
    assert!(summary.pool_empty > 0 && summary.starved > 0, "{summary:?}");
    assert!(
        summary.p50_ms_max > 10.0 && summary.reached_at_s.is_none(),
        "{summary:?}"
    );
}

#[test]
fn scenarios_that_cannot_be_are_refused() {
    for (from, to, says) in [
        ("tick_s = 1", "tick_s = 0", "tick_s"),
        ("replicas = 1", "replicas = 3", "zone"),
        ("focus = true", "focus = false", "focus"),
        ("cpus_reserved = 1", "cpus_reserved = 9", "reserved"),
        ("zones = 3", "zone = 3", "zone"),
    ] {
        assert!(BASE.contains(from), "{from}");
        let error = Scenario::parse(&BASE.replacen(from, to, 1)).unwrap_err();
        assert!(format!("{error:#}").contains(says), "{to}: {error:#}");
    }
}

#[test]
fn the_figure_is_well_formed() {
    let mut scenario = small(2);
    scenario.duration_s = 60.0;
    let report = simulate(&scenario, 2, Checks::default()).unwrap();
    let svg = report.svg();
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
    assert_eq!(svg.matches("<path").count(), svg.matches("/>").count() - 1);
    assert_eq!(report.csv().lines().count(), report.samples.len() + 1);
}

/// Hosts that send away more nodes than they must have nothing left for those who stay.
#[test]
fn no_tenant_starves_beside_noisy_ones() {
    let scenario = include_str!("../../scenarios/noisy-neighbour.toml");
    let scenario = Scenario::parse(scenario).unwrap();
    for seed in 1..8 {
        let report = simulate(&scenario, seed, Checks::default()).unwrap();
        let Summary {
            starved,
            starved_s_max,
            failed,
            ..
        } = report.summary;
        assert_eq!((starved, failed), (0, 0), "seed {seed}: {starved_s_max} s");
    }
}
