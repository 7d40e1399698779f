//! Which node leaves a busy host, and for which other.
//!
//! The second hottest leaves: the hottest is left alone, for it is likely to be scaling out, moving it
//! costs it most, and what remains beside it has the host. Where it goes is the less busy of two hosts
//! drawn at random: looking at all hosts and taking the least busy sends everybody who decides at once
//! to the same one, for what is known of hosts is a little old. Other ways are here to compare with.

use crate::rng::Rng;

/// How to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The second hottest, to the less busy of two random hosts.
    #[default]
    TwoChoices,
    /// The second hottest, to a random host.
    Random,
    /// The second hottest, to the least busy of all hosts.
    LeastLoaded,
    /// The hottest, to the less busy of two random hosts.
    HottestFirst,
}

/// A node on a host.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeHeat {
    /// Who it is, to the caller.
    pub id: usize,
    /// Share of its host that it uses, by the resource it uses most.
    pub heat: f64,
    /// Bytes it holds.
    pub bytes: u64,
    /// It may move now.
    pub movable: bool,
    /// It is moving already, from here.
    pub leaving: bool,
}

/// A host, as it was when it was last looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct HostHeat {
    /// Nodes move only within a zone.
    pub zone: usize,
    /// Share in use, by the resource that is used most.
    pub heat: f64,
    /// Bytes free.
    pub bytes_free: u64,
    /// Moves from or to it that are going on.
    pub moves: usize,
    /// What is on it.
    pub nodes: Vec<NodeHeat>,
}

impl HostHeat {
    /// What remains when those are gone that are leaving.
    #[must_use]
    pub fn heat_to_stay(&self) -> f64 {
        let leaving = self.nodes.iter().filter(|node| node.leaving);
        self.heat - leaving.map(|node| node.heat).sum::<f64>()
    }
}

/// When nodes leave a host.
#[derive(Clone, Debug, PartialEq)]
pub struct EvictionRules {
    /// A host is busy above this share, without those who are leaving: copying a node costs its host, and
    /// nobody else is sent away while it does not help yet..
    pub busy_above: f64,
    /// ..and takes nobody who would bring it above this one. Lower: what just came must not leave.
    pub full_above: f64,
    /// Moves that a host takes part in at once.
    pub moves_per_host: usize,
    /// Draws until a host is found that has room; then nobody moves this time.
    pub draws_max: usize,
}

impl Default for EvictionRules {
    fn default() -> Self {
        Self {
            busy_above: 0.8,
            full_above: 0.7,
            moves_per_host: 2,
            draws_max: 8,
        }
    }
}

/// A node to move from one host to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// Who moves.
    pub node: usize,
    /// Index of the host it leaves.
    pub from: usize,
    /// Index of the host it goes to.
    pub to: usize,
}

/// Chooses.
#[derive(Clone, Debug)]
pub struct Chooser<'a> {
    /// How.
    pub policy: Policy,
    /// When.
    pub rules: &'a EvictionRules,
}

