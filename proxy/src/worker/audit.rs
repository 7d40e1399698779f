//! Who was refused, for the log: every address and user at once, then with counts, so that whoever
//! guesses passwords fills no disk and hides nobody else.
//!
//! Owns the bounds. Never here: passwords, the clock (`now` is an argument), the log itself.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// One address and user has a line in this time at most.
const EVERY: Duration = Duration::from_secs(10);
/// Addresses and users that are told apart; all others are counted together.
const KEPT_MAX: usize = 256;
/// Characters of a user's name, and of a reason, that are told.
const TEXT_MAX: usize = 120;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// `None`: various, of those who are not told apart.
    pub(super) client: Option<IpAddr>,
    pub(super) user: String,
    pub(super) reason: String,
    /// How often, since the line before.
    pub(super) times: u64,
}

#[derive(Debug)]
struct Entry {
    told_at: Instant,
    untold: u64,
    reason: String,
}

/// What is told, and what is not yet.
#[derive(Debug, Default)]
pub(super) struct Audit(HashMap<Option<(IpAddr, String)>, Entry>);

impl Audit {
    /// Credentials were refused. Returns a line if one is due.
    pub(super) fn refused(
        &mut self,
        client: IpAddr,
        user: &[u8],
        reason: &str,
        now: Instant,
    ) -> Option<Line> {
        let mut who = Some((client, printable(&String::from_utf8_lossy(user))));
        if self.0.len() >= KEPT_MAX && !self.0.contains_key(&who) {
            who = None;
        }
        let reason = printable(reason);
        if let Some(entry) = self.0.get_mut(&who) {
            entry.untold += 1;
            entry.reason = reason;
            return None; // it is due later
        }
        let entry = Entry {
            told_at: now,
            untold: 0,
            reason: reason.clone(),
        };
        self.0.insert(who.clone(), entry);
        Some(line(who.as_ref(), reason, 1))
    }

    /// What has become due. To be called now and then; forgets who was quiet.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        self.0.retain(|who, entry| {
            if now.saturating_duration_since(entry.told_at) < EVERY {
                return true;
            }
            if entry.untold == 0 {
                return false;
            }
            entry.told_at = now;
            let times = std::mem::take(&mut entry.untold);
            lines.push(line(who.as_ref(), entry.reason.clone(), times));
            true
        });
        lines
    }
}

fn line(who: Option<&(IpAddr, String)>, reason: String, times: u64) -> Line {
    Line {
        client: who.map(|(client, _)| *client),
        user: who.map_or_else(|| "(various)".to_owned(), |(_, user)| user.clone()),
        reason,
        times,
    }
}

/// What a client said, as a log can bear it.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .take(TEXT_MAX)
        .flat_map(char::escape_default)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn the_first_is_told_at_once_and_the_rest_is_counted() {
        let start = Instant::now();
        let mut audit = Audit::default();
        let mut refused = |after| audit.refused(HERE, b"eve", "WRONGPASS", start + after);
        let first = refused(Duration::ZERO).unwrap();
        assert_eq!((first.user.as_str(), first.times), ("eve", 1));
        for _ in 0..999 {
            assert_eq!(refused(Duration::from_secs(1)), None);
        }
        assert_eq!(audit.due(start + EVERY / 2), []);
        let lines = audit.due(start + EVERY);
        assert_eq!((lines.len(), lines[0].times), (1, 999));
        assert_eq!(audit.due(start + EVERY * 2), []);
        assert!(audit.0.is_empty(), "quiet ones are forgotten");
    }

    #[test]
    fn guesses_from_everywhere_are_bounded_and_none_is_uncounted() {
        let start = Instant::now();
        let mut audit = Audit::default();
        let mut told = 0;
        for guess in 0..10_000 {
            let user = format!("user{guess}");
            let line = audit.refused(HERE, user.as_bytes(), "WRONGPASS", start);
            told += line.map_or(0, |line| line.times);
        }
        assert!(audit.0.len() <= KEPT_MAX + 1);
        let later = audit.due(start + EVERY);
        assert_eq!(
            told + later.iter().map(|line| line.times).sum::<u64>(),
            10_000
        );
        assert!(later.iter().any(|line| line.client.is_none()));
    }

    #[test]
    fn names_cannot_forge_lines() {
        let mut audit = Audit::default();
        let user = [b"a\nb\x1b[31m\xff".as_slice(), &[b'x'; 10_000]].concat();
        let line = audit.refused(HERE, &user, "no", Instant::now()).unwrap();
        assert!(line.user.starts_with("a\\nb\\u{1b}[31m"), "{}", line.user);
        assert!(line.user.is_ascii() && line.user.len() < 200);
    }
}
