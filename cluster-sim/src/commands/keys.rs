//! Keys, whatever they hold: existence, expiry, names, scanning.

use resp::Value;

use super::{Call, Outcome, args, bulks, glob, integer, ok, scan::Scan};

pub(super) fn run(name: &str, call: &mut Call<'_>) -> Option<Outcome> {
    Some(match name {
        "del" | "unlink" => remove(call),
        "exists" | "touch" => count(call),
        "type" => kind(call),
        "expire" => expire(call, 1000, true),
        "pexpire" => expire(call, 1, true),
        "expireat" => expire(call, 1000, false),
        "pexpireat" => expire(call, 1, false),
        "ttl" => ttl(call, |at, now| (at - now + 500) / 1000),
        "pttl" => ttl(call, |at, now| at - now),
        "expiretime" => ttl(call, |at, _| (at + 500) / 1000),
        "pexpiretime" => ttl(call, |at, _| at),
        "persist" => persist(call),
        "rename" => rename(call, false),
        "renamenx" => rename(call, true),
        "keys" => keys(call),
        "scan" => scan(call),
        "dbsize" => integer(call.store.keys(call.now).len()),
        "randomkey" => Ok(super::bulk_or_nil(call.store.keys(call.now).first())),
        "flushall" | "flushdb" => flush(call),
        _ => return None,
    })
}

fn flush(call: &mut Call<'_>) -> Outcome {
    let plain = call.count() == 1;
    if !plain && !(call.count() == 2 && (call.is(1, "sync") || call.is(1, "async"))) {
        return Err(args::SYNTAX.to_owned());
    }
    call.store.clear();
    ok()
}

fn remove(call: &mut Call<'_>) -> Outcome {
    let (store, now) = (&mut *call.store, call.now);
    let removed = call
        .args
        .iter()
        .skip(1)
        .filter(|key| store.remove(key, now).is_some())
        .count();
    integer(removed)
}

fn count(call: &mut Call<'_>) -> Outcome {
    let (store, now) = (&mut *call.store, call.now);
    integer(
        call.args
            .iter()
            .skip(1)
            .filter(|key| store.exists(key, now))
            .count(),
    )
}

fn kind(call: &mut Call<'_>) -> Outcome {
    let entry = call.store.get(call.arg(1), call.now);
    let name = entry.map_or("none", |entry| entry.data.type_name());
    Ok(Value::Simple(name.into()))
}

fn expire(call: &mut Call<'_>, unit: i64, relative: bool) -> Outcome {
    let name = String::from_utf8_lossy(call.arg(0)).to_lowercase();
    let wrong = || format!("ERR invalid expire time in '{name}' command");
    let now = i64::try_from(call.now).unwrap_or(i64::MAX);
    let at = call.integer(2)?.checked_mul(unit).ok_or_else(wrong)?;
    let at = if relative {
        at.checked_add(now).ok_or_else(wrong)?
    } else {
        at
    };
    check_expire_options(call)?;
    let key = call.arg(1);
    let Some(entry) = call.store.get(key, call.now) else {
        return integer(0);
    };
    let before = entry.expires_at.and_then(|at| i64::try_from(at).ok());
    for index in 3..call.count() {
        let allowed = if call.is(index, "nx") {
            before.is_none()
        } else if call.is(index, "xx") {
            before.is_some()
        } else if call.is(index, "gt") {
            before.is_some_and(|before| at > before)
        } else {
            before.is_none_or(|before| at < before) // LT
        };
        if !allowed {
            return integer(0);
        }
    }
    if at <= now {
        call.store.remove(key, call.now);
    } else if let Some(entry) = call.store.get(key, call.now) {
        entry.expires_at = u64::try_from(at).ok();
    }
    integer(1)
}

fn check_expire_options(call: &Call<'_>) -> Result<(), String> {
    let known = ["nx", "xx", "gt", "lt"];
    for at in 3..call.count() {
        if !known.iter().any(|known| call.is(at, known)) {
            let option = String::from_utf8_lossy(call.arg(at));
            return Err(format!("ERR Unsupported option {option}"));
        }
    }
    let has = |name| (3..call.count()).any(|at| call.is(at, name));
    if has("nx") && (has("xx") || has("gt") || has("lt")) {
        return Err(
            "ERR NX and XX, GT or LT options at the same time are not compatible".to_owned(),
        );
    }
    if has("gt") && has("lt") {
        return Err("ERR GT and LT options at the same time are not compatible".to_owned());
    }
    Ok(())
}

fn ttl(call: &mut Call<'_>, show: fn(i64, i64) -> i64) -> Outcome {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let now = signed(call.now);
    let entry = call.store.get(call.arg(1), call.now);
    let shown = entry.map_or(-2, |entry| {
        entry.expires_at.map_or(-1, |at| show(signed(at), now))
    });
    Ok(Value::Integer(shown))
}

fn persist(call: &mut Call<'_>) -> Outcome {
    let entry = call.store.get(call.arg(1), call.now);
    integer(usize::from(
        entry.is_some_and(|entry| entry.expires_at.take().is_some()),
    ))
}

fn rename(call: &mut Call<'_>, unless_there: bool) -> Outcome {
    let (from, to) = (call.arg(1), call.arg(2));
    if !call.store.exists(from, call.now) {
        return Err("ERR no such key".to_owned());
    }
    if unless_there && call.store.exists(to, call.now) {
        return integer(0);
    }
    if let Some(entry) = call.store.remove(from, call.now) {
        call.store.put(to, entry);
    }
    if unless_there { integer(1) } else { ok() }
}

fn keys(call: &mut Call<'_>) -> Outcome {
    let pattern = call.arg(1);
    let keys = call.store.keys(call.now);
    Ok(bulks(keys.iter().filter(|key| glob::matches(pattern, key))))
}

fn scan(call: &mut Call<'_>) -> Outcome {
    let scan = Scan::read(call, 1, true)?;
    let mut keys = call.store.keys(call.now);
    let (store, now) = (&mut *call.store, call.now);
    if let Some(kind) = scan.kind {
        keys.retain(|key| {
            let name = store
                .get(key, now)
                .map_or("none", |entry| entry.data.type_name());
            kind.eq_ignore_ascii_case(name.as_bytes())
        });
    }
    let (next, names) = scan.step_through_slots(keys);
    Ok(super::scan::reply(
        next,
        names.iter().map(Value::bulk).collect(),
    ))
}
