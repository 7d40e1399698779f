//! Transactions over several slots, each of which Keyway runs as one for each slot.

use std::collections::BTreeMap;

use resp::Value;

use crate::client::Client;
use crate::history::{History, Violation};
use crate::rng::Rng;
use crate::speech::{Script, Sent, TAGS};
use crate::weather::Weather;

impl Client {
    /// Appends to lists with a few tags, and sets, reads, counts and deletes keys of this client's own,
    /// one and several at once. The appends with one tag are in one slot, and whole or not at all.
    pub(crate) fn transact_apart(
        &mut self,
        rng: &mut Rng,
        history: &mut History,
        weather: &Weather,
    ) {
        let tags = [(); 3].map(|()| TAGS[rng.below(TAGS.len())]);
        let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
        self.say(&["MULTI"], Sent::Status("OK"));
        let mut parts = Vec::new();
        for _ in 0..rng.up_to(6) {
            match rng.below(8) {
                0 => self.set(rng, history, weather),
                1 => self.get(rng),
                2 => self.count_or_delete(rng),
                _ => {
                    let tag = tags[rng.below(tags.len())];
                    let group = *groups.entry(tag).or_insert_with(|| history.new_group());
                    let key = format!("{{{tag}}}:l{}", rng.below(2));
                    let (write, token) = history.begin_write(&key, self.number, Some(group));
                    let script = Script::None;
                    self.say(&["RPUSH", &key, &token], Sent::Push { write, script });
                }
            }
            parts.extend(self.sent.pop_back());
            self.sent.push_back(Sent::Status("QUEUED"));
        }
        self.say(&["EXEC"], Sent::Parts(parts));
    }

    /// The reply to `EXEC`: one for each command, or the error of a slot's part in the place of each of
    /// its commands. `None`: it is not.
    pub(crate) fn executed_apart(
        &mut self,
        parts: &[Sent],
        reply: &Value,
        history: &mut History,
        weather: &Weather,
    ) -> Option<Result<(), Violation>> {
        let replies = reply.as_array().filter(|all| all.len() == parts.len())?;
        let torn = parts.len() > 1;
        let mut checked = parts.iter().zip(replies).map(|(part, reply)| {
            if let Some(error) = reply.as_error() {
                let text = String::from_utf8_lossy(error);
                self.refused((part, torn), &text, history, weather)
            } else {
                self.check(part, reply, history, weather)
            }
        });
        Some(checked.find(Result::is_err).unwrap_or(Ok(())))
    }
}
