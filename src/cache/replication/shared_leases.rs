//! Leases in Redis, from the view of a node.

use std::time::Duration;

use super::shared_tier::SharedTier;
use crate::cache::lease::Lease;
use crate::cache::random::random_id;
use crate::cache::redis::{LeaseTerms, SharedClaim, TOKENS_SHARD};
use crate::domain::{Key, NamespaceId};
use crate::error::{Error, Kind, Result};

impl SharedTier {
    /// Asks for the lease of a key among all nodes.
    ///
    /// # Errors
    /// `Unavailable` if Redis cannot be asked.
    pub(in crate::cache) async fn claim_lease(
        &self,
        namespace: NamespaceId,
        key: &Key,
        lease: Lease,
        lasts: Duration,
    ) -> Result<SharedClaim> {
        self.check_connected(key)?;
        let position = self.log.known(TOKENS_SHARD).position();
        let terms = LeaseTerms { position, tenant: namespace.tenant() };
        self.log.claim_lease(key, lease, lasts, terms).await.map_err(|_| unreachable())
    }

    /// The lease of a key, and its terms.
    ///
    /// # Errors
    /// `Unavailable` if Redis cannot be asked.
    pub(in crate::cache) async fn lease(&self, key: &Key) -> Result<Option<(Lease, LeaseTerms)>> {
        self.check_connected(key)?;
        self.log.lease(key).await.map_err(|_| unreachable())
    }

    /// Lets a lease last from now on. Returns whether it was still the lease of the key.
    ///
    /// # Errors
    /// `Unavailable` if Redis cannot be asked.
    pub(in crate::cache) async fn renew_lease(
        &self,
        key: &Key,
        lease: Lease,
        lasts: Duration,
    ) -> Result<bool> {
        self.check_connected(key)?;
        self.log.renew_lease(key, lease, lasts).await.map_err(|_| unreachable())
    }

    /// Ends a lease without a value. Returns whether it was still the lease of the key.
    ///
    /// # Errors
    /// `Unavailable` if Redis cannot be asked.
    pub(in crate::cache) async fn end_lease(&self, key: &Key, lease: Lease) -> Result<bool> {
        self.check_connected(key)?;
        self.log.end_lease(key, lease, random_id()?).await.map_err(|_| unreachable())
    }

    fn check_connected(&self, key: &Key) -> Result<()> {
        if self.is_connected(key) { Ok(()) } else { Err(unreachable()) }
    }
}

fn unreachable() -> Error {
    let message = "Redis is not reachable: the lease of another node cannot be checked; try again later";
    Error::new(Kind::Unavailable, message)
}
