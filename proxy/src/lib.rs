//! The IO shell of Keyway: everything that touches sockets, files, the clock and the environment.
//! Decisions live in the pure crates; what is here moves bytes, starts threads and says what happens.
//!
//! - [`config`]: the TOML file, in two stages. [`tls`]: certificates and keys.
//! - [`server`]: what is started, in which order, and how it ends; [`acceptor`] takes connections in.
//! - [`drain`]: how it ends. [`reload`]: files that are read again while it runs.
//! - [`worker`]: one thread with its dataplane; a task for each client and each node connection.
//! - [`net`]: connections as the system has them, or as a simulation does.
//! - [`metrics`], [`admin`], [`telemetry`], `traces`, [`outlets`]: what is seen from outside.
//! - `fleet`: every node at once, for the tools that move slots and add and remove nodes.
//! - [`cli`] and [`demo`]: the command line, and everything at once on one machine.

pub mod acceptor;
mod access;
pub mod admin;
pub mod cli;
mod clock;
pub mod config;
pub mod contract;
pub mod demo;
mod directory;
mod discovery;
pub mod dns;
mod downstream;
pub mod drain;
pub mod events;
mod expiry;
pub mod files;
mod fleet;
pub mod heat;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod outlets;
pub mod reload;
pub mod report;
pub mod server;
pub mod slow;
pub mod status;
pub mod systemd;
pub mod telemetry;
pub mod tls;
mod tools;
mod traces;
mod upstream;
mod users;
pub mod worker;
