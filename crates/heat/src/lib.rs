//! Where load sits and what to move: pure, shared by `cluster-sim` and the proxy's tools.
//!
//! Owns: what one worker counts ([`HotKeys`], [`BigKeys`], [`SlotCounts`], by way of a [`SlotLog`]); which slots go where, so that the
//! nodes of a cluster are equally busy ([`Balancer`]); which node leaves a busy host, and for which
//! ([`Chooser`]); how many nodes there should be ([`Scaler`]), from what is and what is expected
//! ([`Forecast`]). Every decision is a function of its arguments; chance comes as a seed ([`Rng`]).
//!
//! Will never contain: how load is measured or a plan carried out, sockets, clocks.

mod balance;
mod big;
mod evict;
mod forecast;
mod keys;
mod log;
mod rng;
mod scale;
mod slots;
mod top;

pub use balance::{BalanceRules, Balancer, NodeLoad, Plan, SlotLoad, SlotMove};
pub use big::{BIG_BYTES_MIN, BigKey, BigKeys};
pub use evict::{Chooser, Eviction, EvictionRules, HostHeat, NodeHeat, Policy};
pub use forecast::Forecast;
pub use keys::{HotKeys, Sampling};
pub use log::SlotLog;
pub use rng::Rng;
pub use scale::{Change, ScaleRules, ScaleView, Scaler, Step};
pub use slots::{SlotCount, SlotCounts};
pub use top::{HotKey, KEY_BYTES_MAX, Top};
