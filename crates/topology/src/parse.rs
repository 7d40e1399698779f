//! What a node answers to `CLUSTER SHARDS` and `CLUSTER SLOTS`, in either protocol.

mod fields;
mod shards;
mod slots;

pub use shards::parse_shards;
pub use slots::parse_slots;

#[cfg(test)]
mod tests;
