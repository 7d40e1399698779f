#![allow(clippy::disallowed_methods, reason = "any instant will do")]

use super::*;

const KEY: &[u8] = b"config:k";
const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$8\r\nconfig:k\r\n";
const STRLEN: &[u8] = b"*2\r\n$6\r\nSTRLEN\r\n$8\r\nconfig:k\r\n";
const OLD: &[u8] = b"$3\r\nold\r\n";
const NEW: &[u8] = b"$3\r\nnew\r\n";
const FOR_EVER: &[u8] = b":-1\r\n";
const NEWS: &[u8] = b"*1\r\n$8\r\nconfig:k\r\n";
const NEWS_OF_ANOTHER: &[u8] = b"*1\r\n$8\r\nconfig:j\r\n";
const NEWS_OF_ALL: &[u8] = b"_\r\n";

const CHANNEL: Key = Key {
    index: 1,
    generation: 0,
};
const USER: Key = Key {
    index: 2,
    generation: 0,
};

/// A cache with one connection that tells of changes.
struct Cache {
    near: Near,
    realm: Realm,
    fingerprint: u32,
    now: Instant,
}

impl Cache {
    fn new() -> Self {
        let now = Instant::now();
        let prefixes: Arc<[Box<[u8]>]> = Arc::new([b"config:"[..].into()]);
        let hasher = foldhash::fast::FixedState::with_seed(1);
        let mut near = Near::new(prefixes, 0, 1024 * 1024, hasher.clone());
        let realm = near.realm(USER, 0, now).unwrap();
        near.homes.push(Home {
            realm,
            why: Why::Named,
            addr: NodeAddr::parse("10.0.0.1:6379").unwrap(),
            channel: Some(CHANNEL),
            tracks: false,
            proved_at: None,
            probing: false,
            sample: None,
            disowned: false,
            again_at: now,
        });
        let mut keys = Keys::none();
        keys.push(KEY, &hasher);
        let fingerprint = keys.single().unwrap();
        let mut cache = Self {
            near,
            realm,
            fingerprint,
            now,
        };
        let number = cache.near.number(CHANNEL, What::Track, now);
        cache.says(number, LAST, b"+OK\r\n");
        cache
    }

    fn asks(&mut self) -> u32 {
        self.asks_for(GET)
    }

    fn asks_for(&mut self, request: &[u8]) -> u32 {
        let what = What::Fetch {
            realm: self.realm,
            fingerprint: self.fingerprint,
            key: KEY.into(),
            request: request.into(),
            left_ms: None,
            told: None,
            spoiled: false,
        };
        let number = self.near.number(CHANNEL, what, self.now);
        self.near
            .fetching
            .insert((self.realm, self.fingerprint), number);
        number
    }

    fn says(&mut self, number: u32, part: u16, reply: &[u8]) {
        let ticket = Ticket::of_near((number, part));
        self.near.answered(&ticket, reply, true, self.now);
    }

    fn keeps(&mut self, value: &[u8]) {
        let number = self.asks();
        self.says(number, FIRST, FOR_EVER);
        self.says(number, LAST, value);
    }

    fn shows(&mut self) -> Option<Vec<u8>> {
        let found = self
            .near
            .find(self.realm, (self.fingerprint, GET), self.now);
        found.map(<[u8]>::to_vec)
    }

    fn told(&mut self, reply: &[u8]) {
        self.says_to_a_client(Some(GET), reply);
    }

    fn says_to_a_client(&mut self, asked: Option<&[u8]>, reply: &[u8]) {
        self.near.told((USER, 0), self.fingerprint, (asked, reply));
    }
}

#[test]
fn what_came_goes_with_the_news_of_its_change() {
    for news in [NEWS, NEWS_OF_ALL] {
        let mut cache = Cache::new();
        cache.keeps(OLD);
        assert_eq!(cache.shows().as_deref(), Some(OLD));
        assert_eq!(cache.near.invalidated(NEWS_OF_ANOTHER), 0);
        assert_eq!(cache.shows().as_deref(), Some(OLD));
        assert_eq!(cache.near.invalidated(news), 1);
        assert_eq!(cache.shows(), None);
        cache.keeps(NEW);
        assert_eq!(cache.shows().as_deref(), Some(NEW));
    }
}

