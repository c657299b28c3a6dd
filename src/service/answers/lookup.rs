//! Looks up stored answers in the tiers, and decides whether one may be served.

use std::sync::Arc;

use super::request::ResolvedRequest;
use super::response::{HitInfo, MatchKind};
use crate::cache::{Cache, Found, Freshness, KeyGuard, Namespace, Verdict};
use crate::domain::{InvalidationId, Key};
use crate::service::Directives;

/// The lookup by identity.
pub(super) struct Lookup {
    cache: Arc<Cache>,
}

/// A stored answer that was found.
#[derive(Debug, Clone)]
pub(super) struct Match {
    /// Under which it is stored.
    pub(super) key: Key,
    pub(super) found: Found,
    /// How its question matches.
    pub(super) kind: MatchKind,
}

impl Lookup {
    pub(super) fn new(cache: Arc<Cache>) -> Lookup {
        Lookup { cache }
    }

    /// Looks in memory, then in the tiers below.
    pub(super) async fn find(&self, resolved: &ResolvedRequest) -> Option<Match> {
        if let Some(found) = self.cache.peek_verified(&resolved.identity.key).await {
            return Some(Match::new(found, resolved));
        }
        let _held = self.lock(&resolved.identity.key).await;
        self.find_locked(resolved).await
    }

    /// The answer to a question in other words, which is stored under its own key.
    pub(super) async fn find_by_key(&self, namespace: &Namespace, key: Key) -> Option<Match> {
        let found = match self.cache.peek_verified(&key).await {
            Some(found) => found,
            None => {
                let _held = self.lock(&key).await;
                self.cache.find(namespace, &key).await?
            }
        };
        Some(Match { key, found, kind: MatchKind::Semantic })
    }

    /// Looks in every tier. The caller holds the key's stripe, so that no other task replaces an entry while it is promoted.
    pub(super) async fn find_locked(&self, resolved: &ResolvedRequest) -> Option<Match> {
        let found = self.cache.find(&resolved.namespace, &resolved.identity.key).await;
        found.map(|found| Match::new(found, resolved))
    }

    /// Whether an answer may be served. One without a tag of the request would survive an invalidation of that tag.
    pub(super) fn accepts(&self, found: &Match, resolved: &ResolvedRequest, directives: &Directives) -> bool {
        directives.accept(self.freshness(), &found.found) && found.has_tags(&resolved.store_policy.tags)
    }

    /// Whether an answer may be served and needs no refresh.
    pub(super) fn is_new(&self, found: &Match, resolved: &ResolvedRequest, directives: &Directives) -> bool {
        found.is_fresh() && self.accepts(found, resolved, directives)
    }

    /// Whether an expired answer may stand in for an upstream that fails (RFC 5861 section 4).
    pub(super) fn may_stand_in(
        &self,
        found: &Match,
        resolved: &ResolvedRequest,
        directives: &Directives,
    ) -> bool {
        let Directives { stale_seconds_max, .. } = directives.clone().after_failure();
        // Without a limit of the request that of the policy holds.
        let limit = stale_seconds_max.or(Some(u32::MAX));
        self.accepts(found, resolved, &Directives { stale_seconds_max: limit, ..directives.clone() })
    }

    /// Where an answer was found, and its age.
    pub(super) fn hit_info(&self, found: &Match) -> HitInfo {
        let (meta, now) = (&found.found.entry.meta, self.freshness().now());
        HitInfo {
            tier: found.found.tier,
            is_stale: !found.is_fresh(),
            match_kind: found.kind,
            age_seconds: now.since(meta.created),
            fresh_seconds: i64::from(meta.expires.0) - i64::from(now.0),
        }
    }

    /// Holds the stripe of a key: no other task stores or removes its answer meanwhile.
    pub(super) async fn lock(&self, key: &Key) -> KeyGuard<'_> {
        self.cache.lock(std::slice::from_ref(key)).await
    }

    /// Returns once no stripe is held.
    pub(super) async fn wait_for_locks(&self) {
        self.cache.wait_for_locks().await;
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    pub(super) fn freshness(&self) -> &Freshness {
        self.cache.freshness()
    }
}

impl Match {
    fn new(found: Found, resolved: &ResolvedRequest) -> Match {
        let kind = MatchKind::of(&found.entry.meta, &resolved.identity);
        Match { key: resolved.identity.key, found, kind }
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.found.verdict == Verdict::Fresh
    }

    /// Whether it is to be refreshed. Nothing is gained by that while it is not known what other nodes have changed.
    pub(super) fn is_due(&self) -> bool {
        !self.is_fresh() && self.found.is_verified()
    }

    fn has_tags(&self, tags: &[InvalidationId]) -> bool {
        tags.iter().all(|tag| self.found.entry.meta.tags.iter().any(|version| version.tag == *tag))
    }
}
