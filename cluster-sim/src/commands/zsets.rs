//! Sorted sets: members and scores. Ranges are in [`super::zset_ranges`].

use resp::Value;

use super::{Call, Outcome, WRONGTYPE, args, integer, nil, scan::Scan, zset_ranges};
use crate::{store::Data, zset::SortedSet};

pub(super) fn run(name: &str, call: &mut Call<'_>) -> Option<Outcome> {
    Some(match name {
        "zadd" => add(call),
        "zincrby" => increment(call),
        "zrem" => {
            let members = call.rest(2);
            change(call, |set| {
                integer(
                    members
                        .iter()
                        .filter(|member| set.remove(member).is_some())
                        .count(),
                )
            })
        }
        "zscore" => at(call).map(|set| score(set.score(call.arg(2)))),
        "zmscore" => at(call).map(|set| {
            Value::Array(
                call.rest(2)
                    .iter()
                    .map(|member| score(set.score(member)))
                    .collect(),
            )
        }),
        "zcard" => at(call).and_then(|set| integer(set.len())),
        "zrank" => rank(call, false),
        "zrevrank" => rank(call, true),
        "zpopmin" => pop(call, false),
        "zpopmax" => pop(call, true),
        "zscan" => scan(call),
        _ => return zset_ranges::run(name, call),
    })
}

fn score(score: Option<f64>) -> Value {
    score.map_or_else(nil, Value::Double)
}

/// The sorted set at the first key; empty where there is none.
pub(super) fn at(call: &mut Call<'_>) -> Result<SortedSet, String> {
    match call
        .store
        .get(call.arg(1), call.now)
        .map(|entry| &entry.data)
    {
        None => Ok(SortedSet::default()),
        Some(Data::Sorted(set)) => Ok(set.clone()),
        Some(_) => Err(WRONGTYPE.to_owned()),
    }
}

pub(super) fn change(
    call: &mut Call<'_>,
    change: impl FnOnce(&mut SortedSet) -> Outcome,
) -> Outcome {
    let key = call.arg(1);
    let result = match call
        .store
        .get_or(key, call.now, || Data::Sorted(SortedSet::default()))
    {
        Data::Sorted(set) => change(set),
        _ => Err(WRONGTYPE.to_owned()),
    };
    call.store.tidy(key);
    result
}

#[derive(Clone, Copy, Default)]
struct AddOptions {
    unless_there: bool,
    if_there: bool,
    greater: bool,
    less: bool,
    changed: bool,
    increment: bool,
}

fn add(call: &mut Call<'_>) -> Outcome {
    let mut options = AddOptions::default();
    let mut at = 2;
    loop {
        if call.is(at, "nx") {
            options.unless_there = true;
        } else if call.is(at, "xx") {
            options.if_there = true;
        } else if call.is(at, "gt") {
            options.greater = true;
        } else if call.is(at, "lt") {
            options.less = true;
        } else if call.is(at, "ch") {
            options.changed = true;
        } else if call.is(at, "incr") {
            options.increment = true;
        } else {
            break;
        }
        at += 1;
    }
    let pairs = call.rest(at);
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return Err(args::SYNTAX.to_owned());
    }
    if options.unless_there && options.if_there {
        return Err("ERR XX and NX options at the same time are not compatible".to_owned());
    }
    let exclusive = [options.greater, options.less, options.unless_there];
    if exclusive.iter().filter(|set| **set).count() > 1 {
        let text = "ERR GT, LT, and/or NX options at the same time are not compatible";
        return Err(text.to_owned());
    }
    if options.increment && pairs.len() > 2 {
        return Err("ERR INCR option supports a single increment-element pair".to_owned());
    }
    let mut scored = Vec::new();
    for index in (at..call.count()).step_by(2) {
        scored.push((call.float(index)?, call.arg(index + 1)));
    }
    change(call, |set| put(set, &scored, options))
}

fn put(set: &mut SortedSet, scored: &[(f64, &[u8])], options: AddOptions) -> Outcome {
    let (mut added, mut updated) = (0, 0);
    for (number, member) in scored {
        let before = set.score(member);
        let new = if options.increment {
            before.unwrap_or(0.0) + number
        } else {
            *number
        };
        if new.is_nan() {
            return Err("ERR resulting score is not a number (NaN)".to_owned());
        }
        let allowed = match before {
            None => !options.if_there,
            Some(before) => {
                !options.unless_there
                    && (!options.greater || new > before)
                    && (!options.less || new < before)
            }
        };
        if !allowed {
            if options.increment {
                return Ok(nil());
            }
            continue;
        }
        set.insert(member, new);
        added += usize::from(before.is_none());
        updated += usize::from(before.is_some_and(|before| before.total_cmp(&new).is_ne()));
        if options.increment {
            return Ok(Value::Double(new));
        }
    }
    integer(if options.changed {
        added + updated
    } else {
        added
    })
}

fn increment(call: &mut Call<'_>) -> Outcome {
    let by = call.float(2)?;
    let member = call.arg(3);
    let options = AddOptions {
        increment: true,
        ..AddOptions::default()
    };
    change(call, |set| put(set, &[(by, member)], options))
}

fn rank(call: &mut Call<'_>, reversed: bool) -> Outcome {
    let set = at(call)?;
    let member = call.arg(2);
    let with_score = call.count() == 4 && call.is(3, "withscore");
    if call.count() > 3 && !with_score {
        return Err(args::SYNTAX.to_owned());
    }
    let Some(rank) = set.rank(member) else {
        return Ok(if with_score { Value::NullArray } else { nil() });
    };
    let rank = if reversed { set.len() - 1 - rank } else { rank };
    let rank = integer(rank)?;
    Ok(if with_score {
        Value::Array(vec![rank, score(set.score(member))])
    } else {
        rank
    })
}

fn pop(call: &mut Call<'_>, highest: bool) -> Outcome {
    let counted = call.count() > 2;
    let count = if counted { call.positive(2)? } else { 1 };
    let set = at(call)?;
    let taken: Vec<(Vec<u8>, f64)> = if highest {
        set.iter()
            .rev()
            .take(count)
            .map(|(member, score)| (member.clone(), score))
            .collect()
    } else {
        set.iter()
            .take(count)
            .map(|(member, score)| (member.clone(), score))
            .collect()
    };
    change(call, |set| {
        for (member, _) in &taken {
            set.remove(member);
        }
        integer(0)
    })?;
    let taken: Vec<_> = taken
        .iter()
        .map(|(member, score)| (member, *score))
        .collect();
    if counted {
        return Ok(zset_ranges::pairs(taken.into_iter(), true, call.resp3));
    }
    let flat = taken
        .iter()
        .flat_map(|(member, score)| [Value::bulk(member), Value::Double(*score)]);
    Ok(Value::Array(flat.collect()))
}

fn scan(call: &mut Call<'_>) -> Outcome {
    let scan = Scan::read(call, 2, false)?;
    let set = at(call)?;
    let (next, found) = scan.step(set.iter().map(|(member, _)| member.clone()));
    let pair = |member: &Vec<u8>| {
        let shown = set.score(member).map(args::show_float).unwrap_or_default();
        [Value::bulk(member), Value::bulk(shown)]
    };
    Ok(super::scan::reply(
        next,
        found.iter().flat_map(pair).collect(),
    ))
}
