//! Strings and counters.

use resp::Value;

use super::{Call, Outcome, args, bulk_or_nil, integer, nil, ok};
use crate::store::Data;

const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
const BYTES_MAX: usize = 512 * 1024 * 1024;

pub(super) fn run(name: &str, call: &mut Call<'_>) -> Option<Outcome> {
    Some(match name {
        "get" => get(call),
        "set" => set(call),
        "setnx" => set_unless_there(call),
        "setex" => set_for(call, 1000),
        "psetex" => set_for(call, 1),
        "getset" => getset(call),
        "getdel" => getdel(call),
        "getex" => getex(call),
        "append" => append(call),
        "strlen" => strlen(call),
        "incr" => add(call, 1),
        "decr" => add(call, -1),
        "incrby" => call.integer(2).and_then(|by| add(call, by)),
        "decrby" => match call.integer(2) {
            Ok(i64::MIN) => Err("ERR decrement would overflow".to_owned()),
            Ok(by) => add(call, -by),
            Err(error) => Err(error),
        },
        "incrbyfloat" => add_float(call),
        "getrange" | "substr" => getrange(call),
        "setrange" => setrange(call),
        "mget" => mget(call),
        "mset" => mset(call, false),
        "msetnx" => mset(call, true),
        _ => return None,
    })
}

fn get(call: &mut Call<'_>) -> Outcome {
    let key = call.arg(1);
    Ok(bulk_or_nil(call.string(key)?))
}

#[derive(Default)]
struct SetOptions<'a> {
    unless_there: bool,
    if_there: bool,
    /// Only where the key holds this.
    if_equal: Option<&'a [u8]>,
    keep_ttl: bool,
    get: bool,
    expires_at: Option<u64>,
}

fn set_options<'a>(call: &Call<'a>) -> Result<SetOptions<'a>, String> {
    let mut options = SetOptions::default();
    let mut at = 3;
    while at < call.count() {
        let free = options.if_equal.is_none();
        if call.is(at, "nx") && !options.if_there && free {
            options.unless_there = true;
        } else if call.is(at, "xx") && !options.unless_there && free {
            options.if_there = true;
        } else if call.is(at, "ifeq")
            && at + 1 < call.count()
            && !options.if_there
            && !options.unless_there
        {
            options.if_equal = Some(call.arg(at + 1));
            at += 1;
        } else if call.is(at, "get") {
            options.get = true;
        } else if call.is(at, "keepttl") && options.expires_at.is_none() {
            options.keep_ttl = true;
        } else if at + 1 < call.count() && options.expires_at.is_none() && !options.keep_ttl {
            options.expires_at = Some(expiry(call, at, "set")?.ok_or(args::SYNTAX)?);
            at += 1;
        } else {
            return Err(args::SYNTAX.to_owned());
        }
        at += 1;
    }
    Ok(options)
}

/// `EX n`, `PX n`, `EXAT n`, `PXAT n` at this argument, in milliseconds since 1970; `None` when it
/// is another word.
fn expiry(call: &Call<'_>, at: usize, command: &str) -> Result<Option<u64>, String> {
    let (unit, from) = if call.is(at, "ex") {
        (1000, call.now)
    } else if call.is(at, "px") {
        (1, call.now)
    } else if call.is(at, "exat") {
        (1000, 0)
    } else if call.is(at, "pxat") {
        (1, 0)
    } else {
        return Ok(None);
    };
    let wrong = || format!("ERR invalid expire time in '{command}' command");
    let number = call.integer(at + 1)?;
    let number = u64::try_from(number)
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(wrong)?;
    number
        .checked_mul(unit)
        .and_then(|ms| ms.checked_add(from))
        .ok_or_else(wrong)
        .map(Some)
}

fn set(call: &mut Call<'_>) -> Outcome {
    let options = set_options(call)?;
    let (key, value) = (call.arg(1), call.arg(2).to_vec());
    let before = if options.get {
        Some(bulk_or_nil(call.string(key)?))
    } else {
        None
    };
    if let Some(wanted) = options.if_equal
        && call.string(key)?.is_none_or(|held| held != wanted)
    {
        return Ok(before.unwrap_or_else(nil));
    }
    let entry = call.store.get(key, call.now);
    let there = entry.is_some();
    let kept = entry
        .and_then(|entry| entry.expires_at)
        .filter(|_| options.keep_ttl);
    if (options.unless_there && there) || (options.if_there && !there) {
        return Ok(before.unwrap_or_else(nil));
    }
    call.store
        .set(key, Data::Str(value), options.expires_at.or(kept));
    before.map_or_else(ok, Ok)
}

fn set_unless_there(call: &mut Call<'_>) -> Outcome {
    let key = call.arg(1);
    if call.store.exists(key, call.now) {
        return integer(0);
    }
    call.store.set(key, Data::Str(call.arg(2).to_vec()), None);
    integer(1)
}

fn set_for(call: &mut Call<'_>, unit: u64) -> Outcome {
    let name = if unit == 1 { "psetex" } else { "setex" };
    let wrong = || format!("ERR invalid expire time in '{name}' command");
    let time = u64::try_from(call.integer(2)?)
        .ok()
        .filter(|time| *time > 0)
        .ok_or_else(wrong)?;
    let at = time
        .checked_mul(unit)
        .and_then(|ms| ms.checked_add(call.now))
        .ok_or_else(wrong)?;
    call.store
        .set(call.arg(1), Data::Str(call.arg(3).to_vec()), Some(at));
    ok()
}

