//! Another user of Keyway's own, or another password of it, while its connections are in use: what comes from
//! now on takes new ones, and each old one closes when all that it carries is answered.
//!
//! Subscriptions stay where they are: what is published while one moves would be lost.

use std::time::Instant;

use crate::{channel::Purpose, core::Core, host::Host, slots::Key};

impl<H: Host> Core<H> {
    /// The settings may name another.
    pub(crate) fn renew_service(&mut self, now: Instant) {
        let service = self.settings.service.clone();
        let Some(identity) = self.identities.renew_service(service) else {
            return;
        };
        let own = self.channels.iter();
        let own = own.filter(|(_, channel)| channel.profile.identity == identity);
        let keys: Vec<(Key, Purpose, bool)> = own
            .map(|(key, channel)| (key, channel.purpose, channel.is_ready()))
            .collect();
        for (key, purpose, ready) in keys {
            match purpose {
                Purpose::Commands if ready => {
                    self.forget_ways_to(key);
                    if let Some(channel) = self.channels.get_mut(key) {
                        channel.leaves = true;
                    }
                }
                Purpose::Commands => {
                    self.requeue(key, now);
                    self.retire(key);
                }
                Purpose::Lease => self.end_when_free(key),
                Purpose::Messages | Purpose::Near | Purpose::Verdict => {}
            }
        }
        self.renew_near(now);
        self.epoch += 1;
    }
}
