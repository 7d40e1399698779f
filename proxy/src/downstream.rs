//! A client's connection: the TLS handshake, then bytes in both directions until one side ends it.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{sleep, timeout},
};

use dataplane::{Ending, Key, Opening, Why};

use crate::{
    acceptor::{Accepted, Admission, Door},
    metrics::{Direction, HandshakeResult},
    net::{DriverFault, Socket},
    worker::{Counters, Hall, Worker},
};

mod hello;
mod lobby;
mod secured;
mod whose;

use secured::{Read, Secured};
use whose::Whose;

/// How long a client may take over the last bytes and the end of TLS.
const GOODBYE: Duration = Duration::from_secs(1);

/// Has a client served that the acceptor has given.
pub(crate) fn begin(hall: &Rc<Hall>, mut accepted: Accepted) {
    drop(accepted.arrival.take());
    match accepted.try_map(TcpStream::from_std) {
        Ok(accepted) => {
            tokio::task::spawn_local(serve(Rc::clone(hall), accepted));
        }
        Err(_) => {
            hall.metrics.handshake(HandshakeResult::Io); // the system has no place for it
            hall.counters.connection_gone();
        }
    }
}

/// Serves one client until it ends.
pub(crate) async fn serve<S: Socket>(hall: Rc<Hall>, accepted: Accepted<S>) {
    let Accepted {
        stream,
        peer,
        door,
        cluster,
        mut admission,
        arrival: _,
    } = accepted;
    let _here = Counted(Arc::clone(&hall.counters));
    let Some(mut whose) = Whose::new(cluster, &hall) else {
        return; // it came to a port that a cluster had
    };
    // On the heap, as the goodbye is: what only the beginning and the end need should not be kept
    // for as long as a client stays.
    let handshake = Box::pin(async {
        let mut shaking = pin!(shake_hands(&hall, stream, &mut whose, &admission));
        let failure = tokio::select! {
            biased;
            result = &mut shaking => return result,
            () = sleep(hall.handshake_timeout()) => Failure::Timeout,
            () = admission.evicted() => Failure::Evicted,
        };
        hall.departure_turn().await; // it has its socket until then
        Err(failure)
    })
    .await;
    admission.handshake_done();
    let shaken = match handshake {
        Ok(shaken) => shaken,
        Err(failure) => return whose.failed(&hall, peer, &failure),
    };
    let Some((worker, shaken, stranger, _counted)) =
        Box::pin(whose.settle(&hall, shaken, peer)).await
    else {
        return;
    };
    let (mut stream, local, mut trust) = shaken;
    // The tickets go with the first reply. A client with Nagle's algorithm keeps its first command back
    // until the end of its handshake is acknowledged, which the system does 40 ms later by itself.
    stream.socket().acknowledge();
    worker.metrics.connection_opened();
    let certificate = stream.peer_certificates();
    let user = certificate.and_then(|chain| worker.by_certificate.borrow().user(chain.first()?));
    let opening = Opening {
        id: worker.shared.next_client_id(),
        peer,
        local,
        user,
        read_port: door == Door::Reads,
        stranger,
    };
    let key = worker.with(|plane| plane.client_opened(opening, worker.now()));
    let open = Open {
        worker: Rc::clone(&worker),
        key,
    };
    let ended = poll_fn(|cx| {
        open.check_trust(&stream, &mut trust);
        open.poll(&mut stream, cx)
    })
    .await;
    hall.departure_turn().await;
    drop(open);
    report(&worker, peer, &ended);
    if matches!(&ended, End::Decided(ending) if !matches!(ending.why, Why::Output { .. })) {
        let goodbye = Box::pin(timeout(GOODBYE, say_goodbye(&mut stream, &ended)));
        let _ = goodbye.await; // it is over either way
    }
    drop(admission);
}

/// Ends TLS. What a client that broke the protocol, or did not know that it has to leave, still sends
/// is read and thrown away: the reset that closing on unread bytes causes could take the last reply
/// from it.
async fn say_goodbye<S: Socket>(stream: &mut Secured<S>, ended: &End) -> io::Result<()> {
    stream.shutdown().await?;
    if matches!(
        ended,
        End::Decided(Ending {
            why: Why::Protocol(_) | Why::Leaving,
            ..
        })
    ) {
        let socket = stream.socket();
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
            let cluster = worker.shared.name.as_deref();
            tracing::warn!(client = %peer, cluster, reason = %ending.why, "client connection closed");
        }
        End::Decided(_) => {}
        End::Broken(error) => tracing::debug!(client = %peer, %error, "client connection broke"),
    }
}

