//! The commands in `docs/kubernetes.md` and `docs/operations.md` work as they are written, one after the
//! other, and say what the pages say. What needs a cluster or systemd is stood in for by
//! `tests/deploy/pretend.py`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use keyway_tests::ports::reserve;
use keyway_tests::tools::{keyway, listed_metrics, root, tool};
use keyway_tests::{Keyway, RealCluster, Version, run_to_end};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);
/// What is not run as it stands, why, and how far it is. All else is run: openssl, install, curl, valkey-cli,
/// promtool, keyway.
const PRETENDED: [(&str, &str); 8] = [
    (
        "sudo",
        "the commands are run as they are, by whoever runs the test",
    ),
    (
        "cargo",
        "minutes; the binary under test is put where a release build would be",
    ),
    (
        "systemd-sysusers",
        "the real one makes its users in the test's folder",
    ),
    (
        "systemctl",
        "no systemd runs here, it does what the installed unit says; tests/machine has one",
    ),
    (
        "journalctl",
        "as systemctl: it shows what the unit's process has logged",
    ),
    (
        "kubectl",
        "no cluster; the real one builds what is local and reads all else as far as the \
         connection, and what is asked for must be among what was applied",
    ),
    ("helm", "no cluster; the real one makes a dry run"),
    (
        "docker",
        "no engine; tests/image builds and runs the same Dockerfile",
    ),
];

/// A block between fences: what stands behind the first fence, and the lines.
struct Block {
    what: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let fenced = text.split("\n```").skip(1).step_by(2);
    fenced
        .map(|block| {
            let (what, text) = block.split_once('\n').unwrap();
            Block {
                what: what.to_owned(),
                text: text.to_owned() + "\n",
            }
        })
        .collect()
}

/// Where a program of this machine is.
fn real(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let mut found = std::env::split_paths(&path).map(|folder| folder.join(name));
    found
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("no {name}: run tests/install"))
}

/// A folder that is the repository and the machine at once.
struct Machine {
    folder: TempDir,
    environment: Vec<(&'static str, String)>,
    /// What the pages say, and what it is here.
    differs: Vec<(String, String)>,
}

impl Machine {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let at = folder.path();
        for name in ["deploy", "docs"] {
            symlink(fs::canonicalize(root().join(name)).unwrap(), at.join(name)).unwrap();
        }
        let programs = at.join("usr/local/bin");
        for made in [&programs, &at.join("etc/systemd/system")] {
            fs::create_dir_all(made).unwrap();
        }
        let pretend = fs::read_to_string(root().join("tests/deploy/pretend.py")).unwrap();
        // With the tests' Python, which has YAML.
        let (_, body) = pretend.split_once('\n').unwrap();
        let scripts = at.join("pretend");
        fs::create_dir_all(&scripts).unwrap();
        let python = tool("KEYWAY_PYTHON");
        let pretend = scripts.join("pretend.py");
        fs::write(&pretend, format!("#!{} -B\n{body}", python.display())).unwrap();
        let name = "manifests.py";
        fs::copy(root().join("tests/deploy").join(name), scripts.join(name)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&pretend, mode).unwrap();
        for (name, _) in PRETENDED {
            symlink(&pretend, scripts.join(name)).unwrap();
        }
        let mut differs = vec![(" -g keyway".to_owned(), String::new())];
        for path in [
            "/usr/local/bin",
            "/etc/keyway",
            "/var/log/keyway",
            "/etc/systemd",
            "/etc/sysusers.d",
        ] {
            differs.push((path.to_owned(), at.join(&path[1..]).display().to_string()));
        }
        let old = std::env::var("PATH").unwrap();
        let promtool = tool("KEYWAY_PROMTOOL");
        let promtool = promtool.parent().unwrap().display();
        let path = format!(
            "{}:{}:{promtool}:{old}",
            scripts.display(),
            programs.display()
        );
        let mut environment = vec![
            ("PATH", path),
            ("DOC_FOLDER", at.display().to_string()),
            ("KEYWAY_BIN", keyway().display().to_string()),
        ];
        let sysusers = real("systemd-sysusers").display().to_string();
        environment.push(("DOC_SYSUSERS", sysusers));
        for name in ["KEYWAY_KUBECTL", "KEYWAY_HELM"] {
            environment.push((name, tool(name).display().to_string()));
        }
        Self {
            folder,
            environment,
            differs,
        }
    }

    fn port(&mut self, written: u16, here: u16) {
        for sign in [":", "-p "] {
            let pair = (format!("{sign}{written}"), format!("{sign}{here}"));
            self.differs.push(pair);
        }
    }

    fn here(&self, text: &str) -> String {
        let replace =
            |text: String, (written, here): &(String, String)| text.replace(written, here);
        self.differs.iter().fold(text.to_owned(), replace)
    }

    /// Does what the page says. Returns how many blocks of commands there were.
    fn follow(&self, page: &str) -> usize {
        let (mut ran, mut said) = (0, String::new());
        for block in blocks(page) {
            match block.what.split_once(' ') {
                None if block.what == "sh" => {
                    said = self.run(&block.text);
                    ran += 1;
                }
                None if block.what == "text" => assert_said(&block.text, &said),
                Some((_, path)) => self.write(path, &block.text),
                None => assert!(
                    ["toml", "yaml"].contains(&block.what.as_str()),
                    "{}",
                    block.what
                ),
            }
        }
        ran
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, self.here(text)).unwrap();
    }

    fn run(&self, commands: &str) -> String {
        let mut command = Command::new("bash");
        let script = format!("set -euo pipefail\n{}", self.here(commands));
        command
            .args(["-c", &script])
            .current_dir(self.folder.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let said = run_to_end(&mut command, LIMIT);
        assert_eq!(
            said.code,
            Some(0),
            "{commands}\n{}{}",
            said.stdout,
            said.stderr
        );
        said.stdout
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.folder.path().join("keyway.pid"));
        if let Ok(pid) = pid {
            let _ = Command::new("kill").arg(pid.trim()).status();
        }
    }
}

