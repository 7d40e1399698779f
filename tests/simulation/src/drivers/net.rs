//! The network as the drivers see it: streams that take and give what the world lets them, in
//! pieces that the seed decides. What happens on the way is the world's.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use keyway::net::{self, Dialing, DriverFault, Socket};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

use crate::rng::Rng;

/// What the drivers have done.
#[derive(Debug)]
pub(super) enum News {
    /// A connection is to be made.
    Dialled(u64, SocketAddr),
    /// The system has taken bytes.
    Wrote(u64, Vec<u8>),
    /// A connection is closed, or not wanted any more.
    Dropped(u64),
}

/// How a stream ends for the driver that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The other side says no more, and listens.
    Eof,
    /// It has closed: what it said comes, what it is told is an error.
    Closed,
    /// It is gone: everything is an error.
    Reset,
}

/// One stream's end at the proxy.
#[derive(Debug, Default)]
struct Wire {
    /// What has come and was not read.
    inbox: VecDeque<u8>,
    end: Option<End>,
    /// So many bytes more are taken.
    room: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug)]
enum Call {
    Waits(Option<Waker>),
    Made,
    Refused,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    count: u64,
    wires: BTreeMap<u64, Wire>,
    calls: BTreeMap<u64, Call>,
    /// The workers that have dialled.
    callers: BTreeMap<u64, usize>,
    news: Vec<News>,
}

/// All streams of one run.
#[derive(Clone, Debug)]
pub(super) struct Net {
    state: Arc<Mutex<State>>,
    told: Arc<Notify>,
    fault: Option<DriverFault>,
    worker: usize,
}

