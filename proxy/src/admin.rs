//! The admin port: the status page at `/`, `/metrics`, `/livez`, `/readyz`, `/status`, `/topology`,
//! `/heat` and `/slowlog`, in plain HTTP, on loopback by default. It only reads, and shows no values, and
//! no keys unless the configuration says so.

use std::{convert::Infallible, io, net::TcpListener, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    contract::{Readiness, Shutdown},
    metrics::Metrics,
    status::Board,
};

mod bodies;
mod page;

pub use bodies::Bodies;

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 64;
/// A connection's whole life.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Until a request's header is there.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// What the pages show.
#[derive(Clone, Debug)]
pub struct Pages {
    /// `/metrics`: of the process, and of each of several clusters.
    pub metrics: Arc<[Metrics]>,
    /// `/readyz`
    pub readiness: Readiness,
    /// The other pages; one at least.
    pub clusters: Arc<[Shown]>,
}

/// What the pages show of one cluster.
#[derive(Debug)]
pub struct Shown {
    /// `?cluster=NAME`, if it is one of several.
    name: Option<Box<str>>,
    readiness: Readiness,
    board: Board,
    /// What was made of it last.
    bodies: Bodies,
}

impl Shown {
    /// Nothing is made yet.
    #[must_use]
    pub fn new(name: Option<Box<str>>, readiness: Readiness, board: Board) -> Self {
        Self {
            name,
            readiness,
            board,
            bodies: Bodies::default(),
        }
    }
}

impl Pages {
    /// The cluster that a request asks about, and without a word the first; and whether it was asked for.
    fn asked(&self, query: Option<&str>) -> Option<(&Shown, bool)> {
        let pairs = query.into_iter().flat_map(|query| query.split('&'));
        let name = pairs
            .filter_map(|pair| pair.strip_prefix("cluster="))
            .next();
        match name {
            None => self.clusters.first().map(|first| (first, false)),
            Some(name) => {
                let mut all = self.clusters.iter();
                let found = all.find(|shown| shown.name.as_deref() == Some(name));
                found.map(|shown| (shown, true))
            }
        }
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self
            .clusters
            .iter()
            .filter_map(|shown| shown.name.as_deref())
            .collect();
        names.join(", ")
    }
}

/// Serves the pages until the end.
///
/// # Errors
/// The socket cannot be used.
pub async fn run(listener: TcpListener, pages: Pages, shutdown: Shutdown) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return Ok(());
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.requested() => return Ok(()),
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let pages = pages.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&request, &pages);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // Whatever ends it is the other side's business.
            let _ = timeout(CONNECTION_TIMEOUT, connection).await;
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, pages: &Pages) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET is answered here\n".to_owned(),
        );
    }
    let Some((shown, asked_for)) = pages.asked(request.uri().query()) else {
        let text = match pages.names() {
            names if names.is_empty() => "there is one cluster here, without a name\n".to_owned(),
            names => format!("no such cluster; there are {names}\n"),
        };
        return self::text(StatusCode::NOT_FOUND, text);
    };
    match request.uri().path() {
        "/metrics" => {
            let mut page = text(StatusCode::OK, Metrics::page_of(&pages.metrics));
            let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            page.headers_mut().insert(CONTENT_TYPE, format);
            page
        }
        "/livez" => text(StatusCode::OK, "alive\n".to_owned()),
        "/readyz" => match readiness(pages, shown, asked_for).reason() {
            None => text(StatusCode::OK, "ready\n".to_owned()),
            Some(reason) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not ready: {reason}\n"),
            ),
        },
        "/" => page::page(),
        "/status" => json(shown.bodies.status(&shown.board)),
        "/slowlog" => json(shown.bodies.slow(&shown.board)),
        "/topology" => json(shown.bodies.topology(&shown.board)),
        "/heat" => match slots_asked_for(request.uri().query()) {
            Ok(None) => json(shown.bodies.heat(&shown.board)),
            Ok(Some(slots)) => json(bodies::heat_of(&shown.board, slots)),
            Err(mistake) => text(StatusCode::BAD_REQUEST, mistake.to_owned()),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /, /metrics, /livez, /readyz, /status, /topology, /heat and /slowlog here\n"
                .to_owned(),
        ),
    }
}

/// The process's, or that of a cluster that was asked for; at the end, nobody is ready.
fn readiness<'a>(pages: &'a Pages, shown: &'a Shown, asked_for: bool) -> &'a Readiness {
    if asked_for && !pages.readiness.is_draining() {
        &shown.readiness
    } else {
        &pages.readiness
    }
}

/// `?slots=N`: how many of the hottest slots are listed.
fn slots_asked_for(query: Option<&str>) -> Result<Option<usize>, &'static str> {
    let pairs = query.into_iter().flat_map(|query| query.split('&'));
    let mut others = pairs.filter(|pair| !pair.starts_with("cluster="));
    let Some(pair) = others.next() else {
        return Ok(None);
    };
    let number = pair.strip_prefix("slots=").and_then(|n| n.parse().ok());
    number
        .map(Some)
        .ok_or("what can be asked for is /heat?slots=NUMBER\n")
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let format = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, format);
    response
}

fn json(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
