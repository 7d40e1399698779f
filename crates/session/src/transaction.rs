//! `MULTI`: commands gathered until `EXEC` sends them together.

use std::collections::HashMap;

use command::Command;
use resp::Request;
use routing::{Keys, Part, Piece, Slot, Split};

/// The requests between `MULTI` and `EXEC`.
///
/// They are kept as they came, and go to the node as one contiguous block on a shared connection:
/// `MULTI`, the requests, `EXEC`. So a transaction needs no connection of its own, and nothing of
/// another client can come between.
#[derive(Debug, Default)]
pub struct Transaction {
    requests: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
    /// Requests that the proxy answers itself, with their places among all.
    here: Vec<(usize, Vec<u8>)>,
    slot: Option<Slot>,
    /// Of a channel: where it goes when there are no keys.
    leaning: Option<Slot>,
    /// Keys of several slots were named.
    crossed: bool,
    keys: Keys,
    writes: bool,
    failed: bool,
}

/// Why a transaction does not run. The error line, without `-` and CRLF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// A command was refused when it was to be queued.
    #[error("EXECABORT Transaction discarded because of previous errors.")]
    Aborted,
    /// Keys of several slots.
    #[error("CROSSSLOT Keys in request don't hash to the same slot")]
    Crossed,
    /// More than one transaction may hold.
    #[error("ERR the transaction is larger than Keyway allows (request_bytes_max)")]
    TooLarge,
}

/// A transaction over several slots, ready to be sent as one for each.
#[derive(Debug)]
pub struct Blocks {
    /// One for each slot, in the order in which they are named first.
    pub blocks: Vec<(Slot, Block)>,
    /// For each command that goes to a node, the blocks that it is in.
    pub pieces: Vec<Piece>,
}

/// Where a command of a transaction over several slots belongs.
#[derive(Debug)]
pub enum Share {
    /// To this slot with these keys; to any, without one.
    Whole(Option<Slot>, Keys),
    /// It is over several itself.
    Cut(Box<Split>),
}

/// A transaction ready to be sent.
#[derive(Debug)]
pub struct Block {
    /// `MULTI`, the requests, `EXEC`.
    pub request: Vec<u8>,
    /// Replies before that of `EXEC`.
    pub preludes: u16,
    /// The slot of all keys, if there are any.
    pub slot: Option<Slot>,
    /// Where it goes else, if it matters.
    pub leaning: Option<Slot>,
    /// All keys.
    pub keys: Keys,
    /// One of the commands may write.
    pub writes: bool,
    /// What the proxy answers itself: places among all commands, and requests.
    pub here: Vec<(usize, Vec<u8>)>,
}

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";
/// Requests in one transaction.
const COMMANDS_MAX: usize = u16::MAX as usize - 2;

