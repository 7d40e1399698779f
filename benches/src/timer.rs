//! A timer of microseconds. The runtime's own counts milliseconds, too coarse for an open loop.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// A kernel timer of its own.
#[derive(Debug)]
pub(crate) struct FineTimer(AsyncFd<OwnedFd>);

impl FineTimer {
    /// On the current runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "deprecated for descriptors that do not own what they name; an OwnedFd does, \
                      and the replacement is an unsafe fn"
        )]
        let timer = AsyncFd::new(fd)?;
        Ok(Self(timer))
    }

    /// Returns `duration` from now.
    pub(crate) async fn sleep(&mut self, duration: Duration) -> io::Result<()> {
        let timer = Itimerspec {
            it_interval: Timespec::default(),
            // Zero would disarm it.
            it_value: Timespec::try_from(duration.max(Duration::from_nanos(1)))
                .map_err(io::Error::other)?,
        };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &timer)?;
        loop {
            let mut ready = self.0.readable().await?;
            let mut expirations = [0_u8; 8];
            match rustix::io::read(self.0.get_ref(), &mut expirations) {
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    ready.clear_ready();
                    return Ok(());
                }
            }
        }
    }
}
