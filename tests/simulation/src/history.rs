//! Everything that clients wrote to shared lists and read from them, and whether one order of all
//! of it explains every reply.
//!
//! Each write appends a token that no other has and that names its key and its client. So a list
//! is itself the order in which its writes ran, and a read is right exactly when it shows a prefix
//! of that order which is neither too short (writes answered before it began) nor too long.
//! What a dying primary had alone is known exactly, and excused.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    identities::Identities, listening::Messages, others::Others, roll::Roll, walks::Walks,
};

/// A write's place in the history.
pub(crate) type WriteId = usize;
/// A read's place in the history.
pub(crate) type ReadId = usize;

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing yet, or nothing ever: it has left.
    Open,
    /// It ran.
    Ran,
    /// It ran, or did not.
    Unknown,
    /// It did not run.
    NotRun,
}

#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) key: String,
    client: usize,
    token: String,
    begun: u64,
    ended: u64,
    pub(crate) fate: Fate,
    /// The list's length that the reply told.
    length: Option<usize>,
    /// Writes of one transaction have the same.
    pub(crate) group: Option<usize>,
}

#[derive(Debug)]
struct Read {
    key: String,
    client: usize,
    begun: u64,
    ended: u64,
    /// A replica may have answered.
    may_be_old: bool,
    shows: Vec<WriteId>,
}

/// Not ended.
const NEVER: u64 = u64::MAX;

#[derive(Debug, Default)]
pub(crate) struct History {
    clock: u64,
    writes: Vec<Write>,
    reads: Vec<Read>,
    /// Tokens that died with a primary.
    lost: BTreeSet<String>,
    groups: usize,
    /// Keys that a failover set back.
    revived: BTreeSet<String>,
    /// Tokens that left their queue, each to one client.
    popped: BTreeSet<String>,
    /// Pops of each queue that nobody knows the outcome of.
    unsure_pops: BTreeMap<String, usize>,
    pub(crate) messages: Messages,
    pub(crate) identities: Identities,
    pub(crate) walks: Walks,
    pub(crate) roll: Roll,
    pub(crate) others: Others,
    /// Slots that are being moved key by key.
    pub(crate) moving: BTreeSet<u16>,
}

/// A thing that must not happen.
pub(crate) type Violation = String;

impl History {
    pub(crate) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    pub(crate) fn new_group(&mut self) -> usize {
        self.groups += 1;
        self.groups
    }

    pub(crate) fn begin_write(
        &mut self,
        key: &str,
        client: usize,
        group: Option<usize>,
    ) -> (WriteId, String) {
        let (id, begun) = (self.writes.len(), self.tick());
        let token = format!("{key}|c{client}|{id}");
        self.identities.says(client, &token);
        self.writes.push(Write {
            key: key.to_owned(),
            client,
            token: token.clone(),
            begun,
            ended: NEVER,
            fate: Fate::Open,
            length: None,
            group,
        });
        (id, token)
    }

    pub(crate) fn end_write(&mut self, id: WriteId, fate: Fate, length: Option<usize>) {
        let now = self.tick();
        let write = &mut self.writes[id];
        write.fate = fate;
        write.length = length;
        write.ended = now;
    }

    pub(crate) fn begin_read(&mut self, key: &str, client: usize, may_be_old: bool) -> ReadId {
        let begun = self.tick();
        self.reads.push(Read {
            key: key.to_owned(),
            client,
            begun,
            ended: NEVER,
            may_be_old,
            shows: Vec::new(),
        });
        self.reads.len() - 1
    }

    /// A read's reply. Fails at once when it shows what was never written there.
    pub(crate) fn end_read(&mut self, id: ReadId, shows: &[&str]) -> Result<(), Violation> {
        let key = self.reads[id].key.clone();
        let mut ids = Vec::with_capacity(shows.len());
        for token in shows {
            ids.push(self.known(&key, token)?);
        }
        let now = self.tick();
        let read = &mut self.reads[id];
        read.ended = now;
        read.shows = ids;
        Ok(())
    }

