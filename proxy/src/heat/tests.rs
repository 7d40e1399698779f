use super::*;

fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

/// What a worker shows that has had so many commands of 10 and 100 bytes in a slot.
fn shown(counts: &[(u16, u64)]) -> Shown {
    let mut slots = SlotCounts::default();
    for (number, times) in counts {
        slots.answered(slot(*number), (true, *times), (10 * times, 100 * times));
    }
    Shown {
        keys: HotKeys::new(::heat::Sampling::default(), 1),
        big: BigKeys::new(4),
        slots,
        age: Duration::ZERO,
    }
}

#[test]
fn rates_follow_what_comes_and_fade() {
    let start = Instant::now();
    let board = HeatBoard::default();
    let show = |worker: usize, counts: &[(u16, u64)]| {
        let mut all = board.shown.lock().unwrap();
        all.insert(worker, shown(counts));
    };
    for second in 1..=60 {
        show(0, &[(5, 100 * second), (6, 10 * second)]);
        show(1, &[(5, 50 * second)]);
        board.add_up(start + Duration::from_secs(second));
    }
    let hottest = board.sum().hottest(9, |rate| rate.operations);
    assert_eq!(hottest.len(), 2);
    assert_eq!(hottest[0].slot, slot(5));
    assert_eq!(hottest[0].total.operations(), 9_000);
    assert!(
        (hottest[0].rate.operations - 150.0).abs() < 3.0,
        "{hottest:?}"
    );
    assert!(
        (hottest[0].rate.bytes() - 16_500.0).abs() < 300.0,
        "{hottest:?}"
    );
    // Nothing more comes, but for another slot.
    for second in 61..=71 {
        show(2, &[(7, 100 * (second - 60))]);
        board.add_up(start + Duration::from_secs(second));
    }
    let hottest = board.sum().hottest(9, |rate| rate.operations);
    assert!(
        (hottest[0].rate.operations - 75.0).abs() < 8.0,
        "{hottest:?}"
    );
    for second in 72..=82 {
        show(2, &[(7, 100 * (second - 60))]);
        board.add_up(start + Duration::from_secs(second));
    }
    let hottest = board.sum().hottest(9, |rate| rate.operations);
    assert_eq!(hottest[0].slot, slot(7), "{hottest:?}");
    assert_eq!(board.sum().total().operations(), 9_000 + 600 + 2_200);
}

#[test]
fn where_no_key_is_hot_none_is_shown() {
    let now = Instant::now();
    let mut worker = shown(&[]);
    worker.keys.look_at_one_in(1);
    (0..200_000_u32).for_each(|number| worker.keys.hit(&(number % 5_000).to_be_bytes(), 1));
    let board = HeatBoard::default();
    board.shown.lock().unwrap().insert(0, worker.clone());
    board.add_up(now);
    assert_eq!(board.sum().by_operations.len(), 0);
    (0..10_000).for_each(|_| worker.keys.hit(b"hot", 1));
    board.shown.lock().unwrap().insert(0, worker);
    board.add_up(now + Duration::from_secs(1));
    let keys: Vec<Vec<u8>> = board
        .sum()
        .by_operations
        .iter()
        .map(|key| key.key.clone())
        .collect();
    assert_eq!(keys, [b"hot"]);
}

#[test]
fn the_first_seconds_are_not_taken_for_silence() {
    let start = Instant::now();
    let board = HeatBoard::default();
    board.add_up(start);
    board.shown.lock().unwrap().insert(0, shown(&[(5, 200)]));
    board.add_up(start + Duration::from_secs(2));
    let rate = board.sum().hottest(1, |rate| rate.operations)[0].rate;
    assert!((90.0..110.0).contains(&rate.operations), "{rate:?}");
}
