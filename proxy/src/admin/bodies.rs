//! The pages of JSON, made once for all who ask within a moment.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hyper::body::Bytes;
use serde::Serialize;

use crate::{heat::report::SLOTS_SHOWN, status::Board};

/// A page is this old at most.
const FRESH: Duration = Duration::from_millis(200);

/// A page and when it was made.
type Kept = Mutex<Option<(Instant, Bytes)>>;

/// The pages that were made last.
#[derive(Clone, Debug, Default)]
pub struct Bodies {
    status: Arc<Kept>,
    topology: Arc<Kept>,
    slow: Arc<Kept>,
    heat: Arc<Kept>,
}

impl Bodies {
    /// `/status`
    pub(super) fn status(&self, board: &Board) -> Bytes {
        kept(&self.status, || encoded(&board.status()))
    }

    /// `/slowlog`
    pub(super) fn slow(&self, board: &Board) -> Bytes {
        kept(&self.slow, || encoded(&board.slow()))
    }

    /// `/heat`
    pub(super) fn heat(&self, board: &Board) -> Bytes {
        kept(&self.heat, || heat_of(board, SLOTS_SHOWN))
    }

    /// `/topology`
    pub(super) fn topology(&self, board: &Board) -> Bytes {
        kept(&self.topology, || encoded(&board.topology()))
    }
}

/// `/heat?slots=`
pub(super) fn heat_of(board: &Board, slots: usize) -> Bytes {
    encoded(&board.heat(slots))
}

fn kept(page: &Kept, make: impl FnOnce() -> Bytes) -> Bytes {
    let mut page = page.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((made, body)) = &*page
        && made.elapsed() < FRESH
    {
        return body.clone();
    }
    let body = make();
    *page = Some((Instant::now(), body.clone()));
    body
}

fn encoded(report: &impl Serialize) -> Bytes {
    let mut body = serde_json::to_vec(report).unwrap_or_else(|error| {
        debug_assert!(false, "{error}");
        b"{}".to_vec()
    });
    body.push(b'\n');
    Bytes::from(body)
}
