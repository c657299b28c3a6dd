//! The judge on histories made by hand, one for each violation, and on random histories of caches that are right or wrong.

use super::history::{Change, History, Key, Micros, Node, Outcome, Read, Seen, Version, Write};
use super::judge::Verdicts;
use crate::random_load::Random;

const SUSPECT_AFTER: Micros = 1_000;

fn write(node: Node, (start, end): (Micros, Micros), change: Change) -> Write {
    Write { key: 1, change, node, start, end, outcome: Outcome::Propagated }
}

fn put(node: Node, time: (Micros, Micros), version: Version) -> Write {
    write(node, time, Change::Put(version))
}

fn set(node: Node, time: (Micros, Micros), from: Version, to: Version) -> Write {
    write(node, time, Change::CompareAndSet { from, to })
}

fn read(node: Node, (start, end): (Micros, Micros), version: Version) -> Read {
    Read { key: 1, node, start, end, seen: Seen::Value(version), is_flagged: false }
}

fn judge(writes: &[Write], reads: &[Read]) -> Verdicts {
    let history = History { writes: writes.to_vec(), reads: reads.to_vec(), last: Vec::new() };
    Verdicts::of(&history, SUSPECT_AFTER)
}

/// Everything that the gate counts, but the share of stale reads.
fn violations(verdicts: &Verdicts) -> [u64; 6] {
    [
        verdicts.stale_late,
        verdicts.went_back,
        verdicts.own_write_missed,
        verdicts.lost_sets,
        verdicts.foreign,
        verdicts.diverged,
    ]
}

#[test]
fn a_replaced_value_is_stale_from_the_acknowledgement_on() {
    let writes = [put(0, (0, 10), 1), put(0, (20, 30), 2)];
    let reads = [read(1, (25, 40), 1), read(1, (31, 40), 1), read(1, (50, 60), 2), read(1, (930, 940), 1)];
    let found = judge(&writes, &reads[..3]);
    assert_eq!((found.stale.as_slice(), found.hits), ([1].as_slice(), 3));
    assert_eq!(violations(&found), [0; 6]);
    assert_eq!(judge(&writes, &reads[3..]).stale, [900]);
}

#[test]
fn staleness_is_counted_from_the_first_write_that_replaced_the_value() {
    let writes = [put(0, (0, 10), 1), put(0, (20, 30), 2), put(0, (1_500, 1_600), 3)];
    let found = judge(&writes, &[read(1, (1_700, 1_800), 1)]);
    assert_eq!((found.stale.as_slice(), found.stale_late), ([1_670].as_slice(), 1));
}

#[test]
fn a_flagged_value_is_counted_apart() {
    let writes = [put(0, (0, 10), 1), put(0, (20, 30), 2)];
    let flagged = |version| Read { is_flagged: true, ..read(0, (5_000, 5_001), version) };
    let found = judge(&writes, &[flagged(1), flagged(2)]);
    assert_eq!((found.flagged, found.flagged_stale, found.stale.len()), (2, 1, 0));
    assert_eq!(violations(&found), [0; 6]);
}

#[test]
fn a_deleted_or_invalidated_value_is_stale() {
    for change in [Change::Delete, Change::Invalidate] {
        let writes = [put(0, (0, 10), 1), write(0, (20, 30), change)];
        assert_eq!(judge(&writes, &[read(1, (31, 32), 1)]).stale, [1], "{change:?}");
        assert_eq!(judge(&writes, &[read(1, (2_000, 2_001), 1)]).stale_late, 1, "{change:?}");
        let again = [&writes[..], &[put(1, (40, 50), 2)]].concat();
        assert!(judge(&again, &[read(1, (2_000, 2_001), 2)]).stale.is_empty(), "{change:?}");
    }
}

#[test]
fn concurrent_writes_have_no_order() {
    let writes = [put(0, (0, 20), 1), put(1, (10, 30), 2), write(2, (5, 15), Change::Delete)];
    let reads = [1, 2, 1].map(|version| read(0, (5_000, 5_001), version));
    assert_eq!(violations(&judge(&writes, &reads)), [0; 6]);
}

#[test]
fn a_write_that_is_pending_or_refused_makes_no_value_of_other_nodes_stale() {
    for outcome in [Outcome::Pending, Outcome::Refused, Outcome::Unknown] {
        let writes = [put(0, (0, 10), 1), Write { outcome, ..put(0, (20, 30), 2) }];
        let found = judge(&writes, &[read(1, (5_000, 5_001), 1)]);
        assert_eq!((found.stale.len(), violations(&found)), (0, [0; 6]), "{outcome:?}");
    }
}

