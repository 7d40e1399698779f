//! Random commands, pieces and changes of state, beside a model that is too simple to be wrong.

use proptest::prelude::*;

use super::*;

/// One of several, whatever their number.
#[derive(Clone, Copy, Debug)]
struct Index(usize);

impl Index {
    fn index(self, len: usize) -> usize {
        self.0 % len
    }

    fn get<T>(self, choices: &[T]) -> &T {
        &choices[self.index(choices.len())]
    }
}

/// Each in a slot of its own.
const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

#[derive(Clone, Debug)]
enum Step {
    Local {
        silent: bool,
    },
    One {
        key: Index,
        writes: bool,
        silent: bool,
        route: u64,
        value: u8,
    },
    Many {
        keys: Vec<Index>,
        mget: bool,
        silent: bool,
        held: bool,
        fails: Option<Index>,
    },
    /// The next bytes of the reply to some part that is in flight, or the end of it.
    Piece {
        part: Index,
        count: usize,
        ran: bool,
    },
    Hold(Index),
    Send {
        part: Index,
        route: u64,
    },
    /// Some command that has no reply yet is answered here.
    Refuse(Index),
}

fn step() -> impl Strategy<Value = Step> {
    let index = || any::<usize>().prop_map(Index);
    let rarely = || prop::bool::weighted(0.2);
    let keys = prop::collection::vec(index(), 2..5);
    prop_oneof![
        1 => rarely().prop_map(|silent| Step::Local { silent }),
        4 => (index(), any::<bool>(), rarely(), 0..3_u64, 0..40_u8).prop_map(
            |(key, writes, silent, route, value)| Step::One { key, writes, silent, route, value }
        ),
        2 => (keys, any::<bool>(), rarely(), rarely(), prop::option::weighted(0.2, index()))
            .prop_map(|(keys, mget, silent, held, fails)| {
                Step::Many { keys, mget, silent, held, fails }
            }),
        8 => (index(), prop_oneof![1..20_usize, Just(usize::MAX)], prop::bool::weighted(0.8))
            .prop_map(|(part, count, ran)| Step::Piece { part, count, ran }),
        2 => index().prop_map(Step::Hold),
        2 => (index(), 0..3_u64).prop_map(|(part, route)| Step::Send { part, route }),
        1 => index().prop_map(Step::Refuse),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Where {
    InFlight(u64),
    Held,
    Done { ran: bool },
}

struct Part {
    keys: Vec<String>,
    writes: bool,
    at: Where,
    /// Its whole reply, and how much of it was passed on.
    reply: Vec<u8>,
    passed: usize,
}

struct Command {
    id: Option<CommandId>,
    place: Place,
    silent: bool,
    split: bool,
    parts: Vec<Part>,
    /// The whole reply, as the client shall see it.
    reply: Vec<u8>,
    /// Commands answered here have no parts.
    answered: bool,
    started: Instant,
}

impl Command {
    fn is_done(&self) -> bool {
        let done = |part: &Part| matches!(part.at, Where::Done { .. });
        if self.parts.is_empty() {
            self.answered
        } else {
            self.parts.iter().all(done)
        }
    }

    /// As much of the reply as is known.
    fn known(&self) -> &[u8] {
        match &self.parts[..] {
            _ if self.is_done() => &self.reply,
            [part] if !self.split => &part.reply[..part.passed],
            _ => &[],
        }
    }
}

#[derive(Default)]
struct Model {
    /// Every command ever, those that have left too.
    commands: Vec<Command>,
}

impl Model {
    fn gone(&self) -> usize {
        self.commands
            .iter()
            .take_while(|command| command.is_done())
            .count()
    }

    fn owed(&self) -> &[Command] {
        &self.commands[self.gone()..]
    }

    fn parts(&self) -> impl Iterator<Item = (usize, usize, &Part)> {
        let owed = self.commands.iter().enumerate().skip(self.gone());
        owed.flat_map(|(at, command)| {
            let parts = command.parts.iter().enumerate();
            parts.map(move |(number, part)| (at, number, part))
        })
    }

    fn count(&self, wanted: impl Fn(&Part) -> bool) -> usize {
        self.parts().filter(|(_, _, part)| wanted(part)).count()
    }

    /// What the client has been given by now.
    fn output(&self) -> Vec<u8> {
        let front = self.gone();
        let visible = self.commands.iter().take(front + 1);
        let spoken = visible.filter(|command| !command.silent);
        spoken.flat_map(Command::known).copied().collect()
    }

    fn early(&self) -> usize {
        let behind = self.owed().iter().skip(1).filter(|command| !command.silent);
        behind.map(|command| command.known().len()).sum()
    }

    fn merging(&self) -> usize {
        let open = self
            .owed()
            .iter()
            .filter(|one| one.split && !one.silent && !one.is_done());
        open.flat_map(|command| &command.parts)
            .map(|part| part.passed)
            .sum()
    }

    fn must_wait(&self, (keys, writes): (&[String], bool), route: u64, before: usize) -> bool {
        let earlier = self.parts().filter(|(at, _, _)| *at < before);
        let mut sharing = earlier.filter(|(_, _, part)| share(&part.keys, keys));
        sharing.any(|(_, _, part)| match part.at {
            Where::InFlight(other) => {
                other != route || (part.keys.len() > 1 && (part.writes || writes))
            }
            Where::Held => true,
            Where::Done { .. } => false,
        })
    }

    fn conflict(&self, at: usize, part: &Part) -> Conflict {
        let later = || {
            self.parts()
                .filter(|(other, _, _)| *other > at)
                .filter(|(_, _, other)| share(&other.keys, &part.keys))
                .map(|(_, _, other)| other)
        };
        let ran = |other: &Part| other.at == Where::Done { ran: true };
        if later().any(|other| ran(other) && (other.writes || part.writes)) {
            Conflict::Overtaken
        } else if later().any(|other| matches!(other.at, Where::InFlight(_))) {
            Conflict::Undecided
        } else {
            Conflict::None
        }
    }
}

fn share(one: &[String], other: &[String]) -> bool {
    one.iter().any(|key| other.contains(key))
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    resp::write::bulk(&mut out, bytes);
    out
}

struct World {
    model: Model,
    order: Order,
    output: Output,
    spare: Spare,
    seen: Vec<u8>,
    now: Instant,
    next: u32,
}

impl World {
    fn new(first: u32) -> Self {
        Self {
            model: Model::default(),
            order: Order::starting_at(first),
            output: Output::default(),
            spare: Spare::default(),
            seen: Vec::new(),
            now: start(),
            next: first,
        }
    }

    fn step(&mut self, step: &Step) {
        self.now += Duration::from_millis(1);
        match step {
            Step::Local { silent } => self.local(*silent),
            Step::One {
                key,
                writes,
                silent,
                route,
                value,
            } => {
                self.one(key.get::<&str>(&KEYS), *writes, *silent, *route, *value);
            }
            Step::Many {
                keys,
                mget,
                silent,
                held,
                fails,
            } => {
                let mut keys: Vec<_> = keys.iter().map(|key| *key.get(&KEYS)).collect();
                if keys.iter().all(|key| *key == keys[0]) {
                    keys.push(KEYS[usize::from(keys[0] == "a")]);
                }
                self.many(&keys, *mget, *silent, *held, fails.as_ref());
            }
            Step::Piece { part, count, ran } => {
                self.piece(part, *count, *ran);
            }
            Step::Hold(index) => {
                let choice = self.choose(index, |part| {
                    matches!(part.at, Where::InFlight(_)) && part.passed == 0
                });
                self.change(choice, Where::Held);
            }
            Step::Send { part, route } => {
                let choice = self.choose(part, |part| part.at == Where::Held);
                self.change(choice, Where::InFlight(*route));
            }
            Step::Refuse(index) => self.refuse(index),
        }
    }

    fn took(&mut self, place: Place, command: Command) {
        assert_eq!(place, Place(self.next), "places follow each other");
        self.next = self.next.wrapping_add(1);
        self.model.commands.push(command);
    }

    fn local(&mut self, silent: bool) {
        let place = self.order.reserve_local(None, silent, self.now);
        let command = Command {
            id: None,
            place,
            silent,
            split: false,
            parts: Vec::new(),
            reply: b"+PONG\r\n".to_vec(),
            answered: false,
            started: self.now,
        };
        self.took(place, command);
    }

    fn one(&mut self, key: &str, writes: bool, silent: bool, route: u64, value: u8) {
        let line = if writes {
            format!("SET {key} 1")
        } else {
            format!("GET {key}")
        };
        let (id, op) = one(&line, route);
        let place = self.order.reserve_one(id, silent, op, self.now);
        let reply = bulk(&vec![value; usize::from(value)]);
        let part = Part {
            keys: vec![key.to_owned()],
            writes,
            at: Where::InFlight(route),
            reply: reply.clone(),
            passed: 0,
        };
        let command = Command {
            id: Some(id),
            place,
            silent,
            split: false,
            parts: vec![part],
            reply,
            answered: false,
            started: self.now,
        };
        self.took(place, command);
    }

    fn many(
        &mut self,
        keys: &[&str],
        mget: bool,
        silent: bool,
        is_held: bool,
        fails: Option<&Index>,
    ) {
        let name = if mget { "MGET" } else { "DEL" };
        let (id, mut ops, merge) = many(&format!("{name} {}", keys.join(" ")));
        // The parts lie in the order of the slots.
        let mut slots: Vec<(Slot, Vec<String>)> = Vec::new();
        for key in keys {
            let slot = Slot::of_key(key.as_bytes());
            match slots.iter_mut().find(|(other, _)| *other == slot) {
                Some((_, keys)) => keys.push((*key).to_owned()),
                None => slots.push((slot, vec![(*key).to_owned()])),
            }
        }
        slots.sort_unstable_by_key(|(slot, _)| *slot);
        assert_eq!(slots.len(), ops.len());
        let failing = fails.map(|index| index.index(slots.len()));
        let error = b"-ERR no\r\n".to_vec();
        let mut parts = Vec::new();
        for (number, (slot, keys)) in slots.into_iter().enumerate() {
            assert_eq!(ops[number].slot, Some(slot));
            let reply = match (failing == Some(number), mget) {
                (true, _) => error.clone(),
                (false, true) => {
                    let values = keys.iter().flat_map(|key| bulk(key.as_bytes()));
                    let head = format!("*{}\r\n", keys.len()).into_bytes();
                    head.into_iter().chain(values).collect()
                }
                (false, false) => format!(":{}\r\n", keys.len()).into_bytes(),
            };
            let route = u64::try_from(number).unwrap();
            parts.push(Part {
                keys,
                writes: !mget,
                at: if is_held {
                    Where::Held
                } else {
                    Where::InFlight(route)
                },
                reply,
                passed: 0,
            });
        }
        if is_held {
            ops.iter_mut().for_each(|op| op.state = held());
        }
        let reply = if failing.is_some() {
            error
        } else if mget {
            let values = keys.iter().flat_map(|key| bulk(key.as_bytes()));
            let head = format!("*{}\r\n", keys.len()).into_bytes();
            head.into_iter().chain(values).collect()
        } else {
            format!(":{}\r\n", keys.len()).into_bytes()
        };
        let place = self.order.reserve_many(id, silent, ops, merge, self.now);
        let command = Command {
            id: Some(id),
            place,
            silent,
            split: true,
            parts,
            reply,
            answered: false,
            started: self.now,
        };
        self.took(place, command);
    }

    fn choose(&self, index: &Index, wanted: impl Fn(&Part) -> bool) -> Option<(usize, usize)> {
        let choices = self.model.parts().filter(|(_, _, part)| wanted(part));
        let choices: Vec<_> = choices.map(|(at, number, _)| (at, number)).collect();
        (!choices.is_empty()).then(|| *index.get(&choices))
    }

    fn change(&mut self, choice: Option<(usize, usize)>, to: Where) {
        let Some((at, number)) = choice else { return };
        let state = match to {
            Where::InFlight(route) => OpState::InFlight(Route(route)),
            Where::Held => held(),
            Where::Done { ran } => OpState::Done { ran },
        };
        let command = &mut self.model.commands[at];
        let part = u16::try_from(number).unwrap();
        let before = self.order.set_state(command.place, part, state).unwrap();
        assert!(is(&before, command.parts[number].at));
        command.parts[number].at = to;
    }

    /// Returns whether there was a part in flight.
    fn piece(&mut self, index: &Index, count: usize, ran: bool) -> bool {
        let choice = self.choose(index, |part| matches!(part.at, Where::InFlight(_)));
        let Some((at, number)) = choice else {
            return false;
        };
        let command = &mut self.model.commands[at];
        let part = &mut command.parts[number];
        let from = part.passed;
        part.passed = part.reply.len().min(from.saturating_add(count));
        let bytes = part.reply[from..part.passed].to_vec();
        let done = part.passed == part.reply.len();
        if done {
            part.at = Where::Done { ran };
        }
        let to = (command.place, u16::try_from(number).unwrap());
        let completed =
            self.order
                .piece(to, &bytes, done, ran, (&mut self.output, &mut self.spare));
        self.completed(at, completed);
        true
    }

    /// A command without a reply so far gets one of ours.
    fn refuse(&mut self, index: &Index) {
        let untouched =
            |command: &Command| !command.split && command.parts.iter().all(|part| part.passed == 0);
        let owed = self.model.commands.iter().enumerate();
        let choices: Vec<_> = owed
            .filter(|(_, command)| untouched(command) && !command.is_done())
            .map(|(at, _)| at)
            .collect();
        if choices.is_empty() {
            return;
        }
        let at = *index.get(&choices);
        let command = &mut self.model.commands[at];
        command.reply = b"-ERR refused\r\n".to_vec();
        command.answered = true;
        for part in &mut command.parts {
            part.at = Where::Done { ran: false };
        }
        let (place, reply) = (command.place, command.reply.clone());
        let completed =
            self.order
                .complete_local(place, &reply, (&mut self.output, &mut self.spare));
        self.completed(at, completed);
    }

    fn completed(&self, at: usize, completed: Option<Completed>) {
        let command = &self.model.commands[at];
        let expected = command.is_done().then_some(Completed {
            command: command.id,
            started: command.started,
            slot: completed.and_then(|completed| completed.slot), // which the model does not know
        });
        assert_eq!(completed, expected);
    }

    /// Everything that can be asked, beside what the model says.
    fn check(&mut self) {
        let (order, model) = (&self.order, &self.model);
        self.seen.extend_from_slice(self.output.pending());
        let written = self.output.len();
        self.output.wrote(written, &mut self.spare);
        assert_eq!(self.seen, model.output());
        assert_eq!(order.len(), model.owed().len());
        assert_eq!(order.is_empty(), model.owed().is_empty());
        assert_eq!(order.early_bytes(), model.early());
        assert_eq!(order.merging_bytes(), model.merging());
        let open = model.count(|part| !matches!(part.at, Where::Done { .. }));
        assert_eq!(order.open(), open);
        assert_eq!(order.held(), model.count(|part| part.at == Where::Held));

        let held: Vec<_> = model
            .parts()
            .filter(|(_, _, part)| part.at == Where::Held)
            .map(|(at, number, _)| (model.commands[at].place, u16::try_from(number).unwrap()))
            .collect();
        assert_eq!(order.held_parts().collect::<Vec<_>>(), held);
        let routes: Vec<_> = model
            .parts()
            .filter_map(|(_, _, part)| match part.at {
                Where::InFlight(route) => Some(Route(route)),
                _ => None,
            })
            .collect();
        assert_eq!(order.in_flight_routes().collect::<Vec<_>>(), routes);
        self.check_each();
    }

    fn check_each(&self) {
        let (order, model) = (&self.order, &self.model);
        for command in model.owed() {
            let begun = command.is_done() || command.parts.iter().any(|part| part.passed > 0);
            assert_eq!(order.has_begun(command.place), begun);
            assert_eq!(order.command(command.place), command.id);
            assert_eq!(order.started(command.place), Some(command.started));
        }
        for (at, number, part) in model.parts() {
            let (place, number) = (model.commands[at].place, u16::try_from(number).unwrap());
            let op = order.op(place, number).unwrap();
            assert!(is(&op.state, part.at));
            assert_eq!(order.conflict(place, number), model.conflict(at, part));
            for route in 0..3 {
                let waits = order.must_wait((&op.keys, op.writes), Route(route), Some(place));
                let expected = model.must_wait((&part.keys, part.writes), route, at);
                assert_eq!(waits, expected);
            }
        }
        for key in KEYS {
            for route in 0..3 {
                let waits = order.must_wait(
                    (&keys(&format!("GET {key}")), route == 1),
                    Route(route),
                    None,
                );
                let about = (&[key.to_owned()][..], route == 1);
                let expected = model.must_wait(about, route, usize::MAX);
                assert_eq!(waits, expected, "{key} to {route}");
            }
        }
        let none = order.must_wait((&Keys::none(), true), Route(0), None);
        assert!(!none, "without keys there is nothing to wait for");
    }

    /// Answers everything that is still owed.
    fn finish(&mut self) {
        let first = || Index(0);
        while let Some(choice) = self.choose(&first(), |part| part.at == Where::Held) {
            self.change(Some(choice), Where::InFlight(1));
        }
        while self.piece(&first(), usize::MAX, true) {
            self.check();
        }
        while !self.order.is_empty() {
            self.refuse(&first());
            self.check();
        }
    }
}

fn is(state: &OpState, at: Where) -> bool {
    match (state, at) {
        (OpState::InFlight(Route(route)), Where::InFlight(other)) => *route == other,
        (OpState::Held(_), Where::Held) => true,
        (OpState::Done { ran }, Where::Done { ran: other }) => *ran == other,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn it_does_what_the_model_does(
        first in prop_oneof![Just(0), u32::MAX - 20..=u32::MAX],
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(first);
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.finish();
        prop_assert_eq!(world.order.open(), 0);
        let all = world.model.commands.iter().filter(|command| !command.silent);
        let all: Vec<u8> = all.flat_map(|command| &command.reply).copied().collect();
        prop_assert_eq!(world.seen, all, "every reply once, in request order");
    }
}
