//! The distinct texts of a request, and their keys.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;

use super::Request;
use crate::cache::{Namespace, Stamp};
use crate::domain::{ByPrefix, Key, KeyHasher};

/// The distinct texts of a request, and where their embeddings are stored.
pub(super) struct DistinctTexts {
    pub(super) namespace: Namespace,
    /// The lifetime of entries that this request stores.
    pub(super) ttl_seconds: u32,
    /// When the request began, in the order of invalidations.
    pub(super) stamp: Stamp,
    pub(super) keys: Vec<Key>,
    /// For each key, the index of its first text in the request.
    pub(super) first_texts: Vec<usize>,
    /// For each text of the request, the index of its key.
    pub(super) key_of_text: Vec<usize>,
}

impl DistinctTexts {
    /// Hashes the texts of a request; equal texts share a key.
    pub(super) fn new(
        request: &Request,
        prompt: &str,
        namespace: Namespace,
        ttl_seconds: u32,
        stamp: Stamp,
    ) -> DistinctTexts {
        let mut base = KeyHasher::new("likewise/embedding/v1");
        base.field(&request.model.card().fingerprint.0)
            .field(request.principal.tenant.as_str().as_bytes())
            .field(namespace.name.as_bytes())
            .field(prompt.as_bytes());
        let count = request.texts.len();
        let mut distinct = DistinctTexts {
            namespace,
            ttl_seconds,
            stamp,
            keys: Vec::with_capacity(count),
            first_texts: Vec::with_capacity(count),
            key_of_text: Vec::with_capacity(count),
        };
        let mut seen = HashMap::with_capacity_and_hasher(count, ByPrefix);
        for (text_index, text) in request.texts.iter().enumerate() {
            let key = base.clone().field(text.as_bytes()).finish();
            let key_index = match seen.entry(key) {
                MapEntry::Occupied(known) => *known.get(),
                MapEntry::Vacant(vacant) => {
                    distinct.keys.push(key);
                    distinct.first_texts.push(text_index);
                    *vacant.insert(distinct.keys.len() - 1)
                }
            };
            distinct.key_of_text.push(key_index);
        }
        distinct
    }
}