#[test]
fn what_changes_while_it_is_asked_for_is_not_kept() {
    let changes: [fn(&mut Cache); 5] = [
        |cache| assert_eq!(cache.near.invalidated(NEWS), 0),
        |cache| assert_eq!(cache.near.invalidated(NEWS_OF_ALL), 0),
        |cache| {
            let mut keys = Keys::none();
            keys.push(KEY, &cache.near.hasher.clone());
            cache.near.wrote(&keys);
        },
        |cache| cache.near.wrote(&Keys::all()),
        |cache| cache.told(NEW),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        for before_the_time in [true, false] {
            let mut cache = Cache::new();
            let question = cache.asks();
            if before_the_time {
                change(&mut cache);
            }
            cache.says(question, FIRST, FOR_EVER);
            if !before_the_time {
                change(&mut cache);
            }
            cache.says(question, LAST, OLD);
            assert_eq!(cache.shows(), None, "change {number}");
            assert!(cache.near.questions.is_empty() && cache.near.fetching.is_empty());
        }
    }
}

#[test]
fn what_a_node_tells_a_client_is_what_is_kept_or_nothing() {
    let mut cache = Cache::new();
    let number = cache.asks();
    cache.told(OLD);
    cache.says(number, FIRST, FOR_EVER);
    cache.told(OLD);
    cache.says(number, LAST, OLD);
    cache.told(OLD);
    assert_eq!(cache.shows().as_deref(), Some(OLD));
    cache.told(NEW);
    assert_eq!(cache.shows(), None);
}

#[test]
fn what_is_asked_about_a_key_is_kept_apart_and_goes_together() {
    let shows = |cache: &mut Cache, asked| {
        let asked = (cache.fingerprint, asked);
        let found = cache.near.find(cache.realm, asked, cache.now);
        found.map(<[u8]>::to_vec)
    };
    let keeps = || {
        let mut cache = Cache::new();
        cache.keeps(OLD);
        assert_eq!(shows(&mut cache, STRLEN), None);
        let number = cache.asks_for(STRLEN);
        // Of something else, it says nothing about this.
        cache.told(OLD);
        cache.says(number, FIRST, FOR_EVER);
        cache.says(number, LAST, b":3\r\n");
        assert_eq!(shows(&mut cache, GET).as_deref(), Some(OLD));
        assert_eq!(shows(&mut cache, STRLEN).as_deref(), Some(&b":3\r\n"[..]));
        cache
    };
    let changes: [fn(&mut Cache); 4] = [
        |cache| assert_eq!(cache.near.invalidated(NEWS), 2),
        |cache| cache.says_to_a_client(Some(STRLEN), b":5\r\n"),
        |cache| cache.says_to_a_client(Some(GET), NEW),
        |cache| cache.says_to_a_client(None, b"-ERR no\r\n"),
    ];
    for change in changes {
        let mut cache = keeps();
        cache.says_to_a_client(Some(STRLEN), b":3\r\n");
        assert!(shows(&mut cache, GET).is_some() && shows(&mut cache, STRLEN).is_some());
        change(&mut cache);
        assert_eq!(shows(&mut cache, GET), None);
        assert_eq!(shows(&mut cache, STRLEN), None);
    }
}

