//! What the service manager is told (`Type=notify`, `Type=notify-reload`): when it may send clients
//! here, when the configuration is read again, and when it ends. And what it gives: sockets that listen
//! already (socket activation), so that nobody is refused while Keyway is started again. Without one,
//! nothing happens.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use listenfd::ListenFd;
use sd_notify::{NotifyState, notify};

use crate::contract::Readiness;

/// Sockets that somebody else has bound for this process (`LISTEN_FDS`, `LISTEN_PID`).
#[derive(Debug, Default)]
pub(crate) struct Given(Vec<(SocketAddr, TcpListener)>);

impl Given {
    /// All that there are; a process has them once.
    ///
    /// # Errors
    /// One of them is no TCP socket that listens.
    pub(crate) fn take() -> io::Result<Self> {
        let mut from = ListenFd::from_env();
        let mut all = Vec::new();
        for index in 0..from.len() {
            if let Some(listener) = from.take_tcp_listener(index)? {
                listener.set_nonblocking(true)?;
                all.push((listener.local_addr()?, listener));
            }
        }
        Ok(Self(all))
    }

    /// The one that is bound to this address.
    pub(crate) fn bound_to(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let at = self.0.iter().position(|(bound, _)| *bound == address)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Addresses that nobody has asked for.
    pub(crate) fn left(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.0.iter().map(|(bound, _)| *bound)
    }
}

/// Says that Keyway serves, once it is ready.
pub async fn tell_when_ready(readiness: Readiness) {
    readiness.wait().await;
    say(notify(&[NotifyState::Ready]));
}

/// Says that the configuration is being read; [`tell_reloaded`] is to follow.
pub(crate) fn tell_reloading() {
    let now = NotifyState::monotonic_usec_now();
    say(now.and_then(|now| notify(&[NotifyState::Reloading, now])));
}

/// Says that what was read is in force, or what was before.
pub(crate) fn tell_reloaded() {
    say(notify(&[NotifyState::Ready]));
}

/// Says that Keyway ends.
pub(crate) fn tell_stopping() {
    say(notify(&[NotifyState::Stopping]));
}

fn say(told: io::Result<()>) {
    if let Err(error) = told {
        tracing::warn!(%error, "cannot tell the service manager (NOTIFY_SOCKET)");
    }
}
