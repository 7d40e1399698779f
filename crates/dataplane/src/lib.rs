//! One worker's clients, node connections and topology joined, still without IO: the whole proxy
//! but for its sockets, so that it can be simulated.
//!
//! [`Dataplane`] is told what happened (bytes came, a connection was made or lost, time passed, a
//! new view of the cluster arrived) and says what to do next in [`Action`]s. It joins `session`
//! (order, barriers), `routing` (plans, the retry table) and `upstream` (pipelines), which do not
//! know each other, and owns what needs all of them: which node connection a command takes, what
//! becomes of redirected and abandoned commands, who authenticates where.
//!
//! Never here: sockets, TLS, files, the clock (`now` is an argument), log lines. A room beside
//! those of the design, because what joins the rooms must be as testable as they are.

mod action;
mod audience;
mod auth;
mod budget;
mod channel;
mod client;
mod coalesce;
mod confirm;
mod core;
mod cork;
mod fan_out;
mod figures;
mod follow;
mod forward;
mod heat;
mod host;
mod identity;
mod inquiry;
mod intake;
mod lease;
mod leave;
mod messages;
mod near;
mod plane;
mod reads;
mod renew;
mod replies;
mod rest;
mod retry;
mod scripts;
mod seats;
mod settings;
mod slots;
mod subscribe;
mod sweep;
mod ticket;
mod transaction;
mod users;
mod view;

pub use self::heat::Heat;
pub use action::Action;
pub use audience::Audience;
pub use channel::{Attempt, takes_bulk_lane};
pub use client::{Ending, Why};
pub use cork::UNCORK_AFTER;
pub use figures::{NodeFigures, Times};
pub use follow::{Followed, Here, Purposes};
pub use host::{Done, ErrorKind, Host, Planted, RedirectKind, Totals};
pub use inquiry::Answer;
pub use near::STALE_MAX;
pub use plane::{Dataplane, Opening};
pub use reads::{Fitness, Readers, Zone};
pub use seats::Seats;
pub use settings::{Limits, ReadPort, Settings, Unauthenticated};
pub use slots::Key;
pub use upstream::{CloseReason, Credentials, HandshakeError, Phase, SLICES_MAX};
pub use users::{MappedUser, Users};
pub use view::View;
