//! What commands do to a store. Replies, shapes and errors are Valkey's; the tests compare them
//! with replies recorded from a real server.

use resp::Value;

use crate::store::{Data, Store};

pub(crate) mod args;
pub(crate) mod glob;
mod hashes;
mod keys;
mod lists;
mod scan;
mod sets;
mod strings;
mod zset_ranges;
mod zsets;

/// A command's reply, or its error line without `-` and CRLF.
pub(crate) type Outcome = Result<Value, String>;

/// One call of a command.
pub(crate) struct Call<'a> {
    pub(crate) store: &'a mut Store,
    /// The command's name and arguments.
    pub(crate) args: &'a [&'a [u8]],
    /// Milliseconds since 1970.
    pub(crate) now: u64,
    /// The client speaks RESP3: some shapes differ.
    pub(crate) resp3: bool,
}

pub(crate) const WRONGTYPE: &str =
    "WRONGTYPE Operation against a key holding the wrong kind of value";

impl<'a> Call<'a> {
    /// An argument; empty when there is none, which the check of the arity rules out.
    pub(crate) fn arg(&self, index: usize) -> &'a [u8] {
        self.args.get(index).copied().unwrap_or_default()
    }

    pub(crate) fn rest(&self, from: usize) -> &'a [&'a [u8]] {
        self.args.get(from..).unwrap_or_default()
    }

    pub(crate) fn count(&self) -> usize {
        self.args.len()
    }

    /// The string at a key.
    pub(crate) fn string(&mut self, key: &[u8]) -> Result<Option<&mut Vec<u8>>, String> {
        match self.store.get(key, self.now).map(|entry| &mut entry.data) {
            None => Ok(None),
            Some(Data::Str(bytes)) => Ok(Some(bytes)),
            Some(_) => Err(WRONGTYPE.to_owned()),
        }
    }
}

/// `nil`, as this client's protocol has it.
pub(crate) fn nil() -> Value {
    Value::Null
}

pub(crate) fn ok() -> Outcome {
    Ok(Value::Simple("OK".into()))
}

pub(crate) fn integer(number: usize) -> Outcome {
    Ok(Value::Integer(i64::try_from(number).unwrap_or(i64::MAX)))
}

pub(crate) fn bulk_or_nil(bytes: Option<impl AsRef<[u8]>>) -> Value {
    bytes.map_or_else(nil, |bytes| Value::bulk(bytes.as_ref()))
}

pub(crate) fn bulks<T: AsRef<[u8]>>(items: impl IntoIterator<Item = T>) -> Value {
    Value::Array(
        items
            .into_iter()
            .map(|item| Value::bulk(item.as_ref()))
            .collect(),
    )
}

/// Runs a command; `None` when this simulator does not know it.
pub(crate) fn run(name: &str, call: &mut Call<'_>) -> Option<Outcome> {
    strings::run(name, call)
        .or_else(|| keys::run(name, call))
        .or_else(|| hashes::run(name, call))
        .or_else(|| lists::run(name, call))
        .or_else(|| sets::run(name, call))
        .or_else(|| zsets::run(name, call))
}
