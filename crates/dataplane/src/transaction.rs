//! `MULTI` to `EXEC`, and `WATCH`.

use std::time::Instant;

use command::{Command, CommandTable, Handling, LocalKind, TransactionKind};
use resp::{OwnedRequest, Request};
use routing::{CrossSlot, Keys, Merge, Part, PartBlock, Plan, Slot, Split};
use session::{Block, Form, Share, Transaction, TransactionError, local};

use crate::{
    client::{Blocked, State},
    core::Core,
    forward::{Sending, Took},
    host::Host,
    intake::stays_in_database,
    lease::{Lent, Loan},
    slots::Key,
};

const CROSSSLOT: &str = "CROSSSLOT Keys in request don't hash to the same slot";

impl<H: Host> Core<H> {
    /// A command about transactions. Returns why it cannot be taken yet.
    pub(crate) fn transact(
        &mut self,
        (client, key): (&mut State, Key),
        (command, kind): (&Command, TransactionKind),
        request: Request<'_>,
        (slot, keys): (Option<Slot>, Keys),
        table: &CommandTable,
        now: Instant,
    ) -> Option<Blocked> {
        let session = &mut client.session;
        match kind {
            TransactionKind::Multi => {
                session.transaction = Some(Box::default());
                self.say(client, command, "OK", now);
            }
            TransactionKind::Exec => return self.exec((client, key), command, table, now),
            TransactionKind::Discard if session.transaction.is_none() => {
                self.refuse(
                    client,
                    Some(command.id()),
                    b"ERR DISCARD without MULTI",
                    now,
                );
            }
            TransactionKind::Discard | TransactionKind::Unwatch => {
                let watched = client.watch.as_ref().map(|watch| self.is_watched(watch));
                if watched == Some(true) {
                    let blocked = self.unwatch((client, key), command, now);
                    if blocked.is_none() {
                        client.session.transaction = None;
                    }
                    return blocked;
                }
                self.break_watch(client);
                client.session.transaction = None;
                self.say(client, command, "OK", now);
            }
            TransactionKind::Watch => {
                let other = client.watch.as_ref().map(|watch| watch.slot);
                if other.is_some_and(|other| Some(other) != slot) {
                    // The watched keys of one transaction are on one connection to one node.
                    self.refuse(client, Some(command.id()), CROSSSLOT.as_bytes(), now);
                    return None;
                }
                let lost = client
                    .watch
                    .as_ref()
                    .is_some_and(|watch| !self.is_watched(watch));
                if lost {
                    // `EXEC` will be null in any case.
                    self.say(client, command, "OK", now);
                    return None;
                }
                let sending = Sending {
                    request: request.bytes(),
                    slot,
                    keys,
                    writes: false,
                    form: Form::Watch,
                    merge: None,
                };
                return self.lend((client, key), command, sending, Loan::Watch, now);
            }
        }
        None
    }

    /// A command between `MULTI` and `EXEC`.
    pub(crate) fn queue(
        &mut self,
        client: &mut State,
        command: &Command,
        request: Request<'_>,
        plan: &Plan,
        now: Instant,
    ) {
        let stays = stays_in_database(request, client);
        let cuts = self.cuts_transactions(client);
        let Some(transaction) = client.session.transaction.as_deref_mut() else {
            return;
        };
        let max = self.settings.limits.request_bytes_max;
        let name = command.name();
        let barred = || {
            Some(format!(
                "ERR command '{name}' cannot be part of a transaction through Keyway"
            ))
        };
        let queue = |transaction: &mut Transaction, slot, keys: &Keys| {
            let queued = transaction.queue(command, request, (slot, keys), max);
            queued.err().map(|error| error.to_string())
        };
        let refusal = if command.is_barred_from_transactions() {
            Some(format!(
                "ERR Command '{name}' not allowed inside a transaction"
            ))
        } else {
            match plan {
                // A message goes with any keys.
                Plan::Slot { slot, keys } if command.is_publish() => {
                    transaction.lean(*slot);
                    queue(transaction, None, keys)
                }
                Plan::Slot { slot, keys } | Plan::Blocking { slot, keys } => {
                    queue(transaction, Some(*slot), keys)
                }
                Plan::Any
                | Plan::Wait
                | Plan::Transaction { .. }
                | Plan::Local(LocalKind::Ping | LocalKind::Echo) => {
                    queue(transaction, None, &Keys::none())
                }
                Plan::Split(_) if cuts => {
                    transaction.cross();
                    queue(transaction, None, &Keys::none())
                }
                Plan::Split(_) => Some(CROSSSLOT.to_owned()),
                Plan::FanOut(_)
                | Plan::EveryNode(_)
                | Plan::Subscription(_)
                | Plan::Guarded { .. }
                | Plan::Clients
                | Plan::Instead(_)
                | Plan::Scan
                | Plan::Local(LocalKind::Auth | LocalKind::Hello) => barred(),
                // The block is sent to one database.
                Plan::Local(LocalKind::Select) if !stays => barred(),
                Plan::Local(_) => {
                    let queued = transaction.queue_here(request, max);
                    queued.err().map(|error| error.to_string())
                }
                Plan::Refuse(text) => Some(text.clone()),
            }
        };
        match refusal {
            None => self.say(client, command, "QUEUED", now),
            Some(text) => {
                transaction.fail();
                self.refuse(client, Some(command.id()), text.as_bytes(), now);
            }
        }
    }