impl Transaction {
    /// Bytes held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
            + self.ends.len() * size_of::<usize>()
            + self
                .here
                .iter()
                .map(|(_, bytes)| bytes.len())
                .sum::<usize>()
    }

    /// Commands queued.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ends.len() + self.here.len()
    }

    /// Whether a command queued may write.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.writes
    }

    /// Whether nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.here.is_empty()
    }

    /// A command was refused: `EXEC` will refuse too.
    pub fn fail(&mut self) {
        self.failed = true;
    }

    /// Adds a request for a node. `bytes_max` bounds what a transaction holds.
    ///
    /// # Errors
    /// [`TransactionError::TooLarge`]; the transaction has failed then.
    pub fn queue(
        &mut self,
        command: &Command,
        request: Request<'_>,
        (slot, keys): (Option<Slot>, &Keys),
        bytes_max: usize,
    ) -> Result<(), TransactionError> {
        if self.ends.len() >= COMMANDS_MAX || self.len() + request.bytes().len() > bytes_max {
            self.failed = true;
            return Err(TransactionError::TooLarge);
        }
        if let Some(slot) = slot {
            self.crossed |= *self.slot.get_or_insert(slot) != slot;
        }
        self.keys.extend(keys);
        self.writes |= command.may_write();
        self.requests.extend_from_slice(request.bytes());
        self.ends.push(self.requests.len());
        Ok(())
    }

    /// What was queued has no keys; without any, the transaction goes to this slot's owner.
    pub fn lean(&mut self, slot: Slot) {
        self.leaning.get_or_insert(slot);
    }

    /// What was queued is over several slots by itself.
    pub fn cross(&mut self) {
        self.crossed = true;
    }

    /// Adds a request that the proxy will answer itself when the transaction runs.
    ///
    /// # Errors
    /// [`TransactionError::TooLarge`]; the transaction has failed then.
    pub fn queue_here(
        &mut self,
        request: Request<'_>,
        bytes_max: usize,
    ) -> Result<(), TransactionError> {
        let total = self.count();
        if total >= COMMANDS_MAX || self.len() + request.bytes().len() > bytes_max {
            self.failed = true;
            return Err(TransactionError::TooLarge);
        }
        self.here.push((total, request.bytes().to_vec()));
        Ok(())
    }

    /// `EXEC`.
    ///
    /// # Errors
    /// Why it does not run.
    pub fn finish(&self) -> Result<Block, TransactionError> {
        if self.failed {
            return Err(TransactionError::Aborted);
        }
        if self.crossed {
            return Err(TransactionError::Crossed);
        }
        let mut request = Vec::with_capacity(MULTI.len() + self.requests.len() + EXEC.len());
        request.extend_from_slice(MULTI);
        request.extend_from_slice(&self.requests);
        request.extend_from_slice(EXEC);
        Ok(Block {
            request,
            preludes: preludes(self.ends.len()),
            slot: self.slot,
            leaning: self.leaning,
            keys: self.keys.clone(),
            writes: self.writes,
            here: self.here.clone(),
        })
    }

    /// `EXEC` of one that [`Transaction::finish`] says is over several slots: a transaction for each
    /// slot, whole or not at all by itself. `about` tells where a request belongs, and
    /// whether it may write; without a slot it goes with the first. What the proxy answers itself
    /// is in none of them.
    #[must_use]
    pub fn by_slot(&self, mut about: impl FnMut(&[u8]) -> (Share, bool)) -> Blocks {
        let mut shares = Vec::with_capacity(self.ends.len());
        let mut start = 0;
        for end in &self.ends {
            let request = self.requests.get(start..*end).unwrap_or_default();
            start = *end;
            shares.push((request, about(request)));
        }
        let first = shares.iter().find_map(|(_, (share, _))| match share {
            Share::Whole(slot, _) => *slot,
            Share::Cut(split) => split.parts.first().map(|part| part.slot),
        });
        let mut cut = Cutting::default();
        let mut pieces = Vec::with_capacity(shares.len());
        for (request, (share, writes)) in shares {
            match share {
                Share::Whole(slot, keys) => {
                    let slot = slot.or(first).unwrap_or_else(|| Slot::of_key(b""));
                    pieces.push(Piece::Whole(cut.add(slot, request, &keys, writes)));
                }
                Share::Cut(split) => {
                    let add =
                        |part: &Part| cut.add(part.slot, split.request(part), &part.keys, writes);
                    let parts = split.parts.iter().map(add).collect();
                    pieces.push(Piece::Cut(parts, split.merge));
                }
            }
        }
        for (_, block) in &mut cut.blocks {
            block.request.extend_from_slice(EXEC);
        }
        Blocks {
            blocks: cut.blocks,
            pieces,
        }
    }

    /// What the proxy answers itself, as a [`Block`] has it.
    #[must_use]
    pub fn here(&self) -> &[(usize, Vec<u8>)] {
        &self.here
    }
}

/// A transaction that is being cut.
#[derive(Default)]
struct Cutting {
    blocks: Vec<(Slot, Block)>,
    known: HashMap<Slot, u16>,
}

impl Cutting {
    /// Puts a request into the block of its slot. Returns which that is.
    fn add(&mut self, slot: Slot, request: &[u8], keys: &Keys, writes: bool) -> u16 {
        let Self { blocks, known } = self;
        let part = *known.entry(slot).or_insert_with(|| {
            blocks.push((slot, Block::begun(slot)));
            u16::try_from(blocks.len() - 1).unwrap_or(u16::MAX)
        });
        if let Some((_, block)) = blocks.get_mut(usize::from(part)) {
            block.request.extend_from_slice(request);
            block.preludes += 1;
            block.keys.extend(keys);
            block.writes |= writes;
        }
        part
    }
}

/// Replies before that of `EXEC`: to `MULTI`, and to each of so many commands.
fn preludes(commands: usize) -> u16 {
    u16::try_from(commands + 1).unwrap_or(u16::MAX)
}

impl Block {
    fn begun(slot: Slot) -> Self {
        Self {
            request: MULTI.to_vec(),
            preludes: preludes(0),
            slot: Some(slot),
            leaning: None,
            keys: Keys::none(),
            writes: false,
            here: Vec::new(),
        }
    }

    /// Whether a node has anything to do.
    #[must_use]
    pub fn is_for_a_node(&self) -> bool {
        self.preludes > 1
    }
}

#[cfg(test)]
mod tests {
    use command::CommandTable;
    use resp::OwnedRequest;
    use routing::{CrossSlot, Plan, plan};

    use super::*;

    fn queue(transaction: &mut Transaction, line: &str) -> Result<(), TransactionError> {
        let request = OwnedRequest::from_args(line.split(' '));
        let command = CommandTable::builtin()
            .lookup(request.as_request())
            .unwrap();
        let hasher = foldhash::fast::FixedState::with_seed(3);
        let (slot, keys) = match plan(command, request.as_request(), CrossSlot::Split, &hasher) {
            Plan::Slot { slot, keys } => (Some(slot), keys),
            _ => (None, Keys::none()),
        };
        transaction.queue(command, request.as_request(), (slot, &keys), 1000)
    }

