//! The cache of search results: under which key they are stored, for how long, and until which invalidation or write.

use std::sync::Arc;

use super::query::QueryOutcome;
use super::query_vectors::{MissingQuery, QueryInput};
use super::{Collections, Search};
use crate::cache::{Namespace, Stamp, Verdict};
use crate::domain::{Codec, Entry, EntryMeta, InvalidationId, Key, KeyHasher, Principal, Tag};
use crate::search::{Collection, Query, Results, View, WatchedQuery};
use crate::service::Directives;

/// How the results of a search are stored.
pub(super) struct StoreContext {
    pub(super) namespace: Namespace,
    pub(super) ttl_seconds: u32,
    /// When the search began, in the order of invalidations.
    pub(super) stamp: Stamp,
    /// The sender, whose tenant has the documents' tags.
    pub(super) principal: Arc<Principal>,
}

impl Collections {
    /// Cached results that the request accepts.
    pub(super) fn cached(
        &self,
        collection: &Collection,
        directives: &Directives,
        key: &Key,
    ) -> Option<QueryOutcome> {
        let freshness = self.cache.freshness();
        let peek = || self.cache.peek(key).filter(|found| found.verdict == Verdict::Fresh);
        let (found, version) = collection.cached(key, peek)?;
        if !directives.accept(freshness, &found) {
            return None;
        }
        let age = freshness.age_seconds(&found.entry.meta);
        Some(QueryOutcome::Hit(Results::from_bytes(Arc::clone(&found.entry.value)), version, age))
    }

    pub(super) fn store(
        &self,
        collection: &Collection,
        context: &StoreContext,
        view: &View,
        query: &Query,
        missing: MissingQuery,
        results: &Results,
    ) {
        let freshness = self.cache.freshness();
        let StoreContext { namespace, ttl_seconds, stamp, principal } = context;
        let mut tags: Vec<InvalidationId> = results
            .iter()
            .flat_map(|hit| hit.document.tags().filter_map(Tag::named).collect::<Vec<_>>())
            .map(|tag| InvalidationId::tag(&principal.tenant, &tag))
            .collect();
        tags.sort_unstable();
        tags.dedup();
        let Some(tokens) = freshness.tokens().admit(*stamp, namespace.id, &tags) else { return };
        let lifetime = freshness.lifetime(&namespace.policy, *ttl_seconds);
        let meta = EntryMeta {
            namespace: namespace.id,
            epoch: tokens.epoch,
            tags: tokens.tags,
            ..EntryMeta::ending(Codec::Raw, lifetime.created, lifetime.expires)
        };
        let entry = Arc::new(Entry { meta, value: Arc::clone(results.bytes()) });
        let watched =
            WatchedQuery::new(&missing.vector, query.filter.clone(), query.k, query.score_min, results);
        let MissingQuery { key, .. } = missing;
        collection.admit(view.version(), key, watched, || self.cache.keep(key, entry));
    }
}

/// What the keys of all queries of a search begin with.
pub(super) fn key_base(
    collection: &Collection,
    search: &Search,
    ef: Option<usize>,
    namespace: &Namespace,
) -> KeyHasher {
    let score_min = search.score_min.map_or([0; 5], |min| {
        let [a, b, c, d] = min.to_le_bytes();
        [1, a, b, c, d]
    });
    let filter = search.filter.as_ref().map(|filter| format!("{filter:?}")).unwrap_or_default();
    let mut base = KeyHasher::new("likewise/search/v1");
    base.field(namespace.name.as_bytes())
        .field(&collection.instance().to_le_bytes())
        .field(&(search.k as u64).to_le_bytes())
        .field(&(ef.unwrap_or(0) as u64).to_le_bytes())
        .field(&score_min)
        .field(&[u8::from(search.has_vectors)])
        .field(filter.as_bytes());
    base
}

/// The identity of a query's results in a collection.
pub(super) fn key(base: &KeyHasher, asked: &QueryInput) -> Key {
    let mut hasher = base.clone();
    match asked {
        QueryInput::Text(text) => hasher.field(b"text").field(text.as_bytes()),
        QueryInput::Vector(vector) => {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            hasher.field(b"vector").field(&bytes)
        }
    };
    hasher.finish()
}

pub(super) fn of_version(key: &Key, version: u64) -> Key {
    KeyHasher::new("likewise/search-flight/v1").field(&key.0).field(&version.to_le_bytes()).finish()
}
