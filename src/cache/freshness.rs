//! The one judge of whether an entry may be served, and the maker of lifetimes.

use std::sync::Arc;

use super::invalidation_tokens::{InvalidationTokens, Standing};
use super::policy::Policy;
use super::replication::Trust;
use crate::domain::{Clock, EntryMeta, UnixSeconds};

/// What may be done with an entry. Later ones are worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Serve it.
    Fresh,
    /// Serve it, and let one request refresh it (RFC 5861, stale-while-revalidate).
    Stale,
    /// It would be served, but other nodes may have changed it: serve it flagged where its policy allows, and do not refresh it.
    Unverified,
    /// Treat it as a miss, unless the origin fails (RFC 5861, stale-if-error).
    Expired,
    /// Treat it as a miss.
    Gone,
}

/// The moments of a new entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// When it is made.
    pub created: UnixSeconds,
    /// When it is to be refreshed.
    pub soft_expires: UnixSeconds,
    /// When it ends.
    pub expires: UnixSeconds,
    /// Until when it may stand in for an origin that fails.
    pub stale_until: UnixSeconds,
}

/// Judges entries of every tier by one clock and one table of tokens.
#[derive(Clone)]
pub struct Freshness {
    clock: Arc<dyn Clock>,
    tokens: Arc<InvalidationTokens>,
    trust: Arc<Trust>,
}

impl Freshness {
    /// A judge that reads `clock` and `tokens`, of entries that no other node can change.
    pub fn new(clock: Arc<dyn Clock>, tokens: Arc<InvalidationTokens>) -> Freshness {
        Freshness { clock, tokens, trust: Arc::new(Trust::of_single_node()) }
    }

    /// The same judge of entries that other nodes change too.
    #[must_use]
    pub fn of_shared(self, trust: Arc<Trust>) -> Freshness {
        Freshness { trust, ..self }
    }

    /// Whether the entry may be served now.
    pub fn judge(&self, meta: &EntryMeta) -> Verdict {
        let by_time = self.judge_time(meta);
        match self.tokens.standing(meta) {
            Standing::Current => self.judge_trust(by_time),
            Standing::Outdated => self.judge_trust(by_time.max(Verdict::Stale)),
            Standing::Revoked => Verdict::Gone,
        }
    }

    fn judge_trust(&self, verdict: Verdict) -> Verdict {
        if self.trust.is_held() { verdict } else { verdict.max(Verdict::Unverified) }
    }

    /// Whether the entry was invalidated, and may not be served stale either.
    pub fn is_revoked(&self, meta: &EntryMeta) -> bool {
        self.tokens.standing(meta) == Standing::Revoked
    }

    /// Whether an entry of a namespace with this policy may be served now. An entry whose end lies further off than any
    /// that could be given it now was stored, or its end moved, while the clock was ahead: how old it is is not known.
    pub fn judge_within(&self, meta: &EntryMeta, policy: &Policy) -> Verdict {
        let latest = self.clock.now().plus(policy.ttl_seconds_max);
        if meta.expires.is_ahead_of(latest) { Verdict::Gone } else { self.judge(meta) }
    }

    fn judge_time(&self, meta: &EntryMeta) -> Verdict {
        let now = self.clock.now();
        // The clock was ahead when the entry was made, and its end is as wrong as its beginning.
        if meta.created.is_ahead_of(now) {
            return Verdict::Gone;
        }
        if now < meta.soft_expires {
            Verdict::Fresh
        } else if now < meta.expires {
            Verdict::Stale
        } else if now < meta.stale_until {
            Verdict::Expired
        } else {
            Verdict::Gone
        }
    }

    /// Until when entries that other nodes change are known to be unchanged.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The current tokens.
    pub fn tokens(&self) -> &Arc<InvalidationTokens> {
        &self.tokens
    }

    /// The present second.
    pub fn now(&self) -> UnixSeconds {
        self.clock.now()
    }

    /// Seconds since the value was made.
    pub fn age_seconds(&self, meta: &EntryMeta) -> u32 {
        self.clock.now().since(meta.created)
    }

    /// The lifetime of an entry that is made now and lives `ttl_seconds` at most.
    pub fn lifetime(&self, policy: &Policy, ttl_seconds: u32) -> Lifetime {
        let created = self.clock.now();
        let lives = ttl_seconds - jitter(policy.jitter_share, ttl_seconds);
        let expires = created.plus(lives);
        Lifetime {
            created,
            soft_expires: created.plus((f64::from(lives) * policy.soft_share) as u32),
            expires,
            stale_until: expires.plus(policy.stale_if_error_seconds),
        }
    }

    /// For entries that live `ttl_seconds` after their last use: the new end of an entry that is used now, if it is
    /// worth writing down.
    ///
    /// An end is moved only once a quarter of the lifetime is gone, so an entry is rewritten at most four times per
    /// lifetime however often it is used, and lives between three quarters and the whole of `ttl_seconds` after
    /// its last use: never longer than promised.
    pub fn renewal(&self, meta: &EntryMeta, ttl_seconds: u32) -> Option<UnixSeconds> {
        let now = self.clock.now();
        let left = meta.expires.since(now);
        (left < ttl_seconds - ttl_seconds / 4).then(|| now.plus(ttl_seconds))
    }
}

