//! Users and commands that the configuration names, before real clusters.

use keyway_tests::{
    Certificates, Client, ClusterOptions, Keyway, RealCluster, Settings, Version, text,
};

const WRONGPASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.";
const NOAUTH: &str = "-NOAUTH Authentication required.";
const NO_KEY: &str = "-NOPERM No permissions to access a key";

#[track_caller]
fn assert_reply(client: &mut Client, args: &[&str], expected: &str) {
    assert_eq!(text(&client.cmd(args)), expected, "{args:?}");
}

fn cluster(replicas: usize) -> RealCluster {
    let user = |name: &str| (name.to_owned(), format!(">{name}-pw ~{name}:* +@all"));
    RealCluster::with(ClusterOptions {
        users: vec![user("blue"), user("green")],
        ..ClusterOptions::new(Version::V9_1, 3, replicas)
    })
}

fn environment() -> Vec<(String, String)> {
    let all = [
        ("ONE", "one-pw"),
        ("TWO", "two-pw"),
        ("BLUE", "blue-pw"),
        ("GREEN", "green-pw"),
        ("WRONG", "wrong"),
    ];
    all.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

#[test]
fn a_mapped_user_runs_as_another_on_the_cluster() {
    let cluster = cluster(0);
    let sections = "\
[users.one]
password_env = 'ONE'
cluster_username = 'blue'
cluster_password_env = 'BLUE'
[users.two]
password_env = 'TWO'
cluster_username = 'blue'
cluster_password_env = 'WRONG'
[users.green]
password_env = 'GREEN'
";
    let settings = Settings {
        sections: sections.to_owned(),
        environment: environment(),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let mut client = keyway.client();
    assert_reply(&mut client, &["AUTH", "one", "blue-pw"], WRONGPASS);
    assert_reply(&mut client, &["AUTH", "one", ""], WRONGPASS);
    assert_reply(&mut client, &["AUTH", "one", "one-pw"], "OK");
    assert_reply(&mut client, &["SET", "blue:1", "b"], "OK");
    assert_reply(&mut client, &["GET", "green:1"], NO_KEY);
    // The client cannot know what is wrong there, and stays who it was.
    let said = text(&client.cmd(&["AUTH", "two", "two-pw"]));
    assert!(said.starts_with("-ERR KEYWAY.UPSTREAM_AUTH "), "{said}");
    assert_reply(&mut client, &["GET", "blue:1"], "b");
    assert_reply(&mut client, &["AUTH", "green", "green-pw"], "OK");
    assert_reply(&mut client, &["GET", "blue:1"], NO_KEY);
    // Who is not in the configuration is the cluster's business alone.
    assert_reply(&mut client, &["AUTH", "blue", "blue-pw"], "OK");
    assert_reply(&mut client, &["GET", "blue:1"], "b");
    assert_reply(&mut client, &["AUTH", "blue", "one-pw"], WRONGPASS);
}

#[test]
fn a_password_for_default_is_wanted_from_everyone() {
    let cluster = cluster(0);
    let sections = "[users.default]\npassword_env = 'ONE'\ncluster_username = 'blue'\n\
                    cluster_password_env = 'BLUE'\n";
    let settings = Settings {
        sections: sections.to_owned(),
        environment: environment(),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let mut client = keyway.client();
    assert_reply(&mut client, &["GET", "blue:1"], NOAUTH);
    assert_reply(&mut client, &["AUTH", "wrong"], WRONGPASS);
    assert_reply(&mut client, &["AUTH", "one-pw"], "OK");
    assert_reply(&mut client, &["SET", "blue:1", "x"], "OK");
    assert_reply(&mut client, &["SET", "green:1", "x"], NO_KEY);
    assert_reply(&mut client, &["RESET"], "RESET");
    assert_reply(&mut client, &["GET", "blue:1"], NOAUTH);
}

#[test]
fn a_certificate_names_the_user() {
    let cluster = cluster(0);
    let authority = Certificates::loopback();
    let sections = "\
[users.one]
certificate = 'one.example'
cluster_username = 'blue'
cluster_password_env = 'BLUE'
[users.two]
certificate = 'Two'
cluster_username = 'green'
cluster_password_env = 'GREEN'
";
    let settings = Settings {
        listen_tls: format!("client_ca = {:?}\nclient_auth = 'optional'", authority.ca),
        sections: sections.to_owned(),
        environment: environment(),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let connect = |common_name: &str, names: &[&str]| {
        let identity = authority.identity(common_name, names);
        Client::try_connect_as(&keyway.addr(), keyway.ca(), Some(&identity)).expect("a connection")
    };
    let mut one = connect("something", &["other.example", "one.example"]);
    assert_reply(&mut one, &["SET", "blue:1", "1"], "OK");
    assert_reply(&mut one, &["SET", "green:1", "1"], NO_KEY);
    let mut two = connect("Two", &[]);
    assert_reply(&mut two, &["SET", "green:1", "2"], "OK");
    assert_reply(&mut two, &["GET", "blue:1"], NO_KEY);
    // No password makes anyone a user that only a certificate names.
    assert_reply(&mut two, &["AUTH", "one", ""], WRONGPASS);
    assert_reply(&mut two, &["AUTH", "blue", "blue-pw"], "OK");
    assert_reply(&mut two, &["GET", "blue:1"], "1");
    assert_reply(&mut two, &["RESET"], "RESET");
    assert_reply(&mut two, &["GET", "green:1"], "2");
    assert_reply(&mut two, &["GET", "blue:1"], NO_KEY);
    // A certificate that names nobody, and none at all: as before, Valkey's default user.
    let mut nobody = connect("nobody", &["x.example"]);
    assert_reply(&mut nobody, &["SET", "other", "3"], "OK");
    assert_reply(&mut keyway.client(), &["GET", "other"], "3");
    let list = text(&one.cmd(&["CLIENT", "LIST", "USER", "two"]));
    assert_eq!(
        list.lines()
            .filter(|line| line.contains(" user=two "))
            .count(),
        1,
        "{list}"
    );
}

#[test]
fn an_admin_command_that_is_allowed_reaches_every_node() {
    let cluster = cluster(1);
    let settings = Settings {
        sections: "[admin_commands]\nallow = ['CONFIG SET', 'acl|setuser', 'ACL LIST']\n"
            .to_owned(),
        ..Settings::default()
    };
    let keyway = Keyway::with(&cluster, &settings);
    let mut client = keyway.client();
    assert_reply(
        &mut client,
        &["CONFIG", "SET", "slowlog-max-len", "77"],
        "OK",
    );
    assert_reply(
        &mut client,
        &["ACL", "SETUSER", "red", "on", ">red-pw", "~*", "+@all"],
        "OK",
    );
    for index in 0..cluster.nodes().len() {
        let mut node = cluster.client(index);
        let shown = text(&node.cmd(&["CONFIG", "GET", "slowlog-max-len"]));
        assert!(shown.contains("77"), "{shown}");
        assert_reply(&mut node, &["AUTH", "red", "red-pw"], "OK");
    }
    assert!(text(&client.cmd(&["ACL", "LIST"])).contains("user red "));
    let said = text(&client.cmd(&["CONFIG", "SET", "slowlog-max-len", "many"]));
    assert!(said.starts_with("-ERR "), "{said}");
    assert_reply(
        &mut client,
        &["ACL", "DELUSER", "red"],
        "-ERR command 'acl|deluser' is not allowed through Keyway",
    );
    assert_reply(&mut client, &["AUTH", "red", "red-pw"], "OK");
    assert_reply(&mut client, &["SET", "k", "v"], "OK");
}
