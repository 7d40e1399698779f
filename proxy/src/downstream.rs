//! A client's connection: the TLS handshake, then bytes in both directions until one side ends it.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use rustls::HandshakeKind;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use dataplane::{Ending, Key, Opening, Why};

use crate::{
    acceptor::{Accepted, Door},
    metrics::{Direction, HandshakeResult},
    worker::Worker,
};

/// How long a client may take over the last bytes and the end of TLS.
const GOODBYE: Duration = Duration::from_secs(1);

/// `CLIENT ID`s: one sequence for all workers.
static CLIENT_IDS: AtomicU64 = AtomicU64::new(1);

/// Serves one client until it ends.
pub(crate) async fn serve(worker: Rc<Worker>, accepted: Accepted) {
    let Accepted {
        stream,
        peer,
        door,
        mut admission,
    } = accepted;
    let _counted = Counted(Rc::clone(&worker));
    let handshake = tokio::select! {
        result = shake_hands(&worker, stream) => result,
        () = sleep(worker.config.get().limits.handshake_timeout) => Err(Failure::Timeout),
        () = admission.evicted() => Err(Failure::Evicted),
    };
    admission.handshake_done();
    let (mut stream, local, mut trust) = match handshake {
        Ok(shaken) => shaken,
        Err(failure) => {
            worker.metrics.handshake(failure.result());
            if worker.log.allows() {
                tracing::info!(client = %peer, reason = %failure, "TLS handshake failed");
            }
            return;
        }
    };
    worker.metrics.handshake(HandshakeResult::Ok);
    worker.metrics.connection_opened();
    let certificate = stream.get_ref().1.peer_certificates();
    let user = certificate.and_then(|chain| worker.by_certificate.borrow().user(chain.first()?));
    let opening = Opening {
        id: CLIENT_IDS.fetch_add(1, Ordering::Relaxed),
        peer,
        local,
        user,
        read_port: door == Door::Reads,
    };
    let key = worker.with(|plane| plane.client_opened(opening, Instant::now()));
    let open = Open {
        worker: Rc::clone(&worker),
        key,
    };
    let ended = poll_fn(|cx| {
        open.check_trust(&stream, &mut trust);
        open.poll(&mut stream, cx)
    })
    .await;
    drop(open);
    report(&worker, peer, &ended);
    if matches!(&ended, End::Decided(ending) if !matches!(ending.why, Why::Output { .. })) {
        let _ = timeout(GOODBYE, say_goodbye(&mut stream, &ended)).await; // it is over either way
    }
    drop(admission);
}