/// Every expected line, in order; `...` stands for anything behind it.
#[track_caller]
fn assert_said(expected: &str, said: &str) {
    let expected: Vec<_> = expected.lines().collect();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(expected.len(), lines.len(), "{expected:?} {lines:?}");
    for (expected, line) in expected.iter().zip(&lines) {
        let fits = match expected.strip_suffix("...") {
            Some(start) => line.starts_with(start),
            None => expected == line,
        };
        assert!(fits, "{line:?} is not {expected:?}");
    }
}

#[test]
fn operations_work_as_written() {
    let cluster = RealCluster::start(Version::V9_1, 3, 0);
    let (clients, admin) = (reserve(), reserve());
    let mut machine = Machine::new();
    machine.port(6379, clients.number());
    machine.port(9121, admin.number());
    machine
        .differs
        .push(("0.0.0.0".to_owned(), "127.0.0.1".to_owned()));
    machine.port(7001, cluster.nodes()[0].port());
    machine
        .environment
        .push(("DOC_ADMIN", admin.number().to_string()));
    // The page leaves [admin] at its default; two tests must not share it.
    let section = format!(
        "\n[admin]\naddress = \"127.0.0.1:{}\"\nEND\n",
        admin.number()
    );
    machine.differs.push(("\nEND\n".to_owned(), section));
    assert!(machine.follow("docs/operations.md") >= 10);
}

#[test]
fn kubernetes_works_as_written() {
    let cluster = RealCluster::start(Version::V9_1, 1, 0);
    let keyway = Keyway::start(&cluster);
    let mut machine = Machine::new();
    machine.differs.clear();
    // Where the port-forward of the page listens, and what it leads to.
    let here = reserve();
    for sign in ["-p ", "service/keyway "] {
        let pair = (format!("{sign}6379"), format!("{sign}{}", here.number()));
        machine.differs.push(pair);
    }
    machine
        .environment
        .push(("DOC_SERVICE", keyway.port().to_string()));
    let ca = keyway.ca().display().to_string();
    machine.environment.push(("DOC_CA", ca));
    assert!(machine.follow("docs/kubernetes.md") >= 8);
}

/// As an ordinary user: what others may neither write nor read needs sudo.
#[test]
fn what_needs_root_says_so() {
    let mut seen = 0;
    for block in blocks("docs/operations.md") {
        let lines = block.text.lines().filter(|_| block.what == "sh");
        for line in lines.flat_map(|line| line.split(" && ")) {
            let asks = line.contains(" status ") || line.starts_with("    ");
            let needs = ["/etc/", "/usr/", "systemctl ", "journalctl ", "sysusers"];
            if needs.iter().any(|word| line.contains(word)) && !asks {
                assert!(line.starts_with("sudo "), "{line}");
                seen += 1;
            }
        }
    }
    assert!(seen > 10, "{seen}");
}

/// Metrics, recorded series and keys of the configuration that the pages name are there.
#[test]
fn what_the_pages_name_exists() {
    let rules = fs::read_to_string(root().join("deploy/prometheus/rules.yml")).unwrap();
    let metrics = listed_metrics();
    let mut seen = 0;
    for page in ["docs/kubernetes.md", "docs/operations.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        for word in text.split(|c| !part(c)) {
            let exists = if word.starts_with("namespace_job:") {
                rules.contains(&format!("record: {word}\n"))
            } else if word.starts_with("keyway_") || word.starts_with("process_") {
                metrics.iter().any(|metric| metric.name == word)
            } else {
                continue;
            };
            assert!(exists, "{page}: there is no {word}");
            seen += 1;
        }
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn every_alert_is_in_the_table_of_operations() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let (rules, page) = (
        read("deploy/prometheus/rules.yml"),
        read("docs/operations.md"),
    );
    let mut alert = "";
    let mut seen = 0;
    for line in rules.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("- alert: ") {
            alert = name;
        } else if let Some(severity) = line.strip_prefix("severity: ") {
            let severity = if severity.contains("{{") {
                "ticket, then page"
            } else {
                severity
            };
            let row = format!("| [{alert}](runbooks/{alert}.md) | {severity} | ");
            assert!(page.contains(&row), "no {row:?}");
            seen += 1;
        }
    }
    assert_eq!(seen, page.matches("](runbooks/").count());
}

#[test]
fn links_lead_somewhere() {
    let mut pages = vec![
        "docs/kubernetes.md".to_owned(),
        "docs/operations.md".to_owned(),
    ];
    pages.push("docs/metrics.md".to_owned());
    for entry in fs::read_dir(root().join("docs/runbooks")).unwrap() {
        let name = entry.unwrap().file_name();
        pages.push(format!("docs/runbooks/{}", name.to_str().unwrap()));
    }
    for page in pages {
        let path = root().join(&page);
        let text = fs::read_to_string(&path).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .map(|rest| rest.split(')').next().unwrap())
        {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let there: &Path = &path.parent().unwrap().join(target);
            assert!(there.exists(), "{page}: {link}");
        }
    }
}
