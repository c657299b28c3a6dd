//! The writer's part in indexes: when one is due, its build, and what becomes of a build that has failed.
//!
//! A build that has failed is recorded, and not begun again unless a client asks for it. So is one during which the
//! server has ended several times, since the build may be why.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, TryRecvError};

use super::ann_index::AnnIndex;
use super::build::{BuildFailure, FailureCause};
use super::index_builder::{BuildOrder, Built, IndexPlan, RunningBuild};
use super::metrics::SearchMetrics;
use super::query_watch::CommitEffects;
use super::running_work::CollectionWorkKind;
use super::segment_view::SegmentView;
use super::view::View;
use super::writer::{CollectionWriter, DEAD_SHARE};
use crate::error::{Error, Result};
use crate::storage::RowStore;
use crate::storage::collections::BuildRecord;

/// One row without index for so many with one is worth a new index.
const GROWTH_SHARE: usize = 5;
/// Builds that may begin, one after the other, without an end.
const ATTEMPTS_MAX: u32 = 3;

/// Numbers the drafts of indexes.
static BUILDS: AtomicU64 = AtomicU64::new(0);

/// What is known of earlier builds: how many have begun without an end, and why none is begun any more.
pub(super) fn recall(store: &RowStore, plan: Option<&IndexPlan>) -> (u32, Option<BuildFailure>) {
    let Some(record) =
        store.build_record().filter(|record| plan.is_some_and(|plan| plan.factory == record.factory))
    else {
        return (0, None);
    };
    let begun = record.attempts;
    let failure = match record.reason {
        reason if !reason.is_empty() => Some(BuildFailure::new(FailureCause::Recorded, reason)),
        _ if begun < ATTEMPTS_MAX => None,
        _ => {
            let reason = format!("the server ended during each of {begun} builds");
            Some(BuildFailure::new(FailureCause::Interrupted, reason))
        }
    };
    (begun, failure)
}

/// Says that an index is not built, where operators look.
pub(super) fn report(metrics: &SearchMetrics, collection: &str, failure: &BuildFailure) {
    metrics.index_errors.inc();
    metrics.index_failures.with(failure.cause).inc();
    tracing::warn!(
        collection,
        "an index is not built, and is not tried again until a snapshot is asked for; searches are exact, or use the \
         index before: {failure}"
    );
}

impl CollectionWriter {
    /// Whether an index is missing, or has become one of other rows than the collection's.
    pub(super) fn is_index_due(&self, view: &View) -> bool {
        let rows = view.documents();
        let Some(plan) = self.plan.as_ref().filter(|plan| rows > 0 && rows >= plan.spec.rows_min()) else {
            self.shared.work.end_build();
            return false;
        };
        if self.shared.work.is_building() {
            return true;
        }
        if rows < plan.rows_min || self.shared.index_error().is_some() {
            return false;
        }
        view.index.as_ref().is_none_or(|index| {
            let live: usize = view.parts[..index.parts()].iter().map(SegmentView::live_rows).sum();
            let (gone, fresh) = (index.rows() - live, rows - live);
            index.is_obsolete() || gone * DEAD_SHARE > index.rows() || fresh * GROWTH_SHARE > index.rows()
        })
    }

    /// Begins to build an index of all rows, on a thread of its own; the caller does not wait.
    pub(super) fn start_index(&mut self, view: &View) -> Result<()> {
        let Some(plan) = self.plan.clone() else { return Ok(()) };
        if view.delta_from() < view.parts.len() {
            self.seal(view)?;
        }
        let view = self.shared.view.load_full();
        let is_asked_for = self.shared.work.is_building();
        self.builds_begun = if is_asked_for { 1 } else { self.builds_begun + 1 };
        self.record_build(&plan, view.version, "")?;
        let draft = self.store.index_draft(BUILDS.fetch_add(1, Ordering::Relaxed));
        let parts = view.parts[..view.delta_from()].to_vec();
        let order = BuildOrder { plan, parts, version: view.version, draft: draft.clone() };
        let (done, built) = mpsc::sync_channel(1);
        let (shared, index_builder) = (Arc::clone(&self.shared), Arc::clone(&self.index_builder));
        let is_wanted =
            move || !shared.is_closed.load(Ordering::Acquire) && !shared.is_dropped.load(Ordering::Acquire);
        let build = move || {
            // The writer may have ended.
            let _ = done.send(index_builder.build(&order, is_wanted));
        };
        std::thread::Builder::new()
            .name("index".into())
            .spawn(build)
            .map_err(|error| Error::io("cannot start the thread that builds an index", error))?;
        self.shared.set_index_error(None);
        self.shared.work.begin_build(CollectionWorkKind::IndexBuild, view.documents());
        self.building = Some(RunningBuild { draft, built });
        Ok(())
    }

    /// Puts an index that has been built in its place.
    pub(super) fn take_built(&mut self) {
        let Some(building) = &self.building else { return };
        let built = match building.built.try_recv() {
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => {
                Err(BuildFailure::new(FailureCause::Crash, "the thread that waited for it has ended"))
            }
            Ok(built) => built,
        };
        let draft = building.draft.clone();
        self.building = None;
        let installed = built
            .and_then(|built| built.map_or(Ok(()), |built| self.install(built).map_err(BuildFailure::from)));
        if let Err(failure) = installed {
            draft.discard();
            self.give_up(&failure);
        }
        // Clients that wait for the index find it.
        self.shared.work.end_build();
    }

    fn install(&mut self, built: Built) -> Result<()> {
        let view = self.shared.view.load_full();
        let snapshot = self.store.keep_index(built.file, built.coverage)?;
        let index = AnnIndex::new(built.engine, snapshot, &view.parts, view.dim)?;
        self.metrics.index_builds.inc();
        self.publish(View { index: Some(index), ..View::clone(&view) }, &CommitEffects::default());
        self.forget_build();
        Ok(())
    }

    /// Records a failed build, so that it is not begun again, neither now nor by the next start.
    fn give_up(&mut self, failure: &BuildFailure) {
        let Some(plan) = self.plan.clone() else { return };
        report(&self.metrics, self.store.name(), failure);
        self.shared.set_index_error(Some(Arc::clone(&failure.reason)));
        if failure.cause == FailureCause::World {
            return self.forget_build();
        }
        let version = self.shared.view.load().version;
        if let Err(error) = self.record_build(&plan, version, &failure.reason) {
            tracing::warn!(%error, "a build that failed cannot be recorded: the next start tries it again");
        }
    }

    fn record_build(&mut self, plan: &IndexPlan, version: u64, reason: &str) -> Result<()> {
        let (factory, reason) = (plan.factory.clone(), reason.to_owned());
        self.store.record_build(&BuildRecord { factory, version, attempts: self.builds_begun, reason })
    }

    /// Forgets the builds that have begun: the last one has ended well, or for a reason that says nothing about it.
    pub(super) fn forget_build(&mut self) {
        self.builds_begun = 0;
        if let Err(error) = self.store.forget_build() {
            tracing::warn!(%error, "the record of a build cannot be removed");
        }
    }
}
