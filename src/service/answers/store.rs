//! Stores an answer: in memory first, then on the disk.

use std::sync::Arc;

use super::inflight::StorePolicy;
use super::lookup::{Lookup, Match};
use super::request::ResolvedRequest;
use super::stored_answer::{CONTENT_TYPE, StoredAnswer};
use crate::cache::{Cache, HeldLease, KeyGuard, Policy, Stamp, WriteCondition};
use crate::domain::{Codec, Entry, EntryMeta, EntryNames, InvalidationId, Key, TierName};
use crate::error::Result;
use crate::service::Directives;

/// An answer that is in memory and not yet on the disk.
pub(super) struct PendingWrite<'a> {
    key: Key,
    entry: Arc<Entry>,
    cache: &'a Cache,
    resolved: &'a ResolvedRequest,
    lease: Option<HeldLease>,
    /// No other task replaces it before it is on the disk.
    _held: KeyGuard<'a>,
}

/// An answer to be stored: generated, or sent by an application.
pub(super) struct StoreRequest<'a> {
    pub(super) record: StoredAnswer<'a>,
    pub(super) store_policy: StorePolicy,
    pub(super) stamp: Stamp,
    /// The lease under which it was generated.
    pub(super) lease: Option<HeldLease>,
    pub(super) cost_us: u32,
    /// The id under which its upstream has stored it, if replays have it.
    pub(super) upstream_id: Option<&'a str>,
}

/// Replaces the previous answer in memory and inherits its tags. `None` if one of the tags was invalidated since the
/// generation began. `held` is the key's stripe.
pub(super) async fn begin_store<'a>(
    lookup: &'a Lookup,
    resolved: &'a ResolvedRequest,
    store_request: StoreRequest<'_>,
    held: KeyGuard<'a>,
) -> Option<PendingWrite<'a>> {
    let key = resolved.identity.key;
    let mut store_policy = store_request.store_policy;
    if let Some(before) = lookup.find_locked(resolved).await {
        store_policy.depend_on(resolved.inherited_tags(&before.found.entry));
    }
    let upstream_answer =
        store_request.upstream_id.map(|id| InvalidationId::upstream_answer(&resolved.tenant, id));
    // Beyond the limit of tags too: without it the answer would outlive its deletion at the upstream.
    store_policy.tags.extend(upstream_answer);
    let current = lookup.freshness().tokens();
    let tokens = current.admit(store_request.stamp, resolved.namespace.id, &store_policy.tags)?;
    let policy = &*resolved.namespace.policy;
    // An inherited TTL was shortened by the jitter already; again and again it would approach zero.
    let jitter_share = if store_policy.inherits_ttl { 0.0 } else { policy.jitter_share };
    let policy = Policy { jitter_share, ..policy.clone() };
    let lifetime = lookup.freshness().lifetime(&policy, store_policy.ttl_seconds);
    let usage = store_request.record.usage.unwrap_or_default();
    let meta = EntryMeta {
        soft_expires: lifetime.soft_expires,
        stale_until: lifetime.stale_until,
        cost_us: store_request.cost_us,
        tokens: usage.prompt_tokens.saturating_add(usage.completion_tokens),
        namespace: resolved.namespace.id,
        epoch: tokens.epoch,
        tags: tokens.tags,
        content_type: CONTENT_TYPE.into(),
        validator: resolved.identity.exact.half(),
        ..EntryMeta::ending(Codec::Raw, lifetime.created, lifetime.expires)
    };
    let entry = Arc::new(Entry { meta, value: store_request.record.encode().into() });
    let lease = store_request.lease;
    let stored = PendingWrite { key, entry, cache: lookup.cache(), resolved, lease, _held: held };
    stored.put_in_memory();
    Some(stored)
}

impl ResolvedRequest {
    /// The tags of an answer that its replacement has too. It has another id at the upstream.
    fn inherited_tags(&self, before: &Entry) -> Vec<InvalidationId> {
        tags_of(before).into_iter().filter(|tag| !tag.is_upstream_answer(&self.tenant)).collect()
    }

    /// A replacement inherits the tags of the answer it replaces, and its requested TTL unless this request sets one.
    pub(super) fn inherit(&mut self, before: Option<&Match>, directives: &Directives) {
        let Some(Match { found: before, .. }) = before else { return };
        let inherited = self.inherited_tags(&before.entry);
        self.store_policy.depend_on(inherited);
        let was_requested =
            StoredAnswer::decode(&before.entry.value).is_some_and(|record| record.is_ttl_requested);
        if !directives.sets_ttl() && was_requested {
            let meta = &before.entry.meta;
            self.store_policy.ttl_seconds = meta.expires.since(meta.created).max(1);
            self.store_policy.is_ttl_requested = true;
            self.store_policy.inherits_ttl = true;
        }
    }
}

impl PendingWrite<'_> {
    /// The tags of the answer.
    pub(super) fn tags(&self) -> Vec<InvalidationId> {
        tags_of(&self.entry)
    }

    /// Those that its replacement has too.
    pub(super) fn inherited_tags(&self) -> Vec<InvalidationId> {
        self.resolved.inherited_tags(&self.entry)
    }

    /// What decides whether the answer may be served.
    pub(super) fn meta(&self) -> &EntryMeta {
        &self.entry.meta
    }

    /// Stores the answer in memory, if the policy of its namespace uses memory.
    fn put_in_memory(&self) {
        if self.resolved.namespace.policy.uses(TierName::Memory) {
            self.cache.keep(self.key, Arc::clone(&self.entry));
        }
    }

    /// Writes the answer to the disk.
    ///
    /// # Errors
    /// `Io`, `DiskFull`, `Unavailable`: then the answer is not in memory either. `Conflict` if the lease has ended.
    pub(super) async fn finish(&self) -> Result<()> {
        let namespace = &self.resolved.namespace;
        let names =
            EntryNames { namespace: Arc::clone(&namespace.name), key: String::new(), tags: Vec::new() };
        let entry = Arc::clone(&self.entry);
        let condition = WriteCondition { lease: self.lease, ..WriteCondition::default() };
        self.cache.put_named(namespace, self.key, entry, &names, condition).await.map(|_| ())
    }

    /// Forgets an answer that another node has replaced or removed.
    pub(super) fn forget(&self) {
        self.cache.forget_kept(&self.key, &self.entry);
    }

    /// Keeps the answer in memory only, after the disk has refused it.
    pub(super) async fn keep_in_memory_only(&self) {
        // Otherwise the previous answer would come back from the disk. If this fails too, the disk is no longer read.
        let _ = self.cache.remove_many(&[self.key]).await;
        self.put_in_memory();
    }
}

/// The tags of an answer.
pub(super) fn tags_of(entry: &Entry) -> Vec<InvalidationId> {
    entry.meta.tags.iter().map(|version| version.tag).collect()
}
