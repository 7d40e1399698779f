//! Reading files again while they are in use: on SIGHUP, when something changes in a folder that
//! holds one, and every so often by content. What is read is judged before it counts; what was in
//! force stays when it is not good.
//!
//! One thread of its own does this, because it reads files and makes keys; whoever accepts clients
//! must not wait for that. What the files mean is `tls`'s and `config`'s business.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    config::{Config, Problem},
    metrics::{ReloadMetrics, ReloadResult, TlsFile},
    tls::{self, Loaded},
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
pub fn start(config: &Arc<Config>, tls: Loaded, metrics: ReloadMetrics) -> io::Result<Reloads> {
    let (sender, asked) = mpsc::channel();
    let changes = sender.clone();
    let folders = Folders::new(config.reload.watch, move || {
        let _ = changes.send(Cause::Change); // as above
    });
    metrics.ends(tls.ends());
    warn_of_ends(&tls);
    let mut reloader = Reloader {
        config: Arc::clone(config),
        tls,
        metrics,
        folders,
        failed: None,
        said: false,
    };
    let thread = thread::Builder::new().name("reload".to_owned());
    thread.spawn(move || reloader.run(&asked))?;
    Ok(Reloads(sender))
}

struct Reloader {
    config: Arc<Config>,
    tls: Loaded,
    metrics: ReloadMetrics,
    folders: Folders,
    /// What is wrong with the files as they were read last.
    failed: Option<String>,
    /// That is in the log.
    said: bool,
}

impl Reloader {
    fn run(&mut self, asked: &Receiver<Cause>) {
        self.folders.follow(&self.config);
        loop {
            let cause = match asked.recv_timeout(self.patience()) {
                Ok(cause) => cause,
                Err(RecvTimeoutError::Timeout) => Cause::Time,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let cause = settle(cause, asked);
            self.certificates(cause);
            self.folders.follow(&self.config);
        }
    }

    /// Until files are read without anybody asking.
    fn patience(&self) -> Duration {
        let every = self.config.reload.every;
        if self.failed.is_some() && !self.said {
            every.min(LOOK_AGAIN)
        } else {
            every
        }
    }

    fn certificates(&mut self, cause: Cause) {
        match self.tls.prepare(&self.config) {
            Err(problem) => self.refuse(&problem, cause),
            Ok(None) => {
                self.recover();
                if cause == Cause::Signal {
                    tracing::info!("certificates are those in force");
                }
            }
            Ok(Some(prepared)) => {
                self.recover();
                let changed: Vec<&str> = prepared.changed.iter().map(|file| name(*file)).collect();
                let distrust = self.tls.apply(prepared);
                self.metrics.tls(ReloadResult::Ok);
                self.metrics.ends(self.tls.ends());
                tracing::info!(
                    changed = %changed.join(", "),
                    clients_checked_again = distrust,
                    "certificates reloaded"
                );
                warn_of_ends(&self.tls);
            }
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

/// Says which files in force hold no more.
fn warn_of_ends(loaded: &Loaded) {
    let now = tls::now();
    for (file, _) in loaded.ends().filter(|(_, end)| *end <= now) {
        let file = name(file);
        tracing::warn!(
            file,
            "a certificate or list in force has expired; see keyway_tls_not_after_timestamp_seconds"
        );
    }
}
