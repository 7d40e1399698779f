//! What the service manager is told (`Type=notify`, `Type=notify-reload`): when it may send clients
//! here, when the configuration is read again, and when it ends. Without one, nothing happens.

use std::io;

use sd_notify::{NotifyState, notify};

use crate::contract::Readiness;

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
