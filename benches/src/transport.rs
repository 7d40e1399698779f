//! One connection's bytes: TCP, with TLS or without.
//!
//! The handshake is tokio-rustls's. Afterwards the TLS session is driven by hand, so that one
//! system call takes all there is (a stream wrapper reads 4 KiB at a time) and a batch leaves in
//! one vectored write; and idle connections hold no buffers: the caller brings its thread's.

use std::io::{self, BufRead, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use resp::{Protocol, ReplyFramer};
use rustls::ClientConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::settings::Target;

/// A connection that is not ready after this is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the reply to HELLO at most.
const GREETING_BYTES_MAX: usize = 64 << 10;

/// A connection, its handshake done.
#[derive(Debug)]
pub(crate) struct Transport {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// Without TLS: bytes to send, and how many are sent.
    out: Vec<u8>,
    sent: usize,
}

impl Transport {
    /// Connects, shakes hands, says HELLO or AUTH where wanted.
    pub(crate) async fn connect(target: &Target) -> io::Result<Self> {
        tokio::time::timeout(CONNECT_TIMEOUT, Self::connect_untimed(target))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "timed out"))?
    }

    async fn connect_untimed(target: &Target) -> io::Result<Self> {
        let socket = TcpStream::connect(target.address).await?;
        socket.set_nodelay(true)?;
        let mut transport = match &target.tls {
            None => Self {
                socket,
                tls: None,
                out: Vec::new(),
                sent: 0,
            },
            Some((config, name)) => {
                let connector = TlsConnector::from(config.clone());
                let stream = connector.connect(name.clone(), socket).await?;
                let (socket, mut tls) = stream.into_inner();
                // A batch is encrypted at once; its size is bounded by the pipeline's depth.
                tls.set_buffer_limit(None);
                Self {
                    socket,
                    tls: Some(Box::new(tls)),
                    out: Vec::new(),
                    sent: 0,
                }
            }
        };
        transport.greet(target).await?;
        Ok(transport)
    }

    async fn greet(&mut self, target: &Target) -> io::Result<()> {
        let mut words: Vec<&str> = Vec::new();
        if target.protocol == Protocol::Resp3 {
            words.extend(["HELLO", "3"]);
        }
        if let Some(password) = &target.password {
            words.push("AUTH");
            match &target.username {
                Some(username) => words.push(username),
                None if target.protocol == Protocol::Resp3 => words.push("default"),
                None => {}
            }
            words.push(password);
        }
        if words.is_empty() {
            return Ok(());
        }
        let mut request = Vec::new();
        resp::write::request(&mut request, &words);
        self.send(&request)?;
        let mut wire = vec![0; 4096];
        let mut reply = Vec::new();
        let mut framer = ReplyFramer::new();
        let mut walked = 0;
        std::future::poll_fn(|cx| {
            ready!(self.poll_flush(cx))?;
            loop {
                if ready!(self.poll_receive(cx, &mut wire, &mut reply))? == 0 {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                let unwalked = reply.get(walked..).unwrap_or_default();
                let walk = framer.advance(unwalked).map_err(io::Error::other)?;
                walked += walk.consumed;
                if walk.done {
                    return Poll::Ready(Ok(()));
                }
                if reply.len() > GREETING_BYTES_MAX {
                    return Poll::Ready(Err(io::Error::other("a greeting without end")));
                }
            }
        })
        .await?;
        if reply.first() == Some(&b'-') {
            let text = reply.escape_ascii().to_string();
            return Err(io::Error::other(format!("refused: {text}")));
        }
        Ok(())
    }

    /// Takes bytes to send; [`Self::poll_flush`] sends them.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(bytes),
            None => {
                self.out.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Sends what was taken.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                let mut socket = PollWriter {
                    socket: &mut self.socket,
                    cx,
                };
                match tls.write_tls(&mut socket) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Poll::Pending;
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                    Ok(_) => {}
                }
            }
            return Poll::Ready(Ok(()));
        }
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            self.sent += ready!(Pin::new(&mut self.socket).poll_write(cx, rest))?;
        }
        self.sent = 0;
        self.out.clear();
        Poll::Ready(Ok(()))
    }

    /// Says goodbye as far as the socket takes it at once; then the connection may be dropped.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        // Whether it arrives is the peer's comfort, not ours: no waiting for it.
        let _ = self.poll_flush(cx);
        Poll::Ready(())
    }

    /// One read of the socket through `wire` (never empty); what it said is appended to `sink`.
    /// Returns the bytes read off the socket, 0 at the end. A record that is not whole yet adds
    /// nothing to `sink`.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut [u8],
        sink: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(wire);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf))?;
        let mut rest = buf.filled();
        let read = rest.len();
        let Some(tls) = &mut self.tls else {
            sink.extend_from_slice(rest);
            return Poll::Ready(Ok(read));
        };
        while !rest.is_empty() {
            tls.read_tls(&mut rest)?;
            tls.process_new_packets().map_err(io::Error::other)?;
            if drain(tls, sink)? {
                return Poll::Ready(Ok(0));
            }
        }
        Poll::Ready(Ok(read))
    }
}

/// Moves what was decrypted; true at the peer's close_notify.
fn drain(tls: &mut ClientConnection, sink: &mut Vec<u8>) -> io::Result<bool> {
    let mut reader = tls.reader();
    loop {
        let len = match reader.fill_buf() {
            Ok([]) => return Ok(true),
            Ok(bytes) => {
                sink.extend_from_slice(bytes);
                bytes.len()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        reader.consume(len);
    }
}

/// A socket as rustls wants to write to it.
struct PollWriter<'a, 'b> {
    socket: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

fn or_would_block<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Write for PollWriter<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.socket).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.socket).poll_write_vectored(self.cx, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
