//! Reading files again while they are in use: on SIGHUP, when something changes in a folder that
//! holds one, and every so often by content. What is read is judged before it counts; what was in
//! force stays when it is not good.
//!
//! One thread of its own does this, because it reads files and makes keys; whoever accepts clients
//! must not wait for that. What the files mean is `tls`'s and `config`'s business.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    config::{Changes, Config, Lives, Problem},
    files,
    metrics::{ReloadMetrics, ReloadResult, TlsFile},
    systemd, telemetry,
    tls::{self, Loaded, Prepared},
};

mod folders;

use folders::Folders;

/// Changes come in bursts: a certificate, then its key. After the last one, so long.
const QUIET: Duration = Duration::from_millis(50);
/// But no longer than that in all.
const QUIET_MAX: Duration = Duration::from_secs(1);
/// Files that cannot be used are looked at again after so long before it is said: they may be in
/// the middle of being replaced.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why files are read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// SIGHUP: somebody waits for an answer.
    Signal,
    /// Something has changed in a folder.
    Change,
    /// The time has come.
    Time,
}

/// Asks for files to be read again.
#[derive(Clone, Debug)]
pub struct Reloads(Sender<Cause>);

impl Reloads {
    /// Now.
    pub fn ask(&self) {
        let _ = self.0.send(Cause::Signal); // the thread lives as long as the process
    }
}

/// Starts the thread.
///
/// # Errors
/// The system has no threads left.
pub fn start(mut reloader: Reloader) -> io::Result<Reloads> {
    let (sender, asked) = mpsc::channel();
    let changes = sender.clone();
    reloader.sides.iter().for_each(Side::show_ends);
    let thread = thread::Builder::new().name("reload".to_owned());
    thread.spawn(move || {
        let watch = reloader.lives.process.get().reload.watch;
        let folders = Folders::new(watch, move || {
            let _ = changes.send(Cause::Change); // the receiver is this thread's
        });
        reloader.run(&asked, folders);
    })?;
    Ok(Reloads(sender))
}

/// The certificates of one cluster, or those for clients that have not named one.
#[derive(Debug)]
pub struct Side {
    /// The cluster, if it is one of several.
    name: Option<Box<str>>,
    tls: Loaded,
    metrics: ReloadMetrics,
    /// What is wrong with the files as they were read last.
    failed: Option<String>,
    /// That is in the log.
    said: bool,
}

impl Side {
    /// These are in force.
    #[must_use]
    pub fn new(name: Option<&str>, tls: Loaded, metrics: ReloadMetrics) -> Self {
        Self {
            name: name.map(Into::into),
            tls,
            metrics,
            failed: None,
            said: false,
        }
    }
}

/// What is in force, and where it came from.
#[derive(Debug)]
pub struct Reloader {
    lives: Lives,
    /// The configuration's file, if it has one.
    file: Option<PathBuf>,
    /// The process's first, then those of several clusters.
    sides: Vec<Side>,
    metrics: ReloadMetrics,
}

impl Reloader {
    /// This is in force. `file` is where the configuration came from.
    #[must_use]
    pub fn new(
        lives: Lives,
        file: Option<PathBuf>,
        sides: Vec<Side>,
        metrics: ReloadMetrics,
    ) -> Self {
        Self {
            lives,
            file,
            sides,
            metrics,
        }
    }

