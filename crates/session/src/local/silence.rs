//! `CLIENT REPLY`: which replies the client gets to see.

use command::LocalKind;

use super::Outcome;
use crate::state::{ReplyMode, Session};

impl Session {
    /// Whether the client wants the reply to the command it has just sent. Ask once per command
    /// that is not answered by [`answer`](super::answer), which asks by itself: this uses a
    /// `CLIENT REPLY SKIP` up.
    #[must_use]
    pub fn take_reply_wanted(&mut self) -> bool {
        take(self) == ReplyMode::On
    }
}

/// The mode that holds for the command just sent; a `SKIP` is used up.
pub(super) fn take(session: &mut Session) -> ReplyMode {
    let mode = session.reply_mode;
    if mode == ReplyMode::SkipNext {
        session.reply_mode = ReplyMode::On;
    }
    mode
}

/// Takes an answer back, from `start` on in `out`, if the client does not want it. `before` is the
/// mode that held for the command.
///
/// As on the server, two commands are heard although there was silence before them: `CLIENT REPLY
/// ON`, and `RESET` after an `OFF` (but not after a `SKIP`).
pub(super) fn apply(
    kind: LocalKind,
    before: ReplyMode,
    session: &Session,
    (out, start): (&mut Vec<u8>, usize),
    outcome: Outcome,
) -> Outcome {
    let turned_on = kind == LocalKind::ClientReply && out.get(start) == Some(&b'+');
    let heard = session.reply_mode == ReplyMode::On && (before != ReplyMode::SkipNext || turned_on);
    match outcome {
        // Its reply is yet to come, and no AUTH changes the mode.
        Outcome::Authenticate(mut request) => {
            request.silent = before != ReplyMode::On;
            Outcome::Authenticate(request)
        }
        outcome if heard => outcome,
        outcome => {
            out.truncate(start);
            match outcome {
                Outcome::Close => Outcome::Close,
                _ => Outcome::Silent,
            }
        }
    }
}
