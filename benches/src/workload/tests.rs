//! The workload against a model of a server: what is right passes, whatever is swapped, stale or
//! broken is found.

use std::collections::HashMap;

use resp::{OwnedRequest, Protocol, RequestDecoder, RequestLimits};

use super::*;

const CLIENTS: u32 = 4;

fn plan(mix: &str, shared_percent: u8) -> Arc<Plan> {
    plan_with(mix, shared_percent, Distribution::Uniform)
}

fn plan_with(mix: &str, shared_percent: u8, distribution: Distribution) -> Arc<Plan> {
    let bytes = Span {
        least: 64,
        most: 200,
    };
    Arc::new(Plan {
        mix: mix.parse().expect("a mix"),
        keys: KeySpace::new(40, shared_percent, CLIENTS, distribution, None).expect("keys"),
        values: ValueShape::new(bytes, 7, true),
        protocol: Protocol::Resp2,
        multi_keys: Span { least: 2, most: 5 },
        echo_every: 16,
        clients: CLIENTS,
        seed: 11,
    })
}

/// A server of a few commands over one map.
#[derive(Default)]
struct Server(HashMap<Vec<u8>, Vec<u8>>);

impl Server {
    /// The replies to all requests in `bytes`, one by one.
    fn serve(&mut self, mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut decoder = RequestDecoder::new(RequestLimits::AUTHENTICATED);
        let mut replies = Vec::new();
        while !bytes.is_empty() {
            let len = decoder
                .decode(bytes)
                .expect("the workload writes canonical requests")
                .expect("whole requests");
            let (frame, rest) = bytes.split_at(len);
            let request = OwnedRequest::parse(frame.to_vec()).expect("a request");
            let args: Vec<Vec<u8>> = request.as_request().args().map(<[u8]>::to_vec).collect();
            replies.push(self.answer(&args));
            decoder.next();
            bytes = rest;
        }
        replies
    }

    fn answer(&mut self, args: &[Vec<u8>]) -> Vec<u8> {
        let bulk = |value: Option<&Vec<u8>>| {
            value.map_or(b"$-1\r\n".to_vec(), |value| {
                let mut out = format!("${}\r\n", value.len()).into_bytes();
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
                out
            })
        };
        match args[0].as_slice() {
            b"GET" => bulk(self.0.get(&args[1])),
            b"SET" | b"MSET" => {
                for pair in args[1..].chunks(2) {
                    self.0.insert(pair[0].clone(), pair[1].clone());
                }
                b"+OK\r\n".to_vec()
            }
            b"MGET" => {
                let mut out = format!("*{}\r\n", args.len() - 1).into_bytes();
                out.extend(args[1..].iter().flat_map(|key| bulk(self.0.get(key))));
                out
            }
            b"DEL" => {
                let gone = args[1..].iter().filter(|key| self.0.remove(*key).is_some());
                format!(":{}\r\n", gone.count()).into_bytes()
            }
            b"EXISTS" => {
                let there = args[1..].iter().filter(|key| self.0.contains_key(*key));
                format!(":{}\r\n", there.count()).into_bytes()
            }
            b"INCR" => {
                let value = self.0.entry(args[1].clone()).or_insert(b"0".to_vec());
                let number: i64 = String::from_utf8_lossy(value).parse().expect("a number");
                *value = (number + 1).to_string().into_bytes();
                format!(":{}\r\n", number + 1).into_bytes()
            }
            b"ECHO" => bulk(args.get(1)),
            b"PING" => b"+PONG\r\n".to_vec(),
            other => panic!("{}", other.escape_ascii()),
        }
    }
}

fn clients(plan: &Arc<Plan>) -> Vec<Workload> {
    (0..CLIENTS)
        .map(|client| Workload::new(plan.clone(), client))
        .collect()
}

fn batch(workload: &mut Workload, depth: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..depth {
        workload.request(&mut out);
    }
    out
}

fn fill(server: &mut Server, workload: &mut Workload) {
    let mut out = Vec::new();
    while workload.fill(&mut out) {}
    for reply in server.serve(&out) {
        assert!(matches!(workload.reply(&reply), Verdict::Good));
    }
}

fn flaw(verdict: Verdict) -> Option<Flaw> {
    match verdict {
        Verdict::Mismatched(mismatch) => Some(mismatch.flaw),
        _ => None,
    }
}

const ALL: &str = "get=30,set=20,mget=10,mset=5,incr=10,del=10,exists=5,ping=2,echo=5";

#[test]
fn an_honest_server_has_no_mismatch() {
    for (filled, shared) in [(true, 30), (false, 30), (true, 0), (true, 100)] {
        let plan = plan(ALL, shared);
        let mut server = Server::default();
        let mut clients = clients(&plan);
        if filled {
            clients
                .iter_mut()
                .for_each(|client| fill(&mut server, client));
        }
        for turn in 0..400 {
            for client in &mut clients {
                let bytes = batch(client, turn % 33);
                for reply in server.serve(&bytes) {
                    let verdict = client.reply(&reply);
                    assert!(matches!(verdict, Verdict::Good), "{verdict:?}");
                }
                assert_eq!(client.owed(), 0);
                assert!(client.touched.is_empty());
            }
        }
    }
}

