//! The writer of a collection: one thread, one log, one view after the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::ann_index::AnnIndex;
use super::change::{Change, Receipt, apply};
use super::index_builder::{IndexBuilder, IndexPlan, RunningBuild};
use super::metrics::SearchMetrics;
use super::query_watch::{CommitEffects, QueryWatch};
use super::record::{self, Op};
use super::running_work::RunningWork;
use super::segment_view::SegmentView;
use super::view::View;
use crate::error::Result;
use crate::storage::RowStore;
use crate::storage::collections::{Listing, LogFate, Row};
use crate::sync::lock;

/// Changes that share a flush.
const GROUP_MAX: usize = 256;
/// Bytes of the rows of a group: it ends with the change that reaches them, and the next changes make the next group. A patch makes a
/// row of the whole document, so that the sizes of changes do not bound this.
const GROUP_BYTES_MAX: usize = 64 << 20;
/// Rows of a segment, whatever their length.
const SEGMENT_ROWS_MAX: usize = 1 << 20;
/// One dead row in so many rows is worth a compaction, and a new index.
pub(super) const DEAD_SHARE: usize = 5;

/// When the log becomes a segment, and when segments are compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompactionOptions {
    /// Rows in log and memory become a segment past so many bytes; also the bytes of vectors in a segment.
    pub segment_bytes: usize,
    /// So many dead rows are worth a compaction while there are writes, if they are a fifth of all; fewer wait until
    /// there are none.
    pub dead_rows_busy: usize,
    /// How long no change has come when there is time for what can wait.
    pub idle_ms: u64,
}

impl Default for CompactionOptions {
    fn default() -> CompactionOptions {
        CompactionOptions { segment_bytes: 32 << 20, dead_rows_busy: 4096, idle_ms: 1000 }
    }
}

/// A change on its way to the writer.
pub(super) enum WriterCommand {
    Change {
        change: Change,
        reply: oneshot::Sender<Result<Receipt>>,
        _permit: OwnedSemaphorePermit,
    },
    Drop {
        reply: oneshot::Sender<Result<()>>,
    },
    /// Build the index, due or not.
    Index,
    /// Answered once everything that was sent before is made.
    Barrier {
        reply: oneshot::Sender<()>,
    },
    /// Replace the settings in the manifest.
    Settings {
        settings: Vec<u8>,
        reply: oneshot::Sender<Result<()>>,
    },
}

/// What the writer makes and readers see.
#[derive(Debug)]
pub(super) struct CollectionState {
    pub(super) view: ArcSwap<View>,
    pub(super) watch: QueryWatch,
    pub(super) is_dropped: AtomicBool,
    /// Set when the last handle is gone.
    pub(super) is_closed: AtomicBool,
    pub(super) work: RunningWork,
    /// Why there is no index of all rows, and none is built unless a client asks for it.
    pub(super) index_error: Mutex<Option<Arc<str>>>,
}

impl CollectionState {
    pub(super) fn index_error(&self) -> Option<Arc<str>> {
        lock(&self.index_error).clone()
    }

    pub(super) fn set_index_error(&self, reason: Option<Arc<str>>) {
        *lock(&self.index_error) = reason;
    }
}

/// The writer of a collection.
pub(super) struct CollectionWriter {
    pub(super) shared: Arc<CollectionState>,
    pub(super) store: RowStore,
    pub(super) inbox: mpsc::Receiver<WriterCommand>,
    /// Rows in the log, dead ones included.
    pub(super) log_rows: usize,
    /// Set when dead rows have become too many, until none is left.
    pub(super) is_compacting: bool,
    pub(super) compaction: CompactionOptions,
    /// The index that the collection is to have.
    pub(super) plan: Option<IndexPlan>,
    pub(super) index_builder: Arc<IndexBuilder>,
    /// An index that is being built.
    pub(super) building: Option<RunningBuild>,
    /// Builds that have begun since the last one that ended well.
    pub(super) builds_begun: u32,
    pub(super) metrics: Arc<SearchMetrics>,
}

type ChangeReply = oneshot::Sender<Result<Receipt>>;