    #[test]
    fn requests_go_together_as_they_came() {
        let mut transaction = Transaction::default();
        queue(&mut transaction, "GET {a}1").unwrap();
        queue(&mut transaction, "TTL {a}1").unwrap();
        assert!(!transaction.writes);
        queue(&mut transaction, "SET {a}2 v").unwrap();
        let block = transaction.finish().unwrap();
        let expected: Vec<u8> = ["MULTI", "GET {a}1", "TTL {a}1", "SET {a}2 v", "EXEC"]
            .iter()
            .flat_map(|line| OwnedRequest::from_args(line.split(' ')).bytes().to_vec())
            .collect();
        assert_eq!(block.request, expected);
        assert_eq!((block.preludes, block.slot), (4, Some(Slot::of_key(b"a"))));
        assert!(block.writes && block.is_for_a_node());
    }

    #[test]
    fn what_was_refused_or_crosses_slots_does_not_run() {
        let mut transaction = Transaction::default();
        queue(&mut transaction, "SET a 1").unwrap();
        queue(&mut transaction, "SET b 1").unwrap();
        assert_eq!(transaction.finish().unwrap_err(), TransactionError::Crossed);
        let mut transaction = Transaction::default();
        queue(&mut transaction, "SET a 1").unwrap();
        transaction.fail();
        assert_eq!(transaction.finish().unwrap_err(), TransactionError::Aborted);
        let mut transaction = Transaction::default();
        let long = format!("SET a {}", "x".repeat(2000));
        assert_eq!(
            queue(&mut transaction, &long),
            Err(TransactionError::TooLarge)
        );
        assert_eq!(transaction.finish().unwrap_err(), TransactionError::Aborted);
    }

    #[test]
    fn over_several_slots_there_is_one_for_each() {
        let mut transaction = Transaction::default();
        let id = OwnedRequest::from_args(["CLIENT", "ID"]);
        for line in ["PING", "GET a", "SET b 1", "MGET b a"] {
            queue(&mut transaction, line).unwrap();
        }
        transaction.queue_here(id.as_request(), 1000).unwrap();
        queue(&mut transaction, "INCR b").unwrap();
        assert_eq!(transaction.finish().unwrap_err(), TransactionError::Crossed);
        let [a, b] = [b"a", b"b"].map(|key| Slot::of_key(key));
        let cut = transaction.by_slot(|request| {
            let request = OwnedRequest::parse(request.to_vec()).unwrap();
            let request = request.as_request();
            let command = CommandTable::builtin().lookup(request).unwrap();
            let hasher = foldhash::fast::FixedState::with_seed(3);
            let share = match plan(command, request, CrossSlot::SplitTransactions, &hasher) {
                Plan::Slot { slot, keys } => Share::Whole(Some(slot), keys),
                Plan::Split(split) => Share::Cut(split),
                _ => Share::Whole(None, Keys::none()),
            };
            (share, command.may_write())
        });
        let places: Vec<_> = cut
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Whole(part) => vec![*part],
                Piece::Cut(parts, _) => parts.clone(),
            })
            .collect();
        let of_mget = if b < a { vec![1, 0] } else { vec![0, 1] };
        assert_eq!(places, [vec![0], vec![0], vec![1], of_mget, vec![1]]);
        assert_eq!(transaction.here()[0].0, 4);
        let expected: [(Slot, &[&str], bool); 2] = [
            (a, &["MULTI", "PING", "GET a", "MGET a", "EXEC"], true), // PING may, for all that is known
            (b, &["MULTI", "SET b 1", "MGET b", "INCR b", "EXEC"], true),
        ];
        for ((slot, block), (owner, lines, writes)) in cut.blocks.iter().zip(expected) {
            let request: Vec<u8> = lines
                .iter()
                .flat_map(|line| OwnedRequest::from_args(line.split(' ')).bytes().to_vec())
                .collect();
            assert_eq!((*slot, &block.request), (owner, &request));
            assert_eq!(usize::from(block.preludes), lines.len() - 1);
            assert_eq!(
                (block.writes, block.keys.fingerprints().count() > 0),
                (writes, true)
            );
        }
    }

    #[test]
    fn what_is_answered_here_keeps_its_place() {
        let mut transaction = Transaction::default();
        let id = OwnedRequest::from_args(["CLIENT", "ID"]);
        transaction.queue_here(id.as_request(), 1000).unwrap();
        queue(&mut transaction, "GET a").unwrap();
        transaction.queue_here(id.as_request(), 1000).unwrap();
        let block = transaction.finish().unwrap();
        let places: Vec<usize> = block.here.iter().map(|(place, _)| *place).collect();
        assert_eq!((places, block.preludes), (vec![0, 2], 2));
        assert!(!Transaction::default().finish().unwrap().is_for_a_node());
    }
}
