//! What a command is: its table entry, its keys, the shapes of its reply, and who answers it.
//!
//! Owns: the table of Valkey's commands ([`CommandTable`], [`Command`]), built in from the server's
//! own and extended from a cluster's `COMMAND` reply; looking a request up in the server's words
//! when it fails ([`LookupError`]); key extraction for every kind of key spec ([`Command::keys`]);
//! the legal first bytes of a reply ([`KindSet`]); what Keyway does with a command at all
//! ([`Handling`]), default-deny but for what [`CommandTable::allow`] names; and the replies of `COMMAND` and its subcommands
//! ([`introspect`]).
//!
//! Will never contain: slots, nodes, connections, or what a session has in progress. Everything is
//! a function of the table and one request.

mod allow;
mod builtin;
mod category;
mod extend;
mod flags;
mod handling;
mod index;
pub mod introspect;
mod keys;
mod kinds;
mod lookup;
mod nature;
mod notation;
mod number;
mod spec;
mod table;
#[cfg(test)]
mod testing;

pub use allow::NotAllowed;
pub use category::Categories;
pub use extend::ExtendError;
pub use flags::{Flags, KeyFlags};
pub use handling::{
    FanOut, Handling, LocalKind, NotBuilt, Refusal, SplitKind, Subscription, TopicKind,
    TransactionKind, probed,
};
pub use keys::{KeyError, KeyRef, KeyRefs};
pub use kinds::KindSet;
pub use lookup::LookupError;
pub use spec::{BeginSearch, FindKeys, KeySpec};
pub use table::{Command, CommandId, CommandTable, LABEL_OTHER};
