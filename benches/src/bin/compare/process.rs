//! Processes of a comparison: each on its cores, with a log, ended by its id when dropped.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};

/// Between two looks at something that is waited for.
const STEP: Duration = Duration::from_millis(20);
/// A server that is not up after this will not come.
const START_LIMIT: Duration = Duration::from_secs(20);
/// A server that has not ended by itself after this is killed.
const END_LIMIT: Duration = Duration::from_secs(3);
/// Lines of a log that a message shows.
const LOG_LINES: usize = 15;

/// Who runs where: the load and the proxies have a core each, the nodes may use all.
#[derive(Clone, Debug)]
pub(crate) struct Cores {
    load: usize,
    proxy: String,
    all: String,
}

impl Cores {
    /// Of the cores this process may use: the proxies get the first, the load the second.
    pub(crate) fn divide() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("the cores of this process")?;
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|core| allowed.is_set(*core))
            .collect();
        let (Some(first), Some(last)) = (cores.first(), cores.get(1).or(cores.first())) else {
            bail!("this process may use no core at all");
        };
        let all: Vec<String> = cores.iter().map(ToString::to_string).collect();
        Ok(Self {
            load: *last,
            proxy: first.to_string(),
            all: all.join(","),
        })
    }

    /// Keeps this process, which is the load, to its core.
    pub(crate) fn take_load(&self) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(self.load);
        sched_setaffinity(None, &set).context("keeping the load to its core")
    }

    /// For a proxy.
    pub(crate) fn proxy(&self) -> &str {
        &self.proxy
    }

    /// For a node.
    pub(crate) fn all(&self) -> &str {
        &self.all
    }
}

/// Processes that are kept from the proxies' core, until this is dropped.
///
/// A proxy that is busy makes whoever shares its core wait for milliseconds, which in a cluster of other machines
/// nobody does: where the tail beside a busy proxy is measured, the nodes are with the load.
#[derive(Debug)]
pub(crate) struct Apart {
    pids: Vec<Pid>,
    before: CpuSet,
}

impl Apart {
    /// Keeps the processes to the load's core.
    pub(crate) fn keep(cores: &Cores, pids: &[u32]) -> Result<Self> {
        let id = |pid: &u32| Pid::from_raw(i32::try_from(*pid).ok()?);
        let pids: Vec<Pid> = pids.iter().filter_map(id).collect();
        let before = sched_getaffinity(pids.first().copied()).context("the cores of a process")?;
        let mut load = CpuSet::new();
        load.set(cores.load);
        let apart = Self { pids, before };
        apart.allow(&load).context("keeping a process to a core")?;
        Ok(apart)
    }

    fn allow(&self, cores: &CpuSet) -> rustix::io::Result<()> {
        let mut pids = self.pids.iter();
        pids.try_for_each(|pid| sched_setaffinity(Some(*pid), cores))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // One that has ended needs no core.
        let _ = self.allow(&self.before);
    }
}

/// The nice value of this session as a whole, where the kernel shares cores among sessions first (autogroups, see
/// sched(7)), until this is dropped; what is measured and what drives it are both in it.
///
/// A machine may have agents of its own that go before every session: by the events of `sched_switch`, four threads
/// of nice -10 ran on the proxies' core for 20 ms of five seconds, up to 4.4 ms at a time, and with 26,000 open
/// sockets to count for 15 to 71 ms, up to 14 at a time. Nobody's proxy is to wait for that. At -10 the session
/// has as much of a core as they; at -20 they starved, until the kernel stopped the load in their favour.
#[derive(Debug)]
pub(crate) struct Session {
    before: i32,
}

impl Session {
    const NICE: i32 = -10;
    const FILE: &'static str = "/proc/self/autogroup";

    /// Takes the permission to (`CAP_SYS_NICE`).
    pub(crate) fn raise() -> Result<Self> {
        let text = fs::read_to_string(Self::FILE).context("no autogroups")?;
        let before = nice_of(&text).with_context(|| format!("{} is odd: {text}", Self::FILE))?;
        let session = Self { before };
        fs::write(Self::FILE, Self::NICE.to_string()).context("CAP_SYS_NICE is missing")?;
        Ok(session)
    }