impl CollectionWriter {
    /// Works until all handles are gone, or the collection is dropped.
    pub(super) fn run(mut self) {
        let idle = Duration::from_millis(self.compaction.idle_ms);
        // What came behind a group of changes.
        let mut next = None;
        loop {
            match next.take().map_or_else(|| self.inbox.recv_timeout(idle), Ok) {
                Err(RecvTimeoutError::Disconnected) => return self.leave(),
                Ok(WriterCommand::Drop { reply }) => {
                    return self.drop_collection(reply);
                }
                Ok(WriterCommand::Change { change, reply, _permit }) => {
                    next = self.commit(change, reply);
                    if next.is_none() {
                        self.maintain(false);
                    }
                }
                // The callers of both may have left.
                Ok(WriterCommand::Barrier { reply }) => _ = reply.send(()),
                Ok(WriterCommand::Settings { settings, reply }) => {
                    let _ = reply.send(self.store.replace_settings(settings));
                }
                Ok(WriterCommand::Index) => self.maintain(true),
                Err(RecvTimeoutError::Timeout) => self.maintain(true),
            }
        }
    }

    /// Ends. A build that is ended with the server is no failed one.
    fn leave(mut self) {
        if self.building.is_some() {
            self.forget_build();
        }
    }

    fn drop_collection(self, reply: oneshot::Sender<Result<()>>) {
        self.shared.is_dropped.store(true, Ordering::Release);
        // The caller may have left; the collection is dropped all the same.
        let _ = reply.send(self.store.drop_collection());
    }

