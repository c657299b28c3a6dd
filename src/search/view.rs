//! What readers see: the rows of a collection at one moment. A view never changes; writers make the next one.

use std::sync::Arc;

use likewise_index::Metric;

use super::ann_index::AnnIndex;
use super::block::{RowBlock, hash_id};
use super::document::{Document, DocumentRef};
use super::filter::Filter;
use super::segment_view::SegmentView;
use crate::storage::collections::Snapshot;

/// The rows of a collection at one moment. Parts and rows stand in the order in which they were written, so that ties of
/// scores always break the same way, whatever has been merged meanwhile.
#[derive(Debug, Clone)]
pub struct View {
    pub(super) metric: Metric,
    pub(super) dim: usize,
    pub(super) parts: Vec<SegmentView>,
    /// An index over the first of them.
    pub(super) index: Option<AnnIndex>,
    pub(super) version: u64,
}

/// A place in a view: part, and row of it.
pub type Cursor = (usize, usize);

/// Vectors with their documents.
#[derive(Debug, Clone, Default)]
pub struct DocumentBatch {
    /// Prepared vectors, one after the other.
    pub vectors: Vec<f32>,
    /// A document for each; no two with one id.
    pub documents: Vec<Document>,
}

impl View {
    /// Counts the changes of the collection since it was made.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Length of its vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How many documents there are.
    pub fn documents(&self) -> usize {
        self.parts.iter().map(SegmentView::live_rows).sum()
    }

    /// Rows that take memory and cannot be found.
    pub fn dead_rows(&self) -> usize {
        self.parts.iter().map(SegmentView::dead_rows).sum()
    }

    /// Segments on disk.
    pub fn segments(&self) -> usize {
        self.parts.iter().filter(|part| part.block.segment().is_some()).count()
    }

    /// Bytes in memory, mapped pages not counted.
    pub fn memory_bytes(&self) -> usize {
        let parts: usize =
            self.parts.iter().map(|part| part.block.memory_bytes() + part.live.len() / 8).sum();
        parts + self.index.as_ref().map_or(0, AnnIndex::memory_bytes)
    }

    /// The snapshot of its index, if it has one.
    pub fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.index.as_ref().map(AnnIndex::snapshot)
    }

    /// Rows of the index, dead ones included; 0 without one.
    pub fn indexed_rows(&self) -> usize {
        self.index.as_ref().map_or(0, AnnIndex::rows)
    }

    /// The ids of the rows of the index in their order, none for those that are gone; without an index, of all documents.
    pub fn indexed_ids(&self) -> Vec<Option<&str>> {
        let Some(index) = &self.index else {
            return self.iter().map(|(document, _)| Some(document.id)).collect();
        };
        let id = |(part, row): (usize, usize)| {
            let part = &self.parts[part];
            part.live.get(row).then(|| part.block.document(row).id)
        };
        index.locations().map(|location| location.and_then(id)).collect()
    }

    /// The document with this id, and its vector.
    pub fn get<'a>(&'a self, id: &str) -> Option<(DocumentRef<'a>, &'a [f32])> {
        let (part, row) = self.find(id)?;
        let block = &self.parts[part].block;
        Some((block.document(row), block.vector(row)))
    }

    /// All documents with their vectors, in the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = (DocumentRef<'_>, &[f32])> {
        self.parts
            .iter()
            .flat_map(|part| part.live.iter().map(|row| (part.block.document(row), part.block.vector(row))))
    }

    /// Documents from a place on, and the place where the next ones begin: for readers that stop between.
    pub fn page(&self, from: Cursor, count: usize) -> (Vec<(DocumentRef<'_>, &[f32])>, Option<Cursor>) {
        let mut page = Vec::new();
        let (mut number, mut start) = from;
        while let Some(part) = self.parts.get(number) {
            for row in start..part.block.len() {
                if page.len() == count {
                    return (page, Some((number, row)));
                }
                if part.live.get(row) {
                    page.push((part.block.document(row), part.block.vector(row)));
                }
            }
            (number, start) = (number + 1, 0);
        }
        (page, None)
    }

    /// The ids of the documents that a filter means.
    pub(super) fn ids_of(&self, filter: &Filter) -> Vec<String> {
        let ids = self.parts.iter().flat_map(|part| {
            let rows: Vec<usize> = part.block.filtered(&part.live, filter).iter().collect();
            rows.into_iter().map(|row| part.block.document(row).id.to_owned())
        });
        ids.collect()
    }

    pub(super) fn find(&self, id: &str) -> Option<Cursor> {
        let hash = hash_id(id);
        // The latest blocks hold what is asked for most.
        let parts = self.parts.iter().enumerate().rev();
        parts.filter_map(|(number, part)| Some((number, part.find(id, hash)?))).next()
    }

    /// Removes documents; returns the ids of those that were there.
    pub(super) fn remove(&mut self, ids: Vec<String>) -> Vec<String> {
        let mut removed = Vec::new();
        for id in ids {
            if let Some((part, row)) = self.find(&id) {
                self.parts[part].kill(row);
                removed.push(id);
            }
        }
        removed
    }

    /// Adds documents in the place of those with the same ids.
    pub(super) fn add(&mut self, vectors: Vec<f32>, documents: Vec<Arc<[u8]>>) {
        for bytes in &documents {
            let id = DocumentRef::decode(bytes).expect("encoded here: this is a bug").id;
            if let Some((part, row)) = self.find(id) {
                self.parts[part].kill(row);
            }
        }
        self.parts.push(SegmentView::whole(RowBlock::delta(self.metric, self.dim, vectors, documents)));
    }

    /// Joins the blocks in memory so that each is larger than the next: a row is copied at most as often as the number of
    /// rows can be halved, and there are as few blocks. Dead rows are left behind.
    pub(super) fn merge_delta(&mut self) {
        while let [.., before, last] = &self.parts[..]
            && before.block.segment().is_none()
            && before.block.len() <= last.block.len()
        {
            let mut vectors = Vec::new();
            let mut documents = Vec::new();
            for (vector, document) in before.rows().chain(last.rows()) {
                vectors.extend_from_slice(vector);
                documents.push(Arc::from(document));
            }
            self.parts.truncate(self.parts.len() - 2);
            self.parts.push(SegmentView::whole(RowBlock::delta(self.metric, self.dim, vectors, documents)));
        }
        self.parts.retain(|part| part.live_rows > 0 || part.block.segment().is_some());
    }

    /// Makes what searches need, so that no search has to wait for it. Parts that the index covers need no codes.
    pub(super) fn prepare(&mut self) {
        let covered = self.index.as_ref().map_or(0, AnnIndex::parts);
        for (number, part) in self.parts.iter_mut().enumerate() {
            if number >= covered {
                part.block.codes();
            } else if part.block.has_codes() {
                part.block = Arc::new(part.block.without_codes());
            }
        }
    }

    /// Where the blocks in memory begin.
    pub(super) fn delta_from(&self) -> usize {
        self.parts.iter().position(|part| part.block.segment().is_none()).unwrap_or(self.parts.len())
    }
}
