//! The replies to a split command's parts, put together into one.

use resp::ReplyFramer;

#[derive(Debug)]
enum Kind {
    /// `MGET`: an array in the order of the keys. For each key, the part that has it.
    Array(Vec<u16>),
    /// `MSET`: `OK` when all are.
    AllOk,
    /// `DEL`, `UNLINK`, `EXISTS`, `TOUCH`: the sum.
    Sum,
}

#[derive(Debug, Default)]
struct Collected {
    bytes: Vec<u8>,
    done: bool,
}

/// Collects the parts' replies in whatever order they come.
///
/// An error of one part is the reply of all, as `MGET` on one server would fail as a whole; what
/// the other parts did stays done. Of several errors the first part's is given.
#[derive(Debug)]
pub struct Merge {
    kind: Kind,
    parts: Vec<Collected>,
    left: usize,
    held: usize,
}

impl Merge {
    pub(crate) fn array(parts: usize, part_of_key: Vec<u16>) -> Self {
        Self::new(Kind::Array(part_of_key), parts)
    }

    pub(crate) fn all_ok(parts: usize) -> Self {
        Self::new(Kind::AllOk, parts)
    }

    pub(crate) fn sum(parts: usize) -> Self {
        Self::new(Kind::Sum, parts)
    }

    fn new(kind: Kind, parts: usize) -> Self {
        let collected = std::iter::repeat_with(Collected::default)
            .take(parts)
            .collect();
        Self {
            kind,
            parts: collected,
            left: parts,
            held: 0,
        }
    }

    /// The next bytes of one part's reply. Returns whether every part has its whole reply now.
    pub fn piece(&mut self, part: u16, bytes: &[u8], done: bool) -> bool {
        if let Some(collected) = self.parts.get_mut(usize::from(part))
            && !collected.done
        {
            collected.bytes.extend_from_slice(bytes);
            self.held += bytes.len();
            collected.done = done;
            self.left -= usize::from(done);
        }
        self.left == 0
    }

    /// Bytes held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held
    }

    /// Appends the one reply to `out`. Every part must have its reply.
    pub fn finish(&self, out: &mut Vec<u8>) {
        let failed = self
            .parts
            .iter()
            .find(|part| matches!(part.bytes.first(), Some(b'-' | b'!')));
        if let Some(failed) = failed {
            out.extend_from_slice(&failed.bytes);
            return;
        }
        let merged = match &self.kind {
            Kind::AllOk => {
                resp::write::simple(out, "OK");
                Some(())
            }
            Kind::Sum => self.integers().map(|sum| resp::write::integer(out, sum)),
            Kind::Array(part_of_key) => self.interleave(part_of_key, out),
        };
        if merged.is_none() {
            resp::write::error(
                out,
                b"ERR KEYWAY a shard's part of the reply has another shape",
            );
        }
    }

    fn integers(&self) -> Option<i64> {
        self.parts.iter().try_fold(0_i64, |sum, part| {
            let digits = part.bytes.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
            sum.checked_add(std::str::from_utf8(digits).ok()?.parse().ok()?)
        })
    }

    fn interleave(&self, part_of_key: &[u16], out: &mut Vec<u8>) -> Option<()> {
        let start = out.len();
        let mut rests: Vec<&[u8]> = self
            .parts
            .iter()
            .map(|part| elements(&part.bytes))
            .collect();
        resp::write::array(out, part_of_key.len());
        for part in part_of_key {
            let rest = rests.get_mut(usize::from(*part))?;
            let element = ReplyFramer::new()
                .advance(rest)
                .ok()
                .filter(|walk| walk.done);
            let Some((element, left)) =
                element.and_then(|walk| rest.split_at_checked(walk.consumed))
            else {
                out.truncate(start);
                return None;
            };
            out.extend_from_slice(element);
            *rest = left;
        }
        if rests.iter().any(|rest| !rest.is_empty()) {
            out.truncate(start);
            return None;
        }
        Some(())
    }
}

/// What follows an array's header.
fn elements(reply: &[u8]) -> &[u8] {
    let header = reply
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(reply.len(), |end| end + 1);
    reply.get(header..).unwrap_or_default()
}