#[test]
fn every_key_is_filled_by_one_client() {
    let plan = plan("get=1", 50);
    let mut server = Server::default();
    for mut client in clients(&plan) {
        fill(&mut server, &mut client);
    }
    let named = |prefix: &str| {
        let starts = |key: &&Vec<u8>| key.starts_with(prefix.as_bytes());
        server.0.keys().filter(starts).count()
    };
    assert_eq!(named("s:k"), 20);
    assert_eq!(named("s:n"), 64);
    assert_eq!(named("c3:k"), 5);
    assert_eq!(named("c3:n"), 5);
    assert_eq!(server.0.len(), 20 + 64 + 4 * 10);
}

/// Two replies of one client in the wrong order.
#[test]
fn replies_out_of_order_are_found() {
    for shared in [0, 100] {
        let plan = plan("get=70,mget=20,echo=10", shared);
        let mut server = Server::default();
        let mut client = Workload::new(plan.clone(), 0);
        for mut client in clients(&plan) {
            fill(&mut server, &mut client);
        }
        fill(&mut server, &mut client);
        let mut found = 0;
        let mut swaps = 0;
        for _ in 0..200 {
            let bytes = batch(&mut client, 2);
            let mut replies = server.serve(&bytes);
            if replies[0] != replies[1] {
                swaps += 1;
                replies.swap(0, 1);
            }
            let flaws = replies
                .iter()
                .filter_map(|reply| flaw(client.reply(reply)))
                .count();
            found += usize::from(flaws == 2);
        }
        assert!(swaps > 100);
        assert_eq!(found, swaps, "each of a swapped pair is wrong");
    }
}

/// One client gets what another asked for.
#[test]
fn replies_of_another_client_are_found() {
    let plan = plan("get=100", 0);
    let mut server = Server::default();
    let mut clients = clients(&plan);
    clients
        .iter_mut()
        .for_each(|client| fill(&mut server, client));
    let mut replies = Vec::new();
    for client in &mut clients {
        let mut out = Vec::new();
        client.get(&mut out);
        replies.extend(server.serve(&out));
    }
    replies.rotate_left(1);
    for (client, reply) in clients.iter_mut().zip(&replies) {
        assert_eq!(flaw(client.reply(reply)), Some(Flaw::Swapped));
    }
}

#[test]
fn a_reply_nobody_asked_for_is_found() {
    let mut client = Workload::new(plan("get=1", 0), 0);
    assert_eq!(flaw(client.reply(b"+OK\r\n")), Some(Flaw::Swapped));
    assert!(matches!(client.reply(b">2\r\n+a\r\n+b\r\n"), Verdict::Push));
}

#[test]
fn a_value_of_before_the_last_write_is_stale() {
    let plan = plan("set=100", 0);
    let mut server = Server::default();
    let mut client = Workload::new(plan, 1);
    fill(&mut server, &mut client);
    let old = server.0.clone();
    let mut out = Vec::new();
    for _ in 0..200 {
        client.set(&mut out);
    }
    for reply in server.serve(&out) {
        client.reply(&reply);
    }
    out.clear();
    client.get(&mut out);
    let replies = Server(old).serve(&out);
    assert_eq!(flaw(client.reply(&replies[0])), Some(Flaw::Stale));
    out.clear();
    client.get(&mut out);
    assert_eq!(flaw(client.reply(b"$-1\r\n")), Some(Flaw::Stale));
}

#[test]
fn a_counter_that_skips_is_found() {
    let plan = plan("incr=100", 0);
    let mut server = Server::default();
    let mut client = Workload::new(plan, 1);
    fill(&mut server, &mut client);
    let mut out = Vec::new();
    client.incr(&mut out);
    assert_eq!(flaw(client.reply(b":2\r\n")), Some(Flaw::Stale));
    out.clear();
    client.incr(&mut out);
    assert_eq!(flaw(client.reply(b"$1\r\n1\r\n")), Some(Flaw::Shape));
}

#[test]
fn a_flipped_bit_is_found() {
    let plan = plan("get=100", 100);
    let mut server = Server::default();
    for mut client in clients(&plan) {
        fill(&mut server, &mut client);
    }
    let mut client = Workload::new(plan, 2);
    for at in [9, 30, 60] {
        let mut out = Vec::new();
        client.get(&mut out);
        let mut reply = server.serve(&out).remove(0);
        let start = reply
            .iter()
            .position(|byte| *byte == b'\n')
            .expect("a line")
            + 1;
        reply[start + at] ^= 1;
        assert_eq!(flaw(client.reply(&reply)), Some(Flaw::Corrupt), "byte {at}");
    }
}

