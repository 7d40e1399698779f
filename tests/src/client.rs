//! A small blocking client, for tests that must see and send the very bytes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use resp::{ReplyFramer, Value, write};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

use crate::certificates::{Identity, trusting};

/// No reply takes longer; a test that waits more is stuck.
const REPLY_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// One connection to a server or to Keyway.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    received: Vec<u8>,
}

impl Client {
    /// Connects over TLS, trusting the authority in `ca`, and finishes the handshake.
    ///
    /// # Errors
    /// What the connection or the handshake said.
    pub fn try_connect(addr: &str, ca: &Path) -> io::Result<Self> {
        Self::try_connect_as(addr, ca, None)
    }

    /// The same with a certificate to show.
    ///
    /// # Errors
    /// What the connection or the handshake said.
    pub fn try_connect_as(addr: &str, ca: &Path, identity: Option<&Identity>) -> io::Result<Self> {
        let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
        Self::try_connect_with(addr, host, &trusting(ca, identity))
    }

    /// Connects over TLS with settings that others may share, asking for a server of this name.
    ///
    /// # Errors
    /// What the connection or the handshake said.
    pub fn try_connect_with(
        addr: &str,
        name: &str,
        config: &Arc<ClientConfig>,
    ) -> io::Result<Self> {
        let mut socket = dial(addr)?;
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        let stream = Stream::Tls(Box::new(StreamOwned::new(tls, socket)));
        Ok(Self {
            stream,
            received: Vec::new(),
        })
    }

    /// [`Self::try_connect`] that must succeed.
    ///
    /// # Panics
    /// It does not.
    #[must_use]
    #[track_caller]
    pub fn connect(addr: &str, ca: &Path) -> Self {
        Self::try_connect(addr, ca)
            .unwrap_or_else(|error| panic!("no TLS connection to {addr}: {error}"))
    }

    /// Connects without TLS.
    ///
    /// # Errors
    /// What the connection said.
    pub fn try_plain(addr: &str) -> io::Result<Self> {
        let stream = Stream::Plain(dial(addr)?);
        Ok(Self {
            stream,
            received: Vec::new(),
        })
    }

    /// Whether an earlier session was resumed; false without TLS.
    #[must_use]
    pub fn resumed(&self) -> bool {
        match &self.stream {
            Stream::Plain(_) => false,
            Stream::Tls(tls) => tls.conn.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    /// The certificate that the server showed, if any.
    #[must_use]
    pub fn shown(&self) -> Option<Vec<u8>> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(tls) => Some(tls.conn.peer_certificates()?.first()?.to_vec()),
        }
    }

