//! The load generator: drives one or several TLS (or plain) endpoints with mixed, pipelined
//! requests and verifies every reply.
//!
//! Any endpoint that speaks RESP will do: Keyway, a node itself, a peer. Reading order: [`Args`]
//! is what was typed and [`Settings`] what it means; [`workload`] and [`pace`] are pure and decide
//! what is sent and when; `lane`, `client` and `transport` move the bytes, `worker` is one thread
//! of them; [`run()`] hands out turns and collects a [`Report`].
//!
//! Several targets make a duel: connections to all are held, one target at a time is driven for a
//! turn, and figures are compared turn by turn, so that a noisy machine is noisy to all alike.

mod args;
mod client;
mod cpu;
mod lane;
pub mod pace;
pub mod pair;
mod report;
mod run;
mod settings;
pub mod stats;
mod timer;
mod transport;
mod worker;
pub mod workload;

pub use args::Args;
pub use cpu::CpuTime;
pub use report::{Report, TargetReport};
pub use run::{Stage, run, run_watched};
pub use settings::Settings;
