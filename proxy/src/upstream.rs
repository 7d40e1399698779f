//! A connection to a node: connect, then bytes in both directions until the dataplane has enough
//! of it.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use dataplane::{Attempt, CloseReason, SLICES_MAX};
use topology::NodeAddr;

use crate::{
    net::{DriverFault, Stream},
    worker::Worker,
};

mod connect;

pub(crate) use connect::{ConnectError, connect};

/// Makes one connection and serves it until it ends.
pub(crate) async fn run(worker: Rc<Worker>, attempt: Attempt, addr: NodeAddr) {
    let unwanted = poll_fn(|cx| {
        worker.watch_channel(attempt, cx.waker());
        if !worker.exodus.is_over() && worker.ask(|plane| plane.is_current(attempt)) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    });
    let connected = tokio::select! {
        biased;
        () = unwanted => return,
        connected = connect(worker.upstream_tls.as_ref(), &worker.reach, &addr) => connected,
    };
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) => {
            worker.metrics.upstream_connect(error.result());
            let reason = CloseReason::Io(error.to_string());
            worker.with(|plane| plane.channel_lost(attempt, &reason, worker.now()));
            return;
        }
    };
    worker.with(|plane| plane.channel_connected(attempt));
    let driver = Driver {
        worker: &worker,
        attempt,
    };
    let reason = poll_fn(|cx| driver.poll(&mut stream, cx)).await;
    if worker.exodus.is_over() {
        return; // nobody is to connect again
    }
    worker.with(|plane| plane.channel_lost(attempt, &reason, worker.now()));
}

struct Driver<'a> {
    worker: &'a Rc<Worker>,
    attempt: Attempt,
}

impl Driver<'_> {
    fn poll(&self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let now = self.worker.now();
        self.worker.watch_channel(self.attempt, cx.waker());
        if self.worker.exodus.is_over() {
            return Poll::Ready(CloseReason::Retired);
        }
        loop {
            if !self.worker.ask(|plane| plane.is_current(self.attempt)) {
                return Poll::Ready(CloseReason::Retired);
            }
            if let Poll::Ready(Err(error)) = self.write(stream, cx, now) {
                return Poll::Ready(broken(&error));
            }
            match ready!(self.read(stream, cx, now)) {
                Ok(0) => return Poll::Ready(CloseReason::Eof),
                Ok(_) => {}
                Err(error) => return Poll::Ready(broken(&error)),
            }
        }
    }

    /// Writes what there is. Ready when all of it is written and flushed.
    fn write(
        &self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<io::Result<()>> {
        let whole = self.worker.driver_fault == Some(DriverFault::PartialWriteIsWhole);
        loop {
            let written = self.worker.with(|plane| {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let used = plane.channel_slices(self.attempt, &mut slices);
                let slices = slices.get(..used).unwrap_or_default();
                let written =
                    (used > 0).then(|| Pin::new(&mut *stream).poll_write_vectored(cx, slices));
                let all = || slices.iter().map(|slice| slice.len()).sum();
                written.map(|written| written.map_ok(|count| if whole { all() } else { count }))
            });
            let Some(written) = written else { break };
            let count = ready!(written)?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.worker
                .with(|plane| plane.channel_wrote(self.attempt, count, now));
        }
        Pin::new(stream).poll_flush(cx)
    }

    fn read(
        &self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<io::Result<usize>> {
        let mut scratch = self.worker.scratch();
        let mut buf = ReadBuf::new(&mut scratch);
        ready!(Pin::new(stream).poll_read(cx, &mut buf))?;
        let bytes = buf.filled();
        if !bytes.is_empty() {
            self.worker
                .with(|plane| plane.channel_received(self.attempt, bytes, now));
        }
        Poll::Ready(Ok(bytes.len()))
    }
}

fn broken(error: &io::Error) -> CloseReason {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        CloseReason::Eof
    } else {
        CloseReason::Io(error.to_string())
    }
}