    fn run(&mut self, asked: &Receiver<Cause>, mut folders: Folders) {
        folders.follow(&self.lives.process.get());
        loop {
            let cause = match asked.recv_timeout(self.patience()) {
                Ok(cause) => cause,
                Err(RecvTimeoutError::Timeout) => Cause::Time,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let cause = settle(cause, asked);
            let config = self.lives.process.get();
            match (cause, self.file.clone()) {
                (Cause::Signal, Some(file)) => {
                    systemd::tell_reloading();
                    self.configuration(&file);
                    systemd::tell_reloaded();
                }
                _ => {
                    self.certificates(&config, cause);
                }
            }
            folders.follow(&self.lives.process.get());
        }
    }

    /// Reads the configuration again, and the files that it names. All of it counts, or nothing.
    fn configuration(&mut self, file: &Path) {
        let before = self.lives.process.get();
        let mut config = match Config::load(file) {
            Ok(config) => config,
            Err(problems) => {
                let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                self.metrics.config(ReloadResult::Failed);
                tracing::error!(
                    problems = %problems.join("; "),
                    "the configuration cannot be reloaded; what was in force stays"
                );
                return;
            }
        };
        if config.clusters.is_empty() != before.clusters.is_empty() {
            self.metrics.config(ReloadResult::Failed);
            tracing::error!(
                "[cluster] cannot become [[cluster]], nor the reverse, without a restart; what was \
                 in force stays"
            );
            return;
        }
        if let Some(lowered) = files::fit(&mut config) {
            lowered.warn();
        }
        let changes = config.succeed(&before);
        if !self.certificates(&config, Cause::Signal) {
            self.metrics.config(ReloadResult::Failed);
            return;
        }
        self.metrics.config(ReloadResult::Ok);
        telemetry::set_level(config.log.level);
        self.lives.replace(Arc::new(config));
        let Changes { live, at_start } = changes;
        if at_start.is_empty() {
            tracing::info!(changed = %live.join(", "), "configuration reloaded");
        } else {
            tracing::warn!(
                changed = %live.join(", "), needs_restart = %at_start.join(", "),
                "configuration reloaded, but for what only counts after a restart"
            );
        }
    }

    /// Until files are read without anybody asking.
    fn patience(&self) -> Duration {
        let every = self.lives.process.get().reload.every;
        let waits = |side: &Side| side.failed.is_some() && !side.said;
        if self.sides.iter().any(waits) {
            every.min(LOOK_AGAIN)
        } else {
            every
        }
    }

    /// Returns whether the files that a configuration names are in force now. Those of one cluster do
    /// not wait for another's to be good, unless a whole configuration does.
    fn certificates(&mut self, config: &Config, cause: Cause) -> bool {
        let own = config.clusters.iter().map(AsRef::as_ref);
        let configs = std::iter::once(config).chain(own);
        let mut good = true;
        let mut all = Vec::new();
        for (side, config) in self.sides.iter_mut().zip(configs) {
            match side.tls.prepare(config) {
                Err(problem) => {
                    side.refuse(&problem, cause);
                    good = false;
                }
                Ok(prepared) => {
                    side.recover();
                    all.extend(prepared.map(|prepared| (side, prepared)));
                }
            }
        }
        if good || cause != Cause::Signal {
            all.into_iter()
                .for_each(|(side, prepared)| side.apply(prepared));
        }
        good
    }
}

impl Side {
    fn apply(&mut self, prepared: Prepared) {
        let changed: Vec<&str> = prepared.changed.iter().map(|file| name(*file)).collect();
        let distrust = self.tls.apply(prepared);
        self.metrics.tls(ReloadResult::Ok);
        tracing::info!(
            cluster = self.name.as_deref(),
            changed = %changed.join(", "),
            clients_checked_again = distrust,
            "certificates reloaded"
        );
        self.show_ends();
    }

    /// Shows until when the files in force hold, and says which hold no more.
    fn show_ends(&self) {
        self.metrics.ends(self.tls.ends());
        let now = tls::now();
        for (file, _) in self.tls.ends().filter(|(_, end)| *end <= now) {
            let (file, cluster) = (name(file), self.name.as_deref());
            tracing::warn!(
                cluster,
                file,
                "a certificate or list in force has expired; see keyway_tls_not_after_timestamp_seconds"
            );
        }
    }

    /// The files are those in force, or will be.
    fn recover(&mut self) {
        self.metrics.tls_failing(false);
        self.failed = None;
        self.said = false;
    }

    /// Says what is wrong: at once to who asked, otherwise when it is so a second time; and only
    /// once.
    fn refuse(&mut self, problem: &Problem, cause: Cause) {
        let problem = problem.to_string();
        let again = self.failed.as_ref() == Some(&problem);
        if !again {
            self.said = false;
        }
        if (again && !self.said) || cause == Cause::Signal {
            self.said = true;
            self.metrics.tls(ReloadResult::Failed);
            self.metrics.tls_failing(true);
            tracing::error!(
                cluster = self.name.as_deref(),
                %problem,
                "certificates cannot be reloaded; those in force stay"
            );
        }
        self.failed = Some(problem);
    }
}

/// Waits until changes have come to rest; the weightiest cause of them.
fn settle(first: Cause, asked: &Receiver<Cause>) -> Cause {
    let mut cause = first;
    if cause != Cause::Change {
        return cause;
    }
    let until = Instant::now() + QUIET_MAX;
    while Instant::now() < until {
        match asked.recv_timeout(QUIET) {
            Ok(Cause::Signal) => cause = Cause::Signal,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    cause
}

fn name(file: TlsFile) -> &'static str {
    TlsFile::LABELS
        .get(file as usize)
        .copied()
        .unwrap_or_default()
}
