//! Processes: run to their end with a limit, signalled by id, ended when dropped.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::within;

/// What a process that ended had said.
#[derive(Debug)]
pub struct Output {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `command` without input until it ends.
///
/// # Panics
/// It cannot start, or runs longer than `limit` (it is then killed, and the message has its output).
#[track_caller]
pub fn run_to_end(command: &mut Command, limit: Duration) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let mut status = None;
    let ended = within(limit, || {
        status = child.try_wait().expect("a child of ours");
        status.is_some()
    });
    if !ended {
        let _ = child.kill();
    }
    let _ = child.wait();
    let (stdout, stderr) = (
        stdout.join().unwrap_or_default(),
        stderr.join().unwrap_or_default(),
    );
    let status = status
        .unwrap_or_else(|| panic!("{command:?} still ran after {limit:?}\n{stdout}\n{stderr}"));
    Output {
        code: status.code(),
        stdout,
        stderr,
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Sends `signal` to a child of ours.
///
/// # Panics
/// It ended already and was waited for.
pub fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process id");
    kill_process(pid, signal).unwrap_or_else(|error| panic!("signal {signal:?}: {error}"));
}

/// Ends a child: by SIGTERM and, when `patience` is over, by SIGKILL. True when SIGTERM was enough.
pub(crate) fn end(child: &mut Child, patience: Duration) -> bool {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return true;
    }
    signal(child, Signal::CONT);
    signal(child, Signal::TERM);
    let clean = within(patience, || matches!(child.try_wait(), Ok(Some(_))));
    if !clean {
        let _ = child.kill();
        let _ = child.wait();
    }
    clean
}
