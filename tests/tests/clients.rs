//! Every client works through Keyway with nothing but host, port and CA, before a cluster of each
//! version: about seventy operations, a pipeline of ten thousand commands, RESP2 and RESP3.

use std::panic::{AssertUnwindSafe, catch_unwind};

use keyway_tests::{
    Keyway, Mode, RealCluster, Target, Version, run_node_suite, run_python_suite,
    run_redis_rs_suite,
};

type Suite = (&'static str, fn(Target<'_>));

const SUITES: [Suite; 8] = [
    ("redis-py", |target| {
        run_python_suite("redis_py.py", target, 4)
    }),
    ("valkey-py", |target| {
        run_python_suite("valkey_py.py", target, 4)
    }),
    ("valkey-glide", |target| {
        run_python_suite("valkey_glide.py", target, 4)
    }),
    ("valkey-cli and valkey-benchmark", |target| {
        run_python_suite("valkey_tools.py", target, 10)
    }),
    ("ioredis", |target| run_node_suite("ioredis.js", target, 4)),
    ("iovalkey", |target| {
        run_node_suite("iovalkey.js", target, 2)
    }),
    ("node-redis", |target| {
        run_node_suite("node_redis.js", target, 4)
    }),
    ("redis-rs", run_redis_rs_suite),
];

/// Runs all suites, also after one failed, and names those that did.
fn run_all(version: Version) {
    let cluster = RealCluster::start(version, 3, 1);
    let keyway = Keyway::start(&cluster);
    let target = Target {
        port: keyway.port(),
        ca: keyway.ca(),
        mode: Mode::All,
        splits: true,
    };
    let failed: Vec<&str> = SUITES
        .iter()
        .filter(|(_, run)| catch_unwind(AssertUnwindSafe(|| run(target))).is_err())
        .map(|(name, _)| *name)
        .collect();
    assert!(
        failed.is_empty(),
        "clients that failed before {version:?}: {failed:?}"
    );
    assert!(!keyway.log().contains("panicked"), "a panic in keyway");
}

#[test]
fn every_client_works_before_valkey_9_1() {
    run_all(Version::V9_1);
}

#[test]
fn every_client_works_before_valkey_8_0_over_tls() {
    run_all(Version::V8_0Tls);
}
