//! A collector of OpenTelemetry traces: takes OTLP over HTTP, plain or by TLS, and keeps what it was
//! sent.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What a collector does with what comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Collects {
    /// Takes it.
    #[default]
    All,
    /// Answers with this status.
    Refuses(u16),
    /// Reads it, and never answers.
    Stalls,
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The request's line and headers.
    pub head: String,
    /// Its body.
    pub body: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    collects: Collects,
    taken: Vec<Taken>,
    /// Connections that are never answered.
    kept: Vec<TcpStream>,
}

/// A collector at work, for as long as the process.
#[derive(Debug)]
pub struct Collector {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Collector {
    /// Starts one; with `tls`, it speaks TLS.
    ///
    /// # Panics
    /// There is no port for it.
    #[must_use]
    pub fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port for traces");
        let addr = listener.local_addr().expect("a bound socket");
        let state = Arc::<Mutex<State>>::default();
        let own = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, tls) = (Arc::clone(&own), tls.clone());
                thread::spawn(move || serve(stream, tls, &state));
            }
        });
        Self { addr, state }
    }

    /// `host:port`
    #[must_use]
    pub fn addr(&self) -> String {
        self.addr.to_string()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the collector")
    }

    /// From now on it does so.
    pub fn set(&self, collects: Collects) {
        self.state().collects = collects;
    }

    /// Every request, also those that were refused.
    #[must_use]
    pub fn taken(&self) -> Vec<Taken> {
        self.state().taken.clone()
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let all = self.taken();
        let decoded = all.iter().map(|taken| {
            ExportTraceServiceRequest::decode(&taken.body[..]).expect("a message of OTLP")
        });
        decoded.collect()
    }

    /// Every span.
    ///
    /// # Panics
    /// What came is no message of OTLP.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let resources = self
            .requests()
            .into_iter()
            .flat_map(|all| all.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// Who sent each of them.
    ///
    /// # Panics
    /// What came is no message of OTLP.
    #[must_use]
    pub fn resources(&self) -> Vec<Resource> {
        let resources = self
            .requests()
            .into_iter()
            .flat_map(|all| all.resource_spans);
        resources.filter_map(|one| one.resource).collect()
    }

    /// Who sent the first of them.
    ///
    /// # Panics
    /// Nothing came, or it is no message of OTLP.
    #[must_use]
    pub fn resource(&self) -> Resource {
        self.resources().into_iter().next().expect("a resource")
    }
}

/// An attribute as text.
#[must_use]
pub fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|pair| pair.key == name)?;
    let AnyValue { value } = found.value.clone()?;
    Some(match value? {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::BoolValue(flag) => flag.to_string(),
        other => format!("{other:?}"),
    })
}

fn serve(stream: TcpStream, tls: Option<Arc<ServerConfig>>, state: &Mutex<State>) {
    let kept = stream.try_clone();
    let done = match tls {
        None => answer(stream, kept, state),
        Some(config) => {
            let connection = ServerConnection::new(config).expect("TLS");
            answer(StreamOwned::new(connection, stream), kept, state)
        }
    };
    let _ = done; // whoever sent it may be gone
}

fn answer<S: Read + Write>(
    stream: S,
    kept: io::Result<TcpStream>,
    state: &Mutex<State>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse::<usize>().ok())?
    });
    let mut body = vec![0; length.unwrap_or_default()];
    stream.read_exact(&mut body)?;
    let collects = {
        let mut state = state.lock().expect("the collector");
        state.taken.push(Taken { head, body });
        if state.collects == Collects::Stalls {
            state.kept.extend(kept.ok());
        }
        state.collects
    };
    let status = match collects {
        Collects::All => 200,
        Collects::Refuses(status) => status,
        Collects::Stalls => return Ok(()),
    };
    let answer = format!(
        "HTTP/1.1 {status} So\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.get_mut().write_all(answer.as_bytes())?;
    stream.get_mut().flush()
}
