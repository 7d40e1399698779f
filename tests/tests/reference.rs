//! The client suites against real servers, without Keyway: what fails here is the suite's fault,
//! what fails only in `clients.rs` is Keyway's.

use keyway_tests::{
    Mode, RealCluster, Standalone, Target, Version, run_node_suite, run_python_suite,
    run_redis_rs_suite,
};

#[test]
fn every_client_passes_on_a_standalone_server() {
    let server = Standalone::start();
    let target = Target {
        port: server.node().port(),
        ca: server.ca(),
        mode: Mode::Standalone,
        splits: true,
    };
    run_python_suite("redis_py.py", target, 2);
    run_python_suite("valkey_py.py", target, 2);
    run_python_suite("valkey_glide.py", target, 2);
    run_python_suite("valkey_tools.py", target, 7);
    run_node_suite("ioredis.js", target, 2);
    run_node_suite("iovalkey.js", target, 1);
    run_node_suite("node_redis.js", target, 2);
    run_redis_rs_suite(target);
}

#[test]
fn every_cluster_client_passes_on_a_cluster_of_one() {
    // One shard, as Keyway looks to its clients; a real cluster refuses keys of several slots.
    let cluster = RealCluster::start(Version::V8_0Tls, 1, 1);
    let node = &cluster.nodes()[0];
    let ca = node.ca().expect("TLS").to_owned();
    let target = Target {
        port: node.port(),
        ca: &ca,
        mode: Mode::Cluster,
        splits: false,
    };
    run_python_suite("redis_py.py", target, 2);
    run_python_suite("valkey_py.py", target, 2);
    run_python_suite("valkey_glide.py", target, 2);
    run_python_suite("valkey_tools.py", target, 3);
    run_node_suite("ioredis.js", target, 2);
    run_node_suite("iovalkey.js", target, 1);
    run_node_suite("node_redis.js", target, 2);
    run_redis_rs_suite(Target {
        splits: true,
        ..target
    });
}