    /// For the head of a report.
    pub(crate) fn shown(raised: &Result<Self>) -> String {
        match raised {
            Ok(_) => format!("of nice {}", Self::NICE),
            Err(error) => {
                format!("not raised, the machine's own agents may run before it ({error:#})")
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It could be raised, so it can be lowered.
        let _ = fs::write(Self::FILE, self.before.to_string());
    }
}

/// Of `/autogroup-18 nice 0`.
fn nice_of(autogroup: &str) -> Option<i32> {
    let (_, nice) = autogroup.trim_end().rsplit_once(" nice ")?;
    nice.parse().ok()
}

/// Has this thread run only where nobody else wants to (`SCHED_IDLE`, see sched(7)). Whoever it shares a core with
/// still waits for it now and then, for up to 5 ms: who is not to is [`Ahead`].
pub(crate) fn step_back() -> Result<()> {
    schedule(&["--idle"], "0", &this_thread())
}

/// This thread, those that it starts, and all of some processes run before any ordinary thread that shares their
/// core (`SCHED_FIFO`, see sched(7)), until this is dropped.
///
/// Clients by the thousand and the load are on other machines in truth. Here they share a core, and the scheduler is
/// fair: by `perf` and the events of `sched_switch`, the load stood ready for up to 4.9 ms while a thread of
/// `SCHED_IDLE` shook hands, for it had used up its share.
#[derive(Debug)]
pub(crate) struct Ahead {
    pids: Vec<String>,
}

impl Ahead {
    /// Takes the permission to (`CAP_SYS_NICE`).
    pub(crate) fn step(pids: &[u32]) -> Result<Self> {
        let ahead = Self {
            pids: pids.iter().map(u32::to_string).collect(),
        };
        ahead.be("--fifo", "1").context(
            "the load and the nodes cannot have a core before the clients beside them: this takes CAP_SYS_NICE",
        )?;
        Ok(ahead)
    }

    fn be(&self, policy: &str, priority: &str) -> Result<()> {
        schedule(&[policy], priority, &this_thread())?;
        let mut pids = self.pids.iter();
        pids.try_for_each(|pid| schedule(&[policy, "--all-tasks"], priority, pid))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // One that has ended runs nowhere.
        let _ = self.be("--other", "0");
    }
}

fn this_thread() -> String {
    gettid().as_raw_nonzero().to_string()
}

fn schedule(options: &[&str], priority: &str, id: &str) -> Result<()> {
    let mut chrt = Command::new("chrt");
    chrt.args(options).args(["--pid", priority, id]);
    let status = chrt.status().context("chrt")?;
    if !status.success() {
        bail!("chrt {} --pid {priority} {id}: {status}", options.join(" "));
    }
    Ok(())
}

/// A child process and its log.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` on `cores`; what it says goes to a file in `folder`.
    pub(crate) fn start(
        name: &str,
        cores: &str,
        program: &Path,
        arguments: &[String],
        folder: &Path,
    ) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        // taskset becomes the program: the id is the program's.
        let child = Command::new("taskset")
            .args(["-c", cores])
            .arg(program)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("a log")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{name}: taskset {}", program.display()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until something listens on `port`.
    pub(crate) fn wait_listening(&mut self, port: u16) -> Result<()> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        self.wait("a listener", || TcpStream::connect(address).is_ok())
    }

    /// Waits until `condition` holds; fails with the log when it does not, or the process ends.
    pub(crate) fn wait(&mut self, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
        let end = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().context("a child")? {
                bail!("{} ended, {status}:\n{}", self.name, self.log_end());
            }
            if condition() {
                return Ok(());
            }
            if Instant::now() >= end {
                bail!(
                    "{}: waited in vain for {what}:\n{}",
                    self.name,
                    self.log_end()
                );
            }
            thread::sleep(STEP);
        }
    }

    /// The file with everything it says.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.log.clone()
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid
            && matches!(self.child.try_wait(), Ok(None))
        {
            // If it is gone already, so much the better.
            let _ = kill_process(pid, Signal::TERM);
        }
        let end = Instant::now() + END_LIMIT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(STEP);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nice_value_of_a_session_is_the_last_word() {
        assert_eq!(nice_of("/autogroup-18 nice 0\n"), Some(0));
        assert_eq!(nice_of("/autogroup-1234 nice -10\n"), Some(-10));
        for odd in ["", "/autogroup-18", "/autogroup-18 nice x\n"] {
            assert_eq!(nice_of(odd), None, "{odd}");
        }
    }
}
