//! `[traces]`: where the traces of some commands go. Nowhere, unless an endpoint is named.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::Deserialize;

use super::{HostPort, Secret, typed::Whole};

/// What was typed.
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Typed {
    pub(super) endpoint: Option<String>,
    pub(super) one_in: Option<Whole>,
    pub(super) service_name: Option<String>,
    pub(super) attributes: Option<BTreeMap<String, String>>,
    pub(super) headers_file: Option<String>,
    pub(super) headers_env: Option<String>,
    pub(super) ca: Option<String>,
}

/// `[traces]`
#[derive(Debug, Clone)]
pub struct Traces {
    /// The collector; `None` is that nothing is traced.
    pub endpoint: Option<Endpoint>,
    /// One in so many commands is traced; 0 is none.
    pub one_in: u32,
    /// What Keyway is called in traces.
    pub service_name: Box<str>,
    /// What else is said of it.
    pub attributes: BTreeMap<String, String>,
    /// Headers of every request to the collector, and where they were found.
    pub headers: Option<(Vec<Header>, Box<str>)>,
    /// PEM file with the authorities for an `https` endpoint.
    pub ca: Option<PathBuf>,
}

/// A header of HTTP.
#[derive(Debug, Clone)]
pub struct Header {
    /// Its name.
    pub name: Box<str>,
    /// Its value, which may let in whoever knows it.
    pub value: Secret,
}

/// An address of HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether it is reached by TLS.
    pub tls: bool,
    /// Where it is.
    pub host: HostPort,
    /// What is asked for there.
    pub path: Box<str>,
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            endpoint: None,
            one_in: 1000,
            service_name: "keyway".into(),
            attributes: BTreeMap::new(),
            headers: None,
            ca: None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.host, self.path)
    }
}

impl Traces {
    /// As a section of the summary.
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n[traces]")?;
        match &self.endpoint {
            Some(endpoint) => writeln!(f, "endpoint = \"{endpoint}\"")?,
            None => writeln!(f, "# no endpoint: nothing is traced")?,
        }
        writeln!(f, "one_in = {}", self.one_in)?;
        writeln!(f, "service_name = {:?}", self.service_name)?;
        let attributes = self.attributes.iter();
        let attributes: Vec<_> = attributes
            .map(|(name, value)| format!("{name:?} = {value:?}"))
            .collect();
        writeln!(f, "attributes = {{ {} }}", attributes.join(", "))?;
        if let Some((_, source)) = &self.headers {
            writeln!(f, "# headers: from {source}")?;
        }
        if let Some(ca) = &self.ca {
            writeln!(f, "ca = {ca:?}")?;
        }
        Ok(())
    }

    /// Whether traces go the same way and are told in the same words; how many is another matter.
    pub(crate) fn goes_as(&self, other: &Self) -> bool {
        (&self.endpoint, &self.ca) == (&other.endpoint, &other.ca)
            && self.service_name == other.service_name
            && self.attributes == other.attributes
            && self.exposed() == other.exposed()
    }

    /// The headers as bytes, to be compared.
    pub(super) fn exposed(&self) -> Vec<(&str, &[u8])> {
        let headers = self.headers.iter().flat_map(|(headers, _)| headers);
        headers
            .map(|header| (&*header.name, header.value.expose()))
            .collect()
    }
}
