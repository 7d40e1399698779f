//! `keyway demo`: everything in one command, with nothing installed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use keyway_tests::ports::reserve;
use keyway_tests::{
    Client, Mode, Signal, Target, http_get, run_python_suite, run_redis_rs_suite, run_to_end,
    signal, text, tools, wait_until, within,
};
use tempfile::TempDir;

/// What is promised: serving within two seconds. A debug build on a busy machine gets a little more.
const SERVES_WITHIN: Duration = Duration::from_secs(2);

struct Demo {
    child: Child,
    said: Arc<Mutex<String>>,
    folder: TempDir,
    began: Instant,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let began = Instant::now();
        let mut child = Command::new(tools::keyway())
            .arg("demo")
            .args(arguments)
            .arg("--dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().unwrap(), Arc::clone(&said));
        collect(child.stderr.take().unwrap(), Arc::clone(&said));
        Self {
            child,
            said,
            folder,
            began,
        }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Waits until it serves a write and a read on `port`; returns how long after its start.
    #[track_caller]
    fn wait_serving(&self, port: u16) -> Duration {
        let addr = format!("127.0.0.1:{port}");
        let works = within(Duration::from_secs(15), || {
            self.ca().exists()
                && Client::try_connect(&addr, &self.ca()).is_ok_and(|mut client| {
                    client
                        .try_cmd(&["SET", "demo", "works"])
                        .is_ok_and(|reply| text(&reply) == "OK")
                })
        });
        assert!(works, "the demo does not serve on {port}:\n{}", self.said());
        self.began.elapsed()
    }

    /// The printed lines that contain `part`, without what is around a command.
    fn lines_with(&self, part: &str) -> Vec<String> {
        let said = self.said();
        said.lines()
            .filter(|line| line.contains(part))
            .map(|line| line.trim().trim_start_matches("$ ").to_owned())
            .collect()
    }

    /// Ctrl-C, and the exit code that follows.
    fn interrupt(mut self) -> Option<i32> {
        signal(&self.child, Signal::INT);
        wait_until("the demo's end after Ctrl-C", 10, || {
            matches!(self.child.try_wait(), Ok(Some(_)))
        });
        self.child.wait().unwrap().code()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the demo said:\n{}", self.said());
        }
    }
}

fn collect(pipe: impl Read + Send + 'static, into: Arc<Mutex<String>>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut said = into.lock().unwrap();
            said.push_str(&line);
            said.push('\n');
        }
    });
}

fn with_ports<T>(run: impl FnOnce(Demo, u16, u16) -> T) -> T {
    let (port, admin) = (reserve(), reserve());
    let (a, b) = (port.number().to_string(), admin.number().to_string());
    run(
        Demo::start(&["--port", &a, "--admin-port", &b]),
        port.number(),
        admin.number(),
    )
}

#[test]
fn serves_soon_and_ends_on_ctrl_c() {
    with_ports(|demo, port, admin| {
        let took = demo.wait_serving(port);
        assert!(took < SERVES_WITHIN, "it took {took:?}");
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            assert!(demo.folder.path().join(name).exists(), "{name}");
        }
        assert_private(&demo.folder.path().join("key.pem"));
        // It serves as soon as it can, and says so right behind.
        let page = format!("127.0.0.1:{admin}");
        wait_until("/readyz", 5, || {
            http_get(&page, "/readyz").is_ok_and(|(status, _)| status == 200)
        });
        assert_eq!(demo.interrupt(), Some(0), "the exit code after Ctrl-C");
        assert!(
            TcpListener::bind(("127.0.0.1", port)).is_ok(),
            "the port is free again"
        );
    });
}

#[test]
fn reads_go_to_the_zone_that_is_named() {
    with_ports(|demo, port, admin| {
        demo.wait_serving(port);
        wait_until("printed lines", 5, || {
            !demo.lines_with("Reads on port").is_empty()
        });
        let line = demo.lines_with("Reads on port").remove(0);
        let digits = line.trim_start_matches("Reads on port ").split(',').next();
        let addr = format!("127.0.0.1:{}", digits.unwrap_or_default());
        let mut reader = Client::connect(&addr, &demo.ca());
        wait_until("a read in the own zone", 10, || {
            assert_eq!(text(&reader.cmd(&["GET", "demo"])), "works");
            let (_, page) = http_get(&format!("127.0.0.1:{admin}"), "/metrics").unwrap();
            let own = page
                .lines()
                .find(|line| line.starts_with("keyway_reads_total{zone=\"own\"}"));
            own.is_some_and(|line| !line.ends_with(" 0"))
        });
    });
}

