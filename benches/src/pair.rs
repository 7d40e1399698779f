//! Turns compared in pairs: pure arithmetic over what each turn came to.
//!
//! A noisy machine is noisy for seconds on end, so turns that follow one another see the same noise.
//! One figure of a target is therefore divided by that of the reference in the same rotation, and only
//! these ratios are summed up.

use crate::stats::Quartiles;

/// What one measured turn came to, per request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TurnFigures {
    /// Turns of one rotation are a pair.
    pub rotation: u32,
    /// Whose turn it was, in the order of the targets.
    pub target: usize,
    /// CPU microseconds per request of the target's processes, where they are known.
    pub cpu_us: Option<f64>,
    /// CPU microseconds per request of the nodes behind.
    pub nodes_cpu_us: Option<f64>,
    /// Replies a second.
    pub throughput: Option<f64>,
    /// Half of the requests took no longer, in microseconds.
    pub p50_us: Option<f64>,
    /// 99 in 100 took no longer.
    pub p99_us: Option<f64>,
}

/// A figure of `target` divided by that of `reference`, in the same rotation: quartiles over the
/// rotations that have both. `None` when no rotation has.
pub fn ratio(
    turns: &[TurnFigures],
    target: usize,
    reference: usize,
    figure: impl Fn(&TurnFigures) -> Option<f64>,
) -> Option<Quartiles> {
    let of = |wanted: usize, rotation: u32| {
        let mut mine = turns
            .iter()
            .filter(|turn| turn.target == wanted && turn.rotation == rotation);
        mine.find_map(&figure)
    };
    let ratios = turns
        .iter()
        .filter(|turn| turn.target == target)
        .filter_map(|turn| Some(figure(turn)? / of(reference, turn.rotation)?))
        .collect();
    Quartiles::of(ratios)
}

/// A figure of `target` over all its turns.
pub fn quartiles(
    turns: &[TurnFigures],
    target: usize,
    figure: impl Fn(&TurnFigures) -> Option<f64>,
) -> Option<Quartiles> {
    let mine = turns.iter().filter(|turn| turn.target == target);
    Quartiles::of(mine.filter_map(figure).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(rotation: u32, target: usize, cpu_us: Option<f64>) -> TurnFigures {
        TurnFigures {
            rotation,
            target,
            cpu_us,
            nodes_cpu_us: None,
            throughput: Some(1.0),
            p50_us: None,
            p99_us: None,
        }
    }

    #[test]
    fn noise_that_hits_a_whole_rotation_cancels_out() {
        // The machine is three times as slow in the second rotation, and the ratio is one half in both.
        let turns = [
            turn(0, 0, Some(10.0)),
            turn(0, 1, Some(5.0)),
            turn(1, 0, Some(30.0)),
            turn(1, 1, Some(15.0)),
        ];
        let half = ratio(&turns, 1, 0, |turn| turn.cpu_us).expect("two pairs");
        assert_eq!(
            (half.q1, half.median, half.q3, half.count),
            (0.5, 0.5, 0.5, 2)
        );
        let twice = ratio(&turns, 0, 1, |turn| turn.cpu_us).expect("two pairs");
        assert_eq!(twice.median, 2.0);
        let medians = quartiles(&turns, 1, |turn| turn.cpu_us).expect("two turns");
        assert_eq!(medians.median, 10.0);
    }

    #[test]
    fn a_turn_without_its_pair_counts_for_nothing() {
        let turns = [
            turn(0, 0, Some(10.0)),
            turn(0, 1, Some(5.0)),
            turn(1, 1, Some(900.0)),
            turn(2, 0, None),
            turn(2, 1, Some(900.0)),
        ];
        let one = ratio(&turns, 1, 0, |turn| turn.cpu_us).expect("a pair");
        assert_eq!((one.median, one.count), (0.5, 1));
        assert_eq!(ratio(&turns, 1, 7, |turn| turn.cpu_us), None);
        assert_eq!(ratio(&turns, 1, 0, |turn| turn.nodes_cpu_us), None);
    }
}
