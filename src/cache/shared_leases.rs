//! Leases of a cache: those of this node, and where nodes share entries those of all of them.

use std::sync::Arc;
use std::time::Duration;

use super::Freshness;
use super::invalidation_tokens::Stamp;
use super::lease::{Claim, HeldLease, Lease, LeaseScope, Leases, lease_ended};
use super::policy::Namespace;
use super::redis::{LeaseTerms, SharedClaim};
use super::replication::SharedTier;
use crate::domain::{Key, TierName};
use crate::error::Result;

/// The leases of the keys of a cache. Shared by `Arc`.
///
/// A lease is granted on the node first, and then in Redis: of those who wait on a node only one asks Redis. While Redis cannot be
/// reached each node grants leases of its own.
pub struct SharedLeases {
    local: Arc<Leases>,
    freshness: Freshness,
    /// Where other nodes make values too.
    shared: Option<Arc<SharedTier>>,
}

impl SharedLeases {
    pub(super) fn new(
        leases_max: usize,
        freshness: Freshness,
        shared: Option<Arc<SharedTier>>,
    ) -> SharedLeases {
        let local = Arc::new(Leases::new(leases_max));
        if let Some(shared) = &shared {
            let local = Arc::clone(&local);
            // What was changed or given back elsewhere is to be looked for, or claimed, again.
            shared.events.listen(move |key, _| local.end(key));
        }
        SharedLeases { local, freshness, shared }
    }

    /// As [`Leases::claim`], among all nodes.
    ///
    /// # Errors
    /// As [`Leases::claim`].
    ///
    /// Cancel safety: a lease that was granted and not taken ends by itself.
    pub async fn claim(
        &self,
        namespace: &Namespace,
        key: Key,
        lasts: Duration,
        stamp: Stamp,
    ) -> Result<Claim> {
        let claim = self.local.claim(key, lasts, stamp)?;
        let (Claim::Granted(lease), Some(shared)) = (&claim, self.shared_for(namespace)) else {
            return Ok(claim);
        };
        Ok(match shared.claim_lease(namespace.id, &key, *lease, lasts).await {
            Ok(SharedClaim::Granted { .. }) => {
                self.local.mark_shared(&key, *lease);
                claim
            }
            Ok(SharedClaim::Held { left, .. }) => Claim::Held(self.local.mark_elsewhere(&key, *lease, left)),
            Err(_) => claim,
        })
    }

    /// A lease that a client presents, whichever node has granted it.
    ///
    /// # Errors
    /// `Conflict` if it is not, or no longer, the lease of the key; `Unavailable` if another node has granted it and Redis cannot be
    /// asked.
    pub async fn check(&self, namespace: &Namespace, key: &Key, lease: Lease) -> Result<HeldLease> {
        let checked = self.local.check(key, lease);
        let (Err(_), Some(shared)) = (&checked, self.shared_for(namespace)) else { return checked };
        let held = shared.lease(key).await?.filter(|(held, _)| *held == lease);
        let (_, LeaseTerms { position, .. }) = held.ok_or_else(lease_ended)?;
        let as_read = || self.freshness.tokens().table().stamp_as_read();
        // A lease from before this node has followed the invalidations may be from before one of them.
        let stamp = shared.positions.stamp_of(position, as_read).ok_or_else(lease_ended)?;
        Ok(HeldLease { lease, stamp, scope: LeaseScope::Elsewhere, since: None })
    }

    /// Whether a lease that was granted here has not ended since it was checked. That of another node is checked by the write.
    ///
    /// # Errors
    /// `Conflict`.
    pub fn check_again(&self, key: &Key, held: &HeldLease) -> Result<()> {
        if held.scope == LeaseScope::Elsewhere {
            return Ok(());
        }
        self.local.check(key, held.lease).map(|_| ())
    }

    /// Ends a lease without a value: the next request may get it.
    ///
    /// # Errors
    /// As [`SharedLeases::check`].
    pub async fn release(&self, namespace: &Namespace, key: &Key, lease: Lease) -> Result<()> {
        let held = self.check(namespace, key, lease).await?;
        self.local.end(key);
        match self.end_shared(namespace, key, &held).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(lease_ended()),
            // On other nodes it ends by itself.
            Err(_) if held.scope == LeaseScope::Shared => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends a lease whose value was not stored. On nodes that cannot be reached it ends by itself.
    pub async fn give_back(&self, namespace: &Namespace, key: &Key, held: &HeldLease) {
        let _ = self.end_shared(namespace, key, held).await;
    }

    async fn end_shared(&self, namespace: &Namespace, key: &Key, held: &HeldLease) -> Result<bool> {
        match self.shared_for(namespace).filter(|_| held.scope != LeaseScope::Node) {
            Some(shared) => shared.end_lease(key, held.lease).await,
            None => Ok(true),
        }
    }

    /// The key was written, removed or invalidated on this node: its lease ends for any holder, and those who wait are woken.
    pub fn end(&self, key: &Key) {
        self.local.end(key);
    }

    fn shared_for(&self, namespace: &Namespace) -> Option<&SharedTier> {
        self.shared.as_deref().filter(|_| namespace.policy.uses(TierName::Redis))
    }
}
