//! Looks up stored answers, decides whether one may be served, and replays it in the requested form.

use tokio::time::Instant;

use super::response::{AnswerResponse, Body, HitInfo, MatchKind, Outcome};
use super::{AnswerRequest, Answers, ResolvedRequest, ResponseForm, StoredAnswer};
use crate::cache::{Found, Namespace, Verdict};
use crate::domain::{Key, Subject};
use crate::error::Result;
use crate::service::Directives;
use crate::upstream::Headers;

/// About so many bytes of a replay are produced at once.
pub const REPLAYED_BYTES: usize = 64 * 1024;

impl Answers {
    /// Looks in memory, then in the tiers below.
    pub(super) async fn look(&self, namespace: &Namespace, key: &Key) -> Option<Found> {
        if let Some(found) = self.cache.peek(key) {
            return Some(found);
        }
        let _held = self.key_locks.lock(std::slice::from_ref(key)).await;
        self.look_locked(namespace, key).await
    }

    /// Looks in every tier. The caller holds the key's stripe, so that no other task replaces an entry while it is promoted.
    pub(super) async fn look_locked(&self, namespace: &Namespace, key: &Key) -> Option<Found> {
        if let Some(found) = self.cache.peek(key) {
            return Some(found);
        }
        self.cache.fetch(namespace, std::slice::from_ref(key)).await.pop().flatten()
    }

    /// Whether an entry may be served. An entry without one of the request's tags would survive an invalidation of that tag.
    pub(super) fn accepts(&self, found: &Found, resolved: &ResolvedRequest, directives: &Directives) -> bool {
        directives.accept(self.cache.freshness(), found) && carries(found, &resolved.store_policy.tags)
    }

    /// A hit in the requested form. `None` if the answer cannot be replayed in that form.
    pub(super) fn hit(
        &self,
        found: &Found,
        resolved: &ResolvedRequest,
        form: ResponseForm,
        started: Instant,
    ) -> Option<AnswerResponse> {
        let record = record_for(found, form)?;
        let body = self.replayed(record.answer, form)?;
        let age = self.age(found, resolved);
        if age.match_kind == MatchKind::Normalized {
            self.metrics.normalized_hits.inc();
        }
        let saved = record.usage.map(|usage| self.saved(&resolved.model, usage));
        Some(AnswerResponse {
            id: Some(resolved.identity.key),
            saved,
            lookup: started.elapsed(),
            ..AnswerResponse::new(200, Headers::new(), body, Outcome::Hit(age))
        })
    }

    /// Where it was found, and how old it is.
    pub(super) fn age(&self, found: &Found, resolved: &ResolvedRequest) -> HitInfo {
        let (meta, now) = (&found.entry.meta, self.cache.freshness().now());
        HitInfo {
            tier: found.tier,
            is_stale: found.verdict != Verdict::Fresh,
            match_kind: MatchKind::of(meta, &resolved.identity),
            age_seconds: now.since(meta.created),
            fresh_seconds: i64::from(meta.expires.0) - i64::from(now.0),
        }
    }

    /// An answer as a new response, with the time of now.
    pub(super) fn replayed(&self, json: &[u8], form: ResponseForm) -> Option<Body> {
        let now = self.cache.freshness().now();
        if form.streams {
            let mut replay = form.dialect.replay_events(json, now, form.wants_usage)?;
            let first = replay.next_bytes(REPLAYED_BYTES)?;
            return Some(if replay.is_over() { Body::Events(first) } else { Body::Replay(first, replay) });
        }
        Some(Body::Whole(form.dialect.replay_json(json, now).into()))
    }

    /// Whether an answer that has ended may stand in for an upstream that fails (RFC 5861 section 4).
    pub(super) fn may_stand_in(
        &self,
        found: &Found,
        resolved: &ResolvedRequest,
        directives: &Directives,
    ) -> bool {
        let Directives { stale_seconds_max, .. } = directives.clone().after_failure();
        // Without a limit of the request that of the policy holds.
        let limit = stale_seconds_max.or(Some(u32::MAX));
        self.accepts(found, resolved, &Directives { stale_seconds_max: limit, ..directives.clone() })
    }

    /// The stale answer in the place of a failure, if it was not removed meanwhile.
    pub(super) async fn stand_in(
        &self,
        request: &AnswerRequest,
        resolved: &ResolvedRequest,
        form: ResponseForm,
        failed: &Result<AnswerResponse>,
        started: Instant,
    ) -> Option<AnswerResponse> {
        let found = self.look(&resolved.namespace, &resolved.identity.key).await?;
        if self.is_new(&found, resolved, &request.directives) {
            // Another request has stored a fresh answer meanwhile.
            return self.hit(&found, resolved, form, started);
        }
        let found = Some(found).filter(|found| self.may_stand_in(found, resolved, &request.directives))?;
        let body = self.replayed(replayable(&found, form)?.answer, form)?;
        let status = failed.as_ref().ok().map(|response| response.status);
        let outcome = Outcome::StaleIfError(self.age(&found, resolved), status);
        Some(AnswerResponse {
            id: Some(resolved.identity.key),
            ..AnswerResponse::new(200, Headers::new(), body, outcome)
        })
    }

    /// Whether an entry may be served and needs no refresh.
    pub(super) fn is_new(&self, found: &Found, resolved: &ResolvedRequest, directives: &Directives) -> bool {
        found.verdict == Verdict::Fresh && self.accepts(found, resolved, directives)
    }
}

/// The stored answer, if it can be replayed in this form.
pub(super) fn record_for(found: &Found, form: ResponseForm) -> Option<StoredAnswer<'_>> {
    let record = replayable(found, form)?;
    // A JSON answer reports usage, and so does a stream whose client requested it, unless the upstream never does.
    let needs_usage = !form.streams || form.wants_usage;
    let reports_usage = record.usage.is_some() || record.was_usage_requested;
    (reports_usage || !needs_usage).then_some(record)
}

/// The stored answer, if it is of the dialect of this form.
fn replayable(found: &Found, form: ResponseForm) -> Option<StoredAnswer<'_>> {
    let is_of_dialect =
        |record: &StoredAnswer<'_>| !record.is_text && record.dialect == form.dialect.record_code();
    StoredAnswer::decode(&found.entry.value).filter(is_of_dialect)
}

fn carries(found: &Found, tags: &[Subject]) -> bool {
    tags.iter().all(|tag| found.entry.meta.tags.iter().any(|version| version.tag == *tag))
}
