//! What a new configuration changes: at once, or only after a restart. Secrets are compared and
//! never shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{ClusterId, Config, Credentials, Tenant};

/// Keys that only count at the start: they are about sockets that are bound, threads that run, and
/// who the proxy itself is.
const AT_START: [&str; 3] = ["listen.workers", "listen.reuse_port", "log.format"];

/// What differs between the configuration in force and a new one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys that count from now on.
    pub live: Vec<String>,
    /// Keys that stay as they were until Keyway is started again.
    pub at_start: Vec<String>,
    /// Names of clusters that there were not.
    pub came: Vec<String>,
    /// Names of clusters that there are no more.
    pub went: Vec<String>,
    /// Clusters of which nothing differs.
    pub same: BTreeSet<ClusterId>,
}

impl Config {
    /// Makes this the successor of the one in force: what counts only at the start stays as it is
    /// there. Returns what differs.
    #[must_use = "somebody waits for the report"]
    pub fn succeed(&mut self, before: &Self) -> Changes {
        let (new, old) = (std::mem::take(&mut self.clusters), &before.clusters);
        if !old.is_empty() || !new.is_empty() {
            self.cluster = before.cluster.clone();
            self.users.clone_from(&before.users);
        }
        let mut changes = self.succeed_alone(&Self {
            clusters: Vec::new(),
            ..before.clone()
        });
        self.clusters_ever = before.clusters_ever;
        let ids = std::iter::repeat_with(|| {
            self.clusters_ever += 1;
            ClusterId::nth(self.clusters_ever - 1)
        });
        let (next, theirs) = succeed_each(new, before, &changes, ids);
        self.clusters = next;
        changes.live.extend(theirs.live);
        changes.at_start.extend(theirs.at_start);
        Changes {
            live: changes.live,
            at_start: changes.at_start,
            ..theirs
        }
    }

    fn succeed_alone(&mut self, before: &Self) -> Changes {
        // A port that the system chose stays the system's choice.
        for (own, bound) in [
            (&mut self.listen.address, before.listen.address),
            (&mut self.admin.address, before.admin.address),
        ] {
            if own.port() == 0 && own.ip() == bound.ip() {
                own.set_port(bound.port());
            }
        }
        if let (Some(own), Some(bound)) = (&mut self.reads.address, before.reads.address)
            && own.port() == 0
            && own.ip() == bound.ip()
        {
            own.set_port(bound.port());
        }
        let changes = compare(before, self);
        self.keep_what_is_of_the_process(before);
        if self.cluster.tls.is_some() != before.cluster.tls.is_some() {
            self.cluster.tls.clone_from(&before.cluster.tls);
        }
        changes
    }
}

impl Config {
    /// What counts at the start alone and is the same for all clusters.
    fn keep_what_is_of_the_process(&mut self, before: &Self) {
        self.listen.workers = before.listen.workers;
        self.listen.reuse_port = before.listen.reuse_port;
        self.log.format = before.log.format;
    }
}

/// The clusters that there are to be, each the successor of that of its name; what of them differs,
/// beside what differs for all.
fn succeed_each(
    new: Vec<Arc<Config>>,
    process: &Config,
    of_all: &Changes,
    mut ids: impl Iterator<Item = ClusterId>,
) -> (Vec<Arc<Config>>, Changes) {
    let name = |config: &Config| config.tenant.as_ref().map(|tenant| tenant.name.clone());
    let old = &process.clusters;
    let shown = |config: &Config| String::from(name(config).unwrap_or_default());
    let mut changes = Changes::default();
    let gone = old
        .iter()
        .filter(|before| new.iter().all(|own| name(own) != name(before)));
    changes.went = gone.map(|gone| shown(gone)).collect();
    let mut next = Vec::with_capacity(new.len());
    for own in new {
        let mut own = Arc::unwrap_or_clone(own);
        match old.iter().find(|before| name(before) == name(&own)) {
            Some(before) => own.succeed_one(before, of_all, &mut changes),
            None => {
                changes.came.push(shown(&own));
                own.keep_what_is_of_the_process(process);
                if let (Some(tenant), Some(id)) = (&mut own.tenant, ids.next()) {
                    tenant.id = id;
                }
            }
        }
        next.push(Arc::new(own));
    }
    (next, changes)
}

