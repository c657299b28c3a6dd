//! Finds kept answers, and says whether one is what is asked for, in the form that is asked for.

use tokio::time::Instant;

use super::served::{Age, Body, Outcome, Served};
use super::{Answers, Ask, Asked, Form, Record};
use crate::cache::{Found, Namespace, Verdict};
use crate::domain::{Key, Subject};
use crate::error::Result;
use crate::service::Directives;
use crate::upstream::{self, Headers, Replay};

/// About so many bytes of a replay are written at once.
pub const REPLAYED_BYTES: usize = 64 * 1024;

impl Answers {
    /// Looks in memory, then in the tiers below.
    pub(super) async fn look(&self, namespace: &Namespace, key: &Key) -> Option<Found> {
        if let Some(found) = self.cache.peek(key) {
            return Some(found);
        }
        let _held = self.stripes.lock(std::slice::from_ref(key)).await;
        self.look_locked(namespace, key).await
    }

    /// Looks in every tier. Whoever calls it holds the key's stripe, so nobody replaces what is promoted.
    pub(super) async fn look_locked(&self, namespace: &Namespace, key: &Key) -> Option<Found> {
        if let Some(found) = self.cache.peek(key) {
            return Some(found);
        }
        self.cache.fetch(namespace, std::slice::from_ref(key)).await.pop().flatten()
    }

    /// Whether what was found is what is asked. An entry that does not carry all that the request says its answer depends
    /// on would survive an invalidation that it must not.
    pub(super) fn accepts(&self, found: &Found, asked: &Asked, directives: &Directives) -> bool {
        directives.accept(self.cache.freshness(), found) && carries(found, &asked.terms.tags)
    }

    /// What was found, in the form that is asked for; none if it cannot be told in it.
    pub(super) fn hit(&self, found: &Found, asked: &Asked, form: Form, started: Instant) -> Option<Served> {
        let record = record_for(found, form)?;
        let body = self.replayed(record.answer, form)?;
        let age = self.age(found, asked);
        if age.is_joined {
            self.metrics.answers_joined.inc();
        }
        let saved = record.usage.map(|usage| self.saved(&asked.model, usage));
        Some(Served {
            id: Some(asked.identity.key),
            saved,
            lookup: started.elapsed(),
            ..Served::new(200, Headers::new(), body, Outcome::Hit(age))
        })
    }

    /// Where it was found, and how old it is.
    pub(super) fn age(&self, found: &Found, asked: &Asked) -> Age {
        let (meta, now) = (&found.entry.meta, self.cache.freshness().now());
        Age {
            tier: found.tier,
            is_stale: found.verdict != Verdict::Fresh,
            is_joined: meta.validator != asked.identity.exact.half(),
            age_seconds: now.since(meta.created),
            fresh_seconds: i64::from(meta.expires.0) - i64::from(now.0),
        }
    }

    /// An answer as a new delivery.
    pub(super) fn replayed(&self, json: &[u8], form: Form) -> Option<Body> {
        let now = self.cache.freshness().now();
        if form.streams {
            let mut replay = Replay::new(json, now, form.wants_usage)?;
            let first = replay.next_bytes(REPLAYED_BYTES)?;
            return Some(if replay.is_over() { Body::Events(first) } else { Body::Replay(first, replay) });
        }
        Some(Body::Whole(upstream::as_json(json, now).into()))
    }

    /// Whether an answer that has ended may stand in for an upstream that fails (RFC 5861 section 4).
    pub(super) fn may_stand_in(&self, found: &Found, asked: &Asked, directives: &Directives) -> bool {
        let Directives { stale_seconds_max, .. } = directives.clone().after_failure();
        // Whoever sets no limit takes what the policy allows.
        let limit = stale_seconds_max.or(Some(u32::MAX));
        self.accepts(found, asked, &Directives { stale_seconds_max: limit, ..directives.clone() })
    }

    /// The answer in hand, in the place of what failed: if it is still there, and not removed while the upstream was asked.
    pub(super) async fn stand_in(
        &self,
        ask: &Ask,
        asked: &Asked,
        form: Form,
        failed: &Result<Served>,
        started: Instant,
    ) -> Option<Served> {
        let found = self.look(&asked.namespace, &asked.identity.key).await?;
        if self.is_new(&found, asked, &ask.directives) {
            // Somebody else has had more luck meanwhile.
            return self.hit(&found, asked, form, started);
        }
        let found = Some(found).filter(|found| self.may_stand_in(found, asked, &ask.directives))?;
        let record = Record::decode(&found.entry.value).filter(|record| !record.is_text)?;
        let body = self.replayed(record.answer, form)?;
        let status = failed.as_ref().ok().map(|served| served.status);
        let outcome = Outcome::StaleIfError(self.age(&found, asked), status);
        Some(Served { id: Some(asked.identity.key), ..Served::new(200, Headers::new(), body, outcome) })
    }

    /// Whether it is what is asked, and nobody need make it anew.
    pub(super) fn is_new(&self, found: &Found, asked: &Asked, directives: &Directives) -> bool {
        found.verdict == Verdict::Fresh && self.accepts(found, asked, directives)
    }
}

/// The kept answer, if it can be told in this form.
pub(super) fn record_for(found: &Found, form: Form) -> Option<Record<'_>> {
    let record = Record::decode(&found.entry.value).filter(|record| !record.is_text)?;
    // A whole answer tells what it used, and so does a stream that was asked to; unless its upstream never does.
    let must_tell_usage = !form.streams || form.wants_usage;
    let tells_usage = record.usage.is_some() || record.was_asked_for_usage;
    (tells_usage || !must_tell_usage).then_some(record)
}

fn carries(found: &Found, tags: &[Subject]) -> bool {
    tags.iter().all(|tag| found.entry.meta.tags.iter().any(|version| version.tag == *tag))
}
