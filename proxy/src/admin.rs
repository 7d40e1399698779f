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
    /// `/metrics`
    pub metrics: Metrics,
    /// `/readyz`
    pub readiness: Readiness,
    /// `/status` and `/topology`
    pub board: Board,
    /// What was made of it last.
    pub bodies: Bodies,
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
    match request.uri().path() {
        "/metrics" => {
            let mut page = text(StatusCode::OK, pages.metrics.page());
            let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            page.headers_mut().insert(CONTENT_TYPE, format);
            page
        }
        "/livez" => text(StatusCode::OK, "alive\n".to_owned()),
        "/readyz" => match pages.readiness.reason() {
            None => text(StatusCode::OK, "ready\n".to_owned()),
            Some(reason) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not ready: {reason}\n"),
            ),
        },
        "/" => page::page(),
        "/status" => json(pages.bodies.status(&pages.board)),
        "/slowlog" => json(pages.bodies.slow(&pages.board)),
        "/topology" => json(pages.bodies.topology(&pages.board)),
        "/heat" => match slots_asked_for(request.uri().query()) {
            Ok(None) => json(pages.bodies.heat(&pages.board)),
            Ok(Some(slots)) => json(bodies::heat_of(&pages.board, slots)),
            Err(mistake) => text(StatusCode::BAD_REQUEST, mistake.to_owned()),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /, /metrics, /livez, /readyz, /status, /topology, /heat and /slowlog here\n"
                .to_owned(),
        ),
    }
}

/// `?slots=N`: how many of the hottest slots are listed.
fn slots_asked_for(query: Option<&str>) -> Result<Option<usize>, &'static str> {
    let Some(query) = query else {
        return Ok(None);
    };
    let number = query.strip_prefix("slots=").and_then(|n| n.parse().ok());
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
