//! Addresses change behind names: those of nodes that are announced by name, and those of a seed.
#![allow(clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::time::Duration;

use keyway_tests::{
    Client, ClusterOptions, Keyway, Load, LoadOptions, NameServer, RealCluster, Settings, Version,
    text, wait_until,
};

const SHARDS: usize = 3;
const CLIENTS: usize = 10;

/// Nodes that listen at addresses of their own, and can move to others.
struct World {
    cluster: RealCluster,
    /// To each node, at the address that stays.
    nodes: Vec<Client>,
    names: NameServer,
}

impl World {
    /// The nodes have addresses in these subnets.
    fn new(subnets: [usize; 2]) -> Self {
        // For the bus this stays as it is: the nodes reach each other at all of these. Where
        // clients may come, is set below.
        let mut bind = vec!["127.0.0.1".to_owned()];
        let all = subnets.iter();
        bind.extend(all.flat_map(|subnet| (0..SHARDS).map(|node| address(*subnet, node))));
        let options = ClusterOptions {
            extra: vec!["--bind".to_owned(), bind.join(" ")],
            ..ClusterOptions::new(Version::V9_1, SHARDS, 0)
        };
        let cluster = RealCluster::with(options);
        Self {
            nodes: (0..SHARDS).map(|index| cluster.client(index)).collect(),
            cluster,
            names: NameServer::start(),
        }
    }

    fn configure(&mut self, node: usize, name: &str, value: &str) {
        let reply = self.nodes[node].cmd(&["CONFIG", "SET", name, value]);
        assert_eq!(text(&reply), "OK", "{name} {value}");
    }

    /// From now on clients of a node come to this address.
    fn listen(&mut self, node: usize, address: &str) {
        self.configure(node, "bind", &format!("127.0.0.1 {address}"));
    }

    /// Ends the connections to an address where the node does not listen any more.
    fn end(&mut self, node: usize, address: &str) {
        let at = format!("{address}:{}", self.port(node));
        self.nodes[node].cmd(&["CLIENT", "KILL", "LADDR", &at]);
    }

    /// Connections that came to an address of a node.
    fn count(&mut self, node: usize, address: &str) -> usize {
        let at = format!(" laddr={address}:{} ", self.port(node));
        let list = text(&self.nodes[node].cmd(&["CLIENT", "LIST"]));
        list.lines().filter(|line| line.contains(&at)).count()
    }

    fn port(&self, node: usize) -> u16 {
        self.cluster.nodes()[node].port()
    }

    /// All nodes tell the addresses of this subnet.
    fn wait_announced(&mut self, subnet: usize) {
        wait_until("nodes that know each other's addresses", 20, || {
            self.nodes.iter_mut().all(|client| {
                let nodes = text(&client.cmd(&["CLUSTER", "NODES"]));
                let all =
                    (0..SHARDS).all(|node| nodes.contains(&format!(" {}:", address(subnet, node))));
                let info = text(&client.cmd(&["CLUSTER", "INFO"]));
                all && info.contains("cluster_state:ok")
            })
        });
    }
    fn keyway(&self, seed: &str) -> Keyway {
        let section = format!(
            "[cluster]\nseeds = [{:?}]\nname_servers = [{:?}]\n",
            format!("{seed}:{}", self.port(0)),
            self.names.addr()
        );
        let mut keyway = Keyway::launch(&section, &Settings::default());
        keyway.wait_ready();
        keyway
    }
}

fn address(subnet: usize, node: usize) -> String {
    format!("127.0.{subnet}.{}", node + 1)
}

fn name(node: usize) -> String {
    format!("node-{node}.keyway.test")
}

fn start(keyway: &Keyway) -> Load {
    let options = LoadOptions {
        pause: Duration::from_millis(20),
        ..LoadOptions::new(CLIENTS)
    };
    Load::start(&keyway.addr(), keyway.ca(), &options)
}

/// Connections that were cut may have carried writes; nothing else shows.
#[track_caller]
fn assert_right(load: Load) {
    load.wait_rounds(3 * CLIENTS as u64);
    let report = load.stop();
    assert!(report.verified > 0);
    assert!(
        report.is_right(),
        "{:?}\n{}",
        report.errors,
        report.told(20)
    );
}

#[test]
fn nodes_that_are_announced_by_name_are_found_at_their_new_addresses() {
    let mut world = World::new([1, 2]);
    for node in 0..SHARDS {
        world.listen(node, &address(1, node));
        world.names.set(&name(node), &[&address(1, node)]);
        world.configure(node, "cluster-announce-hostname", &name(node));
        world.configure(node, "cluster-preferred-endpoint-type", "hostname");
    }
    wait_until("nodes that know each other's names", 20, || {
        world.nodes.iter_mut().all(|client| {
            let slots = format!("{:?}", client.cmd(&["CLUSTER", "SLOTS"]));
            (0..SHARDS).all(|node| slots.contains(&name(node)))
        })
    });
    let keyway = world.keyway(&name(0));
    let load = start(&keyway);
    for node in 0..SHARDS {
        assert!(world.count(node, &address(1, node)) > 0, "not by its name");
    }
    for node in 0..SHARDS {
        let (old, new) = (address(1, node), address(2, node));
        world.listen(node, &new);
        world.names.set(&name(node), &[&new]);
        world.end(node, &old);
        wait_until("connections at the new address", 10, || {
            world.count(node, &new) > 0
        });
        load.wait_rounds(2 * CLIENTS as u64);
        assert_eq!(world.count(node, &old), 0);
    }
    assert_right(load);
}

#[test]
fn a_seed_is_found_at_its_new_address_when_all_others_have_gone() {
    let mut world = World::new([3, 4]);
    let seed = "seed.keyway.test";
    for node in 0..SHARDS {
        world.listen(node, &address(3, node));
        world.configure(node, "cluster-announce-ip", &address(3, node));
    }
    world.wait_announced(3);
    world.names.set(seed, &[&address(3, 0)]);
    let keyway = world.keyway(seed);
    let load = start(&keyway);
    // From here on nobody can be asked at an address that Keyway knows, so nobody can tell it the
    // new ones. The connections it has go on.
    for node in 0..SHARDS {
        world.listen(node, &address(4, node));
    }
    for node in 0..SHARDS {
        world.configure(node, "cluster-announce-ip", &address(4, node));
    }
    world.wait_announced(4);
    load.wait_rounds(2 * CLIENTS as u64);
    for node in 0..SHARDS {
        assert_eq!(world.count(node, &address(4, node)), 0, "known already");
    }
    // The first of two addresses is the dead one.
    world.names.set(seed, &[&address(3, 0), &address(4, 0)]);
    for node in 0..SHARDS {
        world.end(node, &address(3, node));
    }
    for node in 0..SHARDS {
        wait_until("connections at the new address", 10, || {
            world.count(node, &address(4, node)) > 0
        });
        assert_eq!(world.count(node, &address(3, node)), 0);
    }
    assert_right(load);
}