/// Counts a connection until it is gone.
struct Counted(Arc<Counters>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connection_gone();
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
            .with(|plane| plane.client_closed(self.key, self.worker.now()));
    }
}

impl Open {
    /// Ends a client that would not be let in any more.
    fn check_trust<S: Socket>(&self, stream: &Secured<S>, seen: &mut u64) {
        let tls = &self.worker.downstream_tls;
        if tls.trust() == *seen {
            return;
        }
        let current = tls.current();
        *seen = current.trust;
        if current.admits(stream.peer_certificates()).is_err() {
            self.worker
                .with(|plane| plane.client_ends(self.key, Why::Untrusted, true));
        }
    }

    fn poll<S: Socket>(&self, stream: &mut Secured<S>, cx: &mut Context<'_>) -> Poll<End> {
        let now = self.worker.now();
        self.worker.watch_client(self.key, cx.waker());
        if self.worker.exodus.is_over() {
            return Poll::Ready(End::Decided(Ending {
                why: Why::Leaving,
                at_once: true,
            }));
        }
        self.worker
            .with(|plane| plane.client_resumed(self.key, now));
        loop {
            let blocked = match self.write(stream, cx, now) {
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
            let Poll::Ready(read) = self.read(stream, cx, now) else {
                if !blocked && self.leaves() {
                    continue;
                }
                return Poll::Pending;
            };
            match read {
                Ok(Read::End) => self.worker.with(|plane| plane.client_eof(self.key)),
                Ok(Read::Bytes(_)) => {}
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
    fn write<S: Socket>(
        &self,
        stream: &mut Secured<S>,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<io::Result<()>> {
        loop {
            let written = self.worker.ask(|plane| {
                let output = plane.client_output(self.key);
                let cipher = &mut *self.worker.cipher();
                (!output.is_empty()).then(|| stream.poll_write(cx, output, cipher))
            });
            let Some(written) = written else { break };
            let count = ready!(written)?;
            self.worker
                .metrics
                .client_bytes(Direction::Out, as_u64(count));
            self.worker
                .with(|plane| plane.client_wrote(self.key, count, now));
        }
        let forgets = self.worker.driver_fault == Some(DriverFault::FlushIsForgotten);
        if stream.wants_flush() && !forgets {
            return stream.poll_flush(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn read<S: Socket>(
        &self,
        stream: &mut Secured<S>,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<io::Result<Read>> {
        let mut scratch = self.worker.scratch();
        stream.poll_read(cx, &mut scratch, |bytes| {
            self.worker
                .metrics
                .client_bytes(Direction::In, as_u64(bytes.len()));
            self.worker
                .with(|plane| plane.client_received(self.key, bytes, now));
        })
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
    #[error("no cluster is called {0}, and none is for clients that name none")]
    NoCluster(String),
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
            Self::NoCluster(_) => HandshakeResult::NoCluster,
            Self::Tls(_) => HandshakeResult::Tls,
            Self::Io(_) => HandshakeResult::Io,
        }
    }
}

/// A client after its handshake: its connection, the address that it dialled, and which trust let it
/// in.
type Shaken<S> = (Box<Secured<S>>, SocketAddr, u64);

async fn shake_hands<S: Socket>(
    hall: &Hall,
    mut stream: S,
    whose: &mut Whose,
    admission: &Admission,
) -> Result<Shaken<S>, Failure> {
    let mut first = [0_u8; 8];
    let mut first = ReadBuf::new(&mut first);
    let peeked = poll_fn(|cx| stream.poll_peek(cx, &mut first)).await;
    peeked.map_err(Failure::Io)?;
    if let Some(plaintext) = plaintext(first.filled()) {
        return Err(refuse_plaintext(stream, plaintext).await);
    }
    let hello = whose.listen(hall, &mut stream).await?;
    let tls = whose.tls(hall).current();
    let config = Arc::clone(&tls.config);
    let understood = || admission.client_speaks();
    match Secured::accept(stream, hello, config, || hall.handshake_turn(), understood).await {
        Ok(mut stream) => {
            let local = stream.socket().local_addr().map_err(Failure::Io)?;
            // A session that is resumed brings its certificate along, and nobody looked at it.
            if stream.is_resumed()
                && let Err(error) = tls.admits(stream.peer_certificates())
            {
                return Err(Failure::Tls(io::Error::other(error)));
            }
            Ok((Box::new(stream), local, tls.trust))
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
async fn refuse_plaintext<S: Socket>(mut stream: S, kind: &'static str) -> Failure {
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
