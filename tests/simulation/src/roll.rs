//! Which clients are there, as they ask each other: whoever said its name and stays is on every
//! list, whichever worker it has, and who is told to go goes.

use std::collections::{BTreeMap, BTreeSet};

use resp::Value;

use crate::{
    client::Client,
    history::{History, Violation},
    speech::Sent,
    weather::Weather,
};

/// All clients that have names.
#[derive(Debug, Default)]
pub(crate) struct Roll {
    /// By their numbers, since when they are known to have one.
    named: BTreeMap<usize, u64>,
    killed: BTreeSet<usize>,
    /// Those who go or have gone. Who reads slowly may hear of its name only then.
    over: BTreeSet<usize>,
}

impl Roll {
    /// Its name is forgotten.
    pub(crate) fn forgets(&mut self, client: usize) {
        self.named.remove(&client);
    }

    /// It goes for good.
    pub(crate) fn ends(&mut self, client: usize) {
        self.named.remove(&client);
        self.over.insert(client);
    }

    pub(crate) fn is_killed(&self, client: usize) -> bool {
        self.killed.contains(&client)
    }
}

impl History {
    pub(crate) fn name_is_known(&mut self, client: usize) {
        let now = self.tick();
        if !self.roll.over.contains(&client) {
            self.roll.named.insert(client, now);
        }
    }
}

impl Client {
    pub(crate) fn tell_name(&mut self) {
        let name = format!("client-{}", self.number);
        self.names += 1;
        self.say(&["CLIENT", "SETNAME", &name], Sent::Name(self.names));
    }

    pub(crate) fn list(&mut self, history: &mut History) {
        let since = history.tick();
        self.say(&["CLIENT", "LIST"], Sent::List { since });
    }

    /// Ends another client, of which it has heard.
    pub(crate) fn kill(&mut self, history: &mut History) {
        if let Some((id, number)) = self.other.take() {
            history.roll.ends(number);
            history.roll.killed.insert(number);
            self.say(&["CLIENT", "KILL", "ID", &id], Sent::Kill);
        }
    }

    /// A list of clients.
    pub(crate) fn listed(
        &mut self,
        since: u64,
        reply: &Value,
        history: &History,
        weather: &Weather,
    ) -> Result<(), Violation> {
        let text = reply.as_str().ok_or_else(|| format!("list: {reply:?}"))?;
        let mut listed = BTreeMap::new();
        for line in text.lines() {
            let field = |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name));
            let number = field("name=client-").and_then(|number| number.parse::<usize>().ok());
            if let (Some(id), Some(number)) = (field("id="), number)
                && listed.insert(number, id.to_owned()).is_some()
            {
                return Err(format!("list: client {number} is there twice: {text}"));
            }
        }
        let there = history.roll.named.iter().filter(|(_, at)| **at < since);
        let missing = there
            .map(|(number, _)| number)
            .find(|n| !listed.contains_key(n));
        // Where one may be closed because of its node, it may be gone before it is noticed.
        if let Some(missing) = missing.filter(|_| !weather.is_rough()) {
            return Err(format!("list: client {missing} is not on it: {text}"));
        }
        let other = listed
            .into_iter()
            .find(|(number, _)| *number != self.number);
        self.other = other.map(|(number, id)| (id, number));
        Ok(())
    }
}