#[test]
fn a_write_without_an_answer_may_take_effect_late() {
    let writes = [Write { outcome: Outcome::Unknown, ..put(0, (0, 10), 1) }, put(0, (20, 30), 2)];
    let reads = [read(1, (40, 50), 2), read(1, (5_000, 5_001), 1), read(0, (5_000, 5_001), 1)];
    let found = judge(&writes, &reads);
    assert_eq!((found.stale.len(), violations(&found)), (0, [0; 6]));
}

#[test]
fn a_node_that_goes_back_is_found() {
    let writes = [put(0, (0, 10), 1), put(0, (20, 30), 2)];
    let back = [read(1, (25, 26), 2), read(1, (27, 28), 1)];
    assert_eq!(violations(&judge(&writes, &back)), [0, 1, 0, 0, 0, 0]);
    let overlapping = [read(1, (25, 27), 2), read(1, (26, 28), 1)];
    assert_eq!(violations(&judge(&writes, &overlapping)), [0; 6]);
    let of_two_nodes = [read(1, (25, 26), 2), read(2, (27, 28), 1)];
    assert_eq!(violations(&judge(&writes, &of_two_nodes)), [0; 6]);
    let between = [read(1, (22, 23), 1), read(1, (25, 26), 2), read(1, (27, 28), 2)];
    assert_eq!(violations(&judge(&writes, &between)), [0; 6]);
}

#[test]
fn a_node_that_misses_its_own_write_is_found_although_it_is_pending() {
    for outcome in [Outcome::Propagated, Outcome::Pending] {
        for change in [Change::Put(2), Change::Delete, Change::Invalidate] {
            let writes = [put(0, (0, 10), 1), Write { outcome, ..write(1, (20, 30), change) }];
            let found = judge(&writes, &[read(1, (31, 32), 1)]);
            assert_eq!(violations(&found), [0, 0, 1, 0, 0, 0], "{outcome:?} {change:?}");
            assert_eq!(judge(&writes, &[read(2, (31, 32), 1)]).own_write_missed, 0);
            assert_eq!(judge(&writes, &[read(1, (29, 32), 1)]).own_write_missed, 0);
        }
    }
}

#[test]
fn lost_compare_and_sets_are_found() {
    let first = put(0, (0, 10), 1);
    let twice = [first, set(1, (20, 30), 1, 2), set(2, (22, 32), 1, 3)];
    assert_eq!(violations(&judge(&twice, &[])), [0, 0, 0, 1, 0, 0]);
    let late = [first, put(1, (20, 30), 2), set(2, (40, 50), 1, 3)];
    assert_eq!(violations(&judge(&late, &[])), [0, 0, 0, 1, 0, 0]);
    let concurrent = [first, put(1, (20, 45), 2), set(2, (40, 50), 1, 3)];
    assert_eq!(violations(&judge(&concurrent, &[])), [0; 6]);
    let refused = [first, set(1, (20, 30), 1, 2), Write { outcome: Outcome::Refused, ..twice[2] }];
    assert_eq!(violations(&judge(&refused, &[])), [0; 6]);
    let invalidated = [first, write(1, (20, 30), Change::Invalidate), set(2, (40, 50), 1, 3)];
    assert_eq!(violations(&judge(&invalidated, &[])), [0; 6], "its value is hidden, too");
    let chain = [first, set(1, (20, 30), 1, 2), set(2, (40, 50), 2, 3)];
    assert_eq!(violations(&judge(&chain, &[])), [0; 6]);
}

#[test]
fn values_from_nowhere_are_found() {
    let refused = Write { outcome: Outcome::Refused, ..put(0, (20, 30), 2) };
    let foreign = Read { seen: Seen::Foreign, ..read(0, (40, 50), 0) };
    let reads = [read(0, (40, 50), 7), read(0, (40, 50), 2), foreign];
    assert_eq!(violations(&judge(&[put(0, (0, 10), 1), refused], &reads)), [0, 0, 0, 0, 3, 0]);
}

#[test]
fn nodes_that_do_not_agree_at_the_end_are_found() {
    let last = |answers: [Seen; 3]| {
        let at = |(node, seen)| Read { seen, ..read(node, (40, 50), 0) };
        let last = answers.into_iter().enumerate().map(at).collect();
        Verdicts::of(&History { last, ..History::default() }, SUSPECT_AFTER).diverged
    };
    let (one, two) = (Seen::Value(1), Seen::Value(2));
    assert_eq!(last([one, one, one]), 0);
    assert_eq!(last([one, Seen::Miss, one]), 0);
    assert_eq!(last([Seen::Miss; 3]), 0);
    assert_eq!(last([Seen::Miss, one, two]), 1);
    assert_eq!(last([one, one, Seen::Failed]), 1);
    assert_eq!(last([Seen::Failed, Seen::Miss, Seen::Miss]), 1);
}

