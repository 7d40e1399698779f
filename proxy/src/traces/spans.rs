//! A command that was traced as OpenTelemetry has it: one span of the server, and in it, if it went to
//! one, the queue and the node. Names and attributes are those of the semantic conventions for databases.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dataplane::{Followed, Here};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
};

use crate::{config, worker::mix};

/// The conventions know Valkey's protocol by this name, and have none for Valkey.
const SYSTEM: &str = "redis";

/// A command to be told of.
#[derive(Clone, Debug)]
pub(crate) struct Traced {
    /// As the table names it.
    pub(crate) command: Box<str>,
    /// The cluster, if it is one of several.
    pub(crate) cluster: Option<Box<str>>,
    /// The shard of its slot.
    pub(crate) shard: Option<usize>,
    /// For so many commands it stands.
    pub(crate) one_in: u32,
    /// When it was where.
    pub(crate) followed: Followed,
}

/// Numbers that nothing else has.
pub(super) struct Ids(u64);

impl Ids {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> [u8; 8] {
        self.0 = self.0.wrapping_add(1);
        mix(self.0).max(1).to_be_bytes() // all zeros is no id
    }

    pub(super) fn pair(&mut self) -> Vec<u8> {
        [self.next(), self.next()].concat()
    }
}

/// Makes messages of commands.
pub(super) struct Teller {
    resource: Resource,
    ids: Ids,
}

/// What is said of this Keyway, which nobody else is called as.
pub(super) fn resource(config: &config::Traces, instance: &str) -> Resource {
    let mut attributes = vec![
        text("service.name", &config.service_name),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", instance),
    ];
    let own = config.attributes.iter();
    attributes.extend(own.map(|(name, value)| text(name, value)));
    Resource {
        attributes,
        ..Resource::default()
    }
}

impl Teller {
    pub(super) fn new(resource: Resource, ids: Ids) -> Self {
        Self { resource, ids }
    }

    /// Something else is said of this Keyway from now on.
    pub(super) fn set_resource(&mut self, resource: Resource) {
        self.resource = resource;
    }

    /// One request with all of these.
    pub(super) fn request(&mut self, batch: &[Traced]) -> ExportTraceServiceRequest {
        let clock = Clock::now();
        let mut spans = Vec::with_capacity(batch.len() * 3);
        for traced in batch {
            self.spans(traced, &clock, &mut spans);
        }
        let scope = InstrumentationScope {
            name: "keyway".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope),
                    spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        }
    }

    fn spans(&mut self, traced: &Traced, clock: &Clock, into: &mut Vec<Span>) {
        let followed = &traced.followed;
        let name = traced.command.replace('|', " ").to_ascii_uppercase();
        let trace_id = self.ids.pair();
        let whole = Span {
            trace_id: trace_id.clone(),
            span_id: self.ids.next().to_vec(),
            name: name.clone(),
            kind: SpanKind::Server.into(),
            start_time_unix_nano: clock.nanos(followed.arrived),
            end_time_unix_nano: clock.nanos(followed.written),
            attributes: server_attributes(traced, &name),
            status: status(followed),
            ..Span::default()
        };
        let mut child = |name: String, kind: SpanKind, from: Instant, to: Instant| Span {
            trace_id: trace_id.clone(),
            span_id: self.ids.next().to_vec(),
            parent_span_id: whole.span_id.clone(),
            name,
            kind: kind.into(),
            start_time_unix_nano: clock.nanos(from),
            end_time_unix_nano: clock.nanos(to),
            ..Span::default()
        };
        if let Some(sent) = followed.sent {
            let queue = "queue".to_owned();
            into.push(child(queue, SpanKind::Internal, followed.taken, sent));
            if followed.node.is_some() {
                into.push(Span {
                    attributes: client_attributes(followed, &name),
                    status: status(followed),
                    ..child(name, SpanKind::Client, sent, followed.answered)
                });
            }
        }
        into.push(whole);
    }
}

/// What time it is by both clocks.
struct Clock {
    instant: Instant,
    unix: Duration,
}

impl Clock {
    fn now() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            instant: Instant::now(),
            unix: unix.unwrap_or_default(),
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        let ago = self.instant.saturating_duration_since(at);
        let nanos = self.unix.saturating_sub(ago).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

fn server_attributes(traced: &Traced, operation: &str) -> Vec<KeyValue> {
    let followed = &traced.followed;
    let mut all = of_operation(followed, operation);
    all.extend([
        text("server.address", &followed.local.ip().to_string()),
        number("server.port", followed.local.port()),
        text("client.address", &followed.client.ip().to_string()),
        number("client.port", followed.client.port()),
        number("keyway.one_in", traced.one_in),
    ]);
    match followed.here {
        Some(Here::Itself) => all.push(text("keyway.answered_by", "keyway")),
        Some(Here::Near) => all.push(text("keyway.answered_by", "near_cache")),
        None if followed.sent.is_none() && followed.node.is_some() => {
            all.push(flag("keyway.shared_answer", true)); // another command's, [hot_keys] coalesce
        }
        None => {}
    }
    let slot = followed.slot.map(|slot| number("keyway.slot", slot.get()));
    let shard = traced.shard.and_then(|shard| u32::try_from(shard).ok());
    let shard = shard.map(|shard| number("keyway.shard", shard));
    let resent = (followed.resent > 0).then(|| number("keyway.resent", followed.resent));
    let cluster = traced.cluster.as_deref();
    let cluster = cluster.map(|name| text("keyway.cluster", name));
    all.extend(slot.into_iter().chain(shard).chain(resent).chain(cluster));
    all
}

fn client_attributes(followed: &Followed, operation: &str) -> Vec<KeyValue> {
    let mut all = of_operation(followed, operation);
    if let Some(node) = &followed.node {
        all.push(text("server.address", &node.host));
        all.push(number("server.port", node.port));
        if node.host.parse::<std::net::IpAddr>().is_ok() {
            all.push(text("network.peer.address", &node.host));
            all.push(number("network.peer.port", node.port));
        }
    }
    all
}

fn of_operation(followed: &Followed, operation: &str) -> Vec<KeyValue> {
    let mut all = vec![
        text("db.system.name", SYSTEM),
        text("db.operation.name", operation),
        text("db.namespace", &followed.database.to_string()),
    ];
    if let Some(error) = followed.error {
        all.push(text("db.response.status_code", error));
        all.push(text("error.type", error));
    }
    all
}

fn status(followed: &Followed) -> Option<Status> {
    followed.error.map(|error| Status {
        code: StatusCode::Error.into(),
        message: error.to_owned(),
    })
}

fn attribute(name: &str, value: Value) -> KeyValue {
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(name: &str, value: &str) -> KeyValue {
    attribute(name, Value::StringValue(value.to_owned()))
}

fn number(name: &str, value: impl Into<i64>) -> KeyValue {
    attribute(name, Value::IntValue(value.into()))
}

fn flag(name: &str, value: bool) -> KeyValue {
    attribute(name, Value::BoolValue(value))
}
