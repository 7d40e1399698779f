//! `MULTI`: commands gathered until `EXEC` sends them together.

use command::Command;
use resp::Request;
use routing::{Keys, Slot};

/// The requests between `MULTI` and `EXEC`.
///
/// They are kept as they came, and go to the node as one contiguous block on a shared connection:
/// `MULTI`, the requests, `EXEC`. So a transaction needs no connection of its own, and nothing of
/// another client can come between.
#[derive(Debug, Default)]
pub struct Transaction {
    requests: Vec<u8>,
    /// Requests in `requests`.
    sent: u16,
    /// Requests that the proxy answers itself, with their places among all.
    here: Vec<(usize, Vec<u8>)>,
    slot: Option<Slot>,
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

/// A transaction ready to be sent.
#[derive(Debug)]
pub struct Block {
    /// `MULTI`, the requests, `EXEC`.
    pub request: Vec<u8>,
    /// Replies before that of `EXEC`.
    pub preludes: u16,
    /// The slot of all keys, if there are any.
    pub slot: Option<Slot>,
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
const COMMANDS_MAX: u16 = u16::MAX - 2;

impl Transaction {
    /// Bytes held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
            + self
                .here
                .iter()
                .map(|(_, bytes)| bytes.len())
                .sum::<usize>()
    }

    /// Commands queued.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::from(self.sent) + self.here.len()
    }

    /// Whether a command queued may write.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.writes
    }

    /// Whether nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sent == 0 && self.here.is_empty()
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
        if self.sent >= COMMANDS_MAX || self.len() + request.bytes().len() > bytes_max {
            self.failed = true;
            return Err(TransactionError::TooLarge);
        }
        if let Some(slot) = slot {
            self.crossed |= *self.slot.get_or_insert(slot) != slot;
        }
        self.keys.extend(keys);
        self.writes |= command.may_write();
        self.requests.extend_from_slice(request.bytes());
        self.sent += 1;
        Ok(())
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
        let total = usize::from(self.sent) + self.here.len();
        if total >= usize::from(COMMANDS_MAX) || self.len() + request.bytes().len() > bytes_max {
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
            preludes: self.sent + 1,
            slot: self.slot,
            keys: self.keys.clone(),
            writes: self.writes,
            here: self.here.clone(),
        })
    }
}

impl Block {
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