    fn exec(
        &mut self,
        (client, key): (&mut State, Key),
        command: &Command,
        table: &CommandTable,
        now: Instant,
    ) -> Option<Blocked> {
        let id = Some(command.id());
        let Some(transaction) = client.session.transaction.as_deref() else {
            self.refuse(client, id, b"ERR EXEC without MULTI", now);
            return None;
        };
        let block = match transaction.finish() {
            Ok(block) => block,
            Err(TransactionError::Crossed) if self.cuts_transactions(client) => {
                return self.exec_by_slot((client, key), command, table, now);
            }
            Err(error) => {
                client.session.transaction = None;
                self.break_watch(client);
                self.refuse(client, id, error.to_string().as_bytes(), now);
                return None;
            }
        };
        if let Some(reply) = self.watch_failed(client, &block) {
            client.session.transaction = None;
            self.break_watch(client);
            self.scratch.extend_from_slice(&reply);
            let silent = !client.session.take_reply_wanted();
            self.reply_here(client, id, silent, now);
            return None;
        }
        let (merge, here) = self.answer_queued(client, &block, table, now);
        // Watched keys are the node's to judge, also when there is nothing to run.
        if !block.is_for_a_node() && client.watch.is_none() {
            client.session.transaction = None;
            resp::write::array(&mut self.scratch, here.len());
            for (_, reply) in &here {
                self.scratch.extend_from_slice(reply);
            }
            let silent = !client.session.take_reply_wanted();
            self.reply_here(client, id, silent, now);
            return None;
        }
        let watched = client.watch.is_some();
        let sending = Sending {
            request: &block.request,
            slot: block.slot.or(block.leaning.filter(|_| !watched)),
            keys: block.keys,
            writes: block.writes,
            form: if watched {
                Form::Leased(block.preludes)
            } else {
                Form::Block(block.preludes)
            },
            merge,
        };
        let blocked = if watched {
            self.lend((client, key), command, sending, Loan::Watched, now)
        } else {
            match self.forward((client, key), command, sending, now) {
                Took::Yes => None,
                Took::NoRoom => {
                    self.waiting_for_room.push(key);
                    Some(Blocked::Room)
                }
            }
        };
        if blocked.is_none() {
            client.session.transaction = None;
        }
        blocked
    }

    /// Whether a transaction over several slots is cut: not one that is to run only if all that it
    /// watches is as it was.
    fn cuts_transactions(&self, client: &State) -> bool {
        self.settings.cross_slot == CrossSlot::SplitTransactions && client.watch.is_none()
    }

