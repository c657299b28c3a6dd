//! Rows that never change: those of a segment, or of the delta.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, LazyLock, OnceLock};

use hashbrown::HashTable;
use likewise_index::{Bits, Codes, Metric};
use ndarray::ArrayView2;

use super::document::DocumentRef;
use super::filter::Filter;
use super::metadata_index::MetadataIndex;
use super::values::Values;
use crate::storage::RowSegment;

/// Blocks with fewer rows are filtered document by document: turning their fields round would cost more.
const FIELDS_ROWS_MIN: usize = 256;
/// Longer filters are worth the turned fields of any block.
const FIELDS_FILTER_MIN: usize = 32;

/// Ids come from outside, so their hashes are seeded.
static ID_HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The hash of an id, for tables of this process.
pub(super) fn hash_id(id: &str) -> u64 {
    ID_HASHER.hash_one(id)
}

/// Rows with their documents, codes, and tables. Shared by `Arc`; nothing in it changes.
#[derive(Debug)]
pub(super) struct RowBlock {
    dim: usize,
    metric: Metric,
    rows: BlockRows,
    /// Made before the block is searched; a block that is merged away at once never needs them.
    codes: OnceLock<Codes>,
    /// Rows by the hash of their ids.
    ids: HashTable<u32>,
    fields: OnceLock<MetadataIndex>,
    /// Rows in the order of their ids. Made for the first page of documents.
    by_id: OnceLock<Box<[u32]>>,
}

#[derive(Debug)]
enum BlockRows {
    /// In a file.
    Sealed(Arc<RowSegment>),
    /// In memory, and in the log.
    Delta { vectors: Vec<f32>, documents: Vec<Arc<[u8]>> },
}

impl RowBlock {
    /// Of a segment.
    ///
    /// Cost: hashes all ids.
    pub(super) fn sealed(metric: Metric, dim: usize, segment: Arc<RowSegment>) -> RowBlock {
        RowBlock::new(metric, dim, BlockRows::Sealed(segment))
    }

    /// Of rows in memory.
    pub(super) fn delta(
        metric: Metric,
        dim: usize,
        vectors: Vec<f32>,
        documents: Vec<Arc<[u8]>>,
    ) -> RowBlock {
        assert_eq!(vectors.len(), documents.len() * dim, "a vector for each document");
        RowBlock::new(metric, dim, BlockRows::Delta { vectors, documents })
    }

    fn new(metric: Metric, dim: usize, rows: BlockRows) -> RowBlock {
        let mut block = RowBlock {
            dim,
            metric,
            codes: OnceLock::new(),
            rows,
            ids: HashTable::new(),
            fields: OnceLock::new(),
            by_id: OnceLock::new(),
        };
        let mut ids = HashTable::with_capacity(block.len());
        for row in 0..block.len() {
            // A document that does not decode is a bad row: never live, and so never asked for.
            if let Some(document) = DocumentRef::decode(block.document_bytes(row)) {
                ids.insert_unique(hash_id(document.id), row as u32, |&row| block.hash(row as usize));
            }
        }
        block.ids = ids;
        block
    }

    /// Its codes. The first call makes them.
    pub(super) fn codes(&self) -> &Codes {
        self.codes.get_or_init(|| {
            let mut codes = Codes::new(self.metric, self.dim);
            codes.extend(self.rows());
            codes
        })
    }

    fn hash(&self, row: usize) -> u64 {
        DocumentRef::decode(self.document_bytes(row)).map_or(0, |document| hash_id(document.id))
    }

    pub(super) fn len(&self) -> usize {
        match &self.rows {
            BlockRows::Sealed(segment) => segment.rows(),
            BlockRows::Delta { documents, .. } => documents.len(),
        }
    }

    /// Its segment, if it has one.
    pub(super) fn segment(&self) -> Option<&Arc<RowSegment>> {
        match &self.rows {
            BlockRows::Sealed(segment) => Some(segment),
            BlockRows::Delta { .. } => None,
        }
    }

    fn vectors(&self) -> &[f32] {
        match &self.rows {
            BlockRows::Sealed(segment) => segment.vectors(),
            BlockRows::Delta { vectors, .. } => vectors,
        }
    }

