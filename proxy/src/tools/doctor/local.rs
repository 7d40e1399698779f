//! What can be seen on this machine: certificates, ports, limits.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use super::{Findings, State};
use crate::{
    config::Config,
    events::unix_ms,
    expiry, files,
    outlets::Outlets,
    report::{Certificate, Status},
    server::entrances,
    tls::AllLoaded,
    tools::source::{Admin, page},
};

/// A certificate that ends sooner is to be renewed now.
const DAYS_MIN: i64 = 14;

pub(super) async fn examine(config: &Config, findings: &mut Findings) {
    match AllLoaded::load(config) {
        Ok(_) => findings.fine("certificate files", "they load, and keys fit"),
        Err(problems) => problems.iter().for_each(|problem| {
            findings.fail("certificate files", problem.to_string(), "correct the file");
        }),
    }
    for problem in Outlets::problems(config) {
        findings.fail("log and traces", problem.to_string(), "correct the file");
    }
    let certificates = expiry::of(config, unix_ms());
    for certificate in &certificates {
        ends(certificate, &format!("{}:", certificate.key), findings);
    }
    for own in &config.clusters {
        let name = own.tenant.as_ref().map_or("", |tenant| &tenant.name);
        let theirs = expiry::of(own, unix_ms());
        let new = |one: &&Certificate| !certificates.iter().any(|known| known.file == one.file);
        for certificate in theirs.iter().filter(new) {
            let whose = format!("{name}: {}:", certificate.key);
            ends(certificate, &whose, findings);
        }
    }
    if let Some(own) = certificates.first() {
        names(own, config, findings);
    }
    let running = page::<Status>(&Admin::at(config.admin.address), "/status").await;
    let running = running.ok();
    let clients = entrances(config).into_iter();
    let ports = clients.map(|(_, key, address)| (key, address));
    for (key, address) in ports.chain([("admin.address", config.admin.address)]) {
        port(key, address, running.as_ref(), findings);
    }
    match files::fit(&mut config.clone()) {
        None => findings.fine(
            "file limit",
            format!("room for {} clients", config.limits.clients_max),
        ),
        Some(lowered) => findings.warn(
            "file limit",
            format!(
                "{} open files leave room for {} clients of limits.clients_max = {}",
                lowered.files, lowered.clients_max, lowered.wanted
            ),
            "raise the limit (ulimit -n, LimitNOFILE= of systemd), or lower limits.clients_max",
        ),
    }
}

/// Says how long a certificate is good.
pub(super) fn ends(certificate: &Certificate, whose: &str, findings: &mut Findings) {
    const CHECK: &str = "certificate expiry";
    let file = &certificate.file;
    let of = format!("{whose} {file}").trim_end().to_owned();
    match (certificate.days_left, &certificate.trouble) {
        (_, Some(trouble)) => findings.skip(CHECK, format!("{of} cannot be read: {trouble}")),
        (None, None) => findings.skip(CHECK, format!("{of} has no certificate")),
        (Some(days), None) if days < 0 => findings.fail(
            CHECK,
            format!("{of} ended {} days ago", days.saturating_neg()),
            "renew it",
        ),
        (Some(days), None) if days < DAYS_MIN => findings.warn(
            CHECK,
            format!("{of} ends in {days} days"),
            "renew it now; clients and nodes refuse it afterwards",
        ),
        (Some(days), None) => findings.fine(CHECK, format!("{of} is good for {days} days")),
    }
}

/// Clients look for the name that they dial.
fn names(own: &Certificate, config: &Config, findings: &mut Findings) {
    const CHECK: &str = "certificate names";
    if own.trouble.is_some() {
        findings.skip(CHECK, "the certificate cannot be read");
        return;
    }
    if own.names.is_empty() {
        findings.fail(
            CHECK,
            format!("{} has no subject alternative name", own.file),
            "issue it with the names that clients dial; a common name alone is not looked at",
        );
        return;
    }
    let told = [&config.listen.advertise, &config.reads.advertise];
    let missing = told
        .into_iter()
        .flatten()
        .find(|advertise| !own.names.iter().any(|name| covers(name, &advertise.host)));
    match missing {
        Some(advertise) => findings.fail(
            CHECK,
            format!(
                "cluster clients are told {}, which {} is not for ({})",
                advertise.host,
                own.file,
                own.names.join(", ")
            ),
            "add the name to the certificate, or advertise one that it has",
        ),
        None => findings.fine(CHECK, format!("clients may dial {}", own.names.join(", "))),
    }
}

/// Whether a certificate's name is for a host; `*` stands for one label.
fn covers(name: &str, host: &str) -> bool {
    let same = name.eq_ignore_ascii_case(host);
    let wild = name.strip_prefix("*.").zip(host.split_once('.'));
    same || wild.is_some_and(|(suffix, (_, rest))| suffix.eq_ignore_ascii_case(rest))
}

fn port(key: &'static str, address: SocketAddr, running: Option<&Status>, findings: &mut Findings) {
    let bound = TcpListener::bind(address).map(drop);
    match (bound, running) {
        (Ok(()), _) => findings.fine(key, format!("{address} can be bound")),
        (Err(error), Some(status)) if error.kind() == io::ErrorKind::AddrInUse => {
            let (state, text) = match &status.not_ready_because {
                None => (State::Ok, "is ready".to_owned()),
                Some(reason) => (State::Warning, format!("is not ready: {reason}")),
            };
            let found = format!(
                "{address} is in use; a Keyway {} runs and {text}",
                status.version
            );
            findings.push(key, state, found, None);
        }
        (Err(error), _) => findings.fail(
            key,
            format!("{address} cannot be bound: {error}"),
            match error.kind() {
                io::ErrorKind::AddrInUse => "end what listens there, or choose another port",
                io::ErrorKind::PermissionDenied => "ports below 1024 need privileges",
                _ => "name an address that this machine has",
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_covers_itself_and_a_star_one_label() {
        assert!(covers("a.example", "A.example"));
        assert!(covers("*.example", "a.example"));
        assert!(!covers("*.example", "a.b.example"));
        assert!(!covers("*.example", "example"));
        assert!(covers("127.0.0.1", "127.0.0.1"));
    }

    #[test]
    fn an_end_that_is_near_is_a_warning_and_one_that_was_a_failure() {
        let states = [-1, 0, 13, 14].map(|days| {
            let mut findings = Findings::default();
            let certificate = Certificate {
                days_left: Some(days),
                ..Certificate::default()
            };
            ends(&certificate, "x", &mut findings);
            findings.checks[0].state
        });
        let expected = [State::Failed, State::Warning, State::Warning, State::Ok];
        assert_eq!(states, expected);
    }
}
