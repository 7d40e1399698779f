//! The system's limit of open files, and how many clients it leaves room for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Files beside the clients' and the nodes' connections: listeners, runtimes, the log, the admin
/// port's connections, a certificate that is read again.
const FILES_OWN: u64 = 128;
/// Connections to nodes, and a runtime's own files, for each worker.
const FILES_PER_WORKER: u64 = 64;

/// `limits.clients_max` had to be lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lowered {
    /// What was configured.
    pub wanted: usize,
    /// What is in force.
    pub clients_max: usize,
    /// The limit of open files.
    pub files: u64,
}

impl Lowered {
    /// Says so.
    pub fn warn(self) {
        let Self {
            wanted,
            clients_max,
            files,
        } = self;
        tracing::warn!(
            wanted,
            clients_max,
            files,
            "limits.clients_max is lowered to what the limit of open files allows; raise that \
             limit (ulimit -n, LimitNOFILE=)"
        );
    }
}

/// Raises the limit of open files as far as it is needed and allowed, and lowers
/// `limits.clients_max` to what it leaves room for.
pub fn fit(config: &mut Config) -> Option<Lowered> {
    let workers = u64::try_from(config.listen.workers).unwrap_or(u64::MAX);
    let reserve = FILES_PER_WORKER
        .saturating_mul(workers)
        .saturating_add(FILES_OWN);
    let wanted = config.limits.clients_max;
    let needed = u64::try_from(wanted)
        .unwrap_or(u64::MAX)
        .saturating_add(reserve);
    let files = raise(needed);
    let clients_max = room(files, reserve).min(wanted);
    config.limits.clients_max = clients_max;
    (clients_max < wanted).then_some(Lowered {
        wanted,
        clients_max,
        files,
    })
}

/// Clients that `files` leave room for; one at least, or nothing could be said to anyone.
fn room(files: u64, reserve: u64) -> usize {
    usize::try_from(files.saturating_sub(reserve).max(1)).unwrap_or(usize::MAX)
}

/// Raises this process's limit to `needed` if it is lower and may be raised; the limit in force.
fn raise(needed: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    let possible = needed.min(limit.maximum.unwrap_or(u64::MAX));
    if possible <= current {
        return current;
    }
    let raised = Rlimit {
        current: Some(possible),
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => possible,
        Err(_) => current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_the_reserve_leaves() {
        assert_eq!(room(1024, 256), 768);
        assert_eq!(room(100, 256), 1);
    }

    #[test]
    fn the_limit_rises_no_further_than_needed_and_allowed() {
        let before = getrlimit(Resource::Nofile);
        let current = before.current.unwrap();
        assert_eq!(raise(current.saturating_sub(1)), current);
        let most = before.maximum.unwrap_or(u64::MAX);
        let files = raise(most.saturating_add(1).min(current.saturating_add(1)));
        assert!(files >= current && files <= most);
        assert!(raise(u64::MAX - 1) <= most);
    }
}
