//! Documents by page, in the order of their ids, and by id.
//!
//! A page begins behind an id and not at a row: writes and compactions move rows, and ids stay where they are. So a document that
//! is there while its collection is paged through is in exactly one page, whatever is written meanwhile.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use likewise_index::Bits;

use super::block::RowBlock;
use super::document::DocumentRef;
use super::filter::Filter;
use super::view::{Cursor, View};
use crate::error::{Error, Result};

/// Characters of a number of a vector as JSON, about, its comma included.
const NUMBER_CHARS: usize = 12;

/// Which documents a page has.
#[derive(Debug, Clone, Default)]
pub struct PageQuery {
    /// They come behind this id.
    pub after: Option<String>,
    /// How many there are at most.
    pub limit: usize,
    /// Which there are.
    pub filter: Option<Filter>,
    /// Whether they are returned with their vectors, which count among the bytes.
    pub has_vectors: bool,
    /// Bytes of all together as JSON, about; the first document may exceed them.
    pub bytes_max: usize,
}

/// Some documents of a view.
#[derive(Debug, Clone)]
pub struct DocumentPage {
    view: Arc<View>,
    rows: Vec<Cursor>,
    bytes: usize,
    has_more: bool,
}

impl DocumentPage {
    /// No documents yet.
    fn new(view: Arc<View>) -> DocumentPage {
        DocumentPage { view, rows: Vec::new(), bytes: 0, has_more: false }
    }

    /// Adds a row unless the bytes of the page then exceed their limit, and returns whether it did.
    fn push(&mut self, row: Cursor, has_vectors: bool, bytes_max: usize) -> bool {
        let vector_bytes = if has_vectors { self.view.dim() * NUMBER_CHARS } else { 0 };
        let bytes = self.view.parts[row.0].block.document_bytes(row.1).len() + vector_bytes;
        let fits = self.rows.is_empty() || self.bytes + bytes <= bytes_max;
        if fits {
            self.rows.push(row);
            self.bytes += bytes;
        }
        fits
    }

    /// The documents with their vectors.
    pub fn documents(&self) -> impl ExactSizeIterator<Item = (DocumentRef<'_>, &[f32])> {
        self.rows.iter().map(|&(part, row)| {
            let block = &self.view.parts[part].block;
            (block.document(row), block.vector(row))
        })
    }

    /// The id behind which the next page begins, if there is one.
    pub fn next(&self) -> Option<&str> {
        let last = self.documents().last().filter(|_| self.has_more);
        last.map(|(document, _)| document.id)
    }

    /// Bytes of its documents as JSON, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The version of the collection of which it is true.
    pub fn version(&self) -> u64 {
        self.view.version()
    }
}

/// The kept rows of a block in the order of their ids, from one of them on.
struct BlockPager<'a> {
    block: &'a RowBlock,
    kept: &'a Bits,
    rows: std::slice::Iter<'a, u32>,
}

impl<'a> BlockPager<'a> {
    /// Behind an id.
    fn new(block: &'a RowBlock, kept: &'a Bits, after: Option<&str>) -> BlockPager<'a> {
        let rows = block.by_id();
        let is_before = |row: &u32| after.is_some_and(|after| block.document(*row as usize).id <= after);
        let start = rows.partition_point(is_before);
        BlockPager { block, kept, rows: rows[start..].iter() }
    }
}

impl<'a> Iterator for BlockPager<'a> {
    type Item = (&'a str, usize);

    fn next(&mut self) -> Option<(&'a str, usize)> {
        let row = self.rows.find(|&&row| self.kept.get(row as usize)).map(|&row| row as usize)?;
        Some((self.block.document(row).id, row))
    }
}

impl View {
    /// A page of documents. Blocks for as long as it takes: the first page sorts the ids of each block, and a filter is
    /// evaluated for all documents.
    pub(super) fn page_of(self: &Arc<View>, query: &PageQuery) -> DocumentPage {
        let filtered: Vec<Option<Bits>> = self
            .parts
            .iter()
            .map(|part| query.filter.as_ref().map(|filter| part.block.filtered(part.live(), filter)))
            .collect();
        let kept = self.parts.iter().zip(&filtered).map(|(part, bits)| bits.as_ref().unwrap_or(part.live()));
        let mut pagers: Vec<BlockPager<'_>> = self
            .parts
            .iter()
            .zip(kept)
            .map(|(part, kept)| BlockPager::new(&part.block, kept, query.after.as_deref()))
            .collect();
        // The next document of each part, the least id first.
        let mut heads: BinaryHeap<_> = BinaryHeap::with_capacity(pagers.len());
        for (part, pager) in pagers.iter_mut().enumerate() {
            heads.extend(pager.next().map(|(id, row)| Reverse((id, part, row))));
        }
        let mut page = DocumentPage::new(Arc::clone(self));
        while let Some(Reverse((_, part, row))) = heads.pop() {
            if page.rows.len() == query.limit || !page.push((part, row), query.has_vectors, query.bytes_max) {
                page.has_more = true;
                break;
            }
            heads.extend(pagers[part].next().map(|(id, row)| Reverse((id, part, row))));
        }
        page
    }

    /// The documents with these ids, in their order, without those that are not there.
    ///
    /// # Errors
    /// `InvalidInput` at `ids` if several exceed `bytes_max` together.
    pub fn of_ids(
        self: &Arc<View>,
        ids: &[String],
        has_vectors: bool,
        bytes_max: usize,
    ) -> Result<DocumentPage> {
        let mut page = DocumentPage::new(Arc::clone(self));
        for row in ids.iter().filter_map(|id| self.find(id)) {
            if !page.push(row, has_vectors, bytes_max) {
                let message = format!("the documents exceed {bytes_max} bytes together: send fewer ids");
                return Err(Error::invalid("ids", message));
            }
        }
        Ok(page)
    }

    /// How many documents a filter selects. Blocks for as long as it takes.
    pub(super) fn count(&self, filter: &Filter) -> usize {
        self.parts.iter().map(|part| part.block.filtered(part.live(), filter).count()).sum()
    }
}
