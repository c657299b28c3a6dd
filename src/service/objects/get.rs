//! Looks objects up, and grants the lease to make one that is missing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tracing::instrument;

use super::{Address, GetOptions, GetOutcome, GrantedLease, Object, Objects};
use crate::cache::{Claim, Found, Stamp, Verdict};
use crate::domain::LookupOutcome;
use crate::error::{Error, Kind, Result};
use crate::service::spans::record_outcome;

impl Objects {
    /// Looks an object up. If it is missing or stale, or by chance shortly before it is stale, one of the requests that ask for a lease
    /// gets it; the others are served the object that there is, or wait.
    ///
    /// # Errors
    /// `InvalidInput` for a lease or a wait past its limit, `Overloaded` if too many leases are held, `NotCached` with
    /// `only_if_cached`.
    ///
    /// Cancel safety: the lease of a request that was cancelled expires.
    #[instrument(level = "debug", skip_all, fields(namespace = %address.namespace.name, outcome), err(level = "debug"))]
    pub async fn get(&self, address: &Address, options: &GetOptions) -> Result<GetOutcome> {
        self.check_options(options)?;
        let limit = Instant::now() + options.wait;
        let mut has_waited = false;
        loop {
            let stamp = self.stamp();
            let accepted = self.find_accepted(address, options).await;
            let is_settled =
                accepted.as_ref().is_some_and(|found| is_fresh(found) && !self.is_due_early(found));
            let claim = match options.lease_seconds {
                Some(seconds) if !is_settled && !options.directives.only_if_cached => {
                    match self.claim(address, seconds, stamp).await {
                        Ok(claim) => Some((claim, seconds)),
                        // It is served without a lease.
                        Err(_) if accepted.as_ref().is_some_and(is_fresh) => None,
                        Err(error) => return Err(error),
                    }
                }
                Some(_) | None => None,
            };
            match (accepted, claim) {
                (Some(found), Some((Claim::Granted(lease), seconds))) => {
                    return Ok(self.hit(address, found, has_waited, Some(GrantedLease { lease, seconds })));
                }
                (Some(found), _) => return Ok(self.hit(address, found, has_waited, None)),
                (None, None) if options.directives.only_if_cached => {
                    self.count_miss(address);
                    return Err(Error::new(Kind::NotCached, "the object is not in the cache"));
                }
                (None, None) => return Ok(self.miss(address, None, false)),
                (None, Some((Claim::Granted(lease), seconds))) => {
                    // Its last holder may have stored the object since it was looked for.
                    let Some(found) = self.find_accepted(address, options).await.filter(is_fresh) else {
                        return Ok(self.miss(address, Some(GrantedLease { lease, seconds }), false));
                    };
                    // It ends by itself if it cannot be given back.
                    let _ = self.release(address, lease).await;
                    return Ok(self.hit(address, found, true, None));
                }
                (None, Some((Claim::Held(_), _))) if Instant::now() >= limit => {
                    return Ok(self.miss(address, None, true));
                }
                (None, Some((Claim::Held(waiting), _))) => waiting.ended(limit).await,
            }
            has_waited = true;
        }
    }

    /// Whether a fresh object is to be refreshed by chance, before it is stale.
    fn is_due_early(&self, found: &Found) -> bool {
        let (meta, now) = (&found.entry.meta, self.cache.freshness().now());
        self.early_refresh.is_due(meta.cost_us, meta.soft_expires.since(now))
    }

    async fn find_accepted(&self, address: &Address, options: &GetOptions) -> Option<Found> {
        let found = self.find(address).await;
        found.filter(|found| options.directives.accept(self.cache.freshness(), found))
    }

    pub(super) async fn find(&self, address: &Address) -> Option<Found> {
        if let Some(found) = self.cache.peek_verified(&address.key).await {
            return Some(found);
        }
        let _held = self.cache.lock(&[address.key]).await;
        self.find_locked(address).await
    }

    /// Looks in every tier. The caller holds the key's stripe, so no other task replaces the promoted entry.
    pub(super) async fn find_locked(&self, address: &Address) -> Option<Found> {
        self.cache.find(&address.namespace, &address.key).await
    }

    fn hit(
        &self,
        address: &Address,
        found: Found,
        has_waited: bool,
        lease: Option<GrantedLease>,
    ) -> GetOutcome {
        let (outcome, counter) = match (found.verdict, has_waited) {
            (Verdict::Fresh, true) => (LookupOutcome::Coalesced, &self.metrics.coalesced),
            (Verdict::Fresh, false) => (LookupOutcome::Hit, &self.metrics.hits),
            (Verdict::Stale | Verdict::Unverified | Verdict::Expired | Verdict::Gone, _) => {
                (LookupOutcome::Stale, &self.metrics.stale)
            }
        };
        counter.inc();
        self.namespaces.lookups_in(&address.namespace).add(outcome, 1);
        record_outcome(outcome);
        let now = self.cache.freshness().now();
        let meta = &found.entry.meta;
        GetOutcome::Hit(Box::new(Object {
            value: Bytes::from_owner(Arc::clone(&found.entry.value)),
            age_seconds: now.since(meta.created),
            fresh_seconds: i64::from(meta.expires.0) - i64::from(now.0),
            found,
            lease,
        }))
    }

    fn count_miss(&self, address: &Address) {
        self.metrics.misses.inc();
        self.namespaces.lookups_in(&address.namespace).add(LookupOutcome::Miss, 1);
    }

    fn miss(&self, address: &Address, lease: Option<GrantedLease>, is_held: bool) -> GetOutcome {
        self.count_miss(address);
        record_outcome(LookupOutcome::Miss);
        GetOutcome::Miss { lease, is_held }
    }

    fn check_options(&self, options: &GetOptions) -> Result<()> {
        let max = self.options.lease_seconds_max;
        if options.lease_seconds.is_some_and(|seconds| !(1..=max).contains(&seconds)) {
            let message = format!("lease_seconds must be 1 to {max}");
            return Err(Error::invalid("lease_seconds", message));
        }
        let max = self.options.wait_ms_max;
        if options.wait > Duration::from_millis(max) {
            return Err(Error::invalid("wait", format!("wait must be at most {max} ms")));
        }
        Ok(())
    }

    async fn claim(&self, address: &Address, seconds: u32, stamp: Stamp) -> Result<Claim> {
        let lasts = Duration::from_secs(seconds.into());
        self.leases.claim(&address.namespace, address.key, lasts, stamp).await
    }
}

fn is_fresh(found: &Found) -> bool {
    found.verdict == Verdict::Fresh
}
