//! What must hold, and whether it does: pure.

use serde::Serialize;

/// A figure's limit: what must be reached, and what is aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Bound {
    pub(crate) must: f64,
    pub(crate) aim: Option<f64>,
    pub(crate) side: Side,
}

/// On which side of the bound the good figures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    AtMost,
    AtLeast,
}

impl Bound {
    pub(crate) const fn at_most(must: f64, aim: f64) -> Self {
        Self {
            must,
            aim: Some(aim),
            side: Side::AtMost,
        }
    }

    pub(crate) const fn no_more_than(must: f64) -> Self {
        Self {
            must,
            aim: None,
            side: Side::AtMost,
        }
    }

    pub(crate) const fn at_least(must: f64) -> Self {
        Self {
            must,
            aim: None,
            side: Side::AtLeast,
        }
    }

    fn holds(self, limit: f64, got: f64) -> bool {
        match self.side {
            Side::AtMost => got <= limit,
            Side::AtLeast => got >= limit,
        }
    }
}

/// A bound held against what was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Check {
    /// The load, and the figure.
    pub(crate) name: String,
    pub(crate) bound: Bound,
    /// `None` when there is no figure: then the bound is missed.
    pub(crate) got: Option<f64>,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Missed,
    Held,
    /// The aim, too.
    Reached,
}

impl Check {
    pub(crate) fn new(name: impl Into<String>, bound: Bound, got: Option<f64>) -> Self {
        let name = name.into();
        Self { name, bound, got }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let Some(got) = self.got.filter(|got| got.is_finite()) else {
            return Verdict::Missed;
        };
        if !self.bound.holds(self.bound.must, got) {
            return Verdict::Missed;
        }
        match self.bound.aim {
            Some(aim) if self.bound.holds(aim, got) => Verdict::Reached,
            _ => Verdict::Held,
        }
    }

    /// `got`, the bound, the aim and the verdict, for a table.
    pub(crate) fn cells(&self) -> [String; 5] {
        let number = |value: f64| {
            let digits = if value.abs() < 10.0 { 3 } else { 1 };
            format!("{value:.digits$}")
        };
        let sign = match self.bound.side {
            Side::AtMost => "<=",
            Side::AtLeast => ">=",
        };
        let verdict = match self.verdict() {
            Verdict::Missed => "MISSED",
            Verdict::Held => "held",
            Verdict::Reached => "held, aim reached",
        };
        [
            self.name.clone(),
            self.got.map_or_else(|| "-".to_owned(), number),
            format!("{sign} {}", number(self.bound.must)),
            self.bound.aim.map_or_else(|| "-".to_owned(), number),
            verdict.to_owned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_holds_on_its_side_and_at_its_edge() {
        let verdict = |bound, got| Check::new("x", bound, got).verdict();
        let ratio = Bound::at_most(0.75, 0.55);
        assert_eq!(verdict(ratio, Some(0.751)), Verdict::Missed);
        assert_eq!(verdict(ratio, Some(0.75)), Verdict::Held);
        assert_eq!(verdict(ratio, Some(0.551)), Verdict::Held);
        assert_eq!(verdict(ratio, Some(0.55)), Verdict::Reached);
        let throughput = Bound::at_least(1.2);
        assert_eq!(verdict(throughput, Some(1.19)), Verdict::Missed);
        assert_eq!(verdict(throughput, Some(1.2)), Verdict::Held);
    }

    #[test]
    fn no_figure_is_a_missed_bound() {
        for got in [None, Some(f64::NAN), Some(f64::INFINITY)] {
            for bound in [Bound::at_most(1.0, 0.5), Bound::at_least(1.0)] {
                let check = Check::new("x", bound, got);
                assert_eq!(check.verdict(), Verdict::Missed, "{check:?}");
            }
        }
    }

    #[test]
    fn cells_name_the_bound_and_the_verdict() {
        let check = Check::new("GET", Bound::at_most(0.75, 0.55), Some(0.6));
        assert_eq!(check.cells(), ["GET", "0.600", "<= 0.750", "0.550", "held"]);
    }
}
