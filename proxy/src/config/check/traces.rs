//! `[traces]`: an endpoint that can be one, and headers that can be sent.

use std::collections::BTreeMap;

use super::values::Checker;
use crate::config::{
    Endpoint, Secret, Traces,
    traces::{Header, Typed},
};

/// Attributes, and headers, at most.
const PAIRS_MAX: usize = 64;
/// Where collectors take traces by OTLP over HTTP.
const USUAL_PATH: &str = "/v1/traces";
/// What Kubernetes' downward API is usually given as, and what it is called in traces.
const KUBERNETES: [(&str, &str); 3] = [
    ("NODE_NAME", "k8s.node.name"),
    ("POD_NAME", "k8s.pod.name"),
    ("POD_NAMESPACE", "k8s.namespace.name"),
];

impl Checker<'_> {
    pub(super) fn traces(&mut self, typed: Typed, zone: Option<&str>) -> Traces {
        let usual = Traces::default();
        let text = typed.endpoint.filter(|text| !text.is_empty());
        let endpoint = text.and_then(|text| self.endpoint(&text));
        let ca = typed.ca.filter(|text| !text.is_empty());
        let ca = ca.and_then(|text| self.path("traces.ca", &text));
        if endpoint.as_ref().is_some_and(|endpoint| endpoint.tls) && ca.is_none() {
            let message = "missing; an https endpoint needs to know who vouches for it";
            self.wrong("traces.ca", message);
        }
        let one_in = self.number("traces.one_in", typed.one_in, 1000, (0, 1 << 30));
        let service_name = typed.service_name.map(String::into_boxed_str);
        Traces {
            one_in: u32::try_from(one_in).unwrap_or_default(),
            service_name: service_name.unwrap_or(usual.service_name),
            attributes: self.attributes(typed.attributes.unwrap_or_default(), zone),
            headers: self.headers([typed.headers_file, typed.headers_env]),
            endpoint,
            ca,
        }
    }

    fn endpoint(&mut self, text: &str) -> Option<Endpoint> {
        const KEY: &str = "traces.endpoint";
        let known = text
            .strip_prefix("http://")
            .map(|rest| (false, rest))
            .or_else(|| text.strip_prefix("https://").map(|rest| (true, rest)));
        let Some((tls, rest)) = known else {
            let message =
                format!("\"{text}\" is no URL of HTTP, like \"http://127.0.0.1:4318{USUAL_PATH}\"");
            self.wrong(KEY, message);
            return None;
        };
        let at = rest.find('/').unwrap_or(rest.len());
        let (host, path) = rest.split_at(at);
        if path.contains(|odd: char| odd.is_control() || odd.is_whitespace()) {
            self.wrong(KEY, "its path has blanks or control characters");
            return None;
        }
        let bare = host.rsplit_once(':').is_none() || host.ends_with(']');
        let port = if tls { 443 } else { 80 };
        let with_port = format!("{host}:{port}");
        let host = self.host_port(KEY, if bare { &with_port } else { host })?;
        let path = if path.len() > 1 { path } else { USUAL_PATH };
        Some(Endpoint {
            tls,
            host,
            path: path.into(),
        })
    }

    /// What was written, and what is known anyway.
    fn attributes(
        &mut self,
        mut own: BTreeMap<String, String>,
        zone: Option<&str>,
    ) -> BTreeMap<String, String> {
        const KEY: &str = "traces.attributes";
        if own.len() > PAIRS_MAX {
            self.wrong(KEY, format!("{} attributes; 0 to {PAIRS_MAX}", own.len()));
        }
        if own.keys().any(String::is_empty) {
            self.wrong(KEY, "an attribute has no name");
        }
        let mut known = |name: &str, value: String| {
            own.entry(name.to_owned()).or_insert(value);
        };
        if let Some(zone) = zone {
            known("cloud.availability_zone", zone.to_owned());
        }
        for (variable, name) in KUBERNETES {
            let value = (self.environment)(variable).and_then(|value| value.into_string().ok());
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                known(name, value);
            }
        }
        own
    }

    fn headers(&mut self, from: [Option<String>; 2]) -> Option<(Vec<Header>, Box<str>)> {
        let (text, source) = self.secret(["traces", "headers"], from).ok()??;
        let mut headers = Vec::new();
        for pair in text.expose().split(|byte| *byte == b',') {
            let Some(header) = header(pair) else {
                let number = headers.len() + 1;
                let message = format!("header {number} from {source} is not NAME=VALUE");
                self.wrong("traces.headers", message); // never what it is
                return None;
            };
            headers.push(header);
        }
        Some((headers, source))
    }
}

fn header(pair: &[u8]) -> Option<Header> {
    let at = pair.iter().position(|byte| *byte == b'=')?;
    let (name, value) = pair.split_at(at);
    let (name, value) = (name.trim_ascii(), value.get(1..)?.trim_ascii());
    let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let visible = |byte: &u8| (b' '..=b'~').contains(byte);
    let fits = !name.is_empty() && name.bytes().all(legal) && value.iter().all(visible);
    fits.then(|| Header {
        name: name.into(),
        value: Secret::new(value.to_vec()),
    })
}
