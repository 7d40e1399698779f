//! What time it is for the drivers: tokio's clock, which is the system's unless a simulation has
//! stopped it.

use std::time::Instant;

/// Now.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
