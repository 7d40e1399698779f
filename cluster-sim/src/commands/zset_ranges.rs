//! Ranges of sorted sets: by rank and by score.

use resp::Value;

use super::{Call, Outcome, args, integer, zsets};
use crate::zset::SortedSet;

pub(super) fn run(name: &str, call: &mut Call<'_>) -> Option<Outcome> {
    Some(match name {
        "zrange" => range(call),
        "zrevrange" => by_rank(call, true, with_scores(call, 4)),
        "zrangebyscore" => by_score_command(call, false),
        "zrevrangebyscore" => by_score_command(call, true),
        "zcount" => count(call),
        "zremrangebyscore" => remove_by_score(call),
        "zremrangebyrank" => remove_by_rank(call),
        _ => return None,
    })
}

/// Members, perhaps with scores: pairs of their own in RESP3, one flat list in RESP2.
pub(super) fn pairs<'a>(
    members: impl Iterator<Item = (&'a Vec<u8>, f64)>,
    scores: bool,
    resp3: bool,
) -> Value {
    let mut items = Vec::new();
    for (member, score) in members {
        match (scores, resp3) {
            (false, _) => items.push(Value::bulk(member)),
            (true, true) => {
                items.push(Value::Array(vec![
                    Value::bulk(member),
                    Value::Double(score),
                ]));
            }
            (true, false) => items.extend([Value::bulk(member), Value::Double(score)]),
        }
    }
    Value::Array(items)
}

fn with_scores(call: &Call<'_>, at: usize) -> Result<bool, String> {
    match call.count() {
        count if count == at => Ok(false),
        count if count == at + 1 && call.is(at, "withscores") => Ok(true),
        _ => Err(args::SYNTAX.to_owned()),
    }
}

fn by_rank(call: &mut Call<'_>, reversed: bool, scores: Result<bool, String>) -> Outcome {
    let (start, stop, scores) = (call.integer(2)?, call.integer(3)?, scores?);
    let set = zsets::at(call)?;
    let range = args::range(start, stop, set.len());
    let (skip, take) = (range.start, range.len());
    let resp3 = call.resp3;
    Ok(if reversed {
        pairs(set.iter().rev().skip(skip).take(take), scores, resp3)
    } else {
        pairs(set.iter().skip(skip).take(take), scores, resp3)
    })
}

/// One end of a range of scores.
#[derive(Clone, Copy)]
struct Bound {
    score: f64,
    exclusive: bool,
}

fn bound(bytes: &[u8]) -> Result<Bound, String> {
    let (exclusive, number) = match bytes.strip_prefix(b"(") {
        Some(number) => (true, number),
        None => (false, bytes),
    };
    let score = args::float(number).ok_or("ERR min or max is not a float")?;
    Ok(Bound { score, exclusive })
}

fn inside(score: f64, min: Bound, max: Bound) -> bool {
    let above = if min.exclusive {
        score > min.score
    } else {
        score >= min.score
    };
    let below = if max.exclusive {
        score < max.score
    } else {
        score <= max.score
    };
    above && below
}

#[derive(Clone, Copy)]
struct ByScore {
    min: Bound,
    max: Bound,
    reversed: bool,
    scores: bool,
    skip: usize,
    take: usize,
}

fn by_score(set: &SortedSet, query: ByScore, resp3: bool) -> Value {
    let matching = |(_, score): &(&Vec<u8>, f64)| inside(*score, query.min, query.max);
    if query.reversed {
        let members = set
            .iter()
            .rev()
            .filter(matching)
            .skip(query.skip)
            .take(query.take);
        pairs(members, query.scores, resp3)
    } else {
        let members = set
            .iter()
            .filter(matching)
            .skip(query.skip)
            .take(query.take);
        pairs(members, query.scores, resp3)
    }
}

/// Options behind the bounds: `WITHSCORES`, `LIMIT offset count`, and for `ZRANGE` also `BYSCORE`
/// and `REV`.
#[derive(Default)]
struct Options {
    scores: bool,
    limit: Option<(i64, i64)>,
    by_score: bool,
    by_name: bool,
    reversed: bool,
}

impl Options {
    /// How many to leave out, and how many to take.
    fn window(&self) -> (usize, usize) {
        match self.limit {
            None => (0, usize::MAX),
            Some((offset, count)) => (
                usize::try_from(offset).unwrap_or(usize::MAX), // a negative offset finds nothing
                usize::try_from(count).unwrap_or(usize::MAX),  // a negative count is no limit
            ),
        }
    }
}

