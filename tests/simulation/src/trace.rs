//! What happened, in order: as one number, and as lines for whoever looks for the cause.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// Two runs of one seed have equal traces.
#[derive(Debug)]
pub(crate) struct Trace {
    hasher: DefaultHasher,
    events: u64,
    shown: bool,
}

impl Trace {
    pub(crate) fn new(shown: bool) -> Self {
        Self {
            hasher: DefaultHasher::new(), // its keys are always the same
            events: 0,
            shown,
        }
    }

    pub(crate) fn note(&mut self, at: Duration, bytes: &[u8], what: fmt::Arguments<'_>) {
        self.events += 1;
        let line = what.to_string();
        (at, bytes, &line).hash(&mut self.hasher);
        if self.shown {
            let text = String::from_utf8_lossy(bytes).replace("\r\n", " ");
            eprintln!("{:>10.3} ms  {line}  {text}", at.as_secs_f64() * 1000.0);
        }
    }

    /// One number for all of it.
    pub(crate) fn digest(&self) -> u64 {
        self.hasher.finish()
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }
}