#[test]
fn nothing_is_shown_beyond_its_time_or_without_proof() {
    let mut cache = Cache::new();
    let number = cache.asks();
    cache.now += Duration::from_millis(10);
    cache.says(number, FIRST, b":15\r\n");
    cache.says(number, LAST, OLD);
    cache.now += Duration::from_millis(4);
    assert_eq!(cache.shows().as_deref(), Some(OLD));
    cache.now += Duration::from_millis(1);
    assert_eq!(cache.shows(), None, "15 ms from when it was asked for");
    cache.keeps(OLD);
    cache.now += STALE_MAX;
    assert_eq!(cache.shows(), None, "the connection may be dead");
    let asked = cache.near.number(CHANNEL, What::Probe, cache.now);
    cache.says(asked, LAST, b"+PONG\r\n");
    assert_eq!(cache.shows().as_deref(), Some(OLD), "it is not");
    assert_eq!(cache.near.lost(CHANNEL, cache.now), 1);
    assert_eq!(cache.shows(), None);
}

#[test]
fn that_there_is_no_such_key_is_kept_for_a_second() {
    for (nothing, kept) in [
        (&b"_\r\n"[..], NOTHING),
        (b"$-1\r\n", NOTHING),
        (b":0\r\n", b":0\r\n"),
    ] {
        let mut cache = Cache::new();
        let number = cache.asks();
        cache.says(number, FIRST, b":-2\r\n");
        // As a client of either protocol is told.
        cache.told(if kept == NOTHING { b"$-1\r\n" } else { nothing });
        cache.says(number, LAST, nothing);
        cache.told(nothing);
        assert_eq!(cache.shows().as_deref(), Some(kept));
        let asked = cache.near.number(CHANNEL, What::Probe, cache.now);
        cache.now += STALE_MAX - Duration::from_millis(1);
        cache.says(asked, LAST, b":-2\r\n");
        assert_eq!(cache.shows().as_deref(), Some(kept));
        cache.now += Duration::from_millis(1);
        let asked = cache.near.number(CHANNEL, What::Probe, cache.now);
        cache.says(asked, LAST, b":-2\r\n");
        assert_eq!(cache.shows(), None, "nobody tells of its slot");
    }
    for over in [NEW, b""] {
        let mut cache = Cache::new();
        cache.keeps(b"_\r\n");
        cache.told(over);
        assert_eq!(cache.shows(), None, "there is one by now");
    }
}

#[test]
fn what_is_gone_refused_or_big_is_not_kept() {
    let big = vec![b'$'; VALUE_BYTES_MAX + 1];
    for (left, value) in [
        (&b":0\r\n"[..], OLD),
        (b"-ERR no\r\n", OLD),
        (FOR_EVER, &big),
        (FOR_EVER, b"*0\r\n"),
    ] {
        let mut cache = Cache::new();
        let number = cache.asks();
        cache.says(number, FIRST, left);
        cache.says(number, LAST, value);
        assert_eq!(cache.shows(), None);
    }
    let mut cache = Cache::new();
    let number = cache.asks();
    cache.says(number, FIRST, FOR_EVER);
    let (ticket, now) = (Ticket::of_near((number, LAST)), cache.now);
    cache.near.answered(&ticket, b"$9\r\nin ", false, now);
    cache.says(number, LAST, b"$pieces\r\n");
    assert_eq!(cache.shows(), None);
    for part in [FIRST, LAST] {
        let mut cache = Cache::new();
        let number = cache.asks();
        let now = cache.now;
        if part == LAST {
            cache.says(number, FIRST, FOR_EVER);
        }
        cache.near.refused(&Ticket::of_near((number, part)), now);
        cache.says(number, LAST, OLD);
        assert_eq!(cache.shows(), None);
        assert!(cache.near.questions.is_empty() && cache.near.fetching.is_empty());
    }
}

#[test]
fn a_node_that_does_not_answer_for_its_keys_any_more_is_given_up() {
    let mut cache = Cache::new();
    cache.keeps(OLD);
    assert_eq!(cache.near.homes[0].sample.as_deref(), Some(KEY));
    let asked = cache.near.number(CHANNEL, What::Probe, cache.now);
    let now = cache.now;
    cache.near.refused(&Ticket::of_near((asked, LAST)), now);
    assert_eq!(cache.shows(), None);
    assert!(cache.near.homes[0].disowned);
}
