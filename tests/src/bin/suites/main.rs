//! `./tests/suites [NAME]`: the tests that client libraries ship in their packages, on one real
//! server and through Keyway, with the library's client for one server.
//!
//! What passes on the server and does not pass through Keyway must be in `tests/rows/NAME.tsv` with
//! a reason, and what is there must not pass: the list stays true.
//!
//! Not here are the Node clients `@redis/client`, `redis`, `ioredis`, `iovalkey` and
//! `@valkey/valkey-glide`: what they publish has no tests.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a tool for developers: it prints, and a panic is how it fails"
)]

mod list;
mod outcome;
mod python;
mod rust;

use std::env;
use std::process::ExitCode;

use keyway_tests::{ClusterOptions, Keyway, RealCluster, Standalone, Version};

use crate::list::compare;
use crate::outcome::Outcomes;

/// A library with the tests that its package has.
struct Suite {
    /// Also the name of its list in `tests/rows`.
    name: &'static str,
    version: &'static str,
    client: Client,
}

enum Client {
    Python(&'static python::Library),
    Rust,
}

const SUITES: [Suite; 3] = [
    Suite {
        name: "valkey-py",
        version: python::VALKEY.version,
        client: Client::Python(&python::VALKEY),
    },
    Suite {
        name: "redis-py",
        version: python::REDIS.version,
        client: Client::Python(&python::REDIS),
    },
    Suite {
        name: "redis-rs",
        version: rust::VERSION,
        client: Client::Rust,
    },
];

impl Suite {
    fn on_server(&self, server: &Standalone, only: &[&String]) -> Outcomes {
        let port = server.node().port();
        match self.client {
            Client::Python(library) => {
                let [scheme, _] = library.schemes;
                python::outcomes(library, &format!("{scheme}://127.0.0.1:{port}/0"), only)
            }
            Client::Rust => rust::outcomes(&rust::Server::Own, only),
        }
    }

    fn through_keyway(&self, keyway: &Keyway, only: &[&String]) -> Outcomes {
        let (port, ca) = (keyway.port(), keyway.ca().display());
        match self.client {
            Client::Python(library) => {
                let [_, scheme] = library.schemes;
                let url = format!("{scheme}://127.0.0.1:{port}/0?ssl_ca_certs={ca}");
                python::outcomes(library, &url, only)
            }
            Client::Rust => rust::outcomes(&rust::Server::Keyway(port), only),
        }
    }

    /// Runs the tests; true when the list is.
    fn run(&self) -> bool {
        let title = format!("{} {}", self.name, self.version);
        println!("{title}: on one server");
        let passed = self.on_server(&Standalone::start_9_1(), &[]);
        let count = passed.all_passed().count();
        assert!(count > 100, "{title}: only {count} tests pass on a server");
        println!("{title}: through Keyway");
        let mut options = ClusterOptions::new(Version::V9_1, 3, 0);
        options.extra = vec!["--cluster-databases".to_owned(), "16".to_owned()];
        let cluster = RealCluster::with(options);
        let seen = self.through_keyway(&Keyway::start(&cluster), &[]);
        let again = |names: &[&String]| {
            let server = self.on_server(&Standalone::start_9_1(), names);
            let keyway = self.through_keyway(&Keyway::start(&cluster), names);
            (server, keyway)
        };
        compare(self.name, &title, [&passed, &seen], again)
    }
}

fn main() -> ExitCode {
    if let Ok(port) = env::var(rust::STAND_IN) {
        rust::stand_in(&port);
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<String> = env::args().skip(1).collect();
    let known = |name: &String| SUITES.iter().any(|suite| suite.name == name);
    if !wanted.iter().all(known) {
        let names = SUITES.map(|suite| suite.name).join(", ");
        println!("usage: ./tests/suites [NAME], where NAME is one of {names}");
        return ExitCode::FAILURE;
    }
    let chosen = |suite: &&Suite| wanted.is_empty() || wanted.iter().any(|name| name == suite.name);
    let truths: Vec<bool> = SUITES.iter().filter(chosen).map(Suite::run).collect();
    if truths.contains(&false) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
