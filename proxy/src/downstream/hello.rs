//! The first words of a TLS handshake, read before it is known who is to answer them: where there are
//! several clusters, the name in them may say which is meant.

use std::io;

use rustls::{AlertDescription, server::Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::secured::invalid;

/// A hello is no longer.
const HELLO_BYTES_MAX: usize = 64 * 1024;
/// Read at a time: a hello with its key shares fits.
const READ_BYTES: usize = 2048;

/// Reads a client's hello into `bytes`, for whoever goes on with the handshake. Returns the name that
/// the client asks for.
pub(super) async fn read<S: AsyncRead + AsyncWrite + Unpin>(
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
pub(super) async fn refuse<S: AsyncWrite + Unpin>(socket: &mut S) -> io::Result<()> {
    let alert = u8::from(AlertDescription::UnrecognisedName);
    // An alert, of TLS 1.2 as all before a version is agreed on, of two bytes: fatal, and which.
    socket.write_all(&[21, 3, 3, 0, 2, 2, alert]).await?;
    socket.shutdown().await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};
    use tokio::io::duplex;

    use super::*;

    fn client(name: &str) -> ClientConnection {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        ClientConnection::new(Arc::new(config), name).unwrap()
    }

    fn hello_of(name: &str) -> Vec<u8> {
        let mut hello = Vec::new();
        client(name).write_tls(&mut hello).unwrap();
        hello
    }

    #[tokio::test]
    async fn the_name_is_read_however_the_hello_comes() {
        for (name, expected) in [("a.example.com", Some("a.example.com")), ("10.0.0.1", None)] {
            for size in [1, 7, 4096] {
                let hello = hello_of(name);
                let (mut near, mut far) = duplex(size);
                let sent = hello.clone();
                let sender = tokio::spawn(async move { far.write_all(&sent).await.map(|()| far) });
                let mut read_so_far = Vec::new();
                let found = read(&mut near, &mut read_so_far).await.unwrap();
                assert_eq!(found.as_deref(), expected);
                assert_eq!(read_so_far, hello, "all of it is there for the handshake");
                sender.await.unwrap().unwrap();
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_hello_is_told_so_and_has_an_end() {
        let (mut near, mut far) = duplex(1 << 20);
        far.write_all(&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0])
            .await
            .unwrap();
        read(&mut near, &mut Vec::new()).await.unwrap_err();
        drop(near);
        let mut told = Vec::new();
        far.read_to_end(&mut told).await.unwrap();
        assert_eq!(told.first(), Some(&21), "an alert: {told:?}");

        // A hello that says it is long, and goes on in record after record.
        let (mut near, mut far) = duplex(1 << 20);
        let mut record = vec![22, 3, 1, 0x3f, 0xf0];
        record.extend([1, 0xff, 0xff, 0xff]);
        record.resize(5 + 0x3ff0, 0);
        for _ in 0..8 {
            far.write_all(&record).await.unwrap();
        }
        let mut bytes = Vec::new();
        read(&mut near, &mut bytes).await.unwrap_err();
        assert!(bytes.len() <= 2 * HELLO_BYTES_MAX);

        let (mut near, far) = duplex(64);
        drop(far);
        let error = read(&mut near, &mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_client_understands_that_nobody_has_the_name() {
        let (mut near, mut far) = duplex(1024);
        refuse(&mut near).await.unwrap();
        drop(near);
        let mut told = Vec::new();
        far.read_to_end(&mut told).await.unwrap();
        let mut client = client("a.example.com");
        client.write_tls(&mut Vec::new()).unwrap();
        client.read_tls(&mut told.as_slice()).unwrap();
        let error = client.process_new_packets().unwrap_err();
        assert_eq!(
            error,
            rustls::Error::AlertReceived(AlertDescription::UnrecognisedName)
        );
    }
}
