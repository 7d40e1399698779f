//! Numbers of one worker that others read.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Written by one worker (and the acceptor), read by all.
#[derive(Debug, Default)]
#[repr(align(128))] // no two workers write one cache line
pub(crate) struct Counters {
    connections: AtomicUsize,
    connections_ever: AtomicU64,
    commands: AtomicU64,
}

impl Counters {
    pub(crate) fn connection_given(&self) {
        self.connections.fetch_add(1, Relaxed);
        self.connections_ever.fetch_add(1, Relaxed);
    }

    pub(crate) fn connection_gone(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    pub(crate) fn connections_ever(&self) -> u64 {
        self.connections_ever.load(Relaxed)
    }

    /// Only the worker itself counts commands: a load and a store are enough.
    pub(crate) fn command(&self) {
        self.commands
            .store(self.commands.load(Relaxed) + 1, Relaxed);
    }

    pub(crate) fn commands(&self) -> u64 {
        self.commands.load(Relaxed)
    }
}
