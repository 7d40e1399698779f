//! Clients that are asked to leave, because the process ends: at a moment when they lose nothing by
//! it, as long as there is time, and then as soon as they have what they are owed.

use crate::{
    action::Action,
    client::{Client, Why},
    host::Host,
    plane::Dataplane,
    slots::Key,
    subscribe::Subscriptions,
};

impl<H: Host> Dataplane<H> {
    /// A client's connection is to end: at once, or when it has been answered what it was taken.
    pub fn client_ends(&mut self, key: Key, why: Why, at_once: bool) {
        if let Some(client) = self.clients.get_mut(key) {
            client.state.end(why, at_once);
        }
    }

    /// Whether a client loses nothing when its connection ends now: it is owed no reply, has no
    /// command half sent, and is not within a transaction or a subscription.
    #[must_use]
    pub fn client_may_leave(&self, key: Key) -> bool {
        self.clients.get(key).is_some_and(Client::may_leave)
    }

    /// All clients leave: nothing more is taken from them. Those whose command blocks are not waited
    /// for, as if they had left; a command that blocks has taken nothing then.
    pub fn everyone_leaves(&mut self) {
        let keys: Vec<Key> = self.clients.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(client) = self.clients.get_mut(key) else {
                continue;
            };
            let waits = client.state.leasing && client.state.session.order.open() > 0;
            client.state.end(Why::Leaving, waits);
            self.core.actions.push(Action::WakeClient(key));
        }
    }
}

impl Client {
    /// Whether it loses nothing by leaving now.
    pub(crate) fn may_leave(&self) -> bool {
        let (state, session) = (&self.state, &self.state.session);
        let nothing_owed = session.order.is_empty() && session.output.is_empty();
        let holds_nothing = state.watch.is_none() && session.transaction.is_none();
        let subscriptions = state.subscriptions.as_deref();
        nothing_owed
            && holds_nothing
            && self.pending.is_empty()
            && state.blocked.is_none()
            && subscriptions.is_none_or(Subscriptions::is_empty)
    }
}