    fn rows(&self) -> ArrayView2<'_, f32> {
        let rows = ArrayView2::from_shape((self.len(), self.dim), self.vectors());
        rows.expect("whole rows, as was checked: this is a bug")
    }

    pub(super) fn vector(&self, row: usize) -> &[f32] {
        &self.vectors()[row * self.dim..][..self.dim]
    }

    pub(super) fn document_bytes(&self, row: usize) -> &[u8] {
        match &self.rows {
            BlockRows::Sealed(segment) => segment.document(row),
            BlockRows::Delta { documents, .. } => &documents[row],
        }
    }

    /// The document of a row that is live.
    pub(super) fn document(&self, row: usize) -> DocumentRef<'_> {
        DocumentRef::decode(self.document_bytes(row))
            .expect("live rows decode, as was checked: this is a bug")
    }

    /// Rows with this id, live or not; the latest is not known here.
    pub(super) fn find<'a>(&'a self, id: &'a str, hash: u64) -> impl Iterator<Item = usize> + 'a {
        let rows = self.ids.iter_hash(hash).map(|&row| row as usize);
        rows.filter(move |&row| self.document(row).id == id)
    }

    /// Its rows in the order of their ids, without those that do not decode. The first call sorts them.
    pub(super) fn by_id(&self) -> &[u32] {
        self.by_id.get_or_init(|| {
            let id = |row: usize| Some(DocumentRef::decode(self.document_bytes(row))?.id);
            // By their ids beside them: each comparison would decode two documents otherwise.
            let mut rows: Vec<(&str, u32)> =
                (0..self.len()).filter_map(|row| Some((id(row)?, row as u32))).collect();
            rows.sort_unstable();
            rows.into_iter().map(|(_, row)| row).collect()
        })
    }

    /// The live rows that a filter means.
    pub(super) fn filtered(&self, live: &Bits, filter: &Filter) -> Bits {
        if self.len() < FIELDS_ROWS_MIN && filter.len() < FIELDS_FILTER_MIN && self.fields.get().is_none() {
            let mut rows = live.clone();
            for row in live.iter() {
                let document = self.document(row);
                rows.set(row, filter.means(&document, &Values::of(document.metadata)));
            }
            return rows;
        }
        let documents = || (0..self.len()).map(|row| DocumentRef::decode(self.document_bytes(row)));
        let fields =
            self.fields.get_or_init(|| MetadataIndex::of(documents().map(Option::unwrap_or_default)));
        let mut rows = fields.rows(filter);
        rows.and(live);
        rows
    }

    /// The same rows without codes, which an index over them makes superfluous.
    pub(super) fn without_codes(&self) -> RowBlock {
        let rows = match &self.rows {
            BlockRows::Sealed(segment) => BlockRows::Sealed(Arc::clone(segment)),
            BlockRows::Delta { vectors, documents } => {
                BlockRows::Delta { vectors: vectors.clone(), documents: documents.clone() }
            }
        };
        RowBlock {
            dim: self.dim,
            metric: self.metric,
            rows,
            codes: OnceLock::new(),
            ids: self.ids.clone(),
            fields: OnceLock::new(),
            by_id: self.by_id.clone(),
        }
    }

    /// Whether there are codes.
    pub(super) fn has_codes(&self) -> bool {
        self.codes.get().is_some()
    }

    /// What the scan searches; by codes, if there are any.
    pub(super) fn searched<'a>(&'a self, keep: Option<&'a Bits>) -> likewise_index::Block<'a> {
        likewise_index::Block { rows: self.rows(), codes: self.codes.get().map(Codes::view), keep }
    }

    /// About what it takes of memory, mapped pages not counted.
    pub(super) fn memory_bytes(&self) -> usize {
        let rows = match &self.rows {
            BlockRows::Sealed(_) => self.len() * 16,
            BlockRows::Delta { vectors, documents } => {
                vectors.len() * 4 + documents.iter().map(|document| document.len() + 32).sum::<usize>()
            }
        };
        let by_id = self.by_id.get().map_or(0, |rows| rows.len() * 4);
        rows + by_id + self.codes.get().map_or(0, Codes::memory_bytes) + self.ids.capacity() * 5
    }
}
