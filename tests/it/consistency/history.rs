//! What the clients of a run did and saw.

use std::time::Instant;

/// A value that no other write of the run has.
pub(super) type Version = u64;
pub(super) type Key = u32;
pub(super) type Node = usize;
/// Microseconds since the start of the run, by the monotonic clock of the process that tests.
pub(super) type Micros = u64;

/// What a write does to a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Change {
    Put(Version),
    /// Replaces the value of `from`, by its tag.
    CompareAndSet {
        from: Version,
        to: Version,
    },
    Delete,
    /// By a tag that the key carries.
    Invalidate,
}

impl Change {
    pub(super) fn version(self) -> Option<Version> {
        match self {
            Change::Put(version) | Change::CompareAndSet { to: version, .. } => Some(version),
            Change::Delete | Change::Invalidate => None,
        }
    }
}

/// What the node said to a write.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Outcome {
    /// All nodes will see it: Redis has it.
    Propagated,
    /// The node has it and will pass it on.
    Pending,
    /// It was not done.
    Refused,
    /// The client does not know whether it was done, or will be.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Write {
    pub(super) key: Key,
    pub(super) change: Change,
    pub(super) node: Node,
    pub(super) start: Micros,
    pub(super) end: Micros,
    pub(super) outcome: Outcome,
}

impl Write {
    pub(super) fn is_acknowledged(&self) -> bool {
        matches!(self.outcome, Outcome::Propagated | Outcome::Pending)
    }

    /// From when on a write that begins is known to be a later one.
    pub(super) fn done(&self) -> Micros {
        if self.is_acknowledged() { self.end } else { Micros::MAX }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Seen {
    Value(Version),
    /// A value that is not one of the key's.
    Foreign,
    Miss,
    /// No answer, or an error.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Read {
    pub(super) key: Key,
    pub(super) node: Node,
    pub(super) start: Micros,
    pub(super) end: Micros,
    pub(super) seen: Seen,
    /// Whether the response said that its value may be an old one.
    pub(super) is_flagged: bool,
}

impl Read {
    pub(super) fn version(&self) -> Option<Version> {
        match self.seen {
            Seen::Value(version) => Some(version),
            Seen::Foreign | Seen::Miss | Seen::Failed => None,
        }
    }
}

/// The records of a run, in no order.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    pub(super) writes: Vec<Write>,
    pub(super) reads: Vec<Read>,
    /// What each node answered for each key after the faults had ended.
    pub(super) last: Vec<Read>,
}

/// The clock of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunClock(Instant);

impl RunClock {
    pub(super) fn start() -> RunClock {
        RunClock(Instant::now())
    }

    pub(super) fn now(self) -> Micros {
        u64::try_from(self.0.elapsed().as_micros()).expect("a run ends within 500,000 years")
    }
}
