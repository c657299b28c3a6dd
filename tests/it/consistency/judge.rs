//! Finds in the records of a run what no cache may do. It knows nothing of the server.
//!
//! Only order that is certain counts: a write comes before another if it was acknowledged before the other began. A write
//! without an answer may take effect at any later time, so it comes before none. Concurrent writes have no order, and either
//! value is right.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Change, History, Key, Micros, Node, Outcome, Read, Seen, Version, Write};

/// What the judge found.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Verdicts {
    pub(super) reads: u64,
    pub(super) hits: u64,
    pub(super) failed_reads: u64,
    /// How long unflagged values had been replaced, deleted or invalidated when they were asked for, in ascending order.
    pub(super) stale: Vec<Micros>,
    pub(super) flagged: u64,
    pub(super) flagged_stale: u64,
    /// Unflagged stale values that were served after the suspicion time.
    pub(super) stale_late: u64,
    /// Reads of a node that went back behind what it had served before.
    pub(super) went_back: u64,
    /// Reads of a node that did not see what the same node had acknowledged.
    pub(super) own_write_missed: u64,
    /// Compare-and-sets that succeeded although the value had been replaced before.
    pub(super) lost_sets: u64,
    /// Values that were never written to their key, or whose write was refused.
    pub(super) foreign: u64,
    /// Keys for which the nodes answered differently at the end.
    pub(super) diverged: u64,
    /// The first violations, for people.
    pub(super) examples: Vec<String>,
}

/// Violations that are shown of each kind.
const EXAMPLES_MAX: u64 = 3;
/// Writes that are shown with one.
const SHOWN_MAX: usize = 8;

impl Verdicts {
    pub(super) fn of(history: &History, suspect_after: Micros) -> Verdicts {
        let mut verdicts = Verdicts::default();
        let by_key = by_key(history);
        for (writes, reads) in by_key.values() {
            let order = Order::of(writes);
            reads.iter().for_each(|read| verdicts.judge(read, &order, suspect_after));
            verdicts.judge_monotonic(reads, &order);
            verdicts.judge_sets(writes, &order);
        }
        verdicts.judge_last(history);
        verdicts.stale.sort_unstable();
        verdicts
    }

    fn judge(&mut self, read: &Read, order: &Order, suspect_after: Micros) {
        self.reads += 1;
        match read.seen {
            Seen::Value(version) => self.judge_value(read, version, order, suspect_after),
            Seen::Foreign => self.violation(|v| &mut v.foreign, "not a value of the key", &[read]),
            Seen::Miss => {}
            Seen::Failed => self.failed_reads += 1,
        }
    }

    fn judge_value(&mut self, read: &Read, version: Version, order: &Order, suspect_after: Micros) {
        self.hits += 1;
        let Some(write) = order.written.get(&version).filter(|write| write.outcome != Outcome::Refused)
        else {
            return self.violation(|v| &mut v.foreign, "never written, or refused", &[read]);
        };
        let stale_since = order.known_to_all.first_after(write.done()).filter(|since| *since < read.start);
        self.flagged += u64::from(read.is_flagged);
        if read.is_flagged {
            self.flagged_stale += u64::from(stale_since.is_some());
            return;
        }
        if let Some(since) = stale_since {
            self.stale.push(read.start - since);
            if read.start - since > suspect_after {
                let records = order.around(write, read);
                self.violation(|v| &mut v.stale_late, "stale after the suspicion time", &records);
            }
        }
        let own = order.known_to.get(&read.node);
        if own.is_some_and(|own| own.first_after(write.done()).is_some_and(|since| since < read.start)) {
            let records = order.around(write, read);
            self.violation(|v| &mut v.own_write_missed, "the node's own write is missing", &records);
        }
    }

    /// `reads` are those of one key.
    fn judge_monotonic(&mut self, reads: &[Read], order: &Order) {
        for node in reads.iter().map(|read| read.node).collect::<BTreeSet<_>>() {
            let own = || reads.iter().filter(move |read| read.node == node && read.version().is_some());
            let (mut by_start, mut by_end) = (Vec::from_iter(own()), Vec::from_iter(own()));
            by_start.sort_by_key(|read| read.start);
            by_end.sort_by_key(|read| read.end);
            let mut ended = by_end.into_iter().peekable();
            // The read before whose value was written last.
            let mut newest: Option<(Micros, &Read)> = None;
            let written = |read: &Read| read.version().and_then(|version| order.written.get(&version));
            for read in by_start {
                while let Some(before) = ended.next_if(|before| before.end <= read.start) {
                    let start = written(before).map_or(0, |write| write.start);
                    newest = newest.filter(|(newest, _)| *newest >= start).or(Some((start, before)));
                }
                let Some(write) = written(read).filter(|_| !read.is_flagged) else { continue };
                if let Some((_, before)) = newest.filter(|(start, _)| write.done() < *start) {
                    self.violation(|v| &mut v.went_back, "older than what was read before", &[before, read]);
                }
            }
        }
    }