    /// How long the next reads wait, instead of 30 s.
    ///
    /// # Panics
    /// The connection is gone.
    pub fn set_patience(&mut self, limit: Duration) {
        let socket = match &self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(tls) => tls.get_ref(),
        };
        socket
            .set_read_timeout(Some(limit))
            .expect("a connected socket");
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn try_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(socket) => socket.write_all(bytes),
            Stream::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// The connection is gone.
    #[track_caller]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.try_raw(bytes)
            .unwrap_or_else(|error| panic!("sending failed: {error}"));
    }

    /// The next reply.
    ///
    /// # Errors
    /// The connection ended (`UnexpectedEof`), nothing came for 30 s, or what came is no reply.
    pub fn try_read(&mut self) -> io::Result<Value> {
        let mut framer = ReplyFramer::new();
        let mut walked = 0;
        loop {
            let walk = framer
                .advance(&self.received[walked..])
                .map_err(io::Error::other)?;
            walked += walk.consumed;
            if walk.done {
                let (value, len) =
                    Value::parse(&self.received[..walked]).map_err(io::Error::other)?;
                assert_eq!(len, walked, "framer and parser agree on a reply's end");
                self.received.drain(..walked);
                return Ok(value);
            }
            if self.fill()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The next reply.
    ///
    /// # Panics
    /// There is none.
    #[track_caller]
    pub fn read(&mut self) -> Value {
        self.try_read()
            .unwrap_or_else(|error| panic!("no reply: {error}"))
    }

    /// Sends a command and reads its reply.
    ///
    /// # Errors
    /// As [`Self::try_read`].
    pub fn try_cmd<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Value> {
        let mut frame = Vec::new();
        write::request(&mut frame, args);
        self.try_raw(&frame)?;
        self.try_read()
    }

    /// Sends a command and reads its reply.
    ///
    /// # Panics
    /// There is none.
    #[track_caller]
    pub fn cmd<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Value {
        self.try_cmd(args).unwrap_or_else(|error| {
            let name = args
                .first()
                .map(|name| String::from_utf8_lossy(name.as_ref()));
            panic!("no reply to {name:?}: {error}")
        })
    }

    /// Sends a command in words between single spaces; its reply as [`show`] has it.
    ///
    /// # Panics
    /// There is none.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        show(&self.cmd(&line.split(' ').collect::<Vec<_>>()))
    }

    /// [`Self::ask`], one after another.
    ///
    /// # Panics
    /// A reply does not come.
    #[track_caller]
    pub fn ask_all(&mut self, lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| self.ask(line)).collect()
    }

    /// Everything the server still says until it closes the connection; `None` when it does not
    /// within `limit`. A reset counts as closed.
    pub fn read_to_end(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + limit;
        loop {
            let left = end.checked_duration_since(Instant::now())?;
            self.socket()
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .ok()?;
            match self.fill() {
                Ok(0) => return Some(std::mem::take(&mut self.received)),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) => return Some(std::mem::take(&mut self.received)),
            }
        }
    }

    /// Writes all requests and reads as many replies, both at once, so that neither side can wait
    /// for the other.
    ///
    /// # Panics
    /// The connection ends, or nothing moves for 30 s.
    #[track_caller]
    pub fn pipeline(&mut self, requests: &[Vec<u8>]) -> Vec<Value> {
        let bytes: Vec<u8> = requests.concat();
        let mut replies = Vec::with_capacity(requests.len());
        let mut sent = 0;
        self.socket().set_nonblocking(true).expect("a socket");
        let mut idle_since = Instant::now();
        while replies.len() < requests.len() {
            let moved = self.pump(&bytes, &mut sent) | self.take_replies(&mut replies);
            if moved {
                idle_since = Instant::now();
            } else {
                assert!(
                    idle_since.elapsed() < REPLY_LIMIT,
                    "{} of {} replies",
                    replies.len(),
                    requests.len()
                );
                thread::sleep(Duration::from_micros(200));
            }
        }
        self.socket().set_nonblocking(false).expect("a socket");
        replies
    }

    /// One attempt to write from `bytes[*sent..]` and to read; true when anything moved.
    fn pump(&mut self, bytes: &[u8], sent: &mut usize) -> bool {
        let mut moved = false;
        if *sent < bytes.len() {
            let chunk = &bytes[*sent..bytes.len().min(*sent + 16 * 1024)];
            let written = match &mut self.stream {
                Stream::Plain(socket) => socket.write(chunk),
                Stream::Tls(tls) => tls.write(chunk),
            };
            match written {
                Ok(count) => (*sent, moved) = (*sent + count, count > 0),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        } else if let Stream::Tls(tls) = &mut self.stream {
            let _ = tls.flush();
        }
        match self.fill() {
            Ok(0) => panic!("the connection ended in a pipeline"),
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                moved
            }
        }
    }

    /// Moves the whole replies out of what was received; true when there were any.
    fn take_replies(&mut self, replies: &mut Vec<Value>) -> bool {
        let (before, mut at) = (replies.len(), 0);
        while let Ok((value, len)) = Value::parse(&self.received[at..]) {
            replies.push(value);
            at += len;
        }
        self.received.drain(..at);
        replies.len() > before
    }

    /// Ends the connection as a client does that goes away: both directions, at once.
    pub fn abort(self) {
        let _ = self.socket().shutdown(std::net::Shutdown::Both);
    }

    fn socket(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(tls) => &tls.sock,
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let count = match &mut self.stream {
            Stream::Plain(socket) => socket.read(&mut chunk),
            Stream::Tls(tls) => tls.read(&mut chunk),
        }?;
        self.received.extend_from_slice(&chunk[..count]);
        Ok(count)
    }
}

/// A request in words between single spaces.
#[must_use]
pub fn frame(line: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    write::request(&mut frame, &line.split(' ').collect::<Vec<_>>());
    frame
}

fn dial(addr: &str) -> io::Result<TcpStream> {
    let to = addr.to_socket_addrs()?.next().ok_or(ErrorKind::NotFound)?;
    let socket = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(REPLY_LIMIT))?;
    socket.set_write_timeout(Some(REPLY_LIMIT))?;
    Ok(socket)
}

/// A reply on one line: as [`text`] has it, `(nil)` for every null, an array's elements one after
/// another.
#[must_use]
pub fn show(value: &Value) -> String {
    match (value.as_array(), value) {
        (Some(values), _) => values.iter().map(show).collect::<Vec<_>>().join(" "),
        (None, Value::Null | Value::NullBulk | Value::NullArray) => "(nil)".to_owned(),
        (None, Value::Map(pairs)) => {
            let pairs = pairs
                .iter()
                .map(|(key, value)| format!("{} {}", show(key), show(value)));
            pairs.collect::<Vec<_>>().join(" ")
        }
        (None, value) => text(value),
    }
}

/// A reply as text for assertions: a string as it is, an error behind `-`, an integer as digits,
/// anything else as Rust shows it.
#[must_use]
pub fn text(value: &Value) -> String {
    if let Some(error) = value.as_error() {
        return format!("-{}", String::from_utf8_lossy(error));
    }
    match value.plain() {
        Value::Integer(number) => number.to_string(),
        other => match other.as_bytes() {
            Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            None => format!("{other:?}"),
        },
    }
}
