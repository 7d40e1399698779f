//! Reading files again while they are in use: on SIGHUP, when something changes in a folder that
//! holds one, and every so often by content. What is read is judged before it counts; what was in
//! force stays when it is not good.
//!
//! One thread of its own does this, because it reads files and makes keys; whoever accepts clients
//! must not wait for that. What the files mean is `tls`'s and `config`'s business.

use std::{
    collections::BTreeMap,
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
    config::{Changes, ClusterId, Config, Live, Lives, Problem},
    files,
    metrics::{ReloadMetrics, ReloadResult, TlsFile},
    outlets::{self, Outlets},
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

/// What a configuration needs beside its values: clusters and ports that come and go.
pub trait Ground: Send + 'static {
    /// Opens what is new, which nobody comes to until [`Ground::settle`], and writes the ports that the
    /// system chose into the configuration.
    ///
    /// # Errors
    /// What cannot be had, in one line; then nothing is opened.
    fn prepare(
        &mut self,
        config: &mut Config,
        added: Vec<(ClusterId, Live, Loaded)>,
    ) -> Result<Vec<(ClusterId, ReloadMetrics)>, String>;

    /// This is in force: what is new is served, and what it has not is let go.
    fn settle(&mut self, config: &Config);
}

/// Starts the thread.
///
/// # Errors
/// The system has no threads left.
pub fn start(mut reloader: Reloader<impl Ground>) -> io::Result<Reloads> {
    let (sender, asked) = mpsc::channel();
    let changes = sender.clone();
    reloader.sides().for_each(Side::show_ends);
    let thread = thread::Builder::new().name("reload".to_owned());
    thread.spawn(move || {
        let folders = Folders::new(move || {
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
pub struct Reloader<G> {
    lives: Lives,
    /// The configuration's file, if it has one.
    file: Option<PathBuf>,
    /// The process's, ..
    process: Side,
    /// .. and those of several clusters.
    clusters: BTreeMap<ClusterId, Side>,
    metrics: ReloadMetrics,
    outlets: Outlets,
    /// What is wrong with them, as it was said last.
    muted: Option<String>,
    ground: G,
}

impl<G: Ground> Reloader<G> {
    /// This is in force. `file` is where the configuration came from.
    #[must_use]
    pub fn new(
        lives: Lives,
        file: Option<PathBuf>,
        (process, clusters): (Side, BTreeMap<ClusterId, Side>),
        metrics: ReloadMetrics,
        ground: G,
    ) -> Self {
        Self {
            lives,
            file,
            process,
            clusters,
            metrics,
            outlets: Outlets::default(),
            muted: None,
            ground,
        }
    }

    /// The same, when these are where commands are told of.
    #[must_use]
    pub fn telling(self, outlets: Outlets) -> Self {
        Self { outlets, ..self }
    }

    fn sides(&self) -> impl Iterator<Item = &Side> {
        std::iter::once(&self.process).chain(self.clusters.values())
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
                    self.authorities_of_traces(&config);
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
                return self.stays(&problems.join("; "));
            }
        };
        if config.clusters.is_empty() != before.clusters.is_empty() {
            return self
                .stays("[cluster] cannot become [[cluster]], nor the reverse, without a restart");
        }
        if let Some(lowered) = files::fit(&mut config) {
            lowered.warn();
        }
        let mut changes = config.succeed(&before);
        let outlets = match self.outlets.prepare(&config) {
            Ok(outlets) => outlets,
            Err(problem) => return self.stays(&problem.to_string()),
        };
        let Ok(prepared) = self.prepare(&config, Cause::Signal) else {
            return self.metrics.config(ReloadResult::Failed); // each file has its line
        };
        let added = match self.load_added(&config) {
            Ok(added) => added,
            Err(problem) => return self.stays(&problem.to_string()),
        };
        let metrics = match self.ground.prepare(&mut config, added.clone()) {
            Ok(metrics) => metrics,
            Err(problem) => return self.stays(&problem),
        };
        self.apply(prepared);
        for ((id, live, tls), (_, metrics)) in added.into_iter().zip(metrics) {
            let name = live.get().tenant.as_ref().map(|tenant| tenant.name.clone());
            let side = Side::new(name.as_deref(), tls, metrics);
            side.show_ends();
            self.clusters.insert(id, side);
            self.lives.clusters.insert(id, live);
        }
        let config = Arc::new(config);
        note_trust(&outlets, &mut changes);
        // Before the workers hear of it: they ask for what is in force.
        self.outlets.apply(outlets);
        telemetry::set_level(config.log.level);
        self.lives.replace(Arc::clone(&config), &changes.same);
        let lives = &self.lives.clusters;
        self.clusters.retain(|id, _| lives.contains_key(id));
        self.ground.settle(&config);
        self.metrics.config(ReloadResult::Ok);
        report(&changes);
    }

    /// Says why a configuration does not count.
    fn stays(&self, problems: &str) {
        self.metrics.config(ReloadResult::Failed);
        tracing::error!(
            %problems,
            "the configuration cannot be reloaded; what was in force stays"
        );
    }

    /// The certificates of clusters that there were not.
    fn load_added(&self, config: &Config) -> Result<Vec<(ClusterId, Live, Loaded)>, Problem> {
        let added = config.of_each();
        let added = added.filter(|(id, _)| !self.lives.clusters.contains_key(id));
        added
            .map(|(id, own)| Ok((id, Live::new(Arc::clone(own)), Loaded::load_now(own)?)))
            .collect()
    }

    /// Until files are read without anybody asking.
    fn patience(&self) -> Duration {
        let every = self.lives.process.get().reload.every;
        let waits = |side: &Side| side.failed.is_some() && !side.said;
        if self.sides().any(waits) {
            every.min(LOOK_AGAIN)
        } else {
            every
        }
    }

    /// Reads the files that a configuration names, and puts those in force that are good: those of one
    /// cluster do not wait for another's.
    fn certificates(&mut self, config: &Config, cause: Cause) {
        let (Ok(prepared) | Err(prepared)) = self.prepare(config, cause);
        self.apply(prepared);
    }

    /// Reads the file again that says who vouches for the collector of traces.
    fn authorities_of_traces(&mut self, config: &Config) {
        if config.traces.ca.is_none() {
            return;
        }
        match self.outlets.prepare(config) {
            Ok(prepared) => {
                if prepared.trusts_others {
                    tracing::info!(changed = "traces.ca", "certificates reloaded");
                }
                self.outlets.apply(prepared);
                self.muted = None;
            }
            Err(problem) => {
                let problem = problem.to_string();
                if self.muted.as_ref() != Some(&problem) {
                    tracing::error!(%problem, "traces cannot be set up anew; they go on as before");
                }
                self.muted = Some(problem);
            }
        }
    }

    /// Reads the files that a configuration names. What is good and has changed; as an error when others are
    /// not.
    fn prepare(&mut self, config: &Config, cause: Cause) -> Result<Changed, Changed> {
        let (mut good, mut all) = (true, Changed::new());
        let own = config.of_each();
        let own = own.map(|(id, config)| (Some(id), &**config));
        for (id, config) in std::iter::once((None, config)).chain(own) {
            let side = match id {
                None => Some(&mut self.process),
                Some(id) => self.clusters.get_mut(&id),
            };
            let Some(side) = side else { continue }; // it is new
            match side.tls.prepare(config) {
                Err(problem) => {
                    side.refuse(&problem, cause);
                    good = false;
                }
                Ok(prepared) => {
                    side.recover();
                    all.extend(prepared.map(|prepared| (id, prepared)));
                }
            }
        }
        if good { Ok(all) } else { Err(all) }
    }

    fn apply(&mut self, prepared: Changed) {
        for (id, prepared) in prepared {
            let side = match id {
                None => Some(&mut self.process),
                Some(id) => self.clusters.get_mut(&id),
            };
            if let Some(side) = side {
                side.apply(prepared);
            }
        }
    }
}

/// Files that have changed and are good, and whose they are.
type Changed = Vec<(Option<ClusterId>, Prepared)>;

/// A file that is the same by its name may say something else.
fn note_trust(outlets: &outlets::Prepared, changes: &mut Changes) {
    const KEY: &str = "traces.ca";
    if outlets.trusts_others && !changes.live.iter().any(|key| key == KEY) {
        changes.live.push(KEY.to_owned());
    }
}

/// Says what a configuration has changed.
fn report(changes: &Changes) {
    let some = |names: &[String]| (!names.is_empty()).then(|| names.join(", "));
    let (came, went) = (some(&changes.came), some(&changes.went));
    let (came, went) = (came.as_deref(), went.as_deref());
    let changed = changes.live.join(", ");
    match some(&changes.at_start) {
        None => tracing::info!(%changed, came, went, "configuration reloaded"),
        Some(needs_restart) => tracing::warn!(
            %changed, came, went, %needs_restart,
            "configuration reloaded, but for what only counts after a restart"
        ),
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
