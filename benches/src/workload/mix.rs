//! Which commands, how often; and ranges as they are typed.

use std::str::FromStr;

use rand::{Rng, RngExt};

/// A command of the mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One key, its value must match.
    Get,
    /// One key.
    Set,
    /// Several keys, over slots.
    Mget,
    /// Several keys, over slots.
    Mset,
    /// A counter; only ever rises.
    Incr,
    /// One or two keys.
    Del,
    /// One or two keys.
    Exists,
    /// A nonce, checked by position.
    Echo,
    /// No key at all.
    Ping,
}

/// The names of a mix, as typed.
const KINDS: [(&str, Kind); 9] = [
    ("get", Kind::Get),
    ("set", Kind::Set),
    ("mget", Kind::Mget),
    ("mset", Kind::Mset),
    ("incr", Kind::Incr),
    ("del", Kind::Del),
    ("exists", Kind::Exists),
    ("echo", Kind::Echo),
    ("ping", Kind::Ping),
];

/// Weighted commands: `get=70,set=20,mget=5,incr=3,del=2`.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Sum of the weights up to and with this command; rises.
    steps: Vec<(u32, Kind)>,
    total: u32,
}

/// What is wrong with a mix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MixError(String);

impl std::fmt::Display for MixError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for MixError {}

impl Mix {
    /// One command by its weight.
    #[inline]
    pub fn pick(&self, rng: &mut impl Rng) -> Kind {
        if let [(_, only)] = self.steps.as_slice() {
            return *only;
        }
        let at = rng.random_range(0..self.total);
        self.steps
            .iter()
            .find(|(upto, _)| at < *upto)
            .map_or(Kind::Ping, |(_, kind)| *kind)
    }
}

impl FromStr for Mix {
    type Err = MixError;

    fn from_str(text: &str) -> Result<Self, MixError> {
        let mut steps = Vec::new();
        let mut total = 0_u32;
        for part in text.split(',') {
            let (name, weight) = part
                .split_once('=')
                .ok_or_else(|| MixError(format!("'{part}' is not COMMAND=WEIGHT")))?;
            let kind = KINDS
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name.trim()))
                .map(|(_, kind)| *kind)
                .ok_or_else(|| {
                    let known: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
                    MixError(format!("'{name}' is none of {}", known.join(", ")))
                })?;
            let weight: u16 = weight
                .trim()
                .parse()
                .map_err(|_| MixError(format!("'{weight}' is no weight between 0 and 65535")))?;
            if weight > 0 {
                total += u32::from(weight);
                steps.push((total, kind));
            }
        }
        if total == 0 {
            return Err(MixError("every weight is 0".into()));
        }
        Ok(Self { steps, total })
    }
}

/// A number, or a range with both ends in it: `16`, `1..32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The smallest.
    pub least: u32,
    /// The biggest, not below `least`.
    pub most: u32,
}

impl Span {
    /// A number out of the range, all alike likely.
    #[inline]
    pub fn pick(self, rng: &mut impl Rng) -> u32 {
        if self.least == self.most {
            self.least
        } else {
            rng.random_range(self.least..=self.most)
        }
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.least == self.most {
            write!(f, "{}", self.least)
        } else {
            write!(f, "{}..{}", self.least, self.most)
        }
    }
}

impl FromStr for Span {
    type Err = MixError;

    fn from_str(text: &str) -> Result<Self, MixError> {
        let number = |digits: &str| {
            digits
                .parse::<u32>()
                .map_err(|_| MixError(format!("'{text}' is neither N nor A..B")))
        };
        let span = match text.split_once("..") {
            Some((least, most)) => Self {
                least: number(least)?,
                most: number(most.trim_start_matches('='))?,
            },
            None => Self {
                least: number(text)?,
                most: number(text)?,
            },
        };
        if span.least == 0 || span.least > span.most {
            return Err(MixError(format!("'{text}' must rise, from 1 or more")));
        }
        Ok(span)
    }
}