/// Seconds by which a lifetime is shortened: at random, at most the share. A machine without random numbers shortens
/// nothing.
fn jitter(share: f64, ttl_seconds: u32) -> u32 {
    let most = (f64::from(ttl_seconds) * share) as u32;
    if most == 0 { 0 } else { getrandom::u32().unwrap_or(0) % (most + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::invalidation_tokens::LocalTokenLog;
    use crate::cache::policy::Namespaces;
    use crate::domain::{CLOCK_STEP_SECONDS_MAX, Codec, ManualClock, TenantId};
    use crate::storage::Records;

    async fn judge(clock: &Arc<ManualClock>, dir: &tempfile::TempDir) -> Freshness {
        let records = Arc::new(Records::open(dir.path()).unwrap());
        let tokens = InvalidationTokens::open(Arc::new(LocalTokenLog::new(records)), 100).await.unwrap();
        Freshness::new(Arc::clone(clock) as Arc<dyn Clock>, Arc::new(tokens))
    }

    fn policy(name: &str) -> Arc<Policy> {
        let namespaces = Namespaces::new(&Default::default(), true).unwrap();
        namespaces.resolve(&TenantId::default(), name).unwrap().policy
    }

    fn meta(freshness: &Freshness, lifetime: Lifetime) -> EntryMeta {
        let Lifetime { created, soft_expires, expires, stale_until } = lifetime;
        let admitted = freshness.tokens().admit(freshness.tokens().stamp(), Default::default(), &[]);
        let epoch = admitted.unwrap().epoch;
        EntryMeta { soft_expires, stale_until, epoch, ..EntryMeta::ending(Codec::Raw, created, expires) }
    }

    #[tokio::test]
    async fn an_entry_grows_stale_then_expires_then_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(UnixSeconds(1_000)));
        let freshness = judge(&clock, &dir).await;
        let policy = Policy { jitter_share: 0.0, ..(*policy("products")).clone() };
        let meta = meta(&freshness, freshness.lifetime(&policy, 100));
        let mut verdicts = Vec::new();
        for step in [89, 1, 9, 1, 599, 1] {
            clock.advance(step);
            verdicts.push(freshness.judge(&meta));
        }
        use Verdict::{Expired, Fresh, Gone, Stale};
        assert_eq!(verdicts, [Fresh, Stale, Stale, Expired, Expired, Gone]);
        assert_eq!(freshness.age_seconds(&meta), 700);
    }

    #[tokio::test]
    async fn an_entry_from_a_clock_that_was_ahead_is_gone_and_a_small_step_back_costs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(UnixSeconds(100_000)));
        let freshness = judge(&clock, &dir).await;
        let policy = Policy { jitter_share: 0.0, ..(*policy("products")).clone() };
        let meta = meta(&freshness, freshness.lifetime(&policy, 100));
        let verdict_at = |now| {
            clock.set(UnixSeconds(now));
            (freshness.judge(&meta), freshness.judge_within(&meta, &policy))
        };
        use Verdict::{Fresh, Gone};
        assert_eq!(verdict_at(100_000 - CLOCK_STEP_SECONDS_MAX), (Fresh, Fresh));
        for now in [100_000 - CLOCK_STEP_SECONDS_MAX - 1, 200, 0] {
            assert_eq!(verdict_at(now), (Gone, Gone), "{now}");
        }
        assert_eq!(verdict_at(u32::MAX), (Gone, Gone), "a clock that jumps ahead ends everything");
    }

    #[tokio::test]
    async fn an_end_that_was_moved_by_a_clock_that_was_ahead_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(UnixSeconds(1_000)));
        let freshness = judge(&clock, &dir).await;
        let policy = policy("embeddings");
        let max = policy.ttl_seconds_max;
        let made = meta(&freshness, freshness.lifetime(&policy, max));
        assert_eq!(freshness.judge_within(&made, &policy), Verdict::Fresh, "the longest life is no fault");
        clock.advance(365 * 86_400);
        let end = clock.now().plus(100);
        let moved = EntryMeta { soft_expires: end, expires: end, stale_until: end, ..made };
        assert_eq!(freshness.judge_within(&moved, &policy), Verdict::Fresh);
        clock.set(UnixSeconds(1_001));
        assert_eq!(freshness.judge_within(&moved, &policy), Verdict::Gone);
        assert_eq!(freshness.judge(&moved), Verdict::Fresh, "what it was made with does not show it");
    }

    #[tokio::test]
    async fn jitter_only_shortens() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(UnixSeconds(1_000)));
        let freshness = judge(&clock, &dir).await;
        let policy = policy("products");
        let ends: Vec<u32> = (0..500).map(|_| freshness.lifetime(&policy, 1_000).expires.0).collect();
        assert!(ends.iter().all(|end| (1_950..=2_000).contains(end)), "{ends:?}");
        assert!(ends.iter().any(|&end| end != ends[0]), "it is drawn at random");
    }

    #[tokio::test]
    async fn use_renews_an_entry_only_after_a_quarter_of_its_life() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(UnixSeconds(1_000)));
        let freshness = judge(&clock, &dir).await;
        let meta = meta(&freshness, freshness.lifetime(&policy("embeddings"), 100));
        clock.advance(25);
        assert_eq!(freshness.renewal(&meta, 100), None);
        clock.advance(1);
        assert_eq!(freshness.renewal(&meta, 100), Some(UnixSeconds(1_126)));
    }
}
