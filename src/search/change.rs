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
    /// About what it takes of memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Change::Upsert(batch) => {
                let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
                let documents = batch.documents.iter();
                let documents =
                    documents.map(|document| text(&document.text) + document.metadata.len() + 128);
                batch.vectors.len() * 4 + documents.sum::<usize>()
            }
            Change::Patch(id, patch) => id.len() + patch.bytes() + 128,
            Change::Delete(ids) => ids.iter().map(|id| id.len() + 24).sum(),
            Change::DeleteMatching(_) => 0,
        }
    }

    /// The rows to write in the collection as it is now.
    ///
    /// # Errors
    /// `NotFound` or `InvalidInput` for a patch of a missing document, or with too long a result.
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
