//! Clients that have named no cluster in their handshake: the first user that they name chooses it.
//! Until then they have none, and hear `NOAUTH` to whatever needs one.
//!
//! Nothing is judged here: the `AUTH` that names the user goes to the cluster, with all that comes
//! behind it.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    task::{Context, Poll, ready},
};

use resp::{Request, RequestDecoder, RequestLimits};

use super::{
    secured::{Read, Secured},
    whose::printable,
};
use crate::{
    config::ClusterId, directory::Directory, metrics::ErrorKind, net::Socket, worker::Hall,
};

const NOAUTH: &str = "NOAUTH Authentication required.";
const NOAUTH_HELLO: &str = "NOAUTH HELLO must be called with the client already authenticated, \
    otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client \
    and select the RESP protocol version at the same time";
/// In Valkey's words, and the same as for a user that a cluster refuses: nobody learns from it who
/// is known.
const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";
/// Whom `AUTH` with a password alone means.
const DEFAULT_USER: &[u8] = b"default";

/// What a client is owed and has sent, until it has chosen.
struct Guest {
    peer: SocketAddr,
    decoder: RequestDecoder,
    /// From the beginning of the first command that was not answered here.
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    leaves: bool,
}

/// What a client means by a command.
enum Meant {
    /// A cluster, and what was sent is for it. With `false`, it is the usual one.
    Cluster(ClusterId, bool),
    /// None yet: nobody has such a user, ..
    Stranger(String),
    /// .. or it has named none.
    Nothing(&'static str),
    /// To leave.
    Quit,
}

/// Waits until the client has chosen. Returns the cluster, and whether a user chose it; what the
/// client has sent for it is the next that is read from `stream`. `None`: the client is gone.
pub(super) async fn choose<S: Socket>(
    hall: &Hall,
    stream: &mut Secured<S>,
    peer: SocketAddr,
) -> io::Result<Option<(ClusterId, bool)>> {
    let mut guest = Guest {
        peer,
        decoder: RequestDecoder::new(RequestLimits::UNAUTHENTICATED),
        incoming: Vec::new(),
        outgoing: Vec::new(),
        leaves: false,
    };
    let chosen = poll_fn(|cx| guest.poll(hall, stream, cx)).await?;
    if chosen.is_some() {
        stream.unread(guest.incoming);
    }
    Ok(chosen)
}

/// Says a line to a client before it is closed.
pub(super) async fn say<S: Socket>(
    hall: &Hall,
    stream: &mut Secured<S>,
    text: &str,
) -> io::Result<()> {
    let mut line = Vec::new();
    resp::write::error(&mut line, text.as_bytes());
    poll_fn(|cx| write(hall, stream, cx, &mut line)).await
}

/// To clients that may not have the cluster that they have chosen.
pub(super) const REFUSED: &str = WRONGPASS;

impl Guest {
    fn poll<S: Socket>(
        &mut self,
        hall: &Hall,
        stream: &mut Secured<S>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<(ClusterId, bool)>>> {
        loop {
            let chosen = self.answer(hall);
            ready!(write(hall, stream, cx, &mut self.outgoing))?;
            if chosen.is_some() || self.leaves {
                return Poll::Ready(Ok(chosen));
            }
            let mut scratch = hall.scratch();
            let incoming = &mut self.incoming;
            match ready!(stream.poll_read(cx, &mut scratch, |bytes| {
                incoming.extend_from_slice(bytes);
            }))? {
                Read::End => return Poll::Ready(Ok(None)),
                Read::Bytes(_) => {}
            }
        }
    }

    /// Answers what was sent until the client has chosen.
    fn answer(&mut self, hall: &Hall) -> Option<(ClusterId, bool)> {
        while !self.leaves {
            let len = match self.decoder.decode(&self.incoming) {
                Ok(Some(len)) => len,
                Ok(None) => return None,
                Err(error) => {
                    hall.metrics.error(ErrorKind::Protocol);
                    let text = format!("ERR Protocol error: {error}");
                    resp::write::error(&mut self.outgoing, text.as_bytes());
                    self.leaves = true;
                    return None;
                }
            };
            if !self.decoder.is_empty() {
                let frame = self.incoming.get(..len).unwrap_or_default();
                let meant = meaning(self.decoder.request(frame), &hall.directory());
                match meant {
                    Meant::Cluster(cluster, by_user) => return Some((cluster, by_user)),
                    Meant::Stranger(user) => {
                        if hall.log.allows() {
                            let (client, reason) = (self.peer, "no cluster has the user");
                            tracing::warn!(%client, %user, reason, "credentials refused");
                        }
                        self.refuse(hall, WRONGPASS);
                    }
                    Meant::Nothing(text) => self.refuse(hall, text),
                    Meant::Quit => {
                        self.outgoing.extend_from_slice(b"+OK\r\n");
                        self.leaves = true;
                    }
                }
            }
            self.incoming.drain(..len);
            self.decoder.next();
        }
        None
    }
}

impl Guest {
    fn refuse(&mut self, hall: &Hall, text: &str) {
        hall.metrics.error(ErrorKind::Auth);
        resp::write::error(&mut self.outgoing, text.as_bytes());
    }
}

fn meaning(request: Request<'_>, directory: &Directory) -> Meant {
    let is = |name: &str| request.name().eq_ignore_ascii_case(name.as_bytes());
    let user = match request.argc() {
        2 if is("auth") => Some(DEFAULT_USER),
        3 if is("auth") => request.arg(1),
        _ if is("hello") => user_of_hello(request),
        _ => None,
    };
    let by_user = user.and_then(|user| directory.by_user(user));
    if let Some(cluster) = by_user {
        return Meant::Cluster(cluster, true);
    }
    if let Some(usual) = directory.usual() {
        return Meant::Cluster(usual, false);
    }
    match user {
        Some(user) => Meant::Stranger(printable(&String::from_utf8_lossy(user))),
        None if is("quit") => Meant::Quit,
        None if is("hello") => Meant::Nothing(NOAUTH_HELLO),
        None => Meant::Nothing(NOAUTH),
    }
}

/// The user in `HELLO version [AUTH user password] [SETNAME name]`.
fn user_of_hello(request: Request<'_>) -> Option<&[u8]> {
    let mut options = request.args().skip(2);
    while let Some(option) = options.next() {
        let value = options.next()?;
        if option.eq_ignore_ascii_case(b"auth") {
            return options.next().map(|_| value);
        }
    }
    None
}

/// Writes all of `plain`, and flushes it.
fn write<S: Socket>(
    hall: &Hall,
    stream: &mut Secured<S>,
    cx: &mut Context<'_>,
    plain: &mut Vec<u8>,
) -> Poll<io::Result<()>> {
    while !plain.is_empty() {
        let written = stream.poll_write(cx, plain, &mut hall.cipher());
        let count = ready!(written)?;
        plain.drain(..count.min(plain.len()));
    }
    stream.poll_flush(cx)
}

#[cfg(test)]
mod tests {
    use resp::OwnedRequest;

    use super::*;

    #[test]
    fn the_user_of_a_hello_is_found_among_its_options() {
        let user = |words: &str| {
            let request = OwnedRequest::from_args(words.split(' '));
            user_of_hello(request.as_request()).map(<[u8]>::to_vec)
        };
        assert_eq!(user("HELLO 3 AUTH alice pw"), Some(b"alice".to_vec()));
        assert_eq!(
            user("HELLO 2 SETNAME AUTH auth bob pw"),
            Some(b"bob".to_vec())
        );
        for words in [
            "HELLO",
            "HELLO 3",
            "HELLO 3 SETNAME x",
            "HELLO 3 AUTH alice",
        ] {
            assert_eq!(user(words), None, "{words}");
        }
    }
}