    /// `EXEC` of a transaction over several slots, as one for each.
    fn exec_by_slot(
        &mut self,
        (client, key): (&mut State, Key),
        command: &Command,
        table: &CommandTable,
        now: Instant,
    ) -> Option<Blocked> {
        let transaction = client.session.transaction.take()?;
        let (cross_slot, hasher) = (self.settings.cross_slot, &self.hasher);
        let about = |request: &[u8]| {
            let anywhere = Share::Whole(None, Keys::none());
            let Ok(request) = OwnedRequest::parse(request.to_vec()) else {
                return (anywhere, false);
            };
            let request = request.as_request();
            let Ok(command) = table.lookup(request) else {
                return (anywhere, false);
            };
            let share = match routing::plan(command, request, cross_slot, hasher) {
                Plan::Slot { keys, .. } if command.is_publish() => Share::Whole(None, keys),
                Plan::Slot { slot, keys } | Plan::Blocking { slot, keys } => {
                    Share::Whole(Some(slot), keys)
                }
                Plan::Split(split) => Share::Cut(split),
                _ => anywhere,
            };
            (share, command.may_write())
        };
        let cut = transaction.by_slot(about);
        let here = self.answer_all(client, transaction.here(), table, now);
        let merge = Merge::blocks(cut.blocks.len(), cut.pieces, here);
        let mut bytes = Vec::new();
        let part = |(slot, block): (Slot, Block)| {
            let start = bytes.len();
            bytes.extend_from_slice(&block.request);
            Part {
                slot,
                keys: block.keys,
                node: None,
                request: start..bytes.len(),
                block: Some(PartBlock {
                    preludes: block.preludes,
                    writes: block.writes,
                }),
            }
        };
        let split = Split {
            parts: cut.blocks.into_iter().map(part).collect(),
            bytes: bytes.into(),
            merge,
        };
        match self.forward_split((client, key), command, split, now) {
            Took::Yes => None,
            Took::NoRoom => {
                client.session.transaction = Some(transaction);
                self.waiting_for_room.push(key);
                Some(Blocked::Room)
            }
        }
    }

    /// What `EXEC` says when the watched keys already rule it out.
    fn watch_failed(&self, client: &State, block: &Block) -> Option<Vec<u8>> {
        let watch = client.watch.as_ref()?;
        let mut reply = Vec::new();
        if !self.is_watched(watch) {
            // Nobody can say whether a watched key was written to.
            resp::write::null_array(&mut reply, client.session.protocol);
        } else if block.slot.is_some_and(|slot| slot != watch.slot) {
            resp::write::error(&mut reply, CROSSSLOT);
        } else {
            return None;
        }
        Some(reply)
    }

    /// The replies to what the proxy answers itself, and what puts them at their places.
    fn answer_queued(
        &mut self,
        client: &mut State,
        block: &Block,
        table: &CommandTable,
        now: Instant,
    ) -> (Option<Merge>, Lent) {
        let here = self.answer_all(client, &block.here, table, now);
        let merge = (!here.is_empty()).then(|| Merge::insert(here.clone()));
        (merge, here)
    }

    fn answer_all(
        &mut self,
        client: &mut State,
        requests: &[(usize, Vec<u8>)],
        table: &CommandTable,
        now: Instant,
    ) -> Lent {
        let mut here = Vec::with_capacity(requests.len());
        for (place, bytes) in requests {
            let mut out = Vec::new();
            if let Ok(request) = OwnedRequest::parse(bytes.clone())
                && let Ok(command) = table.lookup(request.as_request())
                && let Handling::Local(kind) = command.handling(request.as_request())
            {
                self.with_context(client, table, now, |session, context| {
                    local::answer(kind, request.as_request(), session, context, &mut out)
                });
            }
            here.push((*place, out));
        }
        here
    }

    /// `UNWATCH`, or `DISCARD` with watched keys: said to the node, so that the connection can serve
    /// another client.
    fn unwatch(
        &mut self,
        client: (&mut State, Key),
        command: &Command,
        now: Instant,
    ) -> Option<Blocked> {
        let slot = client.0.watch.as_ref().map(|watch| watch.slot);
        let sending = Sending {
            request: b"*1\r\n$7\r\nUNWATCH\r\n",
            slot,
            keys: Keys::none(),
            writes: false,
            form: Form::Leased(0),
            merge: None,
        };
        self.lend(client, command, sending, Loan::Watched, now)
    }

    /// A status that is made here.
    fn say(&mut self, client: &mut State, command: &Command, text: &str, now: Instant) {
        resp::write::simple(&mut self.scratch, text);
        let silent = !client.session.take_reply_wanted();
        self.reply_here(client, Some(command.id()), silent, now);
    }
}
