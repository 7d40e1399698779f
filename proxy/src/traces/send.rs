//! One message to the collector, on a connection of its own.

use std::{fmt, io, sync::Arc};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{
    config::{self, Endpoint},
    tls,
};

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// Nobody is there, or the connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What is there does not speak HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// It cannot be said in HTTP.
    #[error("{0}")]
    Request(#[from] hyper::http::Error),
    /// It was not taken.
    #[error("the collector says {0}")]
    Refused(StatusCode),
    /// There was no answer in time.
    #[error("the collector does not answer")]
    Silent,
}

impl SendError {
    /// Whether it may go well another time; of answers, as OTLP has it.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Refused(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            Self::Request(_) => false,
            Self::Io(_) | Self::Http(_) | Self::Silent => true,
        }
    }
}

/// Who takes traces.
pub(super) struct Collector {
    endpoint: Endpoint,
    headers: HeaderMap,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// A hash of the file with those who vouch for it.
    authorities: Option<[u8; 32]>,
}

/// Which key of the configuration is wrong, and why.
type Wrong = (&'static str, String);

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

impl Collector {
    pub(super) fn new(endpoint: &Endpoint, config: &config::Traces) -> Result<Self, Wrong> {
        fn wrong(key: &'static str, why: &dyn fmt::Display) -> Wrong {
            (key, why.to_string())
        }
        let mut headers = HeaderMap::new();
        let agent = concat!("keyway/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-protobuf"),
        );
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let host = HeaderValue::from_str(&endpoint.host.to_string());
        headers.insert(HOST, host.map_err(|error| wrong("endpoint", &error))?);
        for header in config.headers.iter().flat_map(|(headers, _)| headers) {
            let name = HeaderName::from_bytes(header.name.as_bytes());
            let value = HeaderValue::from_bytes(header.value.expose());
            let mut value = value.map_err(|error| wrong("headers", &error))?;
            value.set_sensitive(true);
            headers.insert(name.map_err(|error| wrong("headers", &error))?, value);
        }
        let (tls, authorities) = match &config.ca {
            Some(ca) if endpoint.tls => {
                let (config, mark) = tls::trusting(ca).map_err(|why| wrong("ca", &why))?;
                let name = ServerName::try_from(endpoint.host.host.to_string());
                let name = name.map_err(|error| wrong("endpoint", &error))?;
                let tls = (TlsConnector::from(Arc::new(config)), name);
                (Some(tls), Some(mark))
            }
            _ => (None, None),
        };
        Ok(Self {
            endpoint: endpoint.clone(),
            headers,
            tls,
            authorities,
        })
    }

    pub(super) fn authorities(&self) -> Option<[u8; 32]> {
        self.authorities
    }

    /// Sends one message, and waits until it is taken.
    pub(super) async fn post(&self, body: Bytes) -> Result<(), SendError> {
        let host = &self.endpoint.host;
        let stream = TcpStream::connect((&*host.host, host.port)).await?;
        match &self.tls {
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await?;
                self.post_on(stream, body).await
            }
            None => self.post_on(stream, body).await,
        }
    }

    async fn post_on<S>(&self, stream: S, body: Bytes) -> Result<(), SendError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::post(&*self.endpoint.path).body(Full::new(body))?;
        *request.headers_mut() = self.headers.clone();
        let driver = tokio::spawn(connection);
        let answer = sender.send_request(request).await;
        driver.abort(); // the status is all that is wanted
        let status = answer?.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(SendError::Refused(status))
        }
    }
}
