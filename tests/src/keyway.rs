//! The `keyway` binary as a child process: configured, waited for, looked at, ended.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::client::Client;
use crate::cluster::RealCluster;
use crate::ports::{self, Port};
use crate::process::{end, signal};
use crate::tools;
use crate::wait::{wait_until, within};

/// For tests that are not about the end: nobody has to learn that it comes.
const NO_DRAIN: &str = "[drain]\nlame_duck_ms = 0\ngrace_ms = 1000";
/// For clients that connect together and speak in turn: on a busy machine the last has to wait for long.
const PATIENCE: &str = "auth_timeout_ms = 60000";
/// How long Keyway may take to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(20);

/// What to put into Keyway's configuration beside addresses and certificates.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Port for clients, which another process may have too; 0 is one of its own.
    pub port: u16,
    /// Worker threads; 0 means 2.
    pub workers: usize,
    /// Certificate and key, instead of those of an authority of its own.
    pub certificate: Option<[PathBuf; 2]>,
    /// Lines of `[listen]`.
    pub listen: String,
    /// Lines of `[listen.tls]`.
    pub listen_tls: String,
    /// Lines of `[cluster]`.
    pub cluster: String,
    /// Whole sections.
    pub sections: String,
    /// Lines of `[limits]`.
    pub limits: String,
    /// Environment variables to start it with.
    pub environment: Vec<(String, String)>,
}

/// A running `keyway serve`. Ended when dropped; its log is printed when the test is failing.
#[derive(Debug)]
pub struct Keyway {
    child: Child,
    /// Reserved; what it listens on is [`Self::number`].
    _port: Port,
    number: u16,
    admin: Port,
    certificates: Certificates,
    log: Arc<Mutex<String>>,
    config: PathBuf,
    folder: Option<TempDir>,
}

impl Keyway {
    /// Starts Keyway before `cluster` with defaults and waits until it is ready.
    ///
    /// # Panics
    /// It does not become ready within 15 s.
    #[must_use]
    pub fn start(cluster: &RealCluster) -> Self {
        Self::with(cluster, &Settings::default())
    }

    /// Starts Keyway before `cluster` with settings of its own and waits until it is ready.
    ///
    /// # Panics
    /// It does not become ready within 15 s.
    #[must_use]
    pub fn with(cluster: &RealCluster, settings: &Settings) -> Self {
        let mut keyway = Self::launch(&cluster.section(&settings.cluster), settings);
        keyway.wait_ready();
        keyway
    }

    /// Starts Keyway with this `[cluster]` section, and does not wait.
    ///
    /// # Panics
    /// The binary does not start.
    #[must_use]
    pub fn launch(cluster_section: &str, settings: &Settings) -> Self {
        let (port, admin) = (ports::reserve(), ports::reserve());
        let folder = TempDir::new().expect("a folder for Keyway");
        let certificates = Certificates::loopback();
        let mut config = String::new();
        let workers = if settings.workers == 0 {
            2
        } else {
            settings.workers
        };
        let number = if settings.port == 0 {
            port.number()
        } else {
            settings.port
        };
        let _ = writeln!(
            config,
            "[listen]\naddress = \"127.0.0.1:{number}\"\nworkers = {workers}\n{}",
            settings.listen
        );
        let [cert, key] = match &settings.certificate {
            Some([cert, key]) => [cert, key],
            None => [&certificates.cert, &certificates.key],
        };
        let _ = writeln!(
            config,
            "[listen.tls]\ncertificate = {cert:?}\nkey = {key:?}"
        );
        let _ = writeln!(config, "{}", settings.listen_tls);
        let _ = writeln!(config, "{cluster_section}");
        let _ = writeln!(
            config,
            "[admin]\naddress = \"127.0.0.1:{}\"",
            admin.number()
        );
        let _ = writeln!(config, "{}", settings.sections);
        if !settings.sections.contains("[drain]") {
            let _ = writeln!(config, "{NO_DRAIN}");
        }
        let _ = writeln!(config, "[limits]\n{}", settings.limits);
        if !settings.limits.contains("auth_timeout_ms") {
            let _ = writeln!(config, "{PATIENCE}");
        }
        let path = folder.path().join("keyway.toml");
        fs::write(&path, config).expect("the configuration");

        let mut child = Command::new(tools::keyway())
            .args(["serve", "--config"])
            .arg(&path)
            .envs(
                settings
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", tools::keyway().display()));
        let log = Arc::new(Mutex::new(String::new()));
        collect(child.stderr.take().expect("piped"), Arc::clone(&log));
        Self {
            child,
            _port: port,
            number,
            admin,
            certificates,
            log,
            config: path,
            folder: Some(folder),
        }
    }

    /// Waits until `/readyz` says yes.
    ///
    /// # Panics
    /// It does not within 15 s, or the process ends.
    pub fn wait_ready(&mut self) {
        let mut ended = None;
        let ready = within(Duration::from_secs(15), || {
            ended = self.child.try_wait().expect("a child of ours");
            ended.is_some() || self.is_ready()
        });
        assert!(
            ended.is_none(),
            "keyway ended at once, {ended:?}:\n{}",
            self.log()
        );
        assert!(ready, "keyway was not ready within 15 s");
    }

    /// What `/readyz` says now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.http("/readyz").is_ok_and(|(status, _)| status == 200)
    }

