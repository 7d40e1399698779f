//! The only table that says whether a command may be sent again.
//!
//! A command that can write is sent again only if the node certainly did not run it (invariant
//! I3). Scripts and functions can return any text as an error, so what they answer proves nothing
//! until a node says the same to another command on their keys.

use crate::error::ErrorClass;

/// What happened to a command on its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The connection ended before any of its bytes were handed to the socket.
    NotSent,
    /// The connection ended after that, without a byte of reply.
    Lost,
    /// The connection ended within its reply, which the client may have seen the start of.
    CutOff,
    /// An error reply.
    Error(ErrorClass),
    /// `EVALSHA` of a script that the node has not seen.
    NoScript,
}

/// What a command is, as far as a retry cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nature {
    /// It may change data (anything not known to be read-only).
    pub may_write: bool,
    /// It runs a script or function.
    pub script: bool,
}

/// What to do with the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The reply is the client's.
    Deliver,
    /// Send it to the slot's owner as known by now.
    Resend,
    /// Send it again behind the script itself, if that is known. Otherwise deliver.
    LoadScript,
    /// Send it where the redirect points.
    Follow,
    /// Wait a little (for the cluster, or a newer topology), then send it to the slot's owner.
    BackOff,
    /// A script can say this too: only when the cluster is known to have said it, do as with any
    /// other command. Otherwise deliver.
    Confirm,
    /// It may have run: tell the client so.
    OutcomeUnknown,
    /// The reply cannot be completed: close the client's connection.
    Close,
}

/// The table.
#[must_use]
pub fn verdict(signal: &Signal, nature: Nature) -> Verdict {
    match signal {
        Signal::NotSent => Verdict::Resend,
        Signal::Lost if nature.may_write => Verdict::OutcomeUnknown,
        Signal::Lost => Verdict::Resend,
        Signal::CutOff => Verdict::Close,
        Signal::NoScript => Verdict::LoadScript,
        Signal::Error(ErrorClass::Other) => Verdict::Deliver,
        // Only what blocks hears this of the server.
        Signal::Error(ErrorClass::Demoted) if nature.script => Verdict::Deliver,
        Signal::Error(_) if nature.script => Verdict::Confirm,
        Signal::Error(ErrorClass::Redirect(_)) => Verdict::Follow,
        Signal::Error(
            ErrorClass::TryAgain
            | ErrorClass::ClusterDown
            | ErrorClass::Loading
            | ErrorClass::MasterDown
            | ErrorClass::ReadOnly
            | ErrorClass::Demoted,
        ) => Verdict::BackOff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Redirect;

    fn redirect(ask: bool) -> Signal {
        let text: &[u8] = if ask { b"ASK 1 a:1" } else { b"MOVED 1 a:1" };
        Signal::Error(ErrorClass::Redirect(Redirect::parse(text).unwrap()))
    }

    /// Every row of the table, written out: the signal, then the verdict for a read, a write and
    /// a script.
    #[test]
    fn every_row() {
        use Verdict as V;
        let rows = [
            (Signal::NotSent, [V::Resend, V::Resend, V::Resend]),
            (
                Signal::Lost,
                [V::Resend, V::OutcomeUnknown, V::OutcomeUnknown],
            ),
            (Signal::CutOff, [V::Close, V::Close, V::Close]),
            (
                Signal::NoScript,
                [V::LoadScript, V::LoadScript, V::LoadScript],
            ),
            (redirect(false), [V::Follow, V::Follow, V::Confirm]),
            (redirect(true), [V::Follow, V::Follow, V::Confirm]),
            (
                Signal::Error(ErrorClass::TryAgain),
                [V::BackOff, V::BackOff, V::Confirm],
            ),
            (
                Signal::Error(ErrorClass::ClusterDown),
                [V::BackOff, V::BackOff, V::Confirm],
            ),
            (
                Signal::Error(ErrorClass::Loading),
                [V::BackOff, V::BackOff, V::Confirm],
            ),
            (
                Signal::Error(ErrorClass::MasterDown),
                [V::BackOff, V::BackOff, V::Confirm],
            ),
            (
                Signal::Error(ErrorClass::ReadOnly),
                [V::BackOff, V::BackOff, V::Confirm],
            ),
            (
                Signal::Error(ErrorClass::Demoted),
                [V::BackOff, V::BackOff, V::Deliver],
            ),
            (
                Signal::Error(ErrorClass::Other),
                [V::Deliver, V::Deliver, V::Deliver],
            ),
        ];
        for (signal, [read, write, script]) in rows {
            let nature = |may_write, script| Nature { may_write, script };
            assert_eq!(
                verdict(&signal, nature(false, false)),
                read,
                "{signal:?}, read"
            );
            assert_eq!(
                verdict(&signal, nature(true, false)),
                write,
                "{signal:?}, write"
            );
            assert_eq!(
                verdict(&signal, nature(true, true)),
                script,
                "{signal:?}, script"
            );
        }
    }
}