    /// Makes a change and those that wait behind it, with one flush. Returns the command behind them that is no change, if there is
    /// one.
    fn commit(&mut self, first: Change, reply: ChangeReply) -> Option<WriterCommand> {
        let mut view = View::clone(&self.shared.view.load());
        let mut effects = CommitEffects::default();
        let (mut ops, mut replies, mut permits, mut last) = (Vec::new(), Vec::new(), Vec::new(), None);
        let (from, mut version) = (view.version + 1, view.version);
        let mut bytes = 0;
        // Takes a change into the group, and returns whether there is room for another.
        let mut take = |change: Change, reply: ChangeReply| {
            let receipt = change.into_op(&view).map(|op| {
                if !op.is_empty() {
                    version += 1;
                    bytes += op.bytes();
                    ops.push(op.clone());
                }
                Receipt { documents: apply(&mut view, op, &mut effects), version }
            });
            replies.push((reply, receipt));
            bytes < GROUP_BYTES_MAX && replies.len() < GROUP_MAX
        };
        let mut has_room = take(first, reply);
        while has_room {
            match self.inbox.try_recv() {
                Ok(WriterCommand::Change { change, reply, _permit: permit }) => {
                    permits.push(permit);
                    has_room = take(change, reply);
                }
                // Its caller has recorded the request in the shared state.
                Ok(WriterCommand::Index) => {}
                Ok(other) => {
                    last = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        let written = if ops.is_empty() { Ok(()) } else { self.store.append(&record::encode(from, &ops)) };
        if written.is_ok() {
            self.log_rows += ops.iter().map(Op::rows).sum::<usize>();
            view.version = version;
            view.merge_delta();
            self.publish(view, &effects);
        }
        if let Err(error) = &written {
            tracing::error!(%error, "a change of a collection could not be written");
        }
        for (reply, receipt) in replies {
            // The caller may have left.
            let _ = reply.send(receipt.and_then(|receipt| written.clone().map(|()| receipt)));
        }
        last
    }

    pub(super) fn publish(&self, mut view: View, effects: &CommitEffects) {
        view.prepare();
        let (metric, version) = (view.metric, view.version);
        self.shared.watch.publish(metric, version, effects, || self.shared.view.store(Arc::new(view)));
    }

    /// Runs one step of sealing, compaction or indexing. A failed step is retried later; it loses nothing.
    fn maintain(&mut self, is_idle: bool) {
        if !self.store.is_on() {
            self.shared.work.end_build();
            self.shared.work.set_compaction(None);
            return;
        }
        self.take_built();
        let view = self.shared.view.load_full();
        let dead = self.dead_rows(&view);
        let rows = view.documents() + dead;
        let has_many_dead = dead * DEAD_SHARE > rows;
        let is_due = has_many_dead && (is_idle || dead >= self.compaction.dead_rows_busy);
        self.is_compacting = (self.is_compacting || is_due) && dead > 0;
        self.shared.work.set_compaction(self.is_compacting.then_some(dead));
        let is_delta_full = self.store.log_bytes() as usize > self.compaction.segment_bytes;
        let step = if is_delta_full {
            self.seal(&view)
        } else if self.is_compacting && self.building.is_none() {
            self.compact(&view)
        } else if self.building.is_none() && !has_many_dead && self.is_index_due(&view) {
            // After the compaction that is to come, which would outlive it.
            self.start_index(&view)
        } else {
            return;
        };
        if let Err(error) = step {
            self.metrics.compaction_errors.inc();
            tracing::warn!(%error, "a step of the compaction or indexing of a collection failed; it is retried later");
        }
    }

    /// Rows on the disk that cannot be found.
    fn dead_rows(&self, view: &View) -> usize {
        let (sealed, delta) = view.parts.split_at(view.delta_from());
        let live: usize = delta.iter().map(SegmentView::live_rows).sum();
        sealed.iter().map(SegmentView::dead_rows).sum::<usize>() + self.log_rows.saturating_sub(live)
    }

    /// Makes a segment of the delta, so that a new log can begin.
    pub(super) fn seal(&mut self, view: &View) -> Result<()> {
        let (sealed, delta) = view.parts.split_at(view.delta_from());
        let mut parts = sealed.to_vec();
        if let Some(part) = self.write(view, delta)? {
            parts.push(part);
        }
        self.replace(view, parts, LogFate::Replaced)
    }

    /// Rewrites the first run of segments with dead rows, without these; the delta, when it alone has any left.
    fn compact(&mut self, view: &View) -> Result<()> {
        let (sealed, delta) = view.parts.split_at(view.delta_from());
        let Some(from) = sealed.iter().position(|part| part.dead_rows() > 0) else { return self.seal(view) };
        // Neighbours join as long as they make one segment.
        let rows_max = (self.compaction.segment_bytes / (view.dim * 4)).clamp(1, SEGMENT_ROWS_MAX);
        let mut rows = 0;
        let fits = |part: &&SegmentView| {
            rows += part.live_rows();
            rows <= rows_max
        };
        // What the index covers and what it does not stay apart.
        let covered = view.index.as_ref().map_or(0, AnnIndex::parts);
        let end = if from < covered { covered } else { sealed.len() };
        let to = from + sealed[from..end].iter().take_while(fits).count().max(1);
        let written = self.write(view, &sealed[from..to])?;
        let index = view.index.as_ref().map(|index| {
            if from < covered { index.compacted(sealed, from, to, written.is_none()) } else { index.clone() }
        });
        let mut parts = sealed[..from].to_vec();
        parts.extend(written);
        parts.extend_from_slice(&sealed[to..]);
        parts.extend_from_slice(delta);
        self.replace(&View { index, ..view.clone() }, parts, LogFate::Kept)?;
        // The index still serves; its file holds codes of what has been purged, and no start could open it.
        if from < covered { self.store.drop_index() } else { Ok(()) }
    }

    /// A segment of the live rows of some parts; none if there are no such rows.
    fn write(&mut self, view: &View, parts: &[SegmentView]) -> Result<Option<SegmentView>> {
        let rows: Vec<Row<'_>> = parts
            .iter()
            .flat_map(SegmentView::rows)
            .map(|(vector, document)| Row { vector, document })
            .collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let segment = self.store.write_segment(rows.iter().copied())?;
        Ok(Some(SegmentView::sealed(view.metric, view.dim, segment, &[]).0))
    }

    /// Publishes other parts with the same live rows, on the disk and then for readers.
    fn replace(&mut self, view: &View, parts: Vec<SegmentView>, fate: LogFate) -> Result<()> {
        let listing = |part: &SegmentView| {
            let segment = part.block.segment()?;
            Some(Listing { number: segment.number(), rows: segment.rows() as u32, dead: part.dead_bits() })
        };
        let listings = parts.iter().filter_map(listing).collect();
        self.store.publish(listings, view.version, fate)?;
        if fate == LogFate::Replaced {
            self.log_rows = 0;
        }
        self.publish(View { parts, ..view.clone() }, &CommitEffects::default());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use likewise_index::Metric;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::metrics::{ModuleMetrics as _, Registry};
    use crate::search::build::Program;
    use crate::search::document::Document;
    use crate::search::document_patch::DocumentPatch;
    use crate::search::index_builder::Indexing;
    use crate::search::view::DocumentBatch;
    use crate::storage::ReadMode;
    use crate::storage::collections::Place;
    use crate::storage::files::recording::RecordingFiles;

    /// The writer of an empty collection in memory.
    fn writer(inbox: mpsc::Receiver<WriterCommand>) -> CollectionWriter {
        let place =
            Place { files: Arc::new(RecordingFiles::default()), dir: "/c".into(), read: ReadMode::Pread };
        let view = View { metric: Metric::L2, dim: 1, parts: Vec::new(), index: None, version: 0 };
        CollectionWriter {
            shared: Arc::new(CollectionState {
                watch: QueryWatch::new(0),
                view: ArcSwap::from_pointee(view),
                is_dropped: AtomicBool::new(false),
                is_closed: AtomicBool::new(false),
                work: RunningWork::default(),
                index_error: Mutex::new(None),
            }),
            store: RowStore::create(&place, "c", 1, Vec::new()).unwrap(),
            inbox,
            log_rows: 0,
            is_compacting: false,
            compaction: CompactionOptions::default(),
            plan: None,
            index_builder: Arc::new(IndexBuilder::new(Indexing::default(), Program::this()).unwrap()),
            building: None,
            builds_begun: 0,
            metrics: Arc::new(SearchMetrics::register(&mut Registry::new())),
        }
    }

    #[test]
    fn a_group_of_patches_ends_at_its_bytes_and_the_rest_make_the_next_one() {
        let (commands, inbox) = mpsc::channel();
        let mut writer = writer(inbox);
        let text = Some("x".repeat(GROUP_BYTES_MAX / 3));
        let documents = vec![Document { id: "d".into(), text, ..Document::default() }];
        let (reply, mut stored) = oneshot::channel();
        writer.commit(Change::Upsert(DocumentBatch { vectors: vec![1.0], documents }), reply);
        assert!(stored.try_recv().unwrap().is_ok());

        let permits = Arc::new(Semaphore::new(4));
        let patch = |n: usize| {
            let metadata = Some(format!(r#"{{"n":{n}}}"#));
            Change::Patch("d".into(), DocumentPatch { metadata, ..DocumentPatch::default() })
        };
        let mut answers = Vec::new();
        for n in 1..=4 {
            let (reply, answer) = oneshot::channel();
            let _permit = Arc::clone(&permits).try_acquire_owned().unwrap();
            assert!(commands.send(WriterCommand::Change { change: patch(n), reply, _permit }).is_ok());
            answers.push(answer);
        }
        let (reply, mut first) = oneshot::channel();
        writer.commit(patch(0), reply);
        assert_eq!(first.try_recv().unwrap().unwrap().version, 2);
        let versions = |answers: &mut Vec<oneshot::Receiver<Result<Receipt>>>| {
            let version = |answer: &mut oneshot::Receiver<Result<Receipt>>| {
                answer.try_recv().ok().map(|receipt| receipt.unwrap().version)
            };
            answers.iter_mut().map(version).collect::<Vec<_>>()
        };
        assert_eq!(versions(&mut answers), [Some(3), Some(4), None, None], "three documents make a group");

        let shared = Arc::clone(&writer.shared);
        drop(commands);
        writer.run();
        assert_eq!(versions(&mut answers.split_off(2)), [Some(5), Some(6)]);
        assert_eq!(shared.view.load().get("d").unwrap().0.metadata, r#"{"n":4}"#);
    }
}