#[test]
fn misses_and_failures_are_counted_and_are_no_violations() {
    let writes = [put(0, (0, 10), 1)];
    let reads = [Seen::Miss, Seen::Failed].map(|seen| Read { seen, ..read(0, (40, 50), 0) });
    let found = judge(&writes, &reads);
    assert_eq!((found.reads, found.hits, found.failed_reads), (2, 0, 1));
    assert_eq!(violations(&found), [0; 6]);
}

/// What is wrong with the caches of a random history.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    Nothing,
    /// A node forgets at times what it knew and sees an older value.
    Forgetful,
    /// Nodes do not hear of writes at all.
    Deaf,
    /// Compare-and-set does not compare.
    SetsBlindly,
}

const NODES: usize = 3;
const KEYS: Key = 4;

/// Three caches that see each write of the others within `lag_max`, and their own at once. Operations take effect at a moment
/// between their start and their end.
fn random_history(seed: u64, lag_max: u64, bug: Bug) -> History {
    let mut random = Random::new(seed);
    let (mut history, mut now, mut version) = (History::default(), 0, 0);
    // Each key's values and the moments of their writes; a value may be none.
    let mut truth = vec![vec![(0, NODES, None::<Version>)]; KEYS as usize];
    let mut known = vec![vec![0; KEYS as usize]; NODES];
    for _ in 0..400 {
        now += 1 + random.next() % 40;
        let (key, node) = (random.below(KEYS as usize), random.below(NODES));
        let time = (now - random.next() % 30_u64.min(now), now + random.next() % 30);
        let values = &mut truth[key];
        let current = values.last().and_then(|(_, _, value)| *value);
        let seen = seen_by(values, node, now.saturating_sub(random.next() % (lag_max + 1)), bug);
        let seen = if bug == Bug::Forgetful { seen } else { seen.max(known[node][key]) };
        known[node][key] = seen;
        let (key, value) = (key as Key, values[seen].2);
        if random.below(3) > 0 {
            let seen = value.map_or(Seen::Miss, Seen::Value);
            history.reads.push(Read { key, seen, ..read(node, time, 0) });
            continue;
        }
        version += 1;
        let change = match (random.below(5), value) {
            (0, _) => Change::Delete,
            (1, _) => Change::Invalidate,
            (2, Some(from)) => Change::CompareAndSet { from, to: version },
            _ => Change::Put(version),
        };
        let is_refused = matches!(change, Change::CompareAndSet { from, .. } if Some(from) != current)
            && bug != Bug::SetsBlindly;
        let outcome = if is_refused { Outcome::Refused } else { Outcome::Propagated };
        history.writes.push(Write { key, outcome, ..write(node, time, change) });
        if !is_refused {
            values.push((now, node, change.version()));
        }
    }
    history
}

/// The place of the newest value that a node has heard of.
fn seen_by(values: &[(Micros, Node, Option<Version>)], node: Node, horizon: Micros, bug: Bug) -> usize {
    let is_known = |writer: Node, at: Micros| writer == node || (bug != Bug::Deaf && at <= horizon);
    values.iter().rposition(|(at, writer, _)| *writer == NODES || is_known(*writer, *at)).unwrap()
}

#[test]
fn caches_that_are_right_have_no_violations() {
    for seed in 0..300 {
        let at_once = Verdicts::of(&random_history(seed, 0, Bug::Nothing), SUSPECT_AFTER);
        assert_eq!((at_once.stale.len(), violations(&at_once)), (0, [0; 6]), "{seed}: {at_once:?}");
        let lagging = Verdicts::of(&random_history(seed, SUSPECT_AFTER / 2, Bug::Nothing), SUSPECT_AFTER);
        assert_eq!(violations(&lagging), [0; 6], "{seed}: {lagging:?}");
        assert!(!lagging.stale.is_empty() && at_once.hits > 50, "{seed}: {lagging:?}");
        assert!(lagging.stale.iter().all(|age| *age <= SUSPECT_AFTER / 2), "{seed}: {lagging:?}");
    }
}

#[test]
fn caches_with_a_bug_have_its_violations() {
    let count = |bug, lag, place: usize| {
        let found = |seed| violations(&Verdicts::of(&random_history(seed, lag, bug), SUSPECT_AFTER))[place];
        (0..50).filter(|seed| found(*seed) > 0).count()
    };
    assert_eq!(count(Bug::Deaf, 0, 0), 50, "stale after the suspicion time");
    let forgetful = count(Bug::Forgetful, SUSPECT_AFTER / 2, 1);
    assert!(forgetful > 40, "reads go back in {forgetful} of 50");
    assert_eq!(count(Bug::SetsBlindly, SUSPECT_AFTER / 2, 3), 50, "lost sets");
}
