//! What an entry is.

use crate::domain::{Codec, EntryMeta, EntryNames};
use crate::labels::label_enum;
use crate::service::answers::ANSWER_CONTENT_TYPE;

label_enum! {
    /// What an entry is.
    #[derive(PartialOrd, Ord)]
    pub enum EntryKind {
        /// Bytes that a client stored.
        Object = "object",
        /// An answer of a language model.
        Answer = "answer",
        /// A vector of a text.
        Embedding = "embedding",
        /// The results of a search.
        SearchResult = "search_result",
    }
}

impl EntryKind {
    /// The kind of an entry that is stored with names. Only an object has a key.
    pub(super) fn of_named(names: &EntryNames) -> EntryKind {
        if names.key.is_empty() { EntryKind::Answer } else { EntryKind::Object }
    }

    /// The kind of an entry with this metadata, for counts. The content type of an object is its client's choice, so an object may be
    /// counted as an answer.
    pub(in crate::service) fn of(meta: &EntryMeta) -> EntryKind {
        if meta.codec == Codec::F32 {
            EntryKind::Embedding
        } else if &*meta.content_type == ANSWER_CONTENT_TYPE {
            EntryKind::Answer
        } else if meta.validator == 0 {
            // Only objects and answers have validators.
            EntryKind::SearchResult
        } else {
            EntryKind::Object
        }
    }
}
