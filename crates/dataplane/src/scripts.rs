//! Scripts that clients have shown, so that `EVALSHA` works on a node that has not seen them.
//!
//! A node keeps scripts for itself: a new shard has none, and neither has a replica that takes over.
//! `SCRIPT LOAD` goes to every primary there is; what comes later gets the script when it says
//! `NOSCRIPT`.

use std::{
    collections::{HashMap, VecDeque},
    hash::BuildHasher,
};

use bytes::Bytes;
use command::Command;
use resp::Request;
use sha1::{Digest, Sha1};

/// Bytes of scripts kept; the oldest go first.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// A longer script is not kept.
const SCRIPT_BYTES_MAX: usize = 1024 * 1024;

/// What a node says to `EVALSHA` of a script that it has not seen.
pub(crate) fn is_noscript(line: &[u8]) -> bool {
    line.starts_with(b"NOSCRIPT ")
}

/// 40 hexadecimal digits in lower case.
type Digest40 = [u8; 40];

#[derive(Debug, Default)]
pub(crate) struct Scripts {
    by_digest: HashMap<Digest40, Bytes>,
    order: VecDeque<Digest40>,
    /// Fingerprints of those kept: most scripts are shown again and again.
    seen: HashMap<u64, Digest40>,
    bytes: usize,
}

impl Scripts {
    /// Keeps the script of an `EVAL` or a `SCRIPT LOAD`. Returns it when it is new.
    pub(crate) fn note(
        &mut self,
        command: &Command,
        request: Request<'_>,
        hasher: &foldhash::fast::FixedState,
    ) -> Option<Bytes> {
        let body = match command.name() {
            "eval" | "eval_ro" => request.arg(1)?,
            "script|load" => request.arg(2)?,
            _ => return None,
        };
        self.keep(body, hasher)
    }

    /// Keeps a script. Returns it when it is new.
    pub(crate) fn keep(
        &mut self,
        body: &[u8],
        hasher: &foldhash::fast::FixedState,
    ) -> Option<Bytes> {
        let fingerprint = hasher.hash_one(body);
        if body.len() > SCRIPT_BYTES_MAX || self.seen.contains_key(&fingerprint) {
            return None;
        }
        let digest = hexadecimal(&Sha1::digest(body));
        let body = Bytes::copy_from_slice(body);
        self.seen.insert(fingerprint, digest);
        self.bytes += body.len();
        self.by_digest.insert(digest, body.clone());
        self.order.push_back(digest);
        while self.bytes > BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            let old = self.by_digest.remove(&oldest).unwrap_or_default();
            self.bytes -= old.len();
            self.seen.remove(&hasher.hash_one(old.as_ref()));
        }
        Some(body)
    }

    /// `SCRIPT FLUSH`: what is gone from the nodes is not to come back from here.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The `SCRIPT LOAD` of the script that a request calls.
    pub(crate) fn load(&self, request: Request<'_>) -> Option<Vec<u8>> {
        let digest: Digest40 = request.arg(1)?.to_ascii_lowercase().try_into().ok()?;
        let body = self.by_digest.get(&digest)?;
        let mut out = Vec::with_capacity(body.len() + 64);
        resp::write::request(&mut out, &[&b"SCRIPT"[..], b"LOAD", body]);
        Some(out)
    }
}

fn hexadecimal(digest: &[u8]) -> Digest40 {
    let mut out = [b'0'; 40];
    for (pair, byte) in out.chunks_exact_mut(2).zip(digest) {
        let digits = [byte >> 4, byte & 15];
        for (place, digit) in pair.iter_mut().zip(digits) {
            *place = if digit < 10 {
                b'0' + digit
            } else {
                b'a' + digit - 10
            };
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use command::CommandTable;
    use resp::OwnedRequest;

    use super::*;

    fn shown(scripts: &mut Scripts, words: &[&str]) -> bool {
        let request = OwnedRequest::from_args(words);
        let command = CommandTable::builtin()
            .lookup(request.as_request())
            .unwrap();
        let hasher = foldhash::fast::FixedState::with_seed(1);
        scripts
            .note(command, request.as_request(), &hasher)
            .is_some()
    }

    #[test]
    fn a_script_is_loaded_before_it_is_called() {
        let mut scripts = Scripts::default();
        assert!(shown(&mut scripts, &["EVAL", "return 1", "0"]));
        assert!(!shown(&mut scripts, &["SCRIPT", "LOAD", "return 1"]));
        assert!(!shown(&mut scripts, &["GET", "return 1"]));
        let call = |digest| OwnedRequest::from_args(["EVALSHA", digest, "0"]);
        let known = call("E0E1F9FABFC9D4800C877A703B823AC0578FF8DB");
        let load = OwnedRequest::from_args(["SCRIPT", "LOAD", "return 1"]);
        let expected = Some(load.bytes().to_vec());
        assert_eq!(scripts.load(known.as_request()), expected);
        let other = call("ffffffffffffffffffffffffffffffffffffffff");
        assert_eq!(scripts.load(other.as_request()), None);
        assert_eq!(scripts.load(call("short").as_request()), None);
    }

    #[test]
    fn scripts_are_bounded() {
        let mut scripts = Scripts::default();
        for number in 0..40 {
            let body = format!("{number}{}", " ".repeat(1_000_000));
            assert!(shown(&mut scripts, &["EVAL", &body, "0"]));
        }
        assert!(scripts.bytes <= BYTES_MAX && scripts.seen.len() == scripts.by_digest.len());
        assert!(scripts.order.len() == scripts.by_digest.len() && scripts.order.len() > 10);
        let huge = " ".repeat(2_000_000);
        assert!(!shown(&mut scripts, &["EVAL", &huge, "0"]));
    }
}
