//! What the drivers stand on: connections to nodes and from clients, as the system has them or as
//! a simulation does. What is sent over them is no business of this module.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::dns;

/// A connection to a node.
pub type Stream = Box<dyn Transport>;

/// TCP, TLS over it, or what stands for it.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}

/// A client's connection, before TLS.
pub trait Socket: Transport {
    /// The address that the client connected to.
    ///
    /// # Errors
    /// The connection is gone.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Waits for bytes and leaves them there.
    ///
    /// # Errors
    /// The connection is gone.
    fn poll_peek(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>>;

    /// Says at once what has arrived, where nothing is written soon that would say so.
    fn acknowledge(&self) {}
}

impl Socket for TcpStream {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }

    fn poll_peek(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Self::poll_peek(self, cx, buf).map_ok(|_| ())
    }

    fn acknowledge(&self) {
        // It only costs time where the system has no such thing.
        let _ = socket2::SockRef::from(self).set_tcp_quickack(true);
    }
}

/// A connection that is being made.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send + 'a>>;

/// How connections to nodes are made.
pub trait Net: fmt::Debug + Send + Sync {
    /// Connects to an address. The caller bounds the time.
    fn dial(&self, address: SocketAddr) -> Dialing<'_>;

    /// A fault that the drivers shall have, so that a simulation has something to find.
    fn driver_fault(&self) -> Option<DriverFault> {
        None
    }
}

/// Faults that a simulation can put into the drivers, to show that it finds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverFault {
    /// Of a write that was taken in part, all is taken for written.
    PartialWriteIsWhole,
    /// What TLS keeps of a client's replies because its socket was full is not written later.
    FlushIsForgotten,
    /// A node connection is not woken when there are commands for it.
    WakeIsLost,
    /// What nodes tell of changed keys is not heard: the simulation's own network loses it.
    NewsIsLost,
}

/// How nodes are reached: their names, and their addresses.
#[derive(Clone, Debug)]
pub struct Reach {
    /// From names to addresses.
    pub resolver: Arc<dyn dns::Resolve>,
    /// From addresses to connections.
    pub net: Arc<dyn Net>,
}

impl Reach {
    /// As the system does it; names are asked of these servers, if there are any.
    #[must_use]
    pub fn system(name_servers: &[SocketAddr]) -> Self {
        Self {
            resolver: Arc::new(dns::SystemResolver::asking(name_servers)),
            net: Arc::new(Tcp),
        }
    }
}

/// Silence on a connection after which the system asks whether the other side is there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(5);
/// How long sent bytes may stay unacknowledged: three times what the system sends them again after
/// at first. Another machine's silence is found so, not a process's.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_millis(1500);

/// The system's TCP.
#[derive(Clone, Copy, Debug)]
pub struct Tcp;

impl Net for Tcp {
    fn dial(&self, address: SocketAddr) -> Dialing<'_> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            tune(&stream)?;
            let stream: Stream = Box::new(stream);
            Ok(stream)
        })
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(Duration::from_secs(1));
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    Ok(())
}