fn getset(call: &mut Call<'_>) -> Outcome {
    let key = call.arg(1);
    let before = bulk_or_nil(call.string(key)?);
    call.store.set(key, Data::Str(call.arg(2).to_vec()), None);
    Ok(before)
}

fn getdel(call: &mut Call<'_>) -> Outcome {
    let key = call.arg(1);
    let value = bulk_or_nil(call.string(key)?);
    call.store.remove(key, call.now);
    Ok(value)
}

fn getex(call: &mut Call<'_>) -> Outcome {
    let key = call.arg(1);
    let value = bulk_or_nil(call.string(key)?);
    let change = match call.count() {
        2 => None,
        3 if call.is(2, "persist") => Some(None),
        4 => Some(Some(expiry(call, 2, "getex")?.ok_or(args::SYNTAX)?)),
        _ => return Err(args::SYNTAX.to_owned()),
    };
    if let (Some(change), Some(entry)) = (change, call.store.get(key, call.now)) {
        entry.expires_at = change;
    }
    Ok(value)
}

fn append(call: &mut Call<'_>) -> Outcome {
    let (key, more) = (call.arg(1), call.arg(2));
    if let Some(value) = call.string(key)? {
        if value.len() + more.len() > BYTES_MAX {
            return Err(TOO_LONG.to_owned());
        }
        value.extend_from_slice(more);
        return integer(value.len());
    }
    call.store.set(key, Data::Str(more.to_vec()), None);
    integer(more.len())
}

fn strlen(call: &mut Call<'_>) -> Outcome {
    let key = call.arg(1);
    integer(call.string(key)?.map_or(0, |value| value.len()))
}

fn add(call: &mut Call<'_>, by: i64) -> Outcome {
    let key = call.arg(1);
    let before = match call.string(key)? {
        Some(value) => args::integer(value).ok_or(args::NOT_AN_INTEGER)?,
        None => 0,
    };
    let sum = before
        .checked_add(by)
        .ok_or("ERR increment or decrement would overflow")?;
    replace(call, key, sum.to_string());
    Ok(Value::Integer(sum))
}

fn add_float(call: &mut Call<'_>) -> Outcome {
    let key = call.arg(1);
    let by = call.float(2)?;
    let before = match call.string(key)? {
        Some(value) => args::float(value).ok_or("ERR value is not a valid float")?,
        None => 0.0,
    };
    let sum = before + by;
    if !sum.is_finite() {
        return Err("ERR increment would produce NaN or Infinity".to_owned());
    }
    let shown = args::show_float(sum);
    replace(call, key, shown.clone());
    Ok(Value::bulk(shown))
}

/// Sets a string and keeps its expiry.
fn replace(call: &mut Call<'_>, key: &[u8], value: String) {
    let kept = call
        .store
        .get(key, call.now)
        .and_then(|entry| entry.expires_at);
    call.store.set(key, Data::Str(value.into_bytes()), kept);
}

fn getrange(call: &mut Call<'_>) -> Outcome {
    let (start, stop) = (call.integer(2)?, call.integer(3)?);
    let key = call.arg(1);
    let Some(value) = call.string(key)? else {
        return Ok(Value::bulk(""));
    };
    let range = args::range(start, stop, value.len());
    Ok(Value::bulk(value.get(range).unwrap_or_default()))
}

fn setrange(call: &mut Call<'_>) -> Outcome {
    let (key, patch) = (call.arg(1), call.arg(3));
    let offset = call.integer(2)?;
    let offset = usize::try_from(offset).map_err(|_| "ERR offset is out of range".to_owned())?;
    if patch.is_empty() {
        return strlen(call);
    }
    let end = offset.saturating_add(patch.len());
    if end > BYTES_MAX {
        return Err(TOO_LONG.to_owned());
    }
    call.string(key)?;
    let data = call.store.get_or(key, call.now, || Data::Str(Vec::new()));
    let Data::Str(value) = data else {
        return Err(super::WRONGTYPE.to_owned());
    };
    if value.len() < end {
        value.resize(end, 0);
    }
    if let Some(place) = value.get_mut(offset..end) {
        place.copy_from_slice(patch);
    }
    integer(value.len())
}

fn mget(call: &mut Call<'_>) -> Outcome {
    let keys = call.rest(1);
    let values = keys
        .iter()
        .map(|key| bulk_or_nil(call.string(key).ok().flatten()));
    Ok(Value::Array(values.collect()))
}

fn mset(call: &mut Call<'_>, unless_there: bool) -> Outcome {
    if call.count().is_multiple_of(2) {
        return call.wrong_arity();
    }
    let pairs = call.rest(1);
    if unless_there
        && pairs
            .iter()
            .step_by(2)
            .any(|key| call.store.exists(key, call.now))
    {
        return integer(0);
    }
    for pair in pairs.chunks_exact(2) {
        if let [key, value] = pair {
            call.store.set(key, Data::Str(value.to_vec()), None);
        }
    }
    if unless_there { integer(1) } else { ok() }
}