impl Config {
    /// The same for one of several clusters.
    fn succeed_one(&mut self, before: &Self, of_all: &Changes, changes: &mut Changes) {
        let (tenant, tenant_before) = (self.tenant.take(), before.tenant.clone());
        let differing = self.succeed_alone(&Self {
            tenant: None,
            ..before.clone()
        });
        self.tenant = tenant
            .zip(tenant_before.as_ref())
            .map(|(tenant, before)| Tenant {
                id: before.id,
                ..tenant
            });
        let Some(tenant) = &self.tenant else { return };
        if differing == Changes::default() && self.tenant == tenant_before {
            changes.same.insert(tenant.id);
        }
        let inherits = |key: &str| match key {
            "listen.address" => !tenant.own_port,
            "reads.address" => !tenant.own_read_port,
            _ => false,
        };
        let told = |key: String| format!("{}: {key}", tenant.name);
        let live = differing.live.into_iter();
        let own_live = live.filter(|key| is_of_a_cluster(key) && !inherits(key));
        let chosen = chosen_otherwise(tenant, tenant_before.as_ref());
        changes.live.extend(own_live.chain(chosen).map(told));
        let at_start = differing.at_start.into_iter();
        let own_at_start = at_start.filter(|key| !of_all.at_start.contains(key));
        changes.at_start.extend(own_at_start.map(told));
    }
}

/// Whether a key may differ from one cluster to another.
fn is_of_a_cluster(key: &str) -> bool {
    const SECTIONS: [&str; 5] = ["cluster.", "listen.", "reads.", "users.", "limits."];
    const CHOICE: [&str; 3] = ["server_names", "user_names", "default"];
    CHOICE.contains(&key) || SECTIONS.iter().any(|section| key.starts_with(section))
}

/// How a cluster is chosen, where that differs.
fn chosen_otherwise(now: &Tenant, before: Option<&Tenant>) -> Vec<String> {
    let Some(before) = before else {
        return Vec::new();
    };
    let keys = [
        ("server_names", now.server_names == before.server_names),
        ("user_names", now.user_names == before.user_names),
        ("default", now.default == before.default),
    ];
    let differing = keys.into_iter().filter(|(_, same)| !same);
    differing.map(|(key, _)| key.to_owned()).collect()
}

fn user(credentials: &Option<Credentials>) -> Option<&str> {
    credentials.as_ref().map(|own| &*own.username)
}

fn compare(before: &Config, after: &Config) -> Changes {
    let (old, new) = (values(before), values(after));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differing = keys
        .into_iter()
        .filter(|key| old.get(*key) != new.get(*key));
    let mut changes = Changes::default();
    for key in differing.cloned().chain(secrets(before, after)) {
        let tls_comes_or_goes = key.starts_with("cluster.tls.")
            && before.cluster.tls.is_some() != after.cluster.tls.is_some();
        if tls_comes_or_goes || AT_START.contains(&key.as_str()) {
            changes.at_start.push(key);
        } else {
            changes.live.push(key);
        }
    }
    changes
}

/// Every key with its value, as the summary shows them; so it cannot be forgotten here.
fn values(config: &Config) -> BTreeMap<String, String> {
    let (mut section, mut lists) = (String::new(), BTreeMap::<String, usize>::new());
    let mut values = BTreeMap::new();
    for line in config.to_string().lines() {
        if let Some(name) = line.strip_prefix("[[") {
            let name = name.trim_end_matches("]]");
            let number = lists.entry(name.to_owned()).or_default();
            *number += 1;
            section = format!("{name}.{number}");
        } else if let Some(name) = line.strip_prefix('[') {
            name.trim_end_matches(']').clone_into(&mut section);
        } else if let Some((key, value)) = line.split_once(" = ") {
            values.insert(format!("{section}.{key}"), value.to_owned());
        }
    }
    values
}

/// Keys of passwords that differ.
fn secrets(before: &Config, after: &Config) -> Vec<String> {
    fn of(own: Option<&super::Secret>) -> Option<&[u8]> {
        own.map(super::Secret::expose)
    }
    let mut differing = Vec::new();
    let service = |config: &Config| {
        let own = config.cluster.credentials.as_ref();
        own.map(|own| own.password.expose().to_vec())
    };
    let same_user = user(&before.cluster.credentials) == user(&after.cluster.credentials);
    if same_user && service(before) != service(after) {
        differing.push("cluster.password".to_owned());
    }
    if before.traces.exposed() != after.traces.exposed() {
        differing.push("traces.headers".to_owned());
    }
    for user in &after.users {
        let known = before.users.iter().find(|known| known.name == user.name);
        let Some(known) = known else { continue };
        if of(known.password.as_ref()) != of(user.password.as_ref()) {
            differing.push(format!("users.{}.password", user.name));
        }
        if known.runs_as.password.expose() != user.runs_as.password.expose() {
            differing.push(format!("users.{}.cluster_password", user.name));
        }
    }
    differing
}