#[test]
fn the_printed_lines_work() {
    with_ports(|demo, port, _| {
        demo.wait_serving(port);
        wait_until("printed lines", 5, || !demo.lines_with("curl").is_empty());
        let run = |line: &str, more: &str| {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", &format!("{line} {more}")])
                .env("PATH", path_with_tools());
            run_to_end(&mut shell, Duration::from_secs(20))
        };
        let cli = demo
            .lines_with("valkey-cli")
            .first()
            .cloned()
            .unwrap_or_default();
        let output = run(
            &cli,
            if cli.contains("--tls") && !cli.contains("SET") {
                "GET demo"
            } else {
                ""
            },
        );
        assert_eq!(
            (output.code, output.stdout.trim()),
            (Some(0), "works"),
            "{cli}: {}",
            output.stderr
        );

        let python = demo
            .lines_with("python")
            .into_iter()
            .find(|line| line.contains("redis"))
            .expect("a line for redis-py");
        let output = run(&python, "");
        assert_eq!(output.code, Some(0), "{python}: {}", output.stderr);

        let url = demo
            .lines_with("curl")
            .first()
            .and_then(|line| Some(line.split_once("http://")?.1.to_owned()))
            .unwrap();
        let (addr, path) = url.split_once('/').unwrap();
        let path = format!("/{}", path.split_whitespace().next().unwrap_or_default());
        let (status, _) = http_get(addr, &path).unwrap();
        assert_eq!(status, 200, "{url}");
    });
}

#[test]
fn takes_another_port_when_the_usual_one_is_taken() {
    // Somebody else may have it already; then the case is given as it is.
    let _taken = TcpListener::bind(("127.0.0.1", 6379));
    let admin = reserve();
    let demo = Demo::start(&["--admin-port", &admin.number().to_string()]);
    wait_until("the demo's lines", 10, || {
        demo.said().contains("valkey-cli")
    });
    let cli = demo
        .lines_with("valkey-cli")
        .first()
        .cloned()
        .unwrap_or_default();
    let port = cli
        .split_whitespace()
        .skip_while(|word| *word != "-p")
        .nth(1)
        .and_then(|port| port.parse::<u16>().ok());
    let port = port.unwrap_or_else(|| panic!("no -p PORT in {cli:?}"));
    assert_ne!(port, 6379);
    demo.wait_serving(port);
    assert!(
        demo.said().contains("6379"),
        "it is said that 6379 is taken:\n{}",
        demo.said()
    );
    assert_eq!(demo.interrupt(), Some(0));
}

#[test]
fn clients_work_before_the_simulated_cluster() {
    with_ports(|demo, port, _| {
        demo.wait_serving(port);
        let mut client = Client::connect(&format!("127.0.0.1:{port}"), &demo.ca());
        let frames: Vec<Vec<u8>> = (0..5_000)
            .flat_map(|i| {
                [
                    ["SET", &format!("key{i}"), &format!("value{i}")]
                        .map(str::to_owned)
                        .to_vec(),
                    vec!["GET".to_owned(), format!("key{i}")],
                ]
            })
            .map(|args| {
                let mut frame = Vec::new();
                resp::write::request(&mut frame, &args);
                frame
            })
            .collect();
        let replies = client.pipeline(&frames);
        for (i, pair) in replies.chunks(2).enumerate() {
            assert_eq!(
                pair.iter().map(text).collect::<Vec<_>>(),
                ["OK".to_owned(), format!("value{i}")]
            );
        }
    });
}

#[test]
fn real_servers_can_stand_behind_it() {
    let (port, admin) = (reserve(), reserve());
    let (a, b) = (port.number().to_string(), admin.number().to_string());
    let demo = Demo::start(&["--valkey", "--port", &a, "--admin-port", &b]);
    demo.wait_serving(port.number());
    let ca = demo.ca();
    let target = Target {
        port: port.number(),
        ca: &ca,
        mode: Mode::All,
        splits: true,
    };
    run_redis_rs_suite(target);
    run_python_suite("valkey_py.py", target, 4);
    assert_eq!(demo.interrupt(), Some(0));
}

fn assert_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(
        mode & 0o077,
        0,
        "{} may be read by others: {mode:o}",
        path.display()
    );
}

/// The Python with the clients in front, so that a printed line finds its library.
fn path_with_tools() -> String {
    let python = tools::tool("KEYWAY_PYTHON");
    let folder = python.parent().unwrap().display().to_string();
    format!("{folder}:{}", std::env::var("PATH").unwrap_or_default())
}
