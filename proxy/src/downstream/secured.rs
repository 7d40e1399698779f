//! A client's socket under TLS, without buffers of its own.
//!
//! rustls is driven unbuffered: what the socket gives is decrypted where it was read, in a buffer
//! of the worker's, and what goes out is encrypted into another. A client keeps bytes here only
//! while it has sent a part of a record, or does not take what it asked for.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{
    HandshakeKind, ProtocolVersion, ServerConfig,
    pki_types::CertificateDer,
    server::UnbufferedServerConnection,
    unbuffered::{
        ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
    },
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Bytes of a handshake that is not complete; a chain of certificates fits several times.
const HANDSHAKE_BYTES_MAX: usize = 64 * 1024;
/// Read at a time during a handshake: a hello with its key shares fits.
const HANDSHAKE_READ_BYTES: usize = 2048;
/// Plain bytes encrypted for one write: four records of the largest size.
const PLAIN_BYTES_MAX: usize = 64 * 1024;
/// What TLS adds to a record at most.
const OVERHEAD_BYTES_MAX: usize = 64;

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// So many plain bytes, handed over already. Without any, TLS itself has something to be
    /// written.
    Bytes(usize),
    /// The client sends no more.
    End,
}

/// A socket under TLS.
pub(super) struct Secured<S> {
    socket: S,
    tls: UnbufferedServerConnection,
    /// The beginning of a record whose end has not come.
    incoming: Vec<u8>,
    /// Plain bytes that came right behind the handshake.
    early: Vec<u8>,
    /// The client has said goodbye.
    ended: bool,
    /// Encrypted bytes that the socket has not taken.
    outgoing: Vec<u8>,
    /// So many of them it has.
    sent: usize,
    /// They are tickets for other sessions, which nobody waits for: they go with what is said first. A
    /// client that leaves before has nothing unread, which would reset its connection.
    tickets: bool,
}

