//! Leases in Redis, from the view of a node.

use std::time::Duration;

use super::shared_tier::SharedTier;
use crate::cache::change_log::LogPosition;
use crate::cache::lease::Lease;
use crate::cache::random::random_id;
use crate::cache::redis::{SharedClaim, TOKENS_SHARD};
use crate::domain::Key;
use crate::error::{Error, Kind, Result};

impl SharedTier {
    /// Asks for the lease of a key among all nodes.
    ///
    /// # Errors
    /// `Unavailable` if Redis cannot be asked.
    pub(in crate::cache) async fn claim_lease(
        &self,
        key: &Key,
        lease: Lease,
        lasts: Duration,
    ) -> Result<SharedClaim> {
        self.check_connected()?;
        let position = self.log.known(TOKENS_SHARD).position();
        self.log.claim_lease(key, lease, lasts, position).await.map_err(|_| unreachable())
    }

    /// Where in the log of tokens the holder of a lease began. `None` if it is not, or no longer, the lease of the key.
    ///
    /// # Errors
    /// `Unavailable` if Redis cannot be asked.
    pub(in crate::cache) async fn lease_position(
        &self,
        key: &Key,
        lease: Lease,
    ) -> Result<Option<LogPosition>> {
        self.check_connected()?;
        self.log.lease_position(key, lease).await.map_err(|_| unreachable())
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
        self.check_connected()?;
        self.log.renew_lease(key, lease, lasts).await.map_err(|_| unreachable())
    }

    /// Ends a lease without a value. Returns whether it was still the lease of the key.
    ///
    /// # Errors
    /// `Unavailable` if Redis cannot be asked.
    pub(in crate::cache) async fn end_lease(&self, key: &Key, lease: Lease) -> Result<bool> {
        self.check_connected()?;
        self.log.end_lease(key, lease, random_id()?).await.map_err(|_| unreachable())
    }

    fn check_connected(&self) -> Result<()> {
        if self.trust.is_connected() { Ok(()) } else { Err(unreachable()) }
    }
}

fn unreachable() -> Error {
    let message = "Redis is not reachable: the lease of another node cannot be checked; try again later";
    Error::new(Kind::Unavailable, message)
}