    /// `host:port` for clients.
    #[must_use]
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }

    /// The configuration's file.
    ///
    /// # Panics
    /// Its path is not UTF-8.
    #[must_use]
    pub fn config(&self) -> String {
        let folder = self.folder.as_ref().expect("kept until the end");
        let path = folder.path().join("keyway.toml");
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    /// Ends it by SIGTERM; its configuration stays, as `keyway.toml` in this folder, without the
    /// certificates that it names.
    ///
    /// # Panics
    /// It does not end.
    #[must_use]
    pub fn stop_and_keep_config(mut self) -> TempDir {
        let kept = self.folder.take().expect("kept until the end");
        let _ = self.stop();
        kept
    }

    /// The port for clients.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.number
    }

    /// `host:port` of the admin port.
    #[must_use]
    pub fn admin(&self) -> String {
        format!("127.0.0.1:{}", self.admin.number())
    }

    /// The authority clients must trust.
    #[must_use]
    pub fn ca(&self) -> &Path {
        &self.certificates.ca
    }

    /// The child's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it read its configuration again, after `edit`, and waits for what it says to that.
    ///
    /// # Panics
    /// It says nothing.
    pub fn reconfigure(&self, edit: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(&self.config).expect("the configuration");
        fs::write(&self.config, edit(text)).expect("the configuration");
        let answers = || self.metric("keyway_config_reloads_total", &[]);
        let before = answers();
        self.signal(Signal::HUP);
        wait_until("an answer to SIGHUP", 20, || answers() > before + 0.5);
    }

    /// Sends it a signal.
    pub fn signal(&self, number: Signal) {
        signal(&self.child, number);
    }

    /// A new TLS connection.
    ///
    /// # Panics
    /// It is not taken.
    #[must_use]
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(&self.addr(), self.ca())
    }

    /// Status and body of a page of the admin port.
    ///
    /// # Errors
    /// The admin port does not answer.
    pub fn http(&self, path: &str) -> io::Result<(u16, String)> {
        http_get(&self.admin(), path)
    }

    /// The sum of all series of a metric whose line contains every one of `labels`.
    ///
    /// # Panics
    /// `/metrics` does not answer.
    #[must_use]
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, page) = self.http("/metrics").expect("/metrics");
        page.lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
                    && labels.iter().all(|label| line.contains(label))
            })
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// What Keyway logged until now.
    ///
    /// # Panics
    /// The collecting thread panicked.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    /// Waits until the log has a line that contains `part`.
    ///
    /// # Panics
    /// It does not within 10 s.
    #[track_caller]
    pub fn wait_logged(&self, part: &str) {
        wait_until(&format!("a log line with {part:?}"), 10, || {
            self.log().contains(part)
        });
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It does not end within 20 s.
    pub fn wait_end(&mut self) -> ExitStatus {
        let ended = within(END_LIMIT, || matches!(self.child.try_wait(), Ok(Some(_))));
        assert!(ended, "keyway did not end; {}", self.threads());
        self.child.wait().expect("a child of ours")
    }

    /// What its threads do.
    fn threads(&self) -> String {
        let folder = format!("/proc/{}/task", self.pid());
        let threads = fs::read_dir(folder).into_iter().flatten().flatten();
        let look = |thread: fs::DirEntry| {
            ["comm", "wchan", "syscall"].map(|file| {
                let text = fs::read_to_string(thread.path().join(file));
                text.unwrap_or_default().trim().to_owned()
            })
        };
        let all: Vec<String> = threads.map(|thread| look(thread).join(" ")).collect();
        format!("its threads: {}", all.join("; "))
    }

    /// Ends it by SIGTERM.
    ///
    /// # Panics
    /// It does not end.
    pub fn stop(mut self) -> ExitStatus {
        signal(&self.child, Signal::TERM);
        self.wait_end()
    }
}

impl Drop for Keyway {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!("the end of keyway's log:");
            lines.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
        end(&mut self.child, END_LIMIT);
    }
}

fn collect(pipe: impl Read + Send + 'static, into: Arc<Mutex<String>>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut log = into.lock().expect("the log");
            log.push_str(&line);
            log.push('\n');
        }
    });
}

/// Status and body of `http://addr/path`.
///
/// # Errors
/// Nothing answers there, or not in HTTP.
pub fn http_get(addr: &str, path: &str) -> io::Result<(u16, String)> {
    let (head, body) = http_answer(addr, path)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no HTTP: {head:?}")))?;
    Ok((status, body))
}

/// Head and body of `http://addr/path`.
///
/// # Errors
/// Nothing answers there.
pub fn http_answer(addr: &str, path: &str) -> io::Result<(String, String)> {
    let mut socket = TcpStream::connect(addr)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Ok((head.to_owned(), body.to_owned()))
}
