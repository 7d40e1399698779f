//! Whether anything is still under way: nothing may be, once all commands are answered.

use crate::{channel::Purpose, host::Host, plane::Dataplane};

impl<H: Host> Dataplane<H> {
    /// What is still under way, for people to read. `None`: every client has all its replies, no
    /// command is in flight or kept back for anybody (those of clients that have left included),
    /// and every lease is back.
    #[must_use]
    pub fn unrest(&self) -> Option<String> {
        for (key, client) in self.clients.iter() {
            let (state, order) = (&client.state, &client.state.session.order);
            let owed = (order.len(), order.open(), order.held());
            if owed != (0, 0, 0) || order.early_bytes() + order.merging_bytes() > 0 {
                return Some(format!(
                    "{key:?} is owed {owed:?} replies, parts, parts kept back"
                ));
            }
            if state.blocked.is_some() || !client.pending.is_empty() {
                return Some(format!("{key:?} waits for {:?}", state.blocked));
            }
            if !state.doubted.is_empty() {
                return Some(format!("{key:?} has scripts that are still in doubt"));
            }
            if state.lease.is_some() || state.watch.is_some() || !state.waits.is_empty() {
                return Some(format!("{key:?} has not given its lease back"));
            }
        }
        for (key, channel) in self.core.channels.iter() {
            let in_flight = channel.connection.pipeline().in_flight();
            if in_flight > 0 && channel.purpose != Purpose::Messages {
                return Some(format!("{in_flight} commands are in flight on {key:?}"));
            }
        }
        let lent = self.core.leases.lent();
        (lent > 0).then(|| format!("{lent} leases are lent to nobody"))
    }
}
