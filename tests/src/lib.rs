//! The harness of Keyway's end-to-end tests: real Valkey servers and clusters, the `keyway` binary,
//! a small blocking client, and the client suites in other languages.
//!
//! Test support only, never imported by the product. Everything listens on loopback, on ports that
//! are reserved across processes ([`ports`]), and ends by its process id when its value is dropped.
//! What has to be installed is found through [`tools`]; `./tests/run` installs it.
//!
//! The harness panics when the world is not as it should be: that is a test's way to fail.
//!
//! Main types: [`RealCluster`] and [`Standalone`] are what Keyway stands in front of, [`Keyway`] is
//! the binary under test, [`Client`] talks to either.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test support: a panic is how a test fails"
)]

mod certificates;
pub mod chaos;
mod client;
mod cluster;
mod collector;
pub mod hot_keys;
mod keyway;
mod load;
mod names;
mod node;
mod observer;
pub mod ports;
mod process;
mod redis_rs;
mod relay;
mod suites;
pub mod tenants;
pub mod tools;
mod traffic;
mod wait;

pub use certificates::{Certificates, Identity, trusting};
pub use client::{Client, frame, show, text};
pub use cluster::{ClusterOptions, RealCluster, slot_of};
pub use collector::{Collector, Collects, Taken, attribute};
pub use keyway::{Keyway, Settings, http_answer, http_get};
pub use load::{Fault, Load, LoadOptions, Mistake, Report};
pub use names::NameServer;
pub use node::{Node, Standalone, Version};
pub use observer::{Observer, Watch};
pub use process::{Output, run_to_end, signal};
pub use redis_rs::run_redis_rs_suite;
pub use relay::{Relay, Toward};
pub use rustix::process::Signal;
pub use suites::{Mode, Target, run_node_suite, run_python_suite};
pub use traffic::{Problem, Traffic};
pub use wait::{wait_until, within};