fn options(call: &Call<'_>, zrange: bool) -> Result<Options, String> {
    let mut options = Options::default();
    let mut at = 4;
    while at < call.count() {
        if call.is(at, "withscores") {
            options.scores = true;
        } else if call.is(at, "limit") && at + 2 < call.count() {
            options.limit = Some((call.integer(at + 1)?, call.integer(at + 2)?));
            at += 2;
        } else if zrange && call.is(at, "byscore") {
            options.by_score = true;
        } else if zrange && call.is(at, "bylex") {
            options.by_name = true;
        } else if zrange && call.is(at, "rev") {
            options.reversed = true;
        } else {
            return Err(args::SYNTAX.to_owned());
        }
        at += 1;
    }
    Ok(options)
}

fn query(call: &Call<'_>, options: &Options, reversed: bool) -> Result<ByScore, String> {
    let (first, second) = (bound(call.arg(2))?, bound(call.arg(3))?);
    let (min, max) = if reversed {
        (second, first)
    } else {
        (first, second)
    };
    let (skip, take) = options.window();
    Ok(ByScore {
        min,
        max,
        reversed,
        scores: options.scores,
        skip,
        take,
    })
}

fn by_score_command(call: &mut Call<'_>, reversed: bool) -> Outcome {
    let options = options(call, false)?;
    let query = query(call, &options, reversed)?;
    Ok(by_score(&zsets::at(call)?, query, call.resp3))
}

fn range(call: &mut Call<'_>) -> Outcome {
    let options = options(call, true)?;
    if options.by_name {
        return by_name(call, &options);
    }
    if options.by_score {
        let query = query(call, &options, options.reversed)?;
        return Ok(by_score(&zsets::at(call)?, query, call.resp3));
    }
    if options.limit.is_some() {
        let text =
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX";
        return Err(text.to_owned());
    }
    by_rank(call, options.reversed, Ok(options.scores))
}

/// Whether a member is behind (`from`) or before an end of a range of names: `-`, `+`, `[name` or
/// `(name`.
fn name_bound(bytes: &[u8], from: bool) -> Result<impl Fn(&[u8]) -> bool + '_, String> {
    if !matches!(bytes, b"-" | b"+" | [b'[' | b'(', ..]) {
        return Err("ERR min or max not valid string range item".to_owned());
    }
    Ok(move |member: &[u8]| match bytes {
        b"-" => from,
        b"+" => !from,
        [b'(', name @ ..] if from => member > name,
        [b'(', name @ ..] => member < name,
        [_, name @ ..] if from => member >= name,
        [_, name @ ..] => member <= name,
        [] => false,
    })
}

fn by_name(call: &mut Call<'_>, options: &Options) -> Outcome {
    if options.scores {
        let text = "ERR syntax error, WITHSCORES not supported in combination with BYLEX";
        return Err(text.to_owned());
    }
    let (mut first, mut last) = (call.arg(2), call.arg(3));
    if options.reversed {
        std::mem::swap(&mut first, &mut last);
    }
    let (from, to) = (name_bound(first, true)?, name_bound(last, false)?);
    let set = zsets::at(call)?;
    let names = set.iter().map(|(member, _)| member);
    let mut names: Vec<_> = names.filter(|name| from(name) && to(name)).collect();
    if options.reversed {
        names.reverse();
    }
    let (skip, take) = options.window();
    Ok(super::bulks(names.into_iter().skip(skip).take(take)))
}

fn count(call: &mut Call<'_>) -> Outcome {
    let (min, max) = (bound(call.arg(2))?, bound(call.arg(3))?);
    let set = zsets::at(call)?;
    integer(
        set.iter()
            .filter(|(_, score)| inside(*score, min, max))
            .count(),
    )
}

fn remove_by_score(call: &mut Call<'_>) -> Outcome {
    let (min, max) = (bound(call.arg(2))?, bound(call.arg(3))?);
    zsets::change(call, |set| {
        let inside = set.iter().filter(|(_, score)| inside(*score, min, max));
        let members: Vec<Vec<u8>> = inside.map(|(member, _)| member.clone()).collect();
        for member in &members {
            set.remove(member);
        }
        integer(members.len())
    })
}

fn remove_by_rank(call: &mut Call<'_>) -> Outcome {
    let (start, stop) = (call.integer(2)?, call.integer(3)?);
    zsets::change(call, |set| {
        let range = args::range(start, stop, set.len());
        let inside = set.iter().skip(range.start).take(range.len());
        let members: Vec<Vec<u8>> = inside.map(|(member, _)| member.clone()).collect();
        for member in &members {
            set.remove(member);
        }
        integer(members.len())
    })
}