impl Chooser<'_> {
    /// One eviction for every busy host that has somebody to send away and a host to send to. All
    /// decide by what `hosts` says, as hosts do that decide at the same time; only moves that were
    /// granted are counted. `may` says whether a node may live on a host, beside whom it finds there.
    pub fn evictions(
        &self,
        hosts: &[HostHeat],
        rng: &mut Rng,
        mut may: impl FnMut(usize, usize) -> bool,
    ) -> Vec<Eviction> {
        let mut moves: Vec<usize> = hosts.iter().map(|host| host.moves).collect();
        let mut bytes_free: Vec<u64> = hosts.iter().map(|host| host.bytes_free).collect();
        let mut chosen = Vec::new();
        for (from, host) in hosts.iter().enumerate() {
            let free = |moves: &[usize], host: usize| {
                moves
                    .get(host)
                    .is_some_and(|m| *m < self.rules.moves_per_host)
            };
            if host.heat_to_stay() <= self.rules.busy_above || !free(&moves, from) {
                continue;
            }
            let Some(node) = self.victim(&host.nodes) else {
                continue;
            };
            let fits = |to: usize| {
                let enough = bytes_free.get(to).is_some_and(|free| *free >= node.bytes);
                to != from && enough && free(&moves, to) && may(node.id, to)
            };
            let Some(to) = self.destination(hosts, host.zone, node.heat, rng, fits) else {
                continue;
            };
            for host in [from, to] {
                if let Some(moves) = moves.get_mut(host) {
                    *moves += 1;
                }
            }
            if let Some(free) = bytes_free.get_mut(to) {
                *free -= node.bytes;
            }
            let node = node.id;
            chosen.push(Eviction { node, from, to });
        }
        chosen
    }

    /// Who leaves: of those that may, the second hottest of all, or the hottest below it. Nobody when
    /// only the hottest is left: one node alone is not its host's fault, it has to scale out.
    #[must_use]
    pub fn victim<'a>(&self, nodes: &'a [NodeHeat]) -> Option<&'a NodeHeat> {
        let mut order: Vec<&NodeHeat> = nodes.iter().collect();
        order.sort_by(|a, b| b.heat.total_cmp(&a.heat).then(a.id.cmp(&b.id)));
        let left_alone = usize::from(self.policy != Policy::HottestFirst);
        order
            .into_iter()
            .skip(left_alone)
            .find(|node| node.movable && node.heat > 0.0)
    }

    /// Where somebody with this heat goes, if anywhere.
    pub fn destination(
        &self,
        hosts: &[HostHeat],
        zone: usize,
        heat: f64,
        rng: &mut Rng,
        mut fits: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let known = |host: usize| hosts.get(host).map_or(f64::INFINITY, |host| host.heat);
        let mut takes = |host: usize| {
            hosts.get(host).is_some_and(|other| other.zone == zone)
                && known(host) + heat <= self.rules.full_above
                && fits(host)
        };
        let cooler = |a: &usize, b: &usize| known(*a).total_cmp(&known(*b)).then(a.cmp(b));
        if self.policy == Policy::LeastLoaded {
            return (0..hosts.len()).filter(|host| takes(*host)).min_by(cooler);
        }
        let choices = if self.policy == Policy::Random { 1 } else { 2 };
        let mut drawn: Vec<usize> = Vec::with_capacity(choices);
        for _ in 0..self.rules.draws_max * choices {
            let host = rng.below(hosts.len());
            if takes(host) && !drawn.contains(&host) {
                drawn.push(host);
            }
            if drawn.len() == choices {
                break;
            }
        }
        drawn.into_iter().min_by(cooler)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    fn host(heats: &[f64]) -> HostHeat {
        HostHeat {
            zone: 0,
            heat: heats.iter().sum(),
            bytes_free: 1_000,
            moves: 0,
            nodes: heats
                .iter()
                .enumerate()
                .map(|(id, &heat)| NodeHeat {
                    id,
                    heat,
                    bytes: 10,
                    movable: true,
                    leaving: false,
                })
                .collect(),
        }
    }

    fn chooser(policy: Policy, rules: &EvictionRules) -> Chooser<'_> {
        Chooser { policy, rules }
    }

    #[test]
    fn the_hottest_is_left_alone() {
        let rules = EvictionRules::default();
        let two = chooser(Policy::TwoChoices, &rules);
        let first = chooser(Policy::HottestFirst, &rules);
        let mut busy = host(&[0.1, 0.5, 0.3]);
        assert_eq!(two.victim(&busy.nodes).map(|node| node.id), Some(2));
        assert_eq!(first.victim(&busy.nodes).map(|node| node.id), Some(1));
        busy.nodes[2].movable = false;
        assert_eq!(two.victim(&busy.nodes).map(|node| node.id), Some(0));
        assert_eq!(two.victim(&host(&[0.9]).nodes), None);
    }

    #[test]
    fn while_one_is_leaving_nobody_else_is_sent_away_in_vain() {
        let rules = EvictionRules::default();
        let two = chooser(Policy::TwoChoices, &rules);
        let mut hosts = vec![host(&[0.3, 0.25, 0.2, 0.1]), host(&[0.1]), host(&[0.1])];
        let sent = |hosts: &[HostHeat]| two.evictions(hosts, &mut Rng::new(1), |_, _| true);
        assert_eq!(sent(&hosts).first().map(|eviction| eviction.node), Some(1));
        (hosts[0].nodes[1].leaving, hosts[0].nodes[1].movable) = (true, false);
        assert_eq!(sent(&hosts), []);
        // The others get hotter meanwhile.
        hosts[0].nodes[0].heat += 0.3;
        hosts[0].heat += 0.3;
        assert_eq!(sent(&hosts).first().map(|eviction| eviction.node), Some(2));
    }

    #[test]
    fn two_draws_find_the_less_busy() {
        let rules = EvictionRules::default();
        let mut hosts = vec![host(&[0.5]); 10];
        hosts[3] = host(&[0.1]);
        let picks = |policy| {
            let mut rng = Rng::new(1);
            let chooser = chooser(policy, &rules);
            let found = |_| chooser.destination(&hosts, 0, 0.1, &mut rng, |_| true);
            (0..1_000).map(found).filter(|to| *to == Some(3)).count()
        };
        assert_eq!(picks(Policy::LeastLoaded), 1_000);
        // In two of ten with probability 1/5, in one of ten with 1/10.
        assert!((150..250).contains(&picks(Policy::TwoChoices)));
        assert!((60..140).contains(&picks(Policy::Random)));
    }

    proptest! {
        #[test]
        fn evictions_keep_their_bounds(seed: u64, count in 1_usize..60, zones in 1_usize..4) {
            let rules = EvictionRules::default();
            for policy in [Policy::TwoChoices, Policy::Random, Policy::LeastLoaded, Policy::HottestFirst] {
                let mut rng = Rng::new(seed);
                let hosts: Vec<HostHeat> = (0..count).map(|_| {
                    let heats: Vec<f64> = (0..rng.below(6)).map(|_| rng.fraction() * 0.4).collect();
                    let (zone, moves) = (rng.below(zones), rng.below(3));
                    HostHeat { zone, moves, bytes_free: rng.bits() % 40, ..host(&heats) }
                }).collect();
                let found = chooser(policy, &rules).evictions(&hosts, &mut rng, |_, to| to % 5 != 0);
                let mut moves = vec![0; count];
                for eviction in &found {
                    let (from, to) = (&hosts[eviction.from], &hosts[eviction.to]);
                    moves[eviction.from] += 1;
                    moves[eviction.to] += 1;
                    let node = &from.nodes[eviction.node];
                    prop_assert!(from.heat > rules.busy_above && from.zone == to.zone);
                    prop_assert!(to.heat + node.heat <= rules.full_above);
                    prop_assert!(to.bytes_free >= node.bytes && eviction.to % 5 != 0);
                }
                for (host, moves) in hosts.iter().zip(&moves) {
                    prop_assert!(*moves == 0 || host.moves + moves <= rules.moves_per_host);
                }
            }
        }
    }
}
