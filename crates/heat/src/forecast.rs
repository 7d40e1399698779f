//! What load to expect, from what there was.
//!
//! Two views, and the greater counts: the level and its trend (Holt's double smoothing), which sees a
//! rise that has begun; and the days before, which see one that begins at the same time every day.
//! The forecast errs upward on purpose: capacity too early costs a little, too late everybody's time.

/// Parts of a day that are remembered, ten minutes each.
const PARTS: usize = 144;
const DAY_S: f64 = 86_400.0;
/// How fast level and trend follow: the time constant of the smoothing.
const LEVEL_S: f64 = 10.0;
const TREND_S: f64 = 60.0;
/// How fast the pattern of a day follows, by day.
const DAILY_SHARE: f64 = 0.5;
/// Today against the days before: no more and no less than this of their pattern.
const TODAY_MIN: f64 = 0.5;
const TODAY_MAX: f64 = 2.0;
/// A rise is expected to go on for no longer than to this multiple of the level.
const RISE_MAX: f64 = 2.0;

/// One part of the day: the day it was last seen and the smoothed mean load of the days before and today.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Part {
    day: f64,
    /// Smoothed over the days that are complete.
    past: Option<f64>,
    /// Sum and number of what was seen on `day`.
    sum: f64,
    seen: f64,
}

/// What was seen of one load, and what to expect of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    last_s: Option<f64>,
    level: f64,
    trend: f64,
    parts: Vec<Part>,
}

impl Default for Forecast {
    fn default() -> Self {
        Self {
            last_s: None,
            level: 0.0,
            trend: 0.0,
            parts: vec![Part::default(); PARTS],
        }
    }
}

impl Forecast {
    /// The load was `load` at `now_s`, seconds since a midnight; times only grow.
    pub fn observe(&mut self, now_s: f64, load: f64) {
        match self.last_s {
            Some(last) if now_s > last => {
                let passed = now_s - last;
                let follow = 1.0 - (-passed / LEVEL_S).exp();
                let expected = self.level + self.trend * passed;
                let level = expected + follow * (load - expected);
                let slope = (level - self.level) / passed;
                self.trend += (1.0 - (-passed / TREND_S).exp()) * (slope - self.trend);
                self.level = level.max(0.0);
            }
            Some(_) => {}
            None => self.level = load,
        }
        self.last_s = Some(now_s);
        let day = (now_s / DAY_S).floor();
        if let Some(part) = self.parts.get_mut(part_of(now_s)) {
            if part.seen > 0.0 && part.day < day {
                let mean = part.sum / part.seen;
                let past = part.past.unwrap_or(mean);
                part.past = Some(past + DAILY_SHARE * (mean - past));
                (part.sum, part.seen) = (0.0, 0.0);
            }
            part.day = day;
            part.sum += load;
            part.seen += 1.0;
        }
    }

    /// The load as it is, smoothed.
    #[must_use]
    pub fn level(&self) -> f64 {
        self.level
    }

    /// The load to expect `ahead_s` from the last time that was observed; at least 0.
    #[must_use]
    pub fn expect(&self, ahead_s: f64) -> f64 {
        let risen = (self.level + self.trend * ahead_s).clamp(0.0, self.level * RISE_MAX);
        risen.max(self.expect_by_day(ahead_s).unwrap_or(0.0))
    }

    /// What the days before had at that time, by how today compares with them.
    fn expect_by_day(&self, ahead_s: f64) -> Option<f64> {
        let now_s = self.last_s?;
        let then = self.past(now_s + ahead_s)?;
        let usual = self.past(now_s)?;
        let today = if usual > 0.0 {
            (self.level / usual).clamp(TODAY_MIN, TODAY_MAX)
        } else {
            1.0
        };
        Some(then * today)
    }

    /// What the days before this one had at this time: complete ones, or yesterday.
    fn past(&self, at_s: f64) -> Option<f64> {
        let part = self.parts.get(part_of(at_s))?;
        let yesterday = part.day < (at_s / DAY_S).floor() && part.seen > 0.0;
        let last = yesterday.then(|| part.sum / part.seen);
        match (part.past, last) {
            (Some(past), Some(last)) => Some(past + DAILY_SHARE * (last - past)),
            (past, last) => past.or(last),
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a part of a day is below PARTS, and the cast saturates"
)]
fn part_of(at_s: f64) -> usize {
    (at_s.rem_euclid(DAY_S) / DAY_S * PARTS as f64) as usize % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_load_is_expected_to_stay() {
        let mut forecast = Forecast::default();
        (0..300).for_each(|s| forecast.observe(f64::from(s), 1_000.0));
        assert!((forecast.expect(60.0) - 1_000.0).abs() < 1.0);
    }

    #[test]
    fn a_rise_goes_on_but_not_without_end() {
        let mut forecast = Forecast::default();
        (0..600).for_each(|s| forecast.observe(f64::from(s), 1_000.0 + 10.0 * f64::from(s)));
        let soon = forecast.expect(30.0);
        assert!((7_200.0..7_400.0).contains(&soon), "{soon}");
        assert!(forecast.expect(1e6) <= 2.0 * forecast.level());
        (600..2_000).for_each(|s| forecast.observe(f64::from(s), 0.0));
        assert!(forecast.expect(30.0) < 1.0, "{}", forecast.expect(30.0));
    }

    #[test]
    fn what_comes_every_day_is_seen_before_it_comes() {
        let load = |s: f64| {
            if (0.5..0.6).contains(&(s / DAY_S).fract()) {
                5_000.0
            } else {
                500.0
            }
        };
        let mut forecast = Forecast::default();
        let observe_to = |forecast: &mut Forecast, from: f64, to: f64| {
            let mut s = from;
            while s < to {
                forecast.observe(s, load(s));
                s += 60.0;
            }
        };
        observe_to(&mut forecast, 0.0, DAY_S * 0.49);
        assert!(
            forecast.expect(1_200.0) < 600.0,
            "nobody knows it on the first day"
        );
        observe_to(&mut forecast, DAY_S * 0.49, DAY_S * 1.49);
        let expected = forecast.expect(1_200.0);
        assert!((4_000.0..6_000.0).contains(&expected), "{expected}");
        observe_to(&mut forecast, DAY_S * 1.49, DAY_S * 1.62);
        let after = forecast.expect(1_200.0);
        assert!(after < 1_100.0, "it is over: {after}");
    }
}
