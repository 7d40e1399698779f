//! Sets.

use resp::Value;

use super::{Call, Outcome, WRONGTYPE, bulk_or_nil, integer, nil, scan::Scan};
use crate::{ordered::Ordered, store::Data};

type Set = Ordered<()>;

pub(super) fn run(name: &str, call: &mut Call<'_>) -> Option<Outcome> {
    Some(match name {
        "sadd" => {
            let members = call.rest(2);
            let new = |set: &mut Set, member: &&[u8]| set.insert(member, ()).is_none();
            change(call, |set| {
                members.iter().filter(|member| new(set, member)).count()
            })
        }
        "srem" => {
            let members = call.rest(2);
            change(call, |set| {
                members.iter().filter(|m| set.remove(m).is_some()).count()
            })
        }
        "smembers" => at(call, call.arg(1)).map(|set| members(&set)),
        "scard" => at(call, call.arg(1)).and_then(|set| integer(set.len())),
        "sismember" => {
            at(call, call.arg(1)).and_then(|set| integer(usize::from(set.contains(call.arg(2)))))
        }
        "smismember" => at(call, call.arg(1)).map(|set| {
            let has = |member: &&[u8]| Value::Integer(i64::from(set.contains(member)));
            Value::Array(call.rest(2).iter().map(has).collect())
        }),
        "spop" => pop(call),
        "srandmember" => some(call),
        "smove" => shift(call),
        "sinter" => combine(call, 1, inter).map(|set| members(&set)),
        "sunion" => combine(call, 1, union).map(|set| members(&set)),
        "sdiff" => combine(call, 1, diff).map(|set| members(&set)),
        "sinterstore" => combine(call, 2, inter).and_then(|set| store(call, set)),
        "sunionstore" => combine(call, 2, union).and_then(|set| store(call, set)),
        "sdiffstore" => combine(call, 2, diff).and_then(|set| store(call, set)),
        "sscan" => scan(call),
        _ => return None,
    })
}

fn members(set: &Set) -> Value {
    Value::Set(set.keys().map(Value::bulk).collect())
}

/// The set at a key; empty where there is none.
fn at(call: &mut Call<'_>, key: &[u8]) -> Result<Set, String> {
    match call.store.get(key, call.now).map(|entry| &entry.data) {
        None => Ok(Set::default()),
        Some(Data::Set(set)) => Ok(set.clone()),
        Some(_) => Err(WRONGTYPE.to_owned()),
    }
}

fn change(call: &mut Call<'_>, change: impl FnOnce(&mut Set) -> usize) -> Outcome {
    let key = call.arg(1);
    let result = match call
        .store
        .get_or(key, call.now, || Data::Set(Set::default()))
    {
        Data::Set(set) => integer(change(set)),
        _ => Err(WRONGTYPE.to_owned()),
    };
    call.store.tidy(key);
    result
}

/// Takes out the members that have been there longest: any will do, and a replica that does the
/// same takes the same.
fn pop(call: &mut Call<'_>) -> Outcome {
    let single = call.count() < 3;
    let count = if single { 1 } else { call.positive(2)? };
    let mut taken = Vec::new();
    change(call, |set| {
        taken = std::iter::from_fn(|| set.pop_first()).take(count).collect();
        0
    })?;
    if single {
        return Ok(bulk_or_nil(taken.first()));
    }
    Ok(Value::Set(taken.iter().map(Value::bulk).collect()))
}

fn some(call: &mut Call<'_>) -> Outcome {
    let set = at(call, call.arg(1))?;
    if call.count() < 3 {
        return Ok(set.keys().next().map_or_else(nil, Value::bulk));
    }
    let count = call.integer(2)?;
    let most = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let chosen: Vec<Value> = if count < 0 && !set.is_empty() {
        let all: Vec<&Vec<u8>> = set.keys().collect();
        all.iter().cycle().take(most).map(Value::bulk).collect()
    } else {
        set.keys().take(most).map(Value::bulk).collect()
    };
    Ok(Value::Array(chosen))
}

fn shift(call: &mut Call<'_>) -> Outcome {
    let (from, to, member) = (call.arg(1), call.arg(2), call.arg(3));
    let (mut source, mut target) = (at(call, from)?, at(call, to)?);
    if source.remove(member).is_none() {
        return integer(0);
    }
    if from == to {
        return integer(1);
    }
    target.insert(member, ());
    put(call, from, source);
    put(call, to, target);
    integer(1)
}

fn put(call: &mut Call<'_>, key: &[u8], set: Set) {
    let kept = call
        .store
        .get(key, call.now)
        .and_then(|entry| entry.expires_at);
    call.store.set(key, Data::Set(set), kept);
    call.store.tidy(key);
}

fn combine(call: &mut Call<'_>, from: usize, join: fn(&Set, &Set) -> Set) -> Result<Set, String> {
    let mut sets = call.rest(from).iter();
    let first = sets.next().copied().unwrap_or_default();
    let mut joined = at(call, first)?;
    for key in sets {
        let other = at(call, key)?;
        joined = join(&joined, &other);
    }
    Ok(joined)
}

fn filtered(set: &Set, keep: impl Fn(&[u8]) -> bool) -> Set {
    let mut kept = Set::default();
    for member in set.keys().filter(|member| keep(member)) {
        kept.insert(member, ());
    }
    kept
}

fn inter(one: &Set, other: &Set) -> Set {
    filtered(one, |member| other.contains(member))
}

fn diff(one: &Set, other: &Set) -> Set {
    filtered(one, |member| !other.contains(member))
}

fn union(one: &Set, other: &Set) -> Set {
    let mut all = one.clone();
    for member in other.keys() {
        all.insert(member, ());
    }
    all
}

fn store(call: &mut Call<'_>, set: Set) -> Outcome {
    let (key, count) = (call.arg(1), set.len());
    call.store.set(key, Data::Set(set), None);
    call.store.tidy(key);
    integer(count)
}

fn scan(call: &mut Call<'_>) -> Outcome {
    let scan = Scan::read(call, 2, false)?;
    let set = at(call, call.arg(1))?;
    let (next, found) = scan.step(set.keys().cloned());
    Ok(super::scan::reply(
        next,
        found.iter().map(Value::bulk).collect(),
    ))
}
