//! As whom clients speak, and as whom what they said has run.
//!
//! A client becomes somebody else (`AUTH`, `HELLO .. AUTH`, `RESET`) or chooses another database
//! (`SELECT`) between its other commands, and waits for nothing. So what a command ran as is held
//! against what the client was told before that command's reply; where it was told nothing, because
//! it has left, either may be.

use std::collections::{BTreeMap, BTreeSet};

use cluster_sim::Ran;
use resp::Value;

use crate::{
    client::Client,
    history::{Fate, History, Violation},
    rng::Rng,
    speech::Sent,
};

/// Users with their passwords.
pub(crate) const USERS: [(&str, &str); 3] = [("ann", "a1"), ("bob", "b2"), ("cyd", "c3")];
/// Databases of the cluster.
pub(crate) const DATABASES: u32 = 3;

/// Who a client is.
type Who = (&'static str, u32);

const AT_FIRST: Who = ("default", 0);

#[derive(Clone, Copy, Debug)]
enum Change {
    User(&'static str),
    Database(u32),
    Reset,
}

impl Change {
    fn of(self, (user, database): Who) -> Who {
        match self {
            Self::User(user) => (user, database),
            Self::Database(database) => (user, database),
            Self::Reset => AT_FIRST,
        }
    }
}

/// Who all clients of a run were, and when.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    /// What each client asked for, by its number, with what came of it.
    changes: BTreeMap<usize, Vec<(Change, Fate)>>,
    /// Words that only one command has: whose it is, and how many changes came before it.
    said: BTreeMap<String, (usize, usize)>,
    /// The words that were found in what has run.
    ran: Vec<(String, Vec<u8>, u32)>,
}

impl Identities {
    fn count(&self, client: usize) -> usize {
        self.changes.get(&client).map_or(0, Vec::len)
    }

    /// A client says something that a word of it tells from everything else.
    pub(crate) fn says(&mut self, client: usize, word: &str) {
        let place = (client, self.count(client));
        self.said.insert(word.to_owned(), place);
    }

    fn asks(&mut self, client: usize, change: Change) -> usize {
        let changes = self.changes.entry(client).or_default();
        changes.push((change, Fate::Open));
        changes.len() - 1
    }

    pub(crate) fn end(&mut self, client: usize, place: usize, fate: Fate) {
        if let Some((_, known)) = self.changes.get_mut(&client).and_then(|c| c.get_mut(place)) {
            *known = fate;
        }
    }

    /// Whoever a client can have been behind so many changes.
    fn can_be(&self, (client, count): (usize, usize)) -> BTreeSet<Who> {
        let changes = self.changes.get(&client).into_iter().flatten();
        let mut all = BTreeSet::from([AT_FIRST]);
        for (change, fate) in changes.take(count) {
            let after: BTreeSet<Who> = all.iter().map(|who| change.of(*who)).collect();
            match fate {
                Fate::Ran => all = after,
                Fate::Open | Fate::Unknown => all.extend(after),
                Fate::NotRun => {}
            }
        }
        all
    }

    /// What nodes have run.
    pub(crate) fn note(&mut self, ran: Vec<Ran>) {
        for Ran {
            user,
            database,
            args,
        } in ran
        {
            for arg in args {
                let word = str::from_utf8(&arg).unwrap_or_default();
                let word = word.trim_end_matches('.');
                if self.said.contains_key(word) {
                    self.ran.push((word.to_owned(), user.clone(), database));
                }
            }
        }
    }

    /// Everything ran as whoever had said it.
    pub(crate) fn check(&self) -> Result<(), Violation> {
        for (word, user, database) in &self.ran {
            let user = String::from_utf8_lossy(user);
            let can_be = self.can_be(self.said[word]);
            if !can_be.iter().any(|who| *who == (&*user, *database)) {
                return Err(format!(
                    "identity: `{word}` ran as {user} in database {database}, and not as one of \
                     {can_be:?}"
                ));
            }
        }
        Ok(())
    }
}

impl Client {
    /// Becomes somebody else, or tries to.
    pub(crate) fn change(&mut self, rng: &mut Rng, history: &mut History) {
        let (user, password) = USERS[rng.below(USERS.len())];
        let said = if rng.chance(75) { password } else { "wrong" };
        let number = self.number;
        let (args, change, right) = match rng.below(10) {
            0..4 => {
                let args = vec!["AUTH", user, said];
                (args, Change::User(user), said == password)
            }
            4..6 => {
                let protocol = if self.resp3 { "3" } else { "2" };
                let args = vec!["HELLO", protocol, "AUTH", user, said];
                (args, Change::User(user), said == password)
            }
            6..9 => {
                let database = rng.below(DATABASES as usize + 1) as u32;
                let text = ["0", "1", "2", "3"][database as usize];
                let right = database < DATABASES;
                (vec!["SELECT", text], Change::Database(database), right)
            }
            _ => (vec!["RESET"], Change::Reset, true),
        };
        let place = history.identities.asks(number, change);
        self.say(&args, Sent::Change { place, right });
        if let Change::Reset = change {
            self.resp3 = false;
            history.roll.forgets(number);
            self.names += 1; // what it says of its name before this counts no more
            if self.names > 1 {
                self.tell_name();
            }
            if self.readonly {
                self.read_anywhere();
            }
        }
    }

    /// Asks the cluster who it is.
    pub(crate) fn ask_who(&mut self) {
        self.say(&["ACL", "WHOAMI"], Sent::WhoAmI);
    }

    /// Whether it was told that it has changed, and may have.
    pub(crate) fn changed(
        &self,
        (place, right): (usize, bool),
        reply: &Value,
        identities: &mut Identities,
    ) -> bool {
        let greeted = reply.map_get("proto").is_some();
        let said = reply.as_bytes();
        identities.end(self.number, place, Fate::Ran);
        right && (greeted || said == Some(b"OK") || said == Some(b"RESET"))
    }

    /// Whether that is who it is: all its changes were answered before this.
    pub(crate) fn is_it(&self, reply: &Value, identities: &Identities) -> bool {
        // Those behind it are not answered yet.
        let changes = identities.changes.get(&self.number).into_iter().flatten();
        let answered = changes.take_while(|(_, fate)| *fate != Fate::Open);
        let place = (self.number, answered.count());
        let mut can_be = identities.can_be(place).into_iter();
        can_be.all(|(user, _)| reply.as_str() == Some(user))
    }
}

/// Credentials and numbers that are none are refused like this, and nothing has changed.
pub(crate) fn is_refusal(right: bool, text: &str) -> bool {
    !right && (text.starts_with("WRONGPASS ") || text == "ERR DB index is out of range")
}
