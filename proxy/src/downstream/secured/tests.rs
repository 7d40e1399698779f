use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, ServerName},
    version::{TLS12, TLS13},
};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Read, Secured};

/// As long as the worker's.
const SCRATCH: usize = 64 * 1024;

/// A pipe that gives and takes a few bytes at a time.
struct Narrow(DuplexStream, usize);

impl AsyncRead for Narrow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut part = vec![0; self.1.min(buf.remaining())];
        let mut part = ReadBuf::new(&mut part);
        let result = Pin::new(&mut self.0).poll_read(cx, &mut part);
        buf.put_slice(part.filled());
        result
    }
}

impl AsyncWrite for Narrow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let bytes = &bytes[..bytes.len().min(self.1)];
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn configs(
    version: &'static rustls::SupportedProtocolVersion,
) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![pair.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(pair.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// Both ends of a connection through a pipe of this width.
async fn connected(
    version: &'static rustls::SupportedProtocolVersion,
    width: usize,
) -> (Secured<Narrow>, TlsStream<DuplexStream>) {
    let (server, client) = configs(version);
    let (near, far) = duplex(16 * 1024);
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(client);
    let (ours, theirs) = tokio::join!(
        Secured::accept(
            Narrow(near, width),
            Vec::new(),
            server,
            || std::future::ready(()),
            || (),
        ),
        connector.connect(name, far),
    );
    (ours.unwrap(), theirs.unwrap())
}

async fn read(server: &mut Secured<Narrow>, into: &mut Vec<u8>) -> io::Result<Read> {
    let mut scratch = vec![0; SCRATCH];
    poll_fn(|cx| server.poll_read(cx, &mut scratch, |bytes| into.extend_from_slice(bytes))).await
}

async fn write(server: &mut Secured<Narrow>, mut bytes: &[u8]) {
    let mut cipher = Vec::new();
    while !bytes.is_empty() {
        let count = poll_fn(|cx| server.poll_write(cx, bytes, &mut cipher)).await;
        bytes = &bytes[count.unwrap()..];
    }
    poll_fn(|cx| server.poll_flush(cx)).await.unwrap();
}

fn numbers(count: u32) -> Vec<u8> {
    (0..count).flat_map(u32::to_be_bytes).collect()
}

/// Everything goes through, in both directions, whatever pieces the socket makes of it.
async fn goes_through(version: &'static rustls::SupportedProtocolVersion, width: usize) {
    let (mut server, client) = connected(version, width).await;
    let sent = numbers(if width < 100 { 20_000 } else { 200_000 });
    let (mut from, mut to) = tokio::io::split(client);
    let there = async {
        to.write_all(&sent).await.unwrap();
        to.flush().await.unwrap();
        let mut back = vec![0; sent.len()];
        from.read_exact(&mut back).await.unwrap();
        to.shutdown().await.unwrap();
        back
    };
    let here = async {
        let mut came = Vec::new();
        while came.len() < sent.len() {
            assert!(matches!(
                read(&mut server, &mut came).await.unwrap(),
                Read::Bytes(1..)
            ));
        }
        write(&mut server, &came).await;
        let end = read(&mut server, &mut came).await.unwrap();
        assert_eq!(end, Read::End, "TLS's goodbye is the end");
        assert_eq!(read(&mut server, &mut came).await.unwrap(), Read::End);
        came
    };
    let (back, came) = tokio::join!(there, here);
    assert!(came == sent, "what came is not what was sent");
    assert!(back == sent, "what came back is not what was sent");
    assert!(!server.wants_flush());
    assert_eq!(server.incoming.capacity(), 0, "an idle client holds bytes");
    assert_eq!(server.outgoing.capacity(), 0, "an idle client holds bytes");
}

#[tokio::test]
async fn bytes_go_through_in_both_versions_and_any_pieces() {
    for version in [&TLS12, &TLS13] {
        for width in [1, 7, 1000, usize::MAX] {
            goes_through(version, width).await;
        }
    }
}

#[tokio::test]
async fn what_comes_right_behind_the_handshake_is_read() {
    let (server, client) = configs(&TLS13);
    let (near, far) = duplex(64 * 1024);
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(client);
    let theirs = async {
        let mut stream = connector.connect(name, far).await.unwrap();
        stream.write_all(b"at once").await.unwrap();
        stream.flush().await.unwrap();
        stream
    };
    // The server's side is not looked at until all of that is in the pipe.
    let mut ours = Box::pin(Secured::accept(
        Narrow(near, usize::MAX),
        Vec::new(),
        server,
        || std::future::ready(()),
        || (),
    ));
    let mut theirs = Box::pin(theirs);
    let mut server = None;
    let client = poll_fn(|cx| {
        loop {
            if let Poll::Ready(client) = theirs.as_mut().poll(cx) {
                return Poll::Ready(client);
            }
            if server.is_none()
                && let Poll::Ready(done) = ours.as_mut().poll(cx)
            {
                server = Some(done.unwrap());
                continue;
            }
            return Poll::Pending;
        }
    })
    .await;
    let mut server = match server {
        Some(server) => server,
        None => ours.await.unwrap(),
    };
    let mut came = Vec::new();
    assert_eq!(read(&mut server, &mut came).await.unwrap(), Read::Bytes(7));
    assert_eq!(came, b"at once");
    drop(client);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_back_what_is_written_to_it() {
    let (mut server, mut client) = connected(&TLS13, usize::MAX).await;
    let sent = numbers(100_000);
    let mut cipher = Vec::new();
    let mut taken = 0;
    // The pipe is full after a while; what was taken by then is bounded.
    poll_fn(|cx| {
        while let Poll::Ready(count) = server.poll_write(cx, &sent[taken..], &mut cipher) {
            taken += count.unwrap();
        }
        Poll::Ready(())
    })
    .await;
    assert!(taken > 0 && taken <= 128 * 1024, "{taken}");
    assert!(server.wants_flush());
    let rest = &sent[taken..];
    let mut came = vec![0; sent.len()];
    let (result, ()) = tokio::join!(client.read_exact(&mut came), write(&mut server, rest));
    result.unwrap();
    assert!(came == sent, "what came is not what was sent");
}

#[tokio::test]
async fn a_broken_record_ends_it_with_an_alert() {
    let (mut server, client) = connected(&TLS13, usize::MAX).await;
    let (mut pipe, _) = client.into_inner();
    pipe.write_all(b"\x17\x03\x03\x00\x20 these are not bytes of anyone's.")
        .await
        .unwrap();
    let error = read(&mut server, &mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    drop(server);
    let mut said = Vec::new();
    pipe.read_to_end(&mut said).await.unwrap();
    assert!(said.len() > 5, "no alert came: {said:?}");
}

#[tokio::test]
async fn a_handshake_that_is_none_ends_with_an_alert() {
    let (server, _) = configs(&TLS13);
    let (near, mut far) = duplex(1024);
    far.write_all(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00")
        .await
        .unwrap();
    let accepted =
        Secured::accept(near, Vec::new(), server, || std::future::ready(()), || ()).await;
    let error = accepted.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let mut said = Vec::new();
    far.read_to_end(&mut said).await.unwrap();
    assert_eq!(said.first(), Some(&21), "an alert: {said:?}");
}

#[tokio::test]
async fn goodbye_is_said() {
    let (mut server, mut client) = connected(&TLS12, 3).await;
    write(&mut server, b"+OK\r\n").await;
    let mut came = Vec::new();
    let (result, count) = tokio::join!(server.shutdown(), client.read_to_end(&mut came));
    result.unwrap();
    count.unwrap(); // without TLS's goodbye it would be an error
    assert_eq!(came, b"+OK\r\n");
}

#[tokio::test]
async fn tickets_go_with_what_is_said_first() {
    let (mut server, mut client) = connected(&TLS13, 100).await;
    assert!(!server.outgoing.is_empty() && !server.wants_flush());
    let mut back = [0; 7];
    let nothing = poll_fn(|cx| {
        let mut buf = ReadBuf::new(&mut back);
        Poll::Ready(Pin::new(&mut client).poll_read(cx, &mut buf).is_pending())
    });
    assert!(nothing.await, "nobody has said anything");
    assert_eq!(client.get_ref().1.tls13_tickets_received(), 0);
    let reply = async { client.read_exact(&mut back).await.map(drop) };
    let (_, came) = tokio::join!(write(&mut server, b"+PONG\r\n"), reply);
    came.unwrap();
    assert_eq!(&back, b"+PONG\r\n");
    assert!(client.get_ref().1.tls13_tickets_received() > 0);
    assert_eq!(server.outgoing.capacity(), 0, "an idle client holds bytes");
}
