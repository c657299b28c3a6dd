//! What a request says about the cache, and whether a found entry satisfies it.

use super::ttl_seconds;
use crate::cache::{Found, Freshness, Policy, Verdict};
use crate::error::Result;

/// What a request says about the cache: the directives of RFC 9111 section 5.2.1 and RFC 5861 section 4, and our own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directives {
    /// Do not read the cache; compute the value again and store it.
    pub no_cache: bool,
    /// Do not store what is made.
    pub no_store: bool,
    /// Answer from the cache or not at all.
    pub only_if_cached: bool,
    /// Oldest acceptable age of a cached value, in seconds.
    pub age_seconds_max: Option<u32>,
    /// How long a value must stay fresh from now on, in seconds.
    pub fresh_seconds_min: Option<u32>,
    /// How long a value may have been expired, in seconds.
    pub stale_seconds_max: Option<u32>,
    /// The same, after computing the value again has failed.
    pub failed_stale_seconds_max: Option<u32>,
    /// Lifetime of what is stored, in seconds.
    pub ttl_seconds: Option<u32>,
    /// The same, as a header of another cache asks for it: more than is allowed is shortened to that.
    pub lenient_ttl_seconds: Option<u32>,
    /// Entries of different namespaces are different entries.
    pub namespace: Option<String>,
    /// The identity of an answer, in the words of its client: it replaces what the request says but for its model.
    pub cache_key: Option<String>,
    /// Whether a question is answered in other words too. If absent, its namespace decides.
    pub semantic: Option<bool>,
    /// Whether an answer that calls tools is stored and served. If absent, its route decides, else its namespace.
    pub tool_calls: Option<bool>,
    /// Whether an answer that ended at the limit of tokens is stored and served. If absent, its route decides, else its namespace.
    pub truncated: Option<bool>,
}

impl Directives {
    /// Whether the request may be answered with what was found. An expired entry is accepted only if the request allows it,
    /// and only as long as its policy lets it stand in for a failing origin.
    pub fn accept(&self, freshness: &Freshness, found: &Found) -> bool {
        let meta = &found.entry.meta;
        let now = freshness.now();
        // Ages are counted in whole seconds: one that counts as much may be more.
        let is_young = self.age_seconds_max.is_none_or(|max| now.since(meta.created) < max);
        let stays_fresh = self.fresh_seconds_min.is_none_or(|min| meta.expires.since(now) >= min);
        let is_alive = match found.verdict {
            Verdict::Fresh | Verdict::Stale | Verdict::Unverified => true,
            Verdict::Expired => self.stale_seconds_max.is_some_and(|max| now.since(meta.expires) <= max),
            Verdict::Gone => false,
        };
        !self.no_cache && is_young && stays_fresh && is_alive
    }

    /// What the request says once computing the value again has failed (RFC 5861 section 4).
    pub fn after_failure(self) -> Directives {
        Directives { stale_seconds_max: self.stale_seconds_max.max(self.failed_stale_seconds_max), ..self }
    }

    /// Whether the request sets the lifetime of what is stored.
    pub fn sets_ttl(&self) -> bool {
        self.ttl_seconds.is_some() || self.lenient_ttl_seconds.is_some()
    }

    /// The lifetime of what is stored, in seconds: the shortest that the request asks for, or that of the policy.
    ///
    /// # Errors
    /// `InvalidInput` for a TTL past its limit.
    pub(super) fn ttl_seconds(&self, policy: &Policy) -> Result<u32> {
        let asked = match (self.ttl_seconds, self.lenient_ttl_seconds) {
            (Some(ttl), lenient) => Some(lenient.map_or(ttl, |lenient| lenient.min(ttl))),
            (None, lenient) => lenient.map(|lenient| lenient.min(policy.ttl_seconds_max)),
        };
        ttl_seconds(policy, asked)
    }

    /// Whether the request sets conditions on the age of what it is answered with.
    pub fn is_conditional(&self) -> bool {
        self.age_seconds_max.is_some() || self.fresh_seconds_min.is_some() || self.stale_seconds_max.is_some()
    }
}