    /// The write of a token, which must be one of this key's.
    pub(crate) fn known(&self, key: &str, token: &str) -> Result<WriteId, Violation> {
        let id = token.rsplit('|').next().and_then(|id| id.parse().ok());
        let id = id.filter(|id: &usize| self.writes.get(*id).is_some_and(|w| w.token == token));
        let id = id.ok_or_else(|| format!("identity: `{token}` was never written"))?;
        if self.writes[id].key == key {
            Ok(id)
        } else {
            Err(format!("identity: `{token}` is shown for {key}"))
        }
    }

    /// A client got this out of a queue.
    pub(crate) fn popped(&mut self, queue: &str, token: &str) -> Result<(), Violation> {
        self.known(queue, token)?;
        if self.popped.insert(token.to_owned()) || self.is_lost_pop(queue) {
            Ok(())
        } else {
            Err(format!("at most once: `{token}` was popped twice"))
        }
    }

    /// A pop may have taken something out, for nobody.
    pub(crate) fn may_have_popped(&mut self, queue: &str) {
        *self.unsure_pops.entry(queue.to_owned()).or_default() += 1;
    }

    /// Checks a queue in which `left` is left at the end.
    pub(crate) fn check_queue(&self, queue: &str, left: &[String]) -> Result<(), Violation> {
        let mut seen = BTreeSet::new();
        for token in left {
            self.known(queue, token)?;
            if !seen.insert(token) || (self.popped.contains(token) && !self.is_lost_pop(queue)) {
                return Err(format!("at most once: `{token}` is in {queue} again"));
            }
        }
        let mut missing = 0;
        for (_, write) in self.writes().filter(|(_, write)| write.key == queue) {
            let token = &write.token;
            let there = seen.contains(token) || self.popped.contains(token);
            match write.fate {
                Fate::NotRun if there => {
                    return Err(format!("told that it did not run, but it did: `{token}`"));
                }
                Fate::Ran if !there && !self.is_lost(token) => missing += 1,
                _ => {}
            }
        }
        let excused = self.unsure_pops.get(queue).copied().unwrap_or_default();
        if missing > excused {
            return Err(format!(
                "{missing} are gone from {queue}, of {excused} unsure pops"
            ));
        }
        Ok(())
    }

    /// A new primary may not have heard of the pops from this queue.
    fn is_lost_pop(&self, queue: &str) -> bool {
        self.revived.contains(queue)
    }

    /// A new primary lacks the last writes to this key.
    pub(crate) fn revive(&mut self, key: &str) {
        self.revived.insert(key.to_owned());
    }

    /// These died with a primary that alone had them.
    pub(crate) fn lose(&mut self, tokens: impl IntoIterator<Item = String>) {
        self.lost.extend(tokens);
    }

    pub(crate) fn is_lost(&self, token: &str) -> bool {
        self.lost.contains(token)
    }

    /// Whether a list was there at a time.
    pub(crate) fn was_there(&self, key: &str, at: u64) -> bool {
        let mut writes = self.writes.iter().filter(|write| write.key == key);
        writes.any(|write| write.fate == Fate::Ran && write.ended < at)
    }

    /// Whether something of a list died with a primary.
    pub(crate) fn is_damaged(&self, key: &str) -> bool {
        self.revived.contains(key) || self.lost.iter().any(|token| token.starts_with(key))
    }

    pub(crate) fn writes(&self) -> impl Iterator<Item = (WriteId, &Write)> {
        self.writes.iter().enumerate()
    }

    pub(crate) fn token(&self, id: WriteId) -> &str {
        &self.writes[id].token
    }

    /// Checks a key whose list is `list` at the end.
    pub(crate) fn check(&self, key: &str, list: &[String]) -> Result<(), Violation> {
        let mut at = BTreeMap::new();
        for (place, token) in list.iter().enumerate() {
            let id = self.known(key, token)?;
            if at.insert(id, place).is_some() {
                return Err(format!("at most once: `{token}` is in {key} twice"));
            }
        }
        self.check_fates(key, &at)?;
        let order: Vec<WriteId> = list
            .iter()
            .filter_map(|token| self.known(key, token).ok())
            .collect();
        self.check_order(key, &order)?;
        self.check_reads(key, &order)
    }

