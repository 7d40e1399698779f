//! The IO shell of Keyway: everything that touches sockets, files, the clock and the environment.
//! Decisions live in the pure crates; what is here moves bytes, starts threads and says what happens.
//!
//! - [`config`]: the TOML file, in two stages. [`tls`]: certificates and keys.
//! - [`server`]: what is started, in which order, and how it ends; [`acceptor`] takes connections in.
//! - [`drain`]: how it ends. [`reload`]: files that are read again while it runs.
//! - [`worker`]: one thread with its dataplane; a task for each client and each node connection.
//! - [`metrics`], [`admin`], [`telemetry`]: what is seen from outside.
//! - [`cli`] and [`demo`]: the command line, and everything at once on one machine.

pub mod acceptor;
pub mod admin;
pub mod cli;
pub mod config;
pub mod contract;
pub mod demo;
mod discovery;
pub mod dns;
mod downstream;
pub mod drain;
pub mod files;
pub mod memory;
pub mod metrics;
pub mod reload;
pub mod server;
pub mod systemd;
pub mod telemetry;
pub mod tls;
mod upstream;
mod users;
pub mod worker;