/// What is to be done about the state that rustls is in.
enum Step {
    /// Ask again.
    Again,
    /// A record of so many plain bytes was handed over.
    Plain(usize),
    /// The handshake goes on with bytes from the client.
    Blocked,
    /// Nothing more to read here.
    Traffic,
    Closed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Secured<S> {
    /// The server's side of a handshake, of which `incoming` is there already. `turn` is waited for
    /// before each step of it that may compute for long; `understood` is called with the client's hello.
    pub(super) async fn accept<T, F>(
        socket: S,
        incoming: Vec<u8>,
        config: Arc<ServerConfig>,
        mut turn: impl FnMut() -> F,
        understood: impl Fn(),
    ) -> io::Result<Self>
    where
        F: Future<Output = T>,
    {
        let tls = UnbufferedServerConnection::new(config).map_err(invalid)?;
        let mut this = Self {
            socket,
            tls,
            incoming,
            early: Vec::new(),
            ended: false,
            outgoing: Vec::new(),
            sent: 0,
            tickets: false,
        };
        loop {
            let permit = turn().await;
            let step = this.handshake_steps();
            drop(permit);
            if !this.outgoing.is_empty() {
                understood();
            }
            // In TLS 1.3 the server has the last word no more: behind the client's there are tickets.
            let is_over = matches!(step, Ok(Step::Traffic));
            this.tickets = is_over && this.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3);
            let flushed = if this.tickets {
                Ok(())
            } else {
                this.flush().await
            };
            match step? {
                Step::Traffic => {
                    flushed?;
                    this.incoming.shrink_to_fit();
                    return Ok(this);
                }
                Step::Closed => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => flushed?,
            }
            if this.incoming.len() > HANDSHAKE_BYTES_MAX {
                return Err(invalid("the handshake is too long"));
            }
            this.incoming.reserve(HANDSHAKE_READ_BYTES);
            if this.socket.read_buf(&mut this.incoming).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// As far as the handshake gets with what is there. What it has to say, an alert included, is
    /// in `outgoing`.
    fn handshake_steps(&mut self) -> io::Result<Step> {
        loop {
            let mut incoming = std::mem::take(&mut self.incoming);
            let mut early = std::mem::take(&mut self.early);
            let (discard, step) =
                self.step(&mut incoming, &mut |bytes| early.extend_from_slice(bytes));
            incoming.drain(..discard.min(incoming.len()));
            self.incoming = incoming;
            self.early = early;
            match step {
                Ok(Step::Again | Step::Plain(_)) => {}
                Ok(step) => return Ok(step),
                Err(error) => {
                    self.encode_alert();
                    return Err(error);
                }
            }
        }
    }

    /// Plain bytes that were read are to be read once more.
    pub(super) fn unread(&mut self, mut plain: Vec<u8>) {
        plain.append(&mut self.early);
        self.early = plain;
    }

    /// The certificates that the client has shown, its own first.
    pub(super) fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.tls.peer_certificates()
    }

    /// Whether the handshake took up an earlier session, with what was known of the client then.
    pub(super) fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// One step of rustls over `incoming`; `take` gets the plain bytes. Returns how many bytes of
    /// `incoming` are done with.
    fn step(
        &mut self,
        incoming: &mut [u8],
        take: &mut impl FnMut(&[u8]),
    ) -> (usize, io::Result<Step>) {
        let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(incoming);
        let step = match state {
            Err(error) => Err(invalid(error)),
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut count = 0;
                let mut result = Ok(());
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            discard += record.discard;
                            count += record.payload.len();
                            take(record.payload);
                        }
                        Err(error) => result = Err(invalid(error)),
                    }
                }
                result.map(|()| Step::Plain(count))
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                self.tickets = false;
                let at = self.outgoing.len();
                let result = data.encode(&mut []);
                let result = match result {
                    Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                        self.outgoing.resize(at + required_size, 0);
                        data.encode(self.outgoing.get_mut(at..).unwrap_or_default())
                    }
                    other => other,
                };
                match result {
                    Ok(_) => Ok(Step::Again),
                    Err(error) => Err(invalid(error)),
                }
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done(); // `outgoing` is sent before anything else
                Ok(Step::Again)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Step::Blocked),
            Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Traffic),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Step::Closed),
            Ok(_) => Err(invalid("early data was not asked for")),
        };
        (discard, step)
    }

    /// Puts the alert about an error into `outgoing`, if rustls has one to send.
    fn encode_alert(&mut self) {
        while let (_, Ok(Step::Again)) = self.step(&mut [], &mut |_| {}) {}
    }

    /// Reads from the socket, in front of that what was left over, and hands plain bytes over
    /// to `take`. `scratch` is as long as the longest record at least.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        mut take: impl FnMut(&[u8]),
    ) -> Poll<io::Result<Read>> {
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            take(&early);
            return Poll::Ready(Ok(Read::Bytes(early.len())));
        }
        loop {
            if self.ended {
                return Poll::Ready(Ok(Read::End));
            }
            let left = self.incoming.len();
            let Some((front, free)) = scratch.split_at_mut_checked(left) else {
                return Poll::Ready(Err(invalid("a record is too long")));
            };
            front.copy_from_slice(&self.incoming);
            let mut buf = ReadBuf::new(free);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf))?;
            let read = buf.filled().len();
            if read == 0 {
                return Poll::Ready(Ok(Read::End));
            }
            let count = left + read;
            let (used, result) =
                self.decrypt(scratch.get_mut(..count).unwrap_or_default(), &mut take);
            self.incoming.clear();
            match scratch.get(used..count) {
                Some(rest) if !rest.is_empty() => self.incoming.extend_from_slice(rest),
                _ => self.incoming = Vec::new(),
            }
            match result {
                Ok(0) if !self.wants_flush() => {} // a part of a record
                Ok(plain) => return Poll::Ready(Ok(Read::Bytes(plain))),
                Err(error) => {
                    let _ = self.poll_flush(cx); // the alert, if it can be had at once
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// Decrypts the whole records in `buf`. Returns how many bytes they had, and how many plain ones
    /// there were.
    fn decrypt(
        &mut self,
        buf: &mut [u8],
        take: &mut impl FnMut(&[u8]),
    ) -> (usize, io::Result<usize>) {
        let mut used = 0;
        let mut plain = 0;
        loop {
            let (discard, step) = self.step(buf.get_mut(used..).unwrap_or_default(), take);
            used += discard;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Plain(count)) => plain += count,
                Ok(Step::Traffic | Step::Blocked) => return (used, Ok(plain)),
                Ok(Step::Closed) => {
                    self.ended = true; // which is told of next
                    return (used, Ok(plain));
                }
                Err(error) => {
                    self.encode_alert();
                    return (used, Err(error));
                }
            }
        }
    }

    /// Encrypts what it can of `plain` and writes it; `cipher` is a buffer to do it in. Returns how
    /// many plain bytes were taken. They may still be waiting for [`Secured::poll_flush`].
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        plain: &[u8],
        cipher: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        if !self.tickets {
            ready!(self.poll_flush(cx))?;
        }
        let plain = plain.get(..PLAIN_BYTES_MAX).unwrap_or(plain);
        let size = self.encrypt(plain, cipher)?;
        let cipher = cipher.get(..size).unwrap_or_default();
        if self.tickets {
            self.outgoing.extend_from_slice(cipher);
            return match self.poll_flush(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Ready(Ok(plain.len())),
            };
        }
        let mut sent = 0;
        while let Some(rest) = cipher.get(sent..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.socket).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => sent += count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.outgoing.extend_from_slice(rest);
                    break;
                }
            }
        }
        Poll::Ready(Ok(plain.len()))
    }

    fn encrypt(&mut self, plain: &[u8], cipher: &mut Vec<u8>) -> io::Result<usize> {
        let UnbufferedStatus { state, .. } = self.tls.process_tls_records(&mut []);
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = state else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let likely = plain.len() + OVERHEAD_BYTES_MAX * (1 + plain.len() / 16_000);
        if cipher.len() < likely {
            cipher.resize(likely, 0);
        }
        match traffic.encrypt(plain, cipher) {
            Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                cipher.resize(required_size, 0);
                traffic.encrypt(plain, cipher).map_err(invalid)
            }
            other => other.map_err(invalid),
        }
    }

    /// Whether encrypted bytes wait for the socket.
    pub(super) fn wants_flush(&self) -> bool {
        !self.outgoing.is_empty() && !self.tickets
    }

    /// Writes what waits.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tickets = false;
        while let Some(rest) = self
            .outgoing
            .get(self.sent..)
            .filter(|rest| !rest.is_empty())
        {
            let count = ready!(Pin::new(&mut self.socket).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        self.sent = 0;
        self.outgoing = Vec::new();
        Poll::Ready(Ok(()))
    }

    async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Says TLS's goodbye, and closes this side of the socket.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        if let UnbufferedStatus {
            state: Ok(ConnectionState::WriteTraffic(mut traffic)),
            ..
        } = self.tls.process_tls_records(&mut [])
        {
            let mut goodbye = [0; OVERHEAD_BYTES_MAX];
            if let Ok(size) = traffic.queue_close_notify(&mut goodbye) {
                self.outgoing
                    .extend_from_slice(goodbye.get(..size).unwrap_or_default());
            }
        }
        self.flush().await?;
        self.socket.shutdown().await
    }

    /// The socket.
    pub(super) fn socket(&mut self) -> &mut S {
        &mut self.socket
    }
}

pub(super) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