    fn check_fates(&self, key: &str, at: &BTreeMap<WriteId, usize>) -> Result<(), Violation> {
        let loses = self.lost.iter().any(|token| token.starts_with(key));
        for (id, write) in self.writes().filter(|(_, write)| write.key == key) {
            let (place, token) = (at.get(&id), &write.token);
            let lost = self.is_lost(token);
            match (write.fate, place) {
                (Fate::Ran, None) if !lost => {
                    return Err(format!("acknowledged, but gone: `{token}`"));
                }
                (Fate::NotRun, Some(_)) => {
                    return Err(format!("told that it did not run, but it did: `{token}`"));
                }
                (Fate::Ran, Some(place))
                    if !loses && write.length.is_some_and(|l| l != place + 1) =>
                {
                    let told = write.length.unwrap_or_default();
                    return Err(format!("`{token}` is number {place}, but was told {told}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes that were answered before others began, or were sent before them by the same client,
    /// stand before them.
    fn check_order(&self, key: &str, order: &[WriteId]) -> Result<(), Violation> {
        let mut last_begun = 0;
        let mut by_client: BTreeMap<usize, WriteId> = BTreeMap::new();
        let mut last = 0;
        for id in order {
            let write = &self.writes[*id];
            if write.fate != Fate::Ran {
                continue; // it may have run at any time since
            }
            if write.ended < last_begun {
                let (late, early) = (&write.token, &self.writes[last].token);
                return Err(format!(
                    "linearizability: `{late}` was answered before `{early}` was sent, and is behind \
                     it in {key}"
                ));
            }
            if let Some(earlier) = by_client.get(&write.client)
                && earlier > id
            {
                let (late, early) = (&write.token, self.token(*earlier));
                return Err(format!(
                    "order: `{late}` was sent before `{early}`, and ran after it"
                ));
            }
            by_client.insert(write.client, *id);
            if write.begun > last_begun {
                (last_begun, last) = (write.begun, *id);
            }
        }
        Ok(())
    }

    fn check_reads(&self, key: &str, order: &[WriteId]) -> Result<(), Violation> {
        let mut reads: Vec<(&Read, usize)> = Vec::new();
        for read in self
            .reads
            .iter()
            .filter(|read| read.key == key && read.ended != NEVER)
        {
            let living = read
                .shows
                .iter()
                .filter(|id| !self.is_lost(self.token(**id)));
            let living: Vec<WriteId> = living.copied().collect();
            if !order.starts_with(&living) {
                let shown: Vec<&str> = living.iter().map(|id| self.token(*id)).collect();
                return Err(format!(
                    "a read of {key} shows no prefix of its order: {shown:?}"
                ));
            }
            let not_shown = &order[living.len()..];
            self.check_read(read, if read.may_be_old { &[] } else { not_shown })?;
            if !read.may_be_old {
                reads.push((read, living.len()));
            }
        }
        // Reads that follow each other do not go back. (Of two that are sent together the first may
        // be sent again, after the second has run.)
        reads.sort_by_key(|(read, _)| read.ended);
        let mut most = Vec::with_capacity(reads.len());
        for (read, shown) in &reads {
            let ended = reads.partition_point(|(earlier, _)| earlier.ended < read.begun);
            let before = ended.checked_sub(1).map_or(0, |last| most[last]);
            if before > *shown {
                return Err(format!(
                    "a read of {key} by client {} shows {shown} after one showed {before}",
                    read.client
                ));
            }
            most.push(most.last().map_or(*shown, |most| *shown.max(most)));
        }
        Ok(())
    }

    /// What the read does not show was not there yet, and what it shows was sent before it.
    fn check_read(&self, read: &Read, not_shown: &[WriteId]) -> Result<(), Violation> {
        let who = read.client;
        for id in not_shown {
            let write = &self.writes[*id];
            let before =
                write.ended < read.begun || (write.client == who && write.begun < read.begun);
            if write.fate == Fate::Ran && before {
                let token = &write.token;
                return Err(format!(
                    "stale: a read of client {who} does not show `{token}`"
                ));
            }
        }
        for id in &read.shows {
            let write = &self.writes[*id];
            if write.fate == Fate::Ran && write.client == who && write.begun > read.begun {
                let token = &write.token;
                return Err(format!(
                    "order: client {who} sent `{token}` after a read that shows it"
                ));
            }
        }
        Ok(())
    }

    /// Of a transaction everything ran, or nothing.
    pub(crate) fn check_groups(&self, present: &BTreeSet<WriteId>) -> Result<(), Violation> {
        let mut groups: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for (id, write) in self.writes() {
            if let Some(group) = write.group {
                let ran = present.contains(&id) || self.is_lost(&write.token);
                let counts = groups.entry(group).or_default();
                counts.0 += usize::from(ran);
                counts.1 += 1;
            }
        }
        match groups
            .iter()
            .find(|(_, (ran, all))| *ran != 0 && ran != all)
        {
            Some((group, (ran, all))) => Err(format!(
                "of transaction {group} only {ran} of {all} commands ran"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A history of one key: writes as (client, begun after how many others have ended).
    fn three() -> (History, Vec<String>) {
        let mut history = History::default();
        let mut tokens = Vec::new();
        for client in 0..3 {
            let (id, token) = history.begin_write("k", client, None);
            tokens.push(token);
            history.end_write(id, Fate::Ran, Some(id + 1));
        }
        (history, tokens)
    }

    #[test]
    fn one_after_the_other_is_right() {
        let (mut history, tokens) = three();
        let read = history.begin_read("k", 1, false);
        let shown: Vec<&str> = tokens.iter().map(String::as_str).collect();
        history.end_read(read, &shown).unwrap();
        history.check("k", &tokens).unwrap();
    }

    #[test]
    fn every_kind_of_wrong_is_found() {
        let (history, tokens) = three();
        let has = |list: &[usize]| {
            let list: Vec<String> = list.iter().map(|at| tokens[*at].clone()).collect();
            history.check("k", &list).unwrap_err()
        };
        assert!(has(&[0, 1, 2, 1]).starts_with("at most once"));
        assert!(has(&[0, 1]).starts_with("acknowledged, but gone"));
        assert!(
            history
                .check("j", &tokens)
                .unwrap_err()
                .starts_with("identity")
        );
        let (mut history, tokens) = three();
        history
            .writes
            .iter_mut()
            .for_each(|write| write.length = None);
        let swapped = [1, 0, 2].map(|at: usize| tokens[at].clone());
        assert!(
            history
                .check("k", &swapped)
                .unwrap_err()
                .starts_with("linearizability")
        );
        history.end_write(2, Fate::NotRun, None);
        assert!(
            history
                .check("k", &tokens)
                .unwrap_err()
                .starts_with("told that it did not run")
        );
    }

    #[test]
    fn reads_are_held_to_the_order() {
        let (mut history, tokens) = three();
        let stale = history.begin_read("k", 1, false);
        history.end_read(stale, &[&tokens[0], &tokens[1]]).unwrap();
        assert!(
            history
                .check("k", &tokens)
                .unwrap_err()
                .starts_with("stale")
        );
        let (mut history, tokens) = three();
        let torn = history.begin_read("k", 1, false);
        history.end_read(torn, &[&tokens[1]]).unwrap();
        assert!(
            history
                .check("k", &tokens)
                .unwrap_err()
                .contains("no prefix")
        );
        assert!(
            history
                .end_read(torn, &["k|c9|77"])
                .unwrap_err()
                .starts_with("identity")
        );
    }

    #[test]
    fn a_read_does_not_go_back_behind_another() {
        let mut history = History::default();
        let tokens = [0, 1].map(|client| history.begin_write("k", client, None).1);
        let one = history.begin_read("k", 2, false);
        history.end_read(one, &[&tokens[0], &tokens[1]]).unwrap();
        let other = history.begin_read("k", 3, false);
        history.end_read(other, &[&tokens[0]]).unwrap();
        let wrong = history.check("k", &tokens).unwrap_err();
        assert!(wrong.contains("shows 1 after one showed 2"), "{wrong}");
    }

    #[test]
    fn what_died_with_a_primary_is_excused() {
        let (mut history, tokens) = three();
        history.lose([tokens[2].clone()]);
        history.check("k", &tokens[..2]).unwrap();
    }

    #[test]
    fn a_transaction_is_whole() {
        let mut history = History::default();
        let group = Some(history.new_group());
        let ids = [0, 1].map(|_| history.begin_write("k", 0, group).0);
        history.check_groups(&BTreeSet::from(ids)).unwrap();
        history.check_groups(&BTreeSet::new()).unwrap();
        assert!(history.check_groups(&BTreeSet::from([ids[0]])).is_err());
    }
}
