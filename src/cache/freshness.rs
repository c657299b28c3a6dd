//! The one judge of whether an entry may be served, and the maker of lifetimes.

use std::sync::Arc;

use crate::domain::{Clock, EntryMeta, UnixSeconds};

/// What may be done with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Serve it.
    Fresh,
    /// Treat it as a miss.
    Expired,
}

/// The four moments of a new entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// When it is made.
    pub created: UnixSeconds,
    /// When it ends.
    pub expires: UnixSeconds,
}

/// Judges entries of every tier by one clock.
#[derive(Clone)]
pub struct Freshness {
    clock: Arc<dyn Clock>,
}

impl Freshness {
    /// A judge that reads `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Freshness {
        Freshness { clock }
    }

    /// Whether the entry may be served now.
    pub fn judge(&self, meta: &EntryMeta) -> Verdict {
        if self.clock.now() < meta.expires { Verdict::Fresh } else { Verdict::Expired }
    }

    /// Seconds since the value was made.
    pub fn age_seconds(&self, meta: &EntryMeta) -> u32 {
        self.clock.now().since(meta.created)
    }

    /// The lifetime of an entry that is made now and lives `ttl_seconds`.
    pub fn lifetime(&self, ttl_seconds: u32) -> Lifetime {
        let created = self.clock.now();
        Lifetime { created, expires: created.plus(ttl_seconds) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Codec, ManualClock};

    fn meta(lifetime: Lifetime) -> EntryMeta {
        EntryMeta {
            created: lifetime.created,
            soft_expires: lifetime.expires,
            expires: lifetime.expires,
            stale_until: lifetime.expires,
            last_used: lifetime.created,
            cost_us: 0,
            tokens: 0,
            is_truncated: false,
            tags: Box::default(),
            epoch: 0,
            codec: Codec::F32,
            content_type: "".into(),
        }
    }

    #[test]
    fn an_entry_is_fresh_until_the_second_it_expires() {
        let clock = Arc::new(ManualClock::at(UnixSeconds(1_000)));
        let freshness = Freshness::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let meta = meta(freshness.lifetime(10));
        clock.advance(9);
        assert_eq!(freshness.judge(&meta), Verdict::Fresh);
        clock.advance(1);
        assert_eq!(freshness.judge(&meta), Verdict::Expired);
        assert_eq!(freshness.age_seconds(&meta), 10);
    }

    #[test]
    fn use_renews_an_entry_only_after_a_quarter_of_its_life() {
        let clock = Arc::new(ManualClock::at(UnixSeconds(1_000)));
        let freshness = Freshness::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let meta = meta(freshness.lifetime(100));
        clock.advance(25);
        assert_eq!(freshness.renewal(&meta, 100), None);
        clock.advance(1);
        assert_eq!(freshness.renewal(&meta, 100), Some(UnixSeconds(1_126)));
    }
}
