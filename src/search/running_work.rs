//! What the writer of a collection does beside changes, for clients to see: the build of its index, and a compaction.

use std::sync::Mutex;

use crate::domain::{Clock as _, SystemClock, UnixSeconds};
use crate::sync::lock;

/// What a collection's writer does beside changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CollectionWorkKind {
    /// Builds the index, because it is due.
    IndexBuild,
    /// Builds the index and keeps it on disk, because a client has asked for a snapshot.
    Snapshot,
    /// Rewrites segments without their dead rows.
    Compaction,
}

/// Work of a collection that is under way, or will be next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectionWork {
    /// What is done.
    pub kind: CollectionWorkKind,
    /// When it began, or was asked for.
    pub begun_at: UnixSeconds,
    /// Rows that are done, as far as that is known while it runs.
    pub done: u64,
    /// Rows that it is about: those to index, or the dead ones to remove.
    pub total: u64,
}

/// The work of one collection: a build at most, and a compaction at most.
#[derive(Debug, Default)]
pub(super) struct RunningWork {
    build: Mutex<Option<CollectionWork>>,
    compaction: Mutex<Option<CollectionWork>>,
}

impl RunningWork {
    /// A build begins, or was asked for. One that is under way goes on.
    pub(super) fn begin_build(&self, kind: CollectionWorkKind, rows: usize) {
        lock(&self.build).get_or_insert_with(|| CollectionWork::begun(kind, rows as u64));
    }

    /// No build is under way or asked for any more.
    pub(super) fn end_build(&self) {
        *lock(&self.build) = None;
    }

    /// Whether a build is under way, or will be next.
    pub(super) fn is_building(&self) -> bool {
        lock(&self.build).is_some()
    }

    /// A compaction has so many dead rows left; `None` if there is none.
    pub(super) fn set_compaction(&self, dead_rows: Option<usize>) {
        let mut compaction = lock(&self.compaction);
        *compaction = dead_rows.map(|left| {
            let left = left as u64;
            let begun =
                compaction.unwrap_or_else(|| CollectionWork::begun(CollectionWorkKind::Compaction, left));
            // Rows die while it runs.
            let total = begun.total.max(begun.done + left);
            CollectionWork { done: total - left, total, ..begun }
        });
    }

    /// What is under way.
    pub(super) fn list(&self) -> Vec<CollectionWork> {
        lock(&self.build).iter().chain(lock(&self.compaction).iter()).copied().collect()
    }
}

impl CollectionWork {
    fn begun(kind: CollectionWorkKind, total: u64) -> CollectionWork {
        CollectionWork { kind, begun_at: SystemClock.now(), done: 0, total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_listed_as_what_it_began_as() {
        let work = RunningWork::default();
        assert!(work.list().is_empty() && !work.is_building());
        work.begin_build(CollectionWorkKind::Snapshot, 7);
        work.begin_build(CollectionWorkKind::IndexBuild, 9);
        assert!(work.is_building());
        let [build] = work.list()[..] else { panic!("one is under way") };
        assert_eq!((build.kind, build.done, build.total), (CollectionWorkKind::Snapshot, 0, 7));
        work.end_build();
        assert!(work.list().is_empty() && !work.is_building());
    }

    #[test]
    fn a_compaction_is_done_as_far_as_dead_rows_are_gone() {
        let work = RunningWork::default();
        let progress = |left| {
            work.set_compaction(Some(left));
            let [compaction] = work.list()[..] else { panic!("one is under way") };
            (compaction.done, compaction.total)
        };
        assert_eq!([progress(100), progress(60), progress(80)], [(0, 100), (40, 100), (40, 120)]);
        assert_eq!(progress(0), (120, 120));
        work.set_compaction(None);
        assert!(work.list().is_empty());
    }
}
