//! Which folders are watched: those that hold a file that TLS needs, and those that a link on the
//! way to it stands in. Folders, not files: a file that is replaced is another one, and Kubernetes
//! changes what the link `..data` beside it points to.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};

use crate::config::{ClientAuth, Config};

/// Links followed on the way to a file.
const LINKS_MAX: usize = 16;

/// Watched folders.
pub(super) struct Folders {
    /// To be called for every change.
    changed: Arc<dyn Fn() + Send + Sync>,
    /// What was asked for; it may not be had.
    wanted: bool,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl Folders {
    /// Calls `changed` for every change, once folders are watched.
    pub(super) fn new(changed: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            changed: Arc::new(changed),
            wanted: false,
            watcher: None,
            watched: BTreeSet::new(),
        }
    }

    /// Begins to watch or ends, if that is another word than before.
    fn watch(&mut self, watch: bool) {
        if std::mem::replace(&mut self.wanted, watch) == watch {
            return;
        }
        self.watched.clear();
        let changed = Arc::clone(&self.changed);
        let watcher = watch.then(|| {
            notify::recommended_watcher(move |event: notify::Result<Event>| {
                // An error may have been a change.
                if event.map_or(true, |event| is_change(event.kind)) {
                    changed();
                }
            })
        });
        self.watcher = watcher.and_then(|watcher| {
            watcher
                .inspect_err(|error| {
                    tracing::warn!(%error, "cannot watch folders; certificates are read again every reload.every_ms");
                })
                .ok()
        });
    }

    /// Watches the folders that the files are in now, and no others.
    pub(super) fn follow(&mut self, config: &Config) {
        self.watch(config.reload.watch);
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let own = config.clusters.iter().flat_map(|own| files(own));
        let all: Vec<PathBuf> = files(config).into_iter().chain(own).collect();
        let wanted = folders(&all);
        for gone in self.watched.difference(&wanted) {
            let _ = watcher.unwatch(gone); // it may exist no more
        }
        let mut watched = BTreeSet::new();
        for folder in wanted {
            if self.watched.contains(&folder) {
                watched.insert(folder);
                continue;
            }
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    watched.insert(folder);
                }
                Err(error) => tracing::warn!(
                    folder = %folder.display(), %error,
                    "cannot watch a folder; its files are read again every reload.every_ms"
                ),
            }
        }
        self.watched = watched;
    }
}

/// Reading a file is no change; we do that ourselves.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// Every file that TLS needs, also that to the collector of traces.
fn files(config: &Config) -> Vec<PathBuf> {
    let tls = &config.listen.tls;
    let mut files = vec![tls.certificate.clone(), tls.key.clone()];
    for named in &tls.certificates {
        files.extend([named.certificate.clone(), named.key.clone()]);
    }
    if let ClientAuth::Optional(ca) | ClientAuth::Required(ca) = &tls.clients {
        files.push(ca.clone());
    }
    files.extend(tls.client_crl.clone());
    files.extend(config.traces.ca.clone());
    if let Some(tls) = &config.cluster.tls {
        files.push(tls.ca.clone());
        if let Some(identity) = &tls.identity {
            files.extend([identity.certificate.clone(), identity.key.clone()]);
        }
    }
    files
}

fn folders(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for file in files {
        let mut path = file.clone();
        for _ in 0..LINKS_MAX {
            let parent = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
                _ => PathBuf::from("."),
            };
            found.extend(fs::canonicalize(&parent));
            match fs::read_link(&path) {
                Ok(target) => path = parent.join(target),
                Err(_) => break,
            }
        }
        let end = fs::canonicalize(file).ok();
        found.extend(end.as_deref().and_then(Path::parent).map(Path::to_owned));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_folder_on_the_way_is_found() {
        let root = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        let (mount, version) = (root.join("mount"), root.join("mount/..1"));
        fs::create_dir_all(&version).unwrap();
        fs::write(version.join("tls.crt"), "x").unwrap();
        symlink("..1", mount.join("..data")).unwrap();
        symlink("..data/tls.crt", mount.join("tls.crt")).unwrap();
        let outside = root.join("outside.crt");
        symlink(mount.join("tls.crt"), &outside).unwrap();
        let found = folders(&[outside]);
        assert_eq!(found, BTreeSet::from([root, mount, version]));
        assert!(folders(&[PathBuf::from("here.pem")]).contains(&fs::canonicalize(".").unwrap()));
    }
}
