//! The segment that takes slots, and the mark of its last flush.

use std::io;
use std::sync::Arc;

use super::index_file::IndexEntry;
use super::recovery::Unsealed;
use super::segment_file::OpenSegment;
use crate::storage::files::Files;
use crate::storage::files::end_mark::{self, EndMark};

/// The segment that takes the slots of one payload size.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) segment: Arc<OpenSegment>,
    pub(super) entries: Vec<IndexEntry>,
    pub(super) next_slot: u32,
    /// Whether it was written to since it was flushed.
    pub(super) is_dirty: bool,
    /// Missing only if it could not be created.
    mark: Option<EndMark>,
}

impl Active {
    pub(super) fn new(files: &dyn Files, found: Unsealed, is_dirty: bool) -> Active {
        let Unsealed { segment, entries, next_slot } = found;
        let (path, owner) = (segment.mark_path(), segment.owner());
        let is_marked = matches!(end_mark::read(files, &path, owner), Ok(Some(_)));
        let mark =
            if is_marked { EndMark::open(files, &path, owner) } else { EndMark::create(files, &path, owner) };
        let warn = |error: &io::Error| {
            tracing::warn!(%error, "the mark of a segment's last flush cannot be written");
        };
        Active { segment, entries, next_slot, is_dirty, mark: mark.inspect_err(warn).ok() }
    }

    /// Makes what was written durable. After a failure nothing is known of it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.segment.file.sync_data()?;
        self.is_dirty = false;
        if let Some(mark) = &mut self.mark {
            mark.set(u64::from(self.next_slot));
        }
        Ok(())
    }

    /// Makes the mark of the last flush survive a loss of power.
    pub(super) fn sync_mark(&mut self) {
        if let Some(mark) = &mut self.mark {
            mark.sync();
        }
    }

    pub(super) fn room(&self) -> usize {
        self.segment.header.slot_count.saturating_sub(self.next_slot) as usize
    }
}
