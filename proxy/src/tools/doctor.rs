//! `keyway doctor`: looks at everything that a Keyway needs, and says what to do about what is
//! wrong. It binds nothing for long, changes nothing, and stops at what makes the rest senseless.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use serde::Serialize;

use super::{FAILED, run, say, say_json, source::of_cluster};
use crate::config::Config;

mod cluster;
mod local;
mod nodes;

/// `keyway doctor`
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The configuration to look at.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which of several clusters; all of them without.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// The findings as JSON.
    #[arg(long)]
    json: bool,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warning,
    Failed,
    Skipped,
}

/// One check and what it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    /// One line.
    found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// What was found, in the order of the checks.
#[derive(Clone, Debug, Default, Serialize)]
struct Findings {
    /// Nothing has failed.
    ok: bool,
    checks: Vec<Finding>,
}

impl Findings {
    fn push(
        &mut self,
        check: &'static str,
        state: State,
        found: impl Into<String>,
        remedy: Option<&str>,
    ) {
        self.checks.push(Finding {
            check,
            state,
            found: found.into(),
            remedy: remedy.map(str::to_owned),
        });
    }

    fn fine(&mut self, check: &'static str, found: impl Into<String>) {
        self.push(check, State::Ok, found, None);
    }

    fn warn(&mut self, check: &'static str, found: impl Into<String>, remedy: &str) {
        self.push(check, State::Warning, found, Some(remedy));
    }

    fn fail(&mut self, check: &'static str, found: impl Into<String>, remedy: &str) {
        self.push(check, State::Failed, found, Some(remedy));
    }

    fn skip(&mut self, check: &'static str, why: impl Into<String>) {
        self.push(check, State::Skipped, why, None);
    }

    fn count(&self, state: State) -> usize {
        let of = self.checks.iter().filter(|finding| finding.state == state);
        of.count()
    }
}

/// Looks, and says what was found.
pub(crate) fn show(options: &Options) -> ExitCode {
    let findings = match run(async { Ok(examine(options).await) }) {
        Ok(findings) => findings,
        Err(code) => return code,
    };
    if options.json {
        say_json(&findings);
    } else {
        say(&text(&findings));
    }
    if findings.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    }
}

async fn examine(options: &Options) -> Findings {
    let mut findings = Findings::default();
    match Config::load(&options.config) {
        Ok(config) => {
            findings.fine("configuration", options.config.display().to_string());
            local::examine(&config, &mut findings).await;
            match chosen(&config, options.cluster.as_deref()) {
                Ok(all) => {
                    for own in all {
                        examine_cluster(&own, &mut findings).await;
                    }
                }
                Err(text) => findings.fail("cluster", text, "name one that is there"),
            }
        }
        Err(problems) => {
            for problem in problems.iter() {
                findings.fail("configuration", problem.to_string(), "correct the file");
            }
            findings.skip("everything else", "the configuration cannot be used");
        }
    }
    findings.ok = findings.count(State::Failed) == 0;
    findings
}

/// The clusters to look at.
fn chosen(config: &Config, name: Option<&str>) -> Result<Vec<Config>, String> {
    if name.is_none() && !config.clusters.is_empty() {
        let all = config.clusters.iter().map(|own| (**own).clone());
        return Ok(all.collect());
    }
    let own = of_cluster(config, name).map_err(|failure| failure.to_string())?;
    Ok(vec![own])
}

async fn examine_cluster(config: &Config, findings: &mut Findings) {
    if let Some(tenant) = &config.tenant {
        let found = format!("{}: what follows is about it", tenant.name);
        findings.fine("cluster", found);
    }
    if let Some(context) = nodes::context(config, findings) {
        let looked = nodes::examine(&context, findings).await;
        cluster::examine(&context, looked, findings).await;
    }
}

fn text(findings: &Findings) -> String {
    let mut out = String::new();
    let checks = findings.checks.iter();
    let width = checks.map(|finding| finding.check.len()).max().unwrap_or(0);
    for finding in &findings.checks {
        let mark = match finding.state {
            State::Ok => "\u{2714} ok  ",
            State::Warning => "! warn",
            State::Failed => "\u{2716} FAIL",
            State::Skipped => "- skip",
        };
        let _ = writeln!(out, "{mark}  {:<width$}  {}", finding.check, finding.found);
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(out, "{:width$}          \u{2192} {remedy}", "");
        }
    }
    let (failed, warned) = (
        findings.count(State::Failed),
        findings.count(State::Warning),
    );
    let _ = writeln!(
        out,
        "\n{} checks: {failed} failed, {warned} warnings",
        findings.checks.len()
    );
    out
}
