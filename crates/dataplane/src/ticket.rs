//! What goes into a pipeline with a command and comes back with its reply.

use command::{Command, KindSet};
use resp::Protocol;
use routing::retry::Nature;
use session::Place;

use crate::slots::Key;

/// Who waits for a reply, and what it may look like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(crate) client: Key,
    pub(crate) place: Place,
    pub(crate) part: u16,
    pub(crate) kinds: KindSet,
    pub(crate) hops: u8,
    pub(crate) nature: Nature,
}

impl Ticket {
    pub(crate) fn new(
        client: Key,
        place: Place,
        part: u16,
        command: &Command,
        protocol: Protocol,
    ) -> Self {
        let nature = Nature {
            may_write: command.may_write(),
            script: command.is_script(),
        };
        Self {
            client,
            place,
            part,
            kinds: command.reply_kinds(protocol),
            hops: 0,
            nature,
        }
    }
}

impl upstream::Ticket for Ticket {
    #[inline]
    fn accepts(&self, first_byte: u8) -> bool {
        self.kinds.contains(first_byte)
    }
}