    /// `writes` are those of one key.
    fn judge_sets(&mut self, writes: &[Write], order: &Order) {
        let mut replaced = BTreeMap::new();
        for write in writes.iter().filter(|write| write.is_acknowledged()) {
            let Change::CompareAndSet { from, .. } = write.change else { continue };
            if let Some(other) = replaced.insert(from, *write) {
                self.violation(|v| &mut v.lost_sets, "two sets replaced one value", &[&other, write]);
                continue;
            }
            let done = order.written.get(&from).map_or(Micros::MAX, Write::done);
            let since = order.replaced.first_after(done);
            if since.is_some_and(|since| since < write.start) {
                self.violation(|v| &mut v.lost_sets, "the value had been replaced", &[write]);
            }
        }
    }

    fn judge_last(&mut self, history: &History) {
        let mut by_key: BTreeMap<Key, Vec<&Read>> = BTreeMap::new();
        history.last.iter().for_each(|read| by_key.entry(read.key).or_default().push(read));
        for reads in by_key.values() {
            let mut answers = reads.iter().map(|read| read.seen).filter(|seen| *seen != Seen::Miss);
            let first = answers.next();
            if first == Some(Seen::Failed) || answers.any(|seen| Some(seen) != first) {
                let writes = history.writes.iter().filter(|write| write.key == reads[0].key);
                let shown = reads.iter().map(|read| format!("{read:?}"));
                let records = shown.chain(writes.rev().take(SHOWN_MAX).map(|write| format!("{write:?}")));
                self.violation(|v| &mut v.diverged, "the nodes do not agree", &Vec::from_iter(records));
            }
        }
    }

    fn violation<T: std::fmt::Debug>(
        &mut self,
        count: impl Fn(&mut Verdicts) -> &mut u64,
        what: &str,
        records: &[T],
    ) {
        let found = count(self);
        *found += 1;
        if *found <= EXAMPLES_MAX {
            self.examples.push(format!("{what}: {records:?}"));
        }
    }
}

fn by_key(history: &History) -> BTreeMap<Key, (Vec<Write>, Vec<Read>)> {
    let mut by_key: BTreeMap<Key, (Vec<Write>, Vec<Read>)> = BTreeMap::new();
    for write in &history.writes {
        by_key.entry(write.key).or_default().0.push(*write);
    }
    for read in &history.reads {
        by_key.entry(read.key).or_default().1.push(*read);
    }
    by_key
}

/// The writes of one key.
struct Order {
    writes: Vec<Write>,
    written: BTreeMap<Version, Write>,
    known_to_all: Ends,
    /// The same without invalidations: what is stored under a token of before is hidden by it, too.
    replaced: Ends,
    /// What each node has acknowledged itself, also what it has not passed on.
    known_to: BTreeMap<Node, Ends>,
}

impl Order {
    fn of(writes: &[Write]) -> Order {
        let written = |write: &Write| Some((write.change.version()?, *write));
        let nodes: BTreeSet<_> = writes.iter().map(|write| write.node).collect();
        let of_node = |node| Ends::of(writes, |write| write.node == node && write.is_acknowledged());
        Order {
            writes: writes.to_vec(),
            written: writes.iter().filter_map(written).collect(),
            known_to_all: Ends::of(writes, |write| write.outcome == Outcome::Propagated),
            replaced: Ends::of(writes, |write| {
                write.outcome == Outcome::Propagated && write.change != Change::Invalidate
            }),
            known_to: nodes.into_iter().map(|node| (node, of_node(node))).collect(),
        }
    }

    /// A read, and the writes between that of its value and it, for people.
    fn around(&self, value: &Write, read: &Read) -> Vec<String> {
        let is_between = |write: &&Write| write.end >= value.end && write.start < read.start;
        let mut between = Vec::from_iter(self.writes.iter().filter(is_between));
        between.sort_by_key(|write| write.start);
        let shown = between.iter().take(SHOWN_MAX).map(|write| format!("{write:?}"));
        std::iter::once(format!("{read:?}")).chain(shown).collect()
    }
}

/// For each start of a write the first end of it and of those that start later, in order.
struct Ends(Vec<(Micros, Micros)>);

impl Ends {
    fn of(writes: &[Write], counts: impl Fn(&Write) -> bool) -> Ends {
        let mut ends: Vec<_> =
            writes.iter().filter(|write| counts(write)).map(|write| (write.start, write.end)).collect();
        ends.sort_unstable();
        let mut first = Micros::MAX;
        for (_, end) in ends.iter_mut().rev() {
            first = first.min(*end);
            *end = first;
        }
        Ends(ends)
    }

    /// When the first write that began after `time` was acknowledged.
    fn first_after(&self, time: Micros) -> Option<Micros> {
        let place = self.0.partition_point(|(start, _)| *start <= time);
        self.0.get(place).map(|(_, end)| *end)
    }
}
