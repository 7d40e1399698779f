//! Lists.

use std::collections::VecDeque;

use resp::Value;

use super::{Call, Outcome, WRONGTYPE, args, bulk_or_nil, bulks, integer, nil, ok};
use crate::store::Data;

type List = VecDeque<Vec<u8>>;

pub(super) fn run(name: &str, call: &mut Call<'_>) -> Option<Outcome> {
    Some(match name {
        "lpush" => push(call, true, false),
        "rpush" => push(call, false, false),
        "lpushx" => push(call, true, true),
        "rpushx" => push(call, false, true),
        "lpop" => pop(call, true),
        "rpop" => pop(call, false),
        "llen" => with(call, |list, _| integer(list.len())),
        "lrange" => range(call),
        "lindex" => index(call),
        "lset" => set(call),
        "lrem" => remove(call),
        "ltrim" => trim(call),
        "linsert" => insert(call),
        "rpoplpush" => shift(call, false, true),
        "lmove" => match (side(call, 3), side(call, 4)) {
            (Some(from), Some(to)) => shift(call, from, to),
            _ => Err(args::SYNTAX.to_owned()),
        },
        _ => return None,
    })
}

fn side(call: &Call<'_>, at: usize) -> Option<bool> {
    if call.is(at, "left") {
        Some(true)
    } else {
        call.is(at, "right").then_some(false)
    }
}

fn with(call: &mut Call<'_>, look: impl FnOnce(&List, &Call<'_>) -> Outcome) -> Outcome {
    let list = match call
        .store
        .get(call.arg(1), call.now)
        .map(|entry| &entry.data)
    {
        None => List::new(),
        Some(Data::List(list)) => list.clone(),
        Some(_) => return Err(WRONGTYPE.to_owned()),
    };
    look(&list, call)
}

fn change(call: &mut Call<'_>, key: &[u8], change: impl FnOnce(&mut List) -> Outcome) -> Outcome {
    let result = match call.store.get_or(key, call.now, || Data::List(List::new())) {
        Data::List(list) => change(list),
        _ => Err(WRONGTYPE.to_owned()),
    };
    call.store.tidy(key);
    result
}

fn push(call: &mut Call<'_>, left: bool, if_there: bool) -> Outcome {
    let (key, items) = (call.arg(1), call.rest(2));
    change(call, key, |list| {
        if if_there && list.is_empty() {
            return integer(0);
        }
        for item in items {
            if left {
                list.push_front(item.to_vec())
            } else {
                list.push_back(item.to_vec())
            }
        }
        integer(list.len())
    })
}

fn pop(call: &mut Call<'_>, left: bool) -> Outcome {
    let key = call.arg(1);
    let take = |list: &mut List| {
        if left {
            list.pop_front()
        } else {
            list.pop_back()
        }
    };
    if call.count() < 3 {
        return change(call, key, |list| Ok(bulk_or_nil(take(list))));
    }
    if call.count() > 3 {
        return call.wrong_arity();
    }
    let count = call.positive(2)?;
    if !call.store.exists(key, call.now) {
        return Ok(Value::NullArray);
    }
    change(call, key, |list| {
        let taken: Vec<_> = std::iter::from_fn(|| take(list)).take(count).collect();
        Ok(bulks(taken))
    })
}

fn range(call: &mut Call<'_>) -> Outcome {
    let (start, stop) = (call.integer(2)?, call.integer(3)?);
    with(call, |list, _| {
        Ok(bulks(list.range(args::range(start, stop, list.len()))))
    })
}

/// The place that an index means, which may count from the end.
fn place(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let index = if index < 0 {
        index.checked_add(length)?
    } else {
        index
    };
    usize::try_from(index).ok().filter(|_| index < length)
}

fn index(call: &mut Call<'_>) -> Outcome {
    let index = call.integer(2)?;
    with(call, |list, _| {
        Ok(bulk_or_nil(
            place(index, list.len()).and_then(|place| list.get(place)),
        ))
    })
}

fn set(call: &mut Call<'_>) -> Outcome {
    let (key, value) = (call.arg(1), call.arg(3));
    if !call.store.exists(key, call.now) {
        return Err("ERR no such key".to_owned());
    }
    let index = call.integer(2)?;
    change(call, key, |list| {
        let found = place(index, list.len()).and_then(|place| list.get_mut(place));
        *found.ok_or("ERR index out of range")? = value.to_vec();
        ok()
    })
}

fn remove(call: &mut Call<'_>) -> Outcome {
    let (key, value) = (call.arg(1), call.arg(3));
    let count = call.integer(2)?;
    let most = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let most = if count == 0 { usize::MAX } else { most };
    change(call, key, |list| {
        let matching: Vec<usize> = list
            .iter()
            .enumerate()
            .filter(|(_, item)| *item == value)
            .map(|(at, _)| at)
            .collect();
        let chosen: Vec<usize> = if count < 0 {
            matching.iter().rev().take(most).copied().collect()
        } else {
            let mut first: Vec<usize> = matching.iter().take(most).copied().collect();
            first.reverse();
            first
        };
        chosen.iter().for_each(|at| drop(list.remove(*at)));
        integer(chosen.len())
    })
}

fn trim(call: &mut Call<'_>) -> Outcome {
    let (start, stop) = (call.integer(2)?, call.integer(3)?);
    let key = call.arg(1);
    change(call, key, |list| {
        let range = args::range(start, stop, list.len());
        list.truncate(range.end);
        list.drain(..range.start.min(list.len()));
        ok()
    })
}

fn insert(call: &mut Call<'_>) -> Outcome {
    let before = if call.is(2, "before") {
        true
    } else if call.is(2, "after") {
        false
    } else {
        return Err(args::SYNTAX.to_owned());
    };
    let (key, pivot, value) = (call.arg(1), call.arg(3), call.arg(4));
    change(call, key, |list| {
        if list.is_empty() {
            return integer(0);
        }
        let Some(at) = list.iter().position(|item| item == pivot) else {
            return Ok(Value::Integer(-1));
        };
        list.insert(at + usize::from(!before), value.to_vec());
        integer(list.len())
    })
}

fn shift(call: &mut Call<'_>, from_left: bool, to_left: bool) -> Outcome {
    let (from, to) = (call.arg(1), call.arg(2));
    let target = call.store.get(to, call.now).map(|entry| &entry.data);
    if !matches!(target, None | Some(Data::List(_))) {
        return Err(WRONGTYPE.to_owned());
    }
    let mut moved = None;
    change(call, from, |list| {
        moved = if from_left {
            list.pop_front()
        } else {
            list.pop_back()
        };
        ok()
    })?;
    let Some(moved) = moved else { return Ok(nil()) };
    change(call, to, |list| {
        if to_left {
            list.push_front(moved.clone())
        } else {
            list.push_back(moved.clone())
        }
        Ok(Value::bulk(&moved))
    })
}