impl Net {
    pub(super) fn new(seed: u64, fault: Option<DriverFault>) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                rng: Rng::new(!seed),
                count: 0,
                wires: BTreeMap::new(),
                calls: BTreeMap::new(),
                callers: BTreeMap::new(),
                news: Vec::new(),
            })),
            told: Arc::default(),
            fault,
            worker: 0,
        }
    }

    /// The same, as one of the workers sees it.
    pub(super) fn of(&self, worker: usize) -> Self {
        Self {
            worker,
            ..self.clone()
        }
    }

    /// Whether this fault is to be found.
    pub(super) fn has(&self, fault: DriverFault) -> bool {
        self.fault == Some(fault)
    }

    /// The worker that has dialled.
    pub(super) fn caller(&self, id: u64) -> usize {
        self.state().callers.get(&id).copied().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn tell(&self, state: &mut State, news: News) {
        state.news.push(news);
        self.told.notify_one();
    }

    pub(super) fn take_news(&self) -> Vec<News> {
        std::mem::take(&mut self.state().news)
    }

    /// Waits for news.
    pub(super) async fn has_news(&self) {
        self.told.notified().await;
    }

    /// Streams that are open.
    pub(super) fn open(&self) -> Vec<u64> {
        self.state().wires.keys().copied().collect()
    }

    pub(super) fn is_wanted(&self, id: u64) -> bool {
        let state = self.state();
        state.calls.contains_key(&id) || state.wires.contains_key(&id)
    }

    // ---- what the world does ----

    /// A client's stream, with room for so many bytes.
    pub(super) fn client(&self, room: usize) -> (u64, Tap) {
        let mut state = self.state();
        state.count += 1;
        let id = state.count;
        let wire = Wire {
            room,
            ..Wire::default()
        };
        state.wires.insert(id, wire);
        let net = self.clone();
        (id, Tap { net, id })
    }

    /// A connection that was dialled is made, with room for so many bytes, or refused.
    pub(super) fn answer(&self, id: u64, room: Option<usize>) {
        let mut state = self.state();
        let answer = if room.is_some() {
            Call::Made
        } else {
            Call::Refused
        };
        let Some(call) = state.calls.get_mut(&id) else {
            return;
        };
        if let Call::Waits(Some(waker)) = std::mem::replace(call, answer) {
            waker.wake();
        }
        if let Some(room) = room {
            let wire = Wire {
                room,
                ..Wire::default()
            };
            state.wires.insert(id, wire);
        }
    }

    pub(super) fn deliver(&self, id: u64, bytes: &[u8]) {
        if let Some(wire) = self.state().wires.get_mut(&id)
            && wire.end.is_none()
        {
            wire.inbox.extend(bytes);
            wake(&mut wire.reader);
        }
    }

    pub(super) fn make_room(&self, id: u64, count: usize) {
        if let Some(wire) = self.state().wires.get_mut(&id) {
            wire.room += count;
            wake(&mut wire.writer);
        }
    }

    pub(super) fn end(&self, id: u64, end: End) {
        if let Some(wire) = self.state().wires.get_mut(&id) {
            wire.end = Some(end);
            wake(&mut wire.reader);
            wake(&mut wire.writer);
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl net::Net for Net {
    fn dial(&self, address: SocketAddr) -> Dialing<'_> {
        let mut state = self.state();
        state.count += 1;
        let id = state.count;
        state.calls.insert(id, Call::Waits(None));
        state.callers.insert(id, self.worker);
        self.tell(&mut state, News::Dialled(id, address));
        let net = self.clone();
        let mut dial = Dial(Some(Tap { net, id }));
        Box::pin(std::future::poll_fn(move |cx| dial.poll(cx)))
    }

    fn driver_fault(&self) -> Option<DriverFault> {
        self.fault
    }
}

/// A connection that is being made; the stream is nobody's until it is.
struct Dial(Option<Tap>);

impl Dial {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<net::Stream>> {
        let gone = || Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
        let Some(end) = &self.0 else { return gone() };
        let mut state = end.net.state();
        match state.calls.get_mut(&end.id) {
            Some(Call::Waits(waker)) => {
                *waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Some(Call::Made) => {}
            Some(Call::Refused) | None => return gone(),
        }
        state.calls.remove(&end.id);
        drop(state);
        match self.0.take() {
            Some(end) => Poll::Ready(Ok(Box::new(end))),
            None => gone(),
        }
    }
}

/// What a driver holds of a stream.
#[derive(Debug)]
pub(super) struct Tap {
    net: Net,
    id: u64,
}

impl Drop for Tap {
    fn drop(&mut self) {
        let mut state = self.net.state();
        state.calls.remove(&self.id);
        state.wires.remove(&self.id);
        self.net.tell(&mut state, News::Dropped(self.id));
    }
}

impl Tap {
    fn give(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        keep: bool,
    ) -> Poll<io::Result<()>> {
        let mut state = self.net.state();
        let State { rng, wires, .. } = &mut *state;
        let wire = wires.get_mut(&self.id).ok_or(io::ErrorKind::NotConnected)?;
        if wire.end == Some(End::Reset) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let most = wire.inbox.len().min(buf.remaining());
        if most == 0 && wire.end.is_none() {
            wire.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let whole = most == 0 || keep || rng.chance(70);
        let count = if whole { most } else { rng.up_to(most) };
        let bytes: Vec<u8> = wire.inbox.iter().take(count).copied().collect();
        buf.put_slice(&bytes);
        if !keep {
            wire.inbox.drain(..count);
        }
        Poll::Ready(Ok(()))
    }

    fn take(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut state = self.net.state();
        let State { rng, wires, .. } = &mut *state;
        let wire = wires.get_mut(&self.id).ok_or(io::ErrorKind::NotConnected)?;
        if matches!(wire.end, Some(End::Closed | End::Reset)) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        let most = all.min(wire.room);
        if most == 0 && all > 0 {
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let whole = most == 0 || rng.chance(70);
        let count = if whole { most } else { rng.up_to(most) };
        wire.room -= count;
        let bytes = slices.iter().flat_map(|slice| slice.iter().copied());
        let bytes: Vec<u8> = bytes.take(count).collect();
        self.net.tell(&mut state, News::Wrote(self.id, bytes));
        Poll::Ready(Ok(count))
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.give(cx, buf, false)
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.take(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.take(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Socket for Tap {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(([127, 0, 0, 1], 6379).into())
    }

    fn poll_peek(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.give(cx, buf, true)
    }
}
