//! Where some commands are told of: the access log, and the collector of traces.
//!
//! Owns what of both is in force, and how another configuration takes its place: read and opened first,
//! then in force. Never here: which commands there are, and what is said of them.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    access::{AccessLog, Opened},
    config::{Config, Problem},
    metrics::TraceMetrics,
    traces::{self, Sending, Setup, Traces},
};

/// What is in force; clones show the same.
#[derive(Clone)]
pub struct Outlets(Arc<Inner>);

struct Inner {
    /// What this Keyway is called in traces, for as long as it runs.
    instance: String,
    metrics: TraceMetrics,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    access: Option<AccessLog>,
    traces: Option<(Traces, Sending)>,
}

/// As a configuration wants them: what can be wrong was not.
pub(crate) struct Prepared {
    access: Option<Opened>,
    traces: Next,
    /// The file with the collector's authorities is the same, and says something else.
    pub(crate) trusts_others: bool,
}

enum Next {
    /// They go on as before.
    Same,
    /// There are none.
    None,
    /// There were none.
    Begun(Box<(Traces, Sending)>),
    /// They go another way.
    Otherwise(Box<Setup>),
}

impl Default for Outlets {
    fn default() -> Self {
        Self(Arc::new(Inner {
            instance: traces::instance(),
            metrics: TraceMetrics::default(),
            current: Mutex::default(),
        }))
    }
}

impl fmt::Debug for Outlets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlets").finish_non_exhaustive()
    }
}

impl Outlets {
    /// Those that a configuration wants, in force.
    ///
    /// # Errors
    /// A file cannot be used, or the system has no more threads.
    pub fn begin(config: &Config) -> Result<Self, Problem> {
        let own = Self::default();
        own.apply(own.prepare(config)?);
        Ok(own)
    }

    /// What would be wrong with those that a configuration wants; nothing is opened.
    #[must_use]
    pub fn problems(config: &Config) -> Vec<Problem> {
        let access = AccessLog::check(&config.log);
        let access = access.map_err(|error| of_access(config, &error)).err();
        let traces = Setup::new(config, "").err();
        access.into_iter().chain(traces).collect()
    }

    /// Opens what a configuration wants otherwise. It is in force with [`Outlets::apply`].
    ///
    /// # Errors
    /// A file cannot be used, or the system has no more threads.
    pub(crate) fn prepare(&self, config: &Config) -> Result<Prepared, Problem> {
        let current = self.current();
        let access = AccessLog::open(&config.log, current.access.as_ref());
        let access = access.map_err(|error| of_access(config, &error))?;
        let setup = Setup::new(config, &self.0.instance)?;
        let mut trusts_others = false;
        let traces = match (setup, &current.traces) {
            (None, None) => Next::Same,
            (None, Some(_)) => Next::None,
            (Some(setup), Some((_, sending))) if setup.is_made_of(sending.source()) => Next::Same,
            (Some(setup), Some((_, sending))) => {
                trusts_others = !setup.has_authorities_of(sending.source());
                Next::Otherwise(Box::new(setup))
            }
            (Some(setup), None) => {
                let begun = Traces::begin(setup, &self.0.metrics);
                let begun = begun
                    .map_err(|error| config.origin.problem("traces.endpoint", error.to_string()))?;
                Next::Begun(Box::new(begun))
            }
        };
        Ok(Prepared {
            access,
            traces,
            trusts_others,
        })
    }

    /// Puts what was prepared in force.
    pub(crate) fn apply(&self, prepared: Prepared) {
        let mut current = self.current();
        current.access = prepared.access.map(Opened::begin);
        let before = current.traces.take();
        current.traces = match (prepared.traces, before) {
            (Next::Same, before) => before,
            (Next::Begun(begun), _) => Some(*begun),
            (Next::Otherwise(setup), Some((traces, mut sending))) => {
                sending.go_on(*setup);
                Some((traces, sending))
            }
            (Next::None | Next::Otherwise(_), before) => {
                before.into_iter().for_each(|(_, sending)| sending.let_go());
                None
            }
        };
    }

    /// The access log, if there is one.
    pub(crate) fn access(&self) -> Option<AccessLog> {
        self.current().access.clone()
    }

    /// Where traced commands go, if anywhere.
    pub(crate) fn traces(&self) -> Option<Traces> {
        let current = self.current();
        current.traces.as_ref().map(|(traces, _)| traces.clone())
    }

    /// What becomes of traces.
    pub(crate) fn metrics(&self) -> TraceMetrics {
        self.0.metrics.clone()
    }

    /// Sends what is there, and ends; does not wait for long.
    pub(crate) fn end(&self) {
        let traces = self.current().traces.take();
        traces.into_iter().for_each(|(_, sending)| sending.end());
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        let current = self.0.current.lock();
        current.unwrap_or_else(PoisonError::into_inner)
    }
}

fn of_access(config: &Config, error: &std::io::Error) -> Problem {
    config.origin.problem("log.access_file", error.to_string())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_underlined() {
        let text = "[listen.tls]\ncertificate = 'c'\nkey = 'k'\n[cluster]\nseeds = ['a:1']\n[traces]\n\
                    endpoint = 'https://a'\nca = 'no.pem'\n";
        let config = Config::parse(text, "k.toml", Path::new("/nowhere"), &|_| None).unwrap();
        let [problem] = &Outlets::problems(&config)[..] else {
            panic!("one")
        };
        let told = problem.to_string();
        assert!(
            told.starts_with("k.toml:8: traces.ca: cannot read /nowhere/no.pem: "),
            "{told}"
        );
        let underlined = "  8 | ca = 'no.pem'\n    |      ^^^^^^^^";
        assert_eq!(problem.excerpt(text).unwrap(), underlined);
    }
}
