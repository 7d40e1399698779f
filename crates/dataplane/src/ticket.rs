//! What goes into a pipeline with a command and comes back with its reply.

use command::{Command, KindSet};
use resp::Protocol;
use routing::{Slot, retry::Nature};
use session::{Form, Place};

use crate::{coalesce::Group, slots::Key};

/// What a command is about, as far as that matters when its reply has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// No keys; or those of every shard.
    Nothing,
    /// Keys of this slot, whose heat it counts for.
    Keys(Slot),
    /// A page of `SCAN`, from this slot on.
    Page(Slot),
}

impl About {
    /// What keys of a slot make of it.
    #[inline]
    pub(crate) fn or_keys_of(self, slot: Option<Slot>) -> Self {
        slot.map_or(self, Self::Keys)
    }
}

/// Who waits for a reply, and what it may look like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(crate) client: Key,
    pub(crate) place: Place,
    pub(crate) part: u16,
    /// Others that get the same reply.
    pub(crate) group: Group,
    pub(crate) kinds: KindSet,
    pub(crate) hops: u8,
    /// It was sent behind an `ASKING`.
    pub(crate) asked: bool,
    /// It is a question in place of a script: what a node says to it is not the client's reply.
    pub(crate) confirms: bool,
    pub(crate) nature: Nature,
    /// The node was given the script first.
    pub(crate) loaded: bool,
    preludes: u16,
    /// It begins a subscription (of a topic): a push is its reply. Or it ends one: what is behind
    /// it has the reply.
    pub(crate) topic: Option<Option<Key>>,
    pub(crate) about: About,
    patient: bool,
    is_exec: bool,
    waits: bool,
    /// Whatever the node says but that the user may not: it is not the client's reply.
    pub(crate) probe: bool,
}

impl Ticket {
    /// The ticket of one part of a command. What `writes` is told for a transaction is said of its
    /// commands, not of `EXEC`.
    pub(crate) fn new(
        client: Key,
        (place, part): (Place, u16),
        command: &Command,
        (form, writes): (Form, bool),
        protocol: Protocol,
    ) -> Self {
        let confirms = form == Form::Confirm;
        let nature = Nature {
            may_write: writes && !confirms,
            script: command.is_script() && !confirms,
        };
        let preludes = match form {
            Form::Block(preludes)
            | Form::Leased(preludes)
            | Form::Wait(preludes)
            | Form::Page(_, preludes) => preludes,
            Form::Plain | Form::Read | Form::Loaded | Form::Confirm | Form::Probe | Form::Watch => {
                0
            }
        };
        Self {
            client,
            place,
            part,
            group: Group::NONE,
            kinds: if matches!(form, Form::Probe | Form::Confirm) {
                KindSet::ANY
            } else {
                command.reply_kinds(protocol)
            },
            hops: 0,
            asked: false,
            confirms,
            nature,
            loaded: form == Form::Loaded,
            preludes,
            topic: None,
            about: match form {
                Form::Page(slot, _) => About::Page(slot),
                _ => About::Nothing,
            },
            patient: matches!(form, Form::Leased(0) | Form::Wait(_)) && command.is_blocking(),
            waits: matches!(form, Form::Wait(_)),
            probe: form == Form::Probe,
            is_exec: preludes > 0 && command.name() == "exec",
        }
    }

    /// The ticket of a subscription that begins, or of one that ends. No client has it.
    pub(crate) fn of_topic(topic: Option<Key>) -> Self {
        let nobody = Key {
            index: u32::MAX,
            generation: u32::MAX,
        };
        Self {
            client: nobody,
            place: Place(0),
            part: 0,
            group: Group::NONE,
            kinds: KindSet::ANY,
            hops: 0,
            asked: false,
            confirms: false,
            nature: Nature {
                may_write: false,
                script: false,
            },
            loaded: false,
            preludes: 0,
            topic: Some(topic),
            about: About::Nothing,
            patient: false,
            is_exec: false,
            probe: false,
            waits: false,
        }
    }

    /// As how many commands it counts: those of a transaction count each.
    #[inline]
    pub(crate) fn operations(&self) -> u64 {
        if self.is_exec {
            u64::from(self.preludes.saturating_sub(1).max(1))
        } else {
            1
        }
    }

    /// The ticket of what nobody waits for: whatever is answered is left.
    pub(crate) fn of_nobody() -> Self {
        Self {
            topic: None,
            ..Self::of_topic(None)
        }
    }

    /// The ticket of one part of a question that a near cache asks.
    pub(crate) fn of_near((number, part): (u32, u16)) -> Self {
        Self {
            place: Place(number),
            part,
            group: Group::NEAR,
            topic: None,
            ..Self::of_topic(None)
        }
    }

    /// Whether others' replies come before its own.
    pub(crate) fn is_block(&self) -> bool {
        self.preludes > 0
    }

    /// Whether it is a client's transaction.
    pub(crate) fn is_exec(&self) -> bool {
        self.is_exec
    }
}

impl upstream::Ticket for Ticket {
    #[inline]
    fn accepts(&self, first_byte: u8) -> bool {
        match self.topic {
            None => self.kinds.contains(first_byte),
            Some(Some(_)) => first_byte == b'-',
            Some(None) => matches!(first_byte, b'-' | b'%'),
        }
    }

    #[inline]
    fn skips_errors(&self) -> bool {
        self.topic == Some(None)
    }

    #[inline]
    fn preludes(&self) -> u16 {
        self.preludes
    }

    #[inline]
    fn needs_preludes(&self) -> bool {
        self.waits
    }

    #[inline]
    fn is_patient(&self) -> bool {
        self.patient
    }
}