#[test]
fn a_null_of_the_other_protocol_is_found() {
    let mut client = Workload::new(plan("get=100", 100), 0);
    let mut out = Vec::new();
    client.get(&mut out);
    assert_eq!(flaw(client.reply(b"_\r\n")), Some(Flaw::Shape));
    client.get(&mut out);
    assert!(matches!(client.reply(b"$-1\r\n"), Verdict::Good));
}

/// After a failed or lost write either outcome is right, also for reads behind it in the pipeline;
/// after the next write only one is.
#[test]
fn an_uncertain_write_loosens_the_model_until_the_next_write() {
    for done in [true, false] {
        let plan = Arc::new(Plan {
            keys: KeySpace::new(1, 0, 1, Distribution::Uniform, None).expect("one key"),
            clients: 1,
            mix: "get=1".parse().expect("a mix"),
            values: ValueShape::new(
                Span {
                    least: 64,
                    most: 64,
                },
                7,
                true,
            ),
            protocol: Protocol::Resp2,
            multi_keys: Span { least: 2, most: 2 },
            echo_every: 0,
            seed: 1,
        });
        let mut server = Server::default();
        let mut client = Workload::new(plan, 0);
        fill(&mut server, &mut client);
        let (mut write, mut read) = (Vec::new(), Vec::new());
        client.set(&mut write);
        client.get(&mut read);
        if done {
            server.serve(&write);
        }
        let replies = server.serve(&read);
        assert!(
            matches!(client.reply(b"-TRYAGAIN later\r\n"), Verdict::Error(word) if &*word == "TRYAGAIN")
        );
        assert!(matches!(client.reply(&replies[0]), Verdict::Good));
        write.clear();
        client.set(&mut write);
        let replies = server.serve(&write);
        assert!(matches!(client.reply(&replies[0]), Verdict::Good));
        read.clear();
        client.get(&mut read);
        assert_eq!(flaw(client.reply(b"$-1\r\n")), Some(Flaw::Stale));
        // Lost with its connection: the same.
        client.set(&mut write);
        assert_eq!(client.connection_lost(), 1);
        client.get(&mut read);
        assert!(matches!(client.reply(b"$-1\r\n"), Verdict::Good));
    }
}

#[test]
fn zipf_draws_ranks_in_proportion_to_their_power() {
    let exponent = 0.99;
    let keys = KeySpace::new(1000, 100, 1, Distribution::Zipf { exponent }, None).expect("keys");
    let mut rng = SmallRng::seed_from_u64(3);
    let mut drawn = vec![0_u32; 1000];
    let draws = 400_000;
    for _ in 0..draws {
        let mut name = Vec::new();
        keys.name(0, keys.sample(&mut rng), &mut name);
        let index = String::from_utf8_lossy(&name[3..]).into_owned();
        drawn[index.parse::<usize>().expect("s:kN")] += 1;
    }
    let harmonic: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-exponent)).sum();
    for rank in [1_u32, 2, 10, 100] {
        let expected = f64::from(draws) * f64::from(rank).powf(-exponent) / harmonic;
        let got = f64::from(drawn[rank as usize - 1]);
        let deviation = (got - expected).abs() / expected.sqrt();
        assert!(deviation < 5.0, "rank {rank}: {got} for {expected}");
    }
}

#[test]
fn wanted_slots_are_kept_to() {
    let keys = KeySpace::new(5000, 50, 3, Distribution::Uniform, Some(5461..=10922)).expect("keys");
    let mut rng = SmallRng::seed_from_u64(3);
    let mut slots = std::collections::BTreeSet::new();
    for draw in 0..2000 {
        let mut name = Vec::new();
        keys.name(draw % 3, keys.sample(&mut rng), &mut name);
        let end = name.iter().position(|byte| *byte == b'}').expect("a tag");
        let slot = crc16::State::<crc16::XMODEM>::calculate(&name[1..end]) % 16384;
        assert!((5461..=10922).contains(&slot));
        slots.insert(slot);
    }
    assert!(slots.len() > 1000, "{} slots", slots.len());
    assert!(KeySpace::new(1, 0, 1, Distribution::Uniform, Some(1..=16384)).is_err());
}

#[test]
fn mixes_and_spans_are_read_strictly() {
    for bad in ["", "get", "get=x", "fly=1", "get=0", "get=1,,set=2"] {
        assert!(bad.parse::<Mix>().is_err(), "{bad}");
    }
    assert_eq!("1..32".parse(), Ok(Span { least: 1, most: 32 }));
    assert_eq!(
        "16".parse(),
        Ok(Span {
            least: 16,
            most: 16
        })
    );
    for bad in ["", "0", "5..1", "1..", "a"] {
        assert!(bad.parse::<Span>().is_err(), "{bad}");
    }
}

#[test]
fn a_seed_gives_the_same_bytes_again() {
    let plan = plan(ALL, 30);
    let bytes = |client| batch(&mut Workload::new(plan.clone(), client), 500);
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
}
