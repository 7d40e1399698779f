//! The admin port: the status page at `/`, `/metrics`, `/livez`, `/readyz`, `/status`, `/topology`,
//! `/heat` and `/slowlog`, in plain HTTP, on loopback by default. It only reads, and shows no values, and
//! no keys unless the configuration says so.

use std::{
    convert::Infallible,
    io,
    net::TcpListener,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

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
    config::ClusterId,
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
    /// `/metrics`: of the process; those of several clusters are in `clusters`.
    pub metrics: Metrics,
    /// `/readyz`
    pub readiness: Readiness,
    /// The other pages.
    pub clusters: Shelf,
}

/// What is shown of each cluster, which may come and go.
#[derive(Clone, Debug, Default)]
pub struct Shelf(Arc<Mutex<Vec<Place>>>);

#[derive(Debug)]
struct Place {
    id: ClusterId,
    /// It is served; otherwise its last clients leave.
    served: bool,
    shown: Arc<Shown>,
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, Vec<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, behind the others.
    pub(crate) fn add(&self, id: ClusterId, shown: Shown) {
        let place = Place {
            id,
            served: true,
            shown: Arc::new(shown),
        };
        self.lock().push(place);
    }

    /// In this order; what is not in it, behind.
    pub(crate) fn arrange(&self, order: &[ClusterId]) {
        let place = |id| order.iter().position(|own| *own == id);
        self.lock()
            .sort_by_key(|of| place(of.id).unwrap_or(usize::MAX));
    }

    /// It is served no more; shown until it is gone, or another has its name.
    pub(crate) fn leave(&self, id: ClusterId) {
        let mut all = self.lock();
        let leaving = all.iter_mut().filter(|place| place.id == id);
        leaving.for_each(|place| place.served = false);
    }

    /// It is gone.
    pub(crate) fn gone(&self, id: ClusterId) {
        self.lock().retain(|place| place.id != id);
    }

    /// All that there are; no two with the same name.
    fn all(&self) -> Vec<Arc<Shown>> {
        let all = self.lock();
        let (served, leaving): (Vec<&Place>, Vec<&Place>) =
            all.iter().partition(|place| place.served);
        let mut shown: Vec<Arc<Shown>> = Vec::new();
        for place in served.into_iter().chain(leaving.into_iter().rev()) {
            if shown.iter().all(|other| other.name() != place.shown.name()) {
                shown.push(Arc::clone(&place.shown));
            }
        }
        shown
    }
}

/// What the pages show of one cluster.
#[derive(Debug)]
pub struct Shown {
    /// `?cluster=NAME`, if it is one of several, and what it has in `/metrics`.
    several: Option<(Box<str>, Metrics)>,
    readiness: Readiness,
    board: Board,
    /// What was made of it last.
    bodies: Bodies,
}

impl Shown {
    /// Nothing is made yet.
    #[must_use]
    pub fn new(several: Option<(Box<str>, Metrics)>, readiness: Readiness, board: Board) -> Self {
        Self {
            several,
            readiness,
            board,
            bodies: Bodies::default(),
        }
    }
}

impl Shown {
    fn name(&self) -> Option<&str> {
        self.several.as_ref().map(|(name, _)| &**name)
    }
}

/// The cluster that a request asks about, and without a word the first; and whether it was asked for.
fn asked<'a>(all: &'a [Arc<Shown>], query: Option<&str>) -> Option<(&'a Shown, bool)> {
    let pairs = query.into_iter().flat_map(|query| query.split('&'));
    let name = pairs
        .filter_map(|pair| pair.strip_prefix("cluster="))
        .next();
    match name {
        None => all.first().map(|first| (&**first, false)),
        Some(name) => {
            let found = all.iter().find(|shown| shown.name() == Some(name));
            found.map(|shown| (&**shown, true))
        }
    }
}

fn names(all: &[Arc<Shown>]) -> String {
    let names: Vec<&str> = all.iter().filter_map(|shown| shown.name()).collect();
    names.join(", ")
}

fn metrics(process: &Metrics, all: &[Arc<Shown>]) -> String {
    let own = all.iter().filter_map(|shown| shown.several.as_ref());
    let own = own.map(|(_, metrics)| metrics);
    Metrics::page_of(std::iter::once(process).chain(own))
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
    let all = pages.clusters.all();
    let Some((shown, asked_for)) = asked(&all, request.uri().query()) else {
        let text = match names(&all) {
            names if names.is_empty() => "there is one cluster here, without a name\n".to_owned(),
            names => format!("no such cluster; there are {names}\n"),
        };
        return self::text(StatusCode::NOT_FOUND, text);
    };
    match request.uri().path() {
        "/metrics" => {
            let mut page = text(StatusCode::OK, metrics(&pages.metrics, &all));
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
