//! The checker itself: what it lets pass, and what it never does.

use super::*;

fn fault(finding: Finding) -> Option<Fault> {
    finding.err().map(|wrong| wrong.fault)
}

fn log_with(acked: u64) -> Log {
    let mut log = Log::new("c1:l0".to_owned());
    for len in 1..=acked {
        let seq = log.next();
        assert_eq!(log.added(seq, i64::try_from(len).unwrap(), false), Ok(0));
    }
    log
}

fn contents(seqs: &[u64]) -> Vec<String> {
    seqs.iter().map(|seq| value("c1:l0:0", *seq)).collect()
}

fn read(log: &mut Log, seqs: &[u64], lossy: bool) -> Finding {
    let contents = contents(seqs);
    log.read(
        &contents.iter().map(String::as_str).collect::<Vec<_>>(),
        lossy,
    )
}

#[test]
fn a_register_holds_what_was_written_last() {
    let mut register = Register::new("c1:r0".to_owned());
    let (first, second) = (register.next(), register.next());
    register.wrote(Some(first));
    register.wrote(Some(second));
    let [old, new] = [first, second].map(|seq| value("c1:r0", seq));
    assert_eq!(register.read(Some(&new), false), Ok(0));
    assert_eq!(fault(register.read(Some(&old), false)), Some(Fault::Order));
    register.wrote(Some(second));
    assert_eq!(
        register.read(Some(&old), true),
        Ok(1),
        "a failover lost the second"
    );
    register.wrote(Some(second));
    assert_eq!(fault(register.read(None, false)), Some(Fault::Order));
    assert_eq!(
        fault(register.read(Some("c2:r0#00000001"), true)),
        Some(Fault::Swapped)
    );
    assert_eq!(
        fault(register.read(Some(&value("c1:r0", 3)), true)),
        Some(Fault::Swapped)
    );
}

#[test]
fn an_unknown_outcome_leaves_two_states_and_a_read_one() {
    let mut register = Register::new("c1:r0".to_owned());
    let (first, second) = (register.next(), register.next());
    register.wrote(Some(first));
    register.unsure(Some(second));
    assert_eq!(register.exists(), Some(true));
    assert_eq!(register.read(Some(&value("c1:r0", first)), false), Ok(0));
    let late = register.read(Some(&value("c1:r0", second)), false);
    assert_eq!(fault(late), Some(Fault::Order), "it was read as not done");
}

#[test]
fn a_refused_write_must_not_be_there() {
    let mut register = Register::new("c1:r0".to_owned());
    let seq = register.next();
    register.refused(Some(seq));
    let got = register.read(Some(&value("c1:r0", seq)), true);
    assert_eq!(fault(got), Some(Fault::Refused));
    let mut log = log_with(2);
    let seq = log.next();
    log.refused(seq);
    assert_eq!(
        fault(read(&mut log, &[1, 2, 3], true)),
        Some(Fault::Refused)
    );
}

#[test]
fn a_counter_counts_every_write_once() {
    let mut counter = Counter::new("c1:n0".to_owned());
    assert_eq!(counter.read(1, 1, false), Ok(0));
    counter.unsure();
    assert_eq!(counter.read(3, 1, false), Ok(0), "the unknown one was done");
    counter.unsure();
    assert_eq!(counter.read(4, 1, false), Ok(0), "the unknown one was not");
    assert_eq!(fault(counter.read(6, 1, false)), Some(Fault::Twice));
    assert_eq!(fault(counter.read(6, 1, false)), Some(Fault::Order));
    assert_eq!(
        counter.read(4, 1, true),
        Ok(3),
        "three were lost in a failover"
    );
}

#[test]
fn a_log_shows_every_write_in_its_place() {
    assert_eq!(read(&mut log_with(3), &[1, 2, 3], false), Ok(0));
    let faults = [
        (&[1, 2, 2, 3][..], Fault::Twice),
        (&[1, 3, 2], Fault::Order),
        (&[1, 2], Fault::Lost),
        (&[1, 2, 3, 4], Fault::Swapped),
    ];
    for (seqs, expected) in faults {
        assert_eq!(
            fault(read(&mut log_with(3), seqs, false)),
            Some(expected),
            "{seqs:?}"
        );
    }
    assert_eq!(
        fault(log_with(3).read(&["c2:l0:0#00000001"], true)),
        Some(Fault::Swapped)
    );
}

#[test]
fn lengths_tell_what_became_of_unknown_writes() {
    let mut log = log_with(2);
    let open = log.next();
    log.unsure(open);
    let next = log.next();
    assert_eq!(log.added(next, 3, false), Ok(0));
    assert_eq!(
        fault(read(&mut log, &[1, 2, 3, 4], false)),
        Some(Fault::Order),
        "it was not there, by the length"
    );
    let mut log = log_with(2);
    let (open, next) = (log.next(), log.next());
    log.unsure(open);
    assert_eq!(log.added(next, 4, false), Ok(0));
    assert_eq!(read(&mut log, &[1, 2, 3, 4], false), Ok(0));
    assert_eq!(fault(log.added(5, 6, false)), Some(Fault::Twice));
    assert_eq!(fault(log.added(6, 3, false)), Some(Fault::Lost));
}

#[test]
fn a_failover_loses_the_end_of_what_was_there_and_nothing_else() {
    let mut log = log_with(4);
    let next = log.next();
    assert_eq!(log.added(next, 3, true), Ok(0), "two were lost");
    assert_eq!(read(&mut log, &[1, 2, 5], true), Ok(2));
    assert_eq!(fault(read(&mut log_with(4), &[1, 2, 4], true)), None);
    assert_eq!(
        fault(read(&mut log_with(4), &[2, 4], true)),
        Some(Fault::Lost)
    );
}
