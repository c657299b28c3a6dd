//! A log's changes on their way back into a view.

use std::collections::HashSet;
use std::sync::Arc;

use super::block::hash_id;
use super::document::DocumentRef;
use super::record::Op;
use super::view::View;

/// Documents of a log on their way into a view: many at a time, because each addition makes a block.
#[derive(Default)]
pub(super) struct Replayed {
    vectors: Vec<f32>,
    documents: Vec<Arc<[u8]>>,
    ids: HashSet<u64>,
}

impl Replayed {
    /// Takes a change, in the order of the log.
    pub(super) fn take(&mut self, op: Op, view: &mut View) {
        match op {
            Op::Upsert { vectors, documents } => {
                let ids: Vec<u64> = documents
                    .iter()
                    .filter_map(|document| DocumentRef::decode(document))
                    .map(|document| hash_id(document.id))
                    .collect();
                // A document that comes again takes the place of the first one, which must be there by then.
                if ids.iter().any(|id| self.ids.contains(id)) {
                    self.flush(view);
                }
                self.vectors.extend(vectors);
                self.documents.extend(documents);
                self.ids.extend(ids);
            }
            Op::Delete { ids } => {
                self.flush(view);
                view.remove(ids);
            }
        }
    }

    /// Adds what was held back.
    pub(super) fn flush(&mut self, view: &mut View) {
        let Replayed { vectors, documents, .. } = std::mem::take(self);
        if !documents.is_empty() {
            view.add(vectors, documents);
            view.merge_delta();
        }
    }
}
