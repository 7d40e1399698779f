//! The first words of a TLS handshake, read before it is known who is to answer them: where there are
//! several clusters, the name in them may say which is meant.

use std::io;

use rustls::{AlertDescription, server::Acceptor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::secured::invalid;
use crate::net::Socket;

/// A hello is no longer.
const HELLO_BYTES_MAX: usize = 64 * 1024;
/// Read at a time: a hello with its key shares fits.
const READ_BYTES: usize = 2048;

/// Reads a client's hello into `bytes`, for whoever goes on with the handshake. Returns the name that
/// the client asks for.
pub(super) async fn read<S: Socket>(
    socket: &mut S,
    bytes: &mut Vec<u8>,
) -> io::Result<Option<String>> {
    let mut acceptor = Acceptor::default();
    loop {
        let before = bytes.len();
        bytes.reserve(READ_BYTES);
        if socket.read_buf(bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut news = bytes.get(before..).unwrap_or_default();
        while !news.is_empty() {
            if acceptor.read_tls(&mut news)? == 0 {
                break;
            }
        }
        match acceptor.accept() {
            Ok(Some(hello)) => return Ok(hello.client_hello().server_name().map(str::to_owned)),
            Ok(None) if bytes.len() < HELLO_BYTES_MAX => {}
            Ok(None) => return Err(invalid("the hello is too long")),
            Err((error, mut alert)) => {
                let mut said = Vec::new();
                alert.write_all(&mut said)?;
                socket.write_all(&said).await?;
                return Err(invalid(error));
            }
        }
    }
}

/// Tells a client that nobody has the name that it asks for.
pub(super) async fn refuse<S: Socket>(socket: &mut S) -> io::Result<()> {
    let alert = u8::from(AlertDescription::UnrecognisedName);
    // An alert, of TLS 1.2 as all before a version is agreed on, of two bytes: fatal, and which.
    socket.write_all(&[21, 3, 3, 0, 2, 2, alert]).await?;
    socket.shutdown().await
}
