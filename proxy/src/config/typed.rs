//! What was typed: the TOML file as serde sees it, unknown keys and wrong types refused, every
//! mistake collected. What the values mean is `check`'s business.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{self, Visitor};
use toml::de::{DeTable, DeValue, Deserializer};

use super::problem::{Origin, Problem, Problems};
use super::{autoscale, fields, traces};

mod clusters;

pub(super) use clusters::Clusters;

/// Mistakes reported at most for one file: beyond that it is another kind of file.
const PROBLEMS_MAX: usize = 50;
/// A suggestion must be at least this similar (Jaro-Winkler, 0 to 1) to be worth making.
const SIMILARITY_MIN: f64 = 0.78;

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) listen: Listen,
    pub(super) cluster: Clusters,
    pub(super) reads: Reads,
    pub(super) hot_keys: HotKeys,
    pub(super) users: BTreeMap<String, User>,
    pub(super) admin_commands: AdminCommands,
    pub(super) limits: Limits,
    pub(super) reload: Reload,
    pub(super) drain: Drain,
    pub(super) admin: Admin,
    pub(super) log: Log,
    pub(super) traces: traces::Typed,
    pub(super) autoscale: autoscale::Typed,
}

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Listen {
    pub(super) address: Option<String>,
    pub(super) advertise: Option<String>,
    pub(super) workers: Option<Whole>,
    pub(super) reuse_port: Option<bool>,
    pub(super) tls: ListenTls,
}

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListenTls {
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
    pub(super) certificates: Option<Vec<NamedCertificate>>,
    pub(super) client_ca: Option<String>,
    pub(super) client_crl: Option<String>,
    pub(super) client_auth: Option<String>,
    pub(super) min_version: Option<String>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NamedCertificate {
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Cluster {
    pub(super) seeds: Option<Vec<String>>,
    pub(super) name_servers: Option<Vec<String>>,
    pub(super) username: Option<String>,
    pub(super) password_file: Option<String>,
    pub(super) password_env: Option<String>,
    pub(super) unauthenticated: Option<String>,
    pub(super) cross_slot: Option<String>,
    pub(super) tls: Option<ClusterTls>,
    // These only in [[cluster]].
    pub(super) name: Option<String>,
    pub(super) server_names: Option<Vec<String>>,
    pub(super) user_names: Option<Vec<String>>,
    pub(super) default: Option<bool>,
    pub(super) listen: Option<ClusterListen>,
    pub(super) reads: Option<Reads>,
    pub(super) users: Option<BTreeMap<String, User>>,
    pub(super) limits: Option<Limits>,
}

impl Cluster {
    /// Keys that are there and only mean something in `[[cluster]]`.
    pub(super) fn several(&self) -> Vec<&'static str> {
        let keys = [
            ("name", self.name.is_some()),
            ("server_names", self.server_names.is_some()),
            ("user_names", self.user_names.is_some()),
            ("default", self.default.is_some()),
            ("listen", self.listen.is_some()),
            ("reads", self.reads.is_some()),
            ("users", self.users.is_some()),
            ("limits", self.limits.is_some()),
        ];
        let there = keys.into_iter().filter(|(_, there)| *there);
        there.map(|(key, _)| key).collect()
    }
}

/// `[cluster.listen]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ClusterListen {
    pub(super) address: Option<String>,
    pub(super) advertise: Option<String>,
    pub(super) tls: ListenTls,
}

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ClusterTls {
    pub(super) ca: Option<String>,
    pub(super) server_name: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Reads {
    pub(super) address: Option<String>,
    pub(super) advertise: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) zone_file: Option<String>,
    pub(super) zones: Option<BTreeMap<String, String>>,
    pub(super) max_lag_ms: Option<Whole>,
    pub(super) readonly_flag: Option<bool>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HotKeys {
    pub(super) coalesce: Option<bool>,
    pub(super) near_prefixes: Option<Vec<String>>,
    pub(super) near_ops_min: Option<Whole>,
    pub(super) near_bytes_max: Option<Whole>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct User {
    pub(super) password_file: Option<String>,
    pub(super) password_env: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) cluster_username: Option<String>,
    pub(super) cluster_password_file: Option<String>,
    pub(super) cluster_password_env: Option<String>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AdminCommands {
    pub(super) allow: Option<Vec<String>>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) clients_max: Option<Whole>,
    pub(super) handshake_timeout_ms: Option<Whole>,
    pub(super) handshakes_max: Option<Whole>,
    pub(super) auth_timeout_ms: Option<Whole>,
    pub(super) request_timeout_ms: Option<Whole>,
    pub(super) deadline_ms: Option<Whole>,
    pub(super) reply_timeout_ms: Option<Whole>,
    pub(super) client_output_bytes_max: Option<Whole>,
    pub(super) in_flight_max: Option<Whole>,
    pub(super) leases_max: Option<Whole>,
    pub(super) request_bytes_max: Option<Whole>,
    pub(super) clients_per_address_max: Option<Whole>,
    pub(super) clients_per_user_max: Option<Whole>,
    pub(super) user_commands_per_second_max: Option<Whole>,
    pub(super) user_bytes_per_second_max: Option<Whole>,
    pub(super) idle_timeout_ms: Option<Whole>,
    pub(super) max_connection_age_ms: Option<Whole>,
    pub(super) commands_per_second_max: Option<Whole>,
    pub(super) bytes_per_second_max: Option<Whole>,
    pub(super) memory_bytes_max: Option<Whole>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Reload {
    pub(super) watch: Option<bool>,
    pub(super) every_ms: Option<Whole>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Drain {
    pub(super) mode: Option<String>,
    pub(super) lame_duck_ms: Option<Whole>,
    pub(super) grace_ms: Option<Whole>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Admin {
    pub(super) address: Option<String>,
    pub(super) show_keys: Option<bool>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub(super) level: Option<String>,
    pub(super) format: Option<String>,
    pub(super) slow_ms: Option<Whole>,
    pub(super) access_one_in: Option<Whole>,
    pub(super) access_file: Option<String>,
}

/// A TOML integer, of any sign: ranges are `check`'s business, with a better message than serde's.
#[derive(Clone, Copy)]
pub(super) struct Whole(pub(super) i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WholeVisitor;
        impl Visitor<'_> for WholeVisitor {
            type Value = Whole;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Whole, E> {
                Ok(Whole(value))
            }
        }
        deserializer.deserialize_i64(WholeVisitor)
    }
}

/// Every section by its dotted path, with its keys; sub-sections are keys of their parent too.
pub(super) fn sections() -> [(&'static str, &'static [&'static str]); 23] {
    [
        ("", fields::names::<File>()),
        ("listen", fields::names::<Listen>()),
        ("listen.tls", fields::names::<ListenTls>()),
        (
            "listen.tls.certificates",
            fields::names::<NamedCertificate>(),
        ),
        ("cluster", fields::names::<Cluster>()),
        ("cluster.tls", fields::names::<ClusterTls>()),
        ("reads", fields::names::<Reads>()),
        ("hot_keys", fields::names::<HotKeys>()),
        ("users.NAME", fields::names::<User>()),
        ("admin_commands", fields::names::<AdminCommands>()),
        ("limits", fields::names::<Limits>()),
        ("reload", fields::names::<Reload>()),
        ("drain", fields::names::<Drain>()),
        ("admin", fields::names::<Admin>()),
        ("log", fields::names::<Log>()),
        ("traces", fields::names::<traces::Typed>()),
        ("autoscale", fields::names::<autoscale::Typed>()),
        // Of one [[cluster]]: what they have in common with the sections above is told there.
        ("cluster.listen", fields::names::<ClusterListen>()),
        ("cluster.listen.tls", fields::names::<ListenTls>()),
        (
            "cluster.listen.tls.certificates",
            fields::names::<NamedCertificate>(),
        ),
        ("cluster.reads", fields::names::<Reads>()),
        ("cluster.users.NAME", fields::names::<User>()),
        ("cluster.limits", fields::names::<Limits>()),
    ]
}

/// Reads `text`. Mistakes of single keys come back beside what could be read, so that the next
/// stage can add its own; a text that is not TOML is an error at once.
pub(super) fn read(text: &str, file: &str) -> Result<(File, Origin, Vec<Problem>), Problems> {
    let (table, syntax) = DeTable::parse_recoverable(text);
    let line_of = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
    if !syntax.is_empty() {
        let problems = syntax.iter().take(PROBLEMS_MAX).map(|error| {
            let line = error.span().map(|span| line_of(span.start));
            let at = error.span().and_then(|span| text.get(span));
            Problem::new(file, line, "", not_toml(error.message(), at))
        });
        return Err(Problems::of(problems.collect()));
    }
    let mut origin = Origin::new(file);
    note_lines(table.get_ref(), "", &line_of, &mut origin);

    let mut problems = Vec::new();
    let mut rest = table;
    // serde stops at the first mistake. Its key is noted and taken out, and the rest read again;
    // each round removes a key, so this ends.
    loop {
        let error = match File::deserialize(Deserializer::from(rest.clone())) {
            Ok(typed) => return Ok((typed, origin, problems)),
            Err(error) => error,
        };
        let removed = error
            .span()
            .and_then(|span| remove_at(rest.get_mut(), &span, ""));
        let line = error.span().map(|span| line_of(span.start));
        let key = removed.as_deref().unwrap_or_default();
        problems.push(Problem::new(file, line, key, explain(key, error.message())));
        if removed.is_none() || problems.len() >= PROBLEMS_MAX {
            return Err(Problems::of(problems));
        }
    }
}

/// What is wrong with a text that is no TOML, and what to do about what is easily mistaken.
fn not_toml(message: &str, at: Option<&str>) -> String {
    let advice = match (message, at) {
        ("duplicate key", Some("cluster")) => {
            ": there is a [cluster] already; for one cluster keep one [cluster], for several write \
             [[cluster]] with a name at each of them"
        }
        ("duplicate key", Some(_)) => ": it is written twice; keep one",
        _ => "",
    };
    format!("not valid TOML: {message}{advice}")
}

fn note_lines(
    table: &DeTable<'_>,
    path: &str,
    line_of: &impl Fn(usize) -> usize,
    origin: &mut Origin,
) {
    for (key, value) in table {
        let path = join(path, key.get_ref());
        origin.note(path.clone(), line_of(key.span().start));
        match value.get_ref() {
            DeValue::Table(inner) => note_lines(inner, &path, line_of, origin),
            DeValue::Array(items) => {
                for (number, item) in (1_usize..).zip(items.iter()) {
                    if let DeValue::Table(inner) = item.get_ref() {
                        let path = join(&path, &number.to_string());
                        origin.note(path.clone(), line_of(item.span().start));
                        note_lines(inner, &path, line_of, origin);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Takes out the innermost key whose name or value covers `span`; its dotted path, if there is one.
fn remove_at(table: &mut DeTable<'_>, span: &Range<usize>, path: &str) -> Option<String> {
    let covers = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    let mut hit = None;
    for (key, value) in table.iter_mut() {
        let path = join(path, key.get_ref());
        let removed = match value.get_mut() {
            DeValue::Table(inner) => remove_at(inner, span, &path),
            DeValue::Array(items) => {
                (1_usize..)
                    .zip(items.iter_mut())
                    .find_map(|(number, item)| {
                        let DeValue::Table(inner) = item.get_mut() else {
                            return None;
                        };
                        remove_at(inner, span, &join(&path, &number.to_string()))
                    })
            }
            _ => None,
        };
        if removed.is_some() {
            return removed;
        }
        if covers(key.span()) || covers(value.span()) {
            hit = Some((key.clone(), path));
        }
    }
    let (key, path) = hit?;
    table.remove(&key);
    Some(path)
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// serde's words made useful: an unknown key gets the nearest known one, or its right section.
fn explain(path: &str, message: &str) -> String {
    if !message.starts_with("unknown field") {
        return message.to_owned();
    }
    let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
    let section = section_of(section);
    if matches!(key, "password" | "requirepass") {
        return "unknown key; passwords are never written here: use password_file or password_env"
            .to_owned();
    }
    let sections = sections();
    let elsewhere = sections
        .iter()
        .find(|(_, keys)| !key.is_empty() && keys.contains(&key));
    let known = sections
        .iter()
        .find(|(name, _)| *name == section)
        .map_or(&[][..], |(_, keys)| keys);
    match (nearest(key, known), elsewhere) {
        (Some(near), _) => format!("unknown key; did you mean `{near}`?"),
        (None, Some((right, _))) => format!("unknown key; `{key}` belongs into [{right}]"),
        (None, None) => format!("unknown key; known here: {}", known.join(", ")),
    }
}

/// A section's name without what a file adds to it: numbers, and what a user is called.
fn section_of(path: &str) -> String {
    let (path, user) = match path.split_once("users.") {
        Some((before, _)) => (before, "users.NAME"),
        None => (path, ""),
    };
    let parts = path.split('.');
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let named: Vec<&str> = parts.filter(|part| !is_number(part)).collect();
    let all = [named.join(".").as_str(), user].join(".");
    all.trim_matches('.').to_owned()
}

fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|name| (strsim::jaro_winkler(&key.to_lowercase(), name), *name))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// Suggests the nearest of `choices` for a value, as ` (did you mean ...?)` or nothing.
pub(super) fn suggestion(value: &str, choices: &[&str]) -> String {
    nearest(value, choices).map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"))
}
