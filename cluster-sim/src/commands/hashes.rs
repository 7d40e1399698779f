//! Hashes.

use resp::Value;

use super::{Call, Outcome, WRONGTYPE, args, bulk_or_nil, bulks, integer, ok, scan::Scan};
use crate::{ordered::Ordered, store::Data};

pub(super) fn run(name: &str, call: &mut Call<'_>) -> Option<Outcome> {
    Some(match name {
        "hset" => set(call).and_then(integer),
        "hmset" => set(call).and_then(|_| ok()),
        "hsetnx" => set_unless_there(call),
        "hget" => with(call, |hash, call| Ok(bulk_or_nil(hash.get(call.arg(2))))),
        "hmget" => with(call, |hash, call| {
            let fields = call.rest(2).iter();
            Ok(Value::Array(
                fields.map(|field| bulk_or_nil(hash.get(field))).collect(),
            ))
        }),
        "hgetall" => with(call, |hash, _| {
            let pair =
                |(field, value): (&Vec<u8>, &Vec<u8>)| (Value::bulk(field), Value::bulk(value));
            Ok(Value::Map(hash.iter().map(pair).collect()))
        }),
        "hkeys" => with(call, |hash, _| Ok(bulks(hash.keys()))),
        "hvals" => with(call, |hash, _| {
            Ok(bulks(hash.iter().map(|(_, value)| value)))
        }),
        "hlen" => with(call, |hash, _| integer(hash.len())),
        "hexists" => with(call, |hash, call| {
            integer(usize::from(hash.contains(call.arg(2))))
        }),
        "hstrlen" => with(call, |hash, call| {
            integer(hash.get(call.arg(2)).map_or(0, Vec::len))
        }),
        "hdel" => remove(call),
        "hincrby" => add(call),
        "hincrbyfloat" => add_float(call),
        "hscan" => scan(call),
        _ => return None,
    })
}

/// Looks at the hash, which is empty where there is none.
fn with(
    call: &mut Call<'_>,
    look: impl FnOnce(&Ordered<Vec<u8>>, &Call<'_>) -> Outcome,
) -> Outcome {
    let hash = match call
        .store
        .get(call.arg(1), call.now)
        .map(|entry| &entry.data)
    {
        None => Ordered::default(),
        Some(Data::Hash(hash)) => hash.clone(),
        Some(_) => return Err(WRONGTYPE.to_owned()),
    };
    look(&hash, call)
}

/// Changes the hash, which is made where there is none.
fn change<R>(
    call: &mut Call<'_>,
    change: impl FnOnce(&mut Ordered<Vec<u8>>) -> Result<R, String>,
) -> Result<R, String> {
    let key = call.arg(1);
    let data = call
        .store
        .get_or(key, call.now, || Data::Hash(Ordered::default()));
    let result = match data {
        Data::Hash(hash) => change(hash),
        _ => Err(WRONGTYPE.to_owned()),
    };
    call.store.tidy(key);
    result
}

fn set(call: &mut Call<'_>) -> Result<usize, String> {
    let pairs = call.rest(2);
    if !pairs.len().is_multiple_of(2) {
        return call.wrong_arity();
    }
    change(call, |hash| {
        let new = pairs.chunks_exact(2).filter(|pair| match pair {
            [field, value] => hash.insert(field, value.to_vec()).is_none(),
            _ => false,
        });
        Ok(new.count())
    })
}

fn set_unless_there(call: &mut Call<'_>) -> Outcome {
    let (field, value) = (call.arg(2), call.arg(3));
    change(call, |hash| {
        let there = hash.contains(field);
        if !there {
            hash.insert(field, value.to_vec());
        }
        integer(usize::from(!there))
    })
}

fn remove(call: &mut Call<'_>) -> Outcome {
    let fields = call.rest(2);
    change(call, |hash| {
        integer(
            fields
                .iter()
                .filter(|field| hash.remove(field).is_some())
                .count(),
        )
    })
}

fn add(call: &mut Call<'_>) -> Outcome {
    let (field, by) = (call.arg(2), call.integer(3)?);
    change(call, |hash| {
        let before = match hash.get(field) {
            Some(value) => args::integer(value).ok_or("ERR hash value is not an integer")?,
            None => 0,
        };
        let sum = before
            .checked_add(by)
            .ok_or("ERR increment or decrement would overflow")?;
        hash.insert(field, sum.to_string().into_bytes());
        Ok(Value::Integer(sum))
    })
}

fn add_float(call: &mut Call<'_>) -> Outcome {
    let (field, by) = (call.arg(2), call.float(3)?);
    if !by.is_finite() {
        return Err("ERR value is NaN or Infinity".to_owned());
    }
    change(call, |hash| {
        let before = match hash.get(field) {
            Some(value) => args::float(value).ok_or("ERR hash value is not a float")?,
            None => 0.0,
        };
        let shown = args::show_float(before + by);
        hash.insert(field, shown.clone().into_bytes());
        Ok(Value::bulk(shown))
    })
}

fn scan(call: &mut Call<'_>) -> Outcome {
    let scan = Scan::read(call, 2, false)?;
    with(call, |hash, _| {
        let (next, fields) = scan.step(hash.keys().cloned());
        if scan.names_only {
            let names = fields.iter().map(Value::bulk).collect();
            return Ok(super::scan::reply(next, names));
        }
        let pair = |field: &Vec<u8>| [Value::bulk(field), bulk_or_nil(hash.get(field))];
        Ok(super::scan::reply(
            next,
            fields.iter().flat_map(pair).collect(),
        ))
    })
}
