//! From a command and a topology to what becomes of it.
//!
//! Owns the plan ([`plan`]), the splitting of commands whose keys lie in several slots and the
//! merging of the replies ([`Split`], [`Merge`]), the reading of redirects ([`Redirect`]) and the
//! one table that says whether something may be sent again ([`retry::verdict`]).
//!
//! Never here: connections, sessions, waiting, counting. Everything is a function of its arguments.

mod error;
mod keys;
mod merge;
mod plan;
pub mod retry;
mod split;

pub use error::{ErrorClass, Redirect};
pub use keys::Keys;
pub use merge::{Merge, Page, Piece};
pub use plan::{CrossSlot, Plan, plan};
pub use split::{Part, PartBlock, SPLIT_KEYS_MAX, Split};
// The words that a plan is made of, for those who see routing but not the topology.
pub use topology::{NodeAddr, Slot};