/// Ends TLS. What a client that broke the protocol, or did not know that it has to leave, still sends
/// is read and thrown away: the reset that closing on unread bytes causes could take the last reply
/// from it.
async fn say_goodbye(stream: &mut TlsStream<TcpStream>, ended: &End) -> io::Result<()> {
    stream.shutdown().await?;
    if matches!(
        ended,
        End::Decided(Ending {
            why: Why::Protocol(_) | Why::Leaving,
            ..
        })
    ) {
        let socket = stream.get_mut().0;
        let mut rest = [0_u8; 4096];
        for _ in 0..LAST_READS_MAX {
            if socket.read(&mut rest).await? == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// How often a connection that ends is read, to throw away what comes.
const LAST_READS_MAX: usize = 256;

/// How a connection ended.
enum End {
    Decided(Ending),
    Broken(io::Error),
}

fn report(worker: &Worker, peer: SocketAddr, ended: &End) {
    match ended {
        End::Decided(Ending {
            why: Why::Quit | Why::Eof | Why::Leaving,
            ..
        }) => {
            tracing::debug!(client = %peer, "client left");
        }
        End::Decided(ending) if worker.log.allows() => {
            tracing::warn!(client = %peer, reason = %ending.why, "client connection closed");
        }
        End::Decided(_) => {}
        End::Broken(error) => tracing::debug!(client = %peer, %error, "client connection broke"),
    }
}

/// Counts a connection until it is gone.
struct Counted(Rc<Worker>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.counters.connection_gone();
    }
}

/// A client that the dataplane knows, until it is gone.
struct Open {
    worker: Rc<Worker>,
    key: Key,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.metrics.connection_closed();
        self.worker
            .with(|plane| plane.client_closed(self.key, Instant::now()));
    }
}

impl Open {
    /// Ends a client that would not be let in any more.
    fn check_trust(&self, stream: &TlsStream<TcpStream>, seen: &mut u64) {
        let tls = &self.worker.downstream_tls;
        if tls.trust() == *seen {
            return;
        }
        let current = tls.current();
        *seen = current.trust;
        if current
            .admits(stream.get_ref().1.peer_certificates())
            .is_err()
        {
            self.worker
                .with(|plane| plane.client_ends(self.key, Why::Untrusted, true));
        }
    }

    fn poll(&self, stream: &mut TlsStream<TcpStream>, cx: &mut Context<'_>) -> Poll<End> {
        self.worker.watch_client(self.key, cx.waker());
        self.worker
            .with(|plane| plane.client_resumed(self.key, Instant::now()));
        loop {
            let blocked = match self.write(stream, cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(End::Broken(error)),
                Poll::Ready(Ok(())) => false,
                Poll::Pending => true,
            };
            if let Some(ending) = self
                .worker
                .ask(|plane| plane.client_ending(self.key).cloned())
                && (!blocked || ending.at_once)
            {
                return Poll::Ready(End::Decided(ending));
            }
            if !self.worker.ask(|plane| plane.client_wants_read(self.key)) {
                return Poll::Pending; // woken when that changes
            }
            let Poll::Ready(read) = self.read(stream, cx) else {
                if !blocked && self.leaves() {
                    continue;
                }
                return Poll::Pending;
            };
            match read {
                Ok(0) => self.worker.with(|plane| plane.client_eof(self.key)),
                Ok(_) => {}
                Err(error) => return Poll::Ready(End::Broken(error)),
            }
        }
    }

    /// Lets the client go, if it is to leave and nothing of it is under way.
    fn leaves(&self) -> bool {
        let leaves = self.worker.exodus.includes(self.key)
            && self.worker.ask(|plane| plane.client_may_leave(self.key));
        if leaves {
            self.worker
                .with(|plane| plane.client_ends(self.key, Why::Leaving, false));
        }
        leaves
    }

    /// Writes what there is. Ready when all of it is written and flushed.
    fn write(
        &self,
        stream: &mut TlsStream<TcpStream>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wrote = false;
        loop {
            let written = self.worker.ask(|plane| {
                let output = plane.client_output(self.key);
                (!output.is_empty()).then(|| Pin::new(&mut *stream).poll_write(cx, output))
            });
            let Some(written) = written else { break };
            let count = ready!(written)?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            wrote = true;
            self.worker
                .metrics
                .client_bytes(Direction::Out, as_u64(count));
            self.worker
                .with(|plane| plane.client_wrote(self.key, count, Instant::now()));
        }
        if wrote || stream.get_ref().1.wants_write() {
            ready!(Pin::new(stream).poll_flush(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn read(
        &self,
        stream: &mut TlsStream<TcpStream>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut scratch = self.worker.scratch();
        let mut buf = ReadBuf::new(&mut scratch);
        match ready!(Pin::new(stream).poll_read(cx, &mut buf)) {
            Ok(()) => {}
            // A client that leaves without TLS's goodbye has left all the same.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Poll::Ready(Ok(0));
            }
            Err(error) => return Poll::Ready(Err(error)),
        }
        let bytes = buf.filled();
        let count = bytes.len();
        if count > 0 {
            self.worker
                .metrics
                .client_bytes(Direction::In, as_u64(count));
            self.worker
                .with(|plane| plane.client_received(self.key, bytes, Instant::now()));
        }
        Poll::Ready(Ok(count))
    }
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("not finished in time")]
    Timeout,
    #[error("not finished when its place was needed")]
    Evicted,
    #[error("{0} on the TLS port; connect with TLS")]
    Plaintext(&'static str),
    #[error("{0}")]
    Tls(io::Error),
    #[error("{0}")]
    Io(io::Error),
}

impl Failure {
    fn result(&self) -> HandshakeResult {
        match self {
            Self::Timeout => HandshakeResult::Timeout,
            Self::Evicted => HandshakeResult::Evicted,
            Self::Plaintext(_) => HandshakeResult::Plaintext,
            Self::Tls(_) => HandshakeResult::Tls,
            Self::Io(_) => HandshakeResult::Io,
        }
    }
}

async fn shake_hands(
    worker: &Worker,
    stream: std::net::TcpStream,
) -> Result<(TlsStream<TcpStream>, SocketAddr, u64), Failure> {
    let stream = TcpStream::from_std(stream).map_err(Failure::Io)?;
    let local = stream.local_addr().map_err(Failure::Io)?;
    let mut first = [0_u8; 8];
    let count = stream.peek(&mut first).await.map_err(Failure::Io)?;
    let first = first.get(..count).unwrap_or_default();
    if let Some(plaintext) = plaintext(first) {
        return Err(refuse_plaintext(stream, plaintext).await);
    }
    let tls = worker.downstream_tls.current();
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
    match acceptor.accept(stream).await {
        Ok(stream) => {
            let session = stream.get_ref().1;
            // A session that is resumed brings its certificate along, and nobody looked at it.
            if session.handshake_kind() == Some(HandshakeKind::Resumed)
                && let Err(error) = tls.admits(session.peer_certificates())
            {
                return Err(Failure::Tls(io::Error::other(error)));
            }
            Ok((stream, local, tls.trust))
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Failure::Tls(error)),
        Err(error) => Err(Failure::Io(error)),
    }
}

/// What the first bytes are, when they are surely not TLS.
fn plaintext(first: &[u8]) -> Option<&'static str> {
    match first {
        [0x16 | 0x80.., ..] | [] => None,
        [b'*' | b'$' | b'+' | b'-' | b':', ..] => Some("plain RESP"),
        _ if [&b"GET "[..], b"POST", b"HEAD", b"PUT ", b"OPTI", b"CONN"]
            .iter()
            .any(|method| first.starts_with(method)) =>
        {
            Some("plain HTTP")
        }
        [b'A'..=b'Z' | b'a'..=b'z', ..] => Some("plain text"),
        _ => None,
    }
}

/// Tells a client that forgot TLS so in its own protocol.
async fn refuse_plaintext(mut stream: TcpStream, kind: &'static str) -> Failure {
    let answer: &[u8] = if kind == "plain HTTP" {
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\
          Content-Length: 48\r\n\r\nThis port speaks Valkey's protocol over TLS only"
    } else {
        b"-ERR this port speaks TLS only: connect with TLS\r\n"
    };
    let goodbye = async {
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        // What was sent is read, or the reset that follows would take the answer away.
        let mut rest = [0_u8; 1024];
        for _ in 0..LAST_READS_MAX {
            if stream.read(&mut rest).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    let _ = timeout(GOODBYE, goodbye).await; // it is refused either way
    Failure::Plaintext(kind)
}
