//! What is asked of a collection, and what it does to rows.

use super::block::hash_id;
use super::document::DocumentRef;
use super::document_patch::DocumentPatch;
use super::filter::Filter;
use super::query_watch::CommitEffects;
use super::record::Op;
use super::view::{DocumentBatch, View};
use crate::error::{Error, Kind, Result};

/// A change of a collection: applied whole, or not at all.
#[derive(Debug)]
pub enum Change {
    /// Documents in the place of those with the same ids.
    Upsert(DocumentBatch),
    /// Members of one document, by its id. Its other members stay.
    Patch(String, DocumentPatch),
    /// Documents by their ids.
    Delete(Vec<String>),
    /// Documents that a filter means.
    DeleteMatching(Filter),
}

/// What came of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Documents stored or removed.
    pub documents: usize,
    /// The collection's version with it.
    pub version: u64,
}

impl Change {
    /// About the memory that it takes until it is written: that of a patch includes the document that it changes, which the writer
    /// copies.
    pub(super) fn bytes(&self, view: &View) -> usize {
        match self {
            Change::Upsert(batch) => {
                let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
                let documents = batch.documents.iter();
                let documents =
                    documents.map(|document| text(&document.text) + document.metadata.len() + 128);
                batch.vectors.len() * 4 + documents.sum::<usize>()
            }
            Change::Patch(id, patch) => {
                let present = view.get(id).map_or(0, |(document, vector)| {
                    document.text.map_or(0, str::len) + document.metadata.len() + vector.len() * 4
                });
                present + id.len() + patch.bytes() + 128
            }
            Change::Delete(ids) => ids.iter().map(|id| id.len() + 24).sum(),
            Change::DeleteMatching(_) => 0,
        }
    }

    /// The rows to write in the collection as it is now.
    ///
    /// # Errors
    /// `NotFound` for a patch of a missing document, and for one with a text and no vector; `InvalidInput` for a patch whose result is
    /// too long.
    pub(super) fn into_op(self, view: &View) -> Result<Op> {
        let present = |ids: Vec<String>| ids.into_iter().filter(|id| view.get(id).is_some()).collect();
        Ok(match self {
            Change::Upsert(batch) => Op::Upsert {
                vectors: batch.vectors,
                documents: batch.documents.iter().map(|document| document.encode().into()).collect(),
            },
            Change::Patch(id, patch) => patched(view, &id, patch)?,
            Change::Delete(ids) => Op::Delete { ids: present(ids) },
            Change::DeleteMatching(filter) => Op::Delete { ids: view.ids_of(&filter) },
        })
    }
}

/// The row of a document with its patch; none if the patch changes nothing.
fn patched(view: &View, id: &str, patch: DocumentPatch) -> Result<Op> {
    let missing = || Error::new(Kind::NotFound, format!("there is no document {id:?}")).param("id");
    let (document, vector) = view.get(id).ok_or_else(missing)?;
    if matches!(patch.text, Some(Some(_))) && patch.vector.is_none() {
        // A text is embedded before it is sent here if the document is present. This document was stored after that look: its vector
        // is not that of the text.
        return Err(missing());
    }
    let patched = patch.apply(&document)?;
    if patch.vector.is_none() && patched == document.to_document() {
        return Ok(Op::Upsert { vectors: Vec::new(), documents: Vec::new() });
    }
    let vectors = patch.vector.unwrap_or_else(|| vector.to_vec());
    Ok(Op::Upsert { vectors, documents: vec![patched.encode().into()] })
}

impl Op {
    /// Whether it changes no row.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Op::Upsert { documents, .. } => documents.is_empty(),
            Op::Delete { ids } => ids.is_empty(),
        }
    }

    /// Bytes of its rows and ids, in memory and in the log.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Op::Upsert { vectors, documents } => {
                vectors.len() * 4 + documents.iter().map(|document| document.len()).sum::<usize>()
            }
            Op::Delete { ids } => ids.iter().map(String::len).sum(),
        }
    }

    /// Rows that it adds.
    pub(super) fn rows(&self) -> usize {
        match self {
            Op::Upsert { documents, .. } => documents.len(),
            Op::Delete { .. } => 0,
        }
    }
}

/// Applies a change to rows and returns how many documents it stored or removed.
pub(super) fn apply(view: &mut View, op: Op, effects: &mut CommitEffects) -> usize {
    match op {
        Op::Upsert { vectors, documents } => {
            effects.vectors.extend_from_slice(&vectors);
            effects.documents.extend(documents.iter().cloned());
            let ids =
                documents.iter().filter_map(|document| Some(hash_id(DocumentRef::decode(document)?.id)));
            effects.gone.extend(ids);
            let count = documents.len();
            if count > 0 {
                view.add(vectors, documents);
            }
            count
        }
        Op::Delete { ids } => {
            let removed = view.remove(ids);
            effects.gone.extend(removed.iter().map(|id| hash_id(id)));
            removed.len()
        }
    }
}

#[cfg(test)]
mod tests {
    use likewise_index::Metric;

    use super::*;
    use crate::search::document::Document;

    /// One document with a long text.
    fn view() -> View {
        let mut view = View { metric: Metric::L2, dim: 2, parts: Vec::new(), index: None, version: 0 };
        let document = Document { id: "d".into(), text: Some("x".repeat(100_000)), ..Document::default() };
        view.add(vec![1.0, 2.0], vec![document.encode().into()]);
        view
    }

    #[test]
    fn a_new_text_is_not_stored_with_the_vector_of_the_old_one() {
        let patch = |text: Option<&str>, vector: Option<Vec<f32>>| {
            let patch =
                DocumentPatch { text: Some(text.map(str::to_owned)), vector, ..DocumentPatch::default() };
            Change::Patch("d".into(), patch).into_op(&view())
        };
        assert_eq!(patch(Some("new"), None).unwrap_err().kind(), Kind::NotFound);
        let Op::Upsert { vectors, .. } = patch(Some("new"), Some(vec![3.0, 4.0])).unwrap() else {
            panic!("a patch stores a document");
        };
        assert_eq!(vectors, [3.0, 4.0]);
        let Op::Upsert { vectors, .. } = patch(None, None).unwrap() else {
            panic!("a patch stores a document");
        };
        assert_eq!(vectors, [1.0, 2.0], "the vector stays when the text is removed");
    }

    #[test]
    fn the_memory_of_a_patch_includes_the_document() {
        let bytes = |id: &str| Change::Patch(id.into(), DocumentPatch::default()).bytes(&view());
        assert!(bytes("d") > 100_000);
        assert!(bytes("missing") < 1000);
    }
}
