//! A cache of objects: bytes under a key in a namespace, which clients produce and store.
//!
//! The flow of a get: memory; then, under the lock of the key's stripe, the tiers below. The flow of a put: the same lock, the tokens of
//! its tags, the tiers below, memory. One client holds the lease to produce a missing value.

mod batch;
mod change;
mod condition;
mod draft;
mod get;
mod metrics;
mod request;
mod tag_names;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use batch::{BATCH_MAX, BatchResult, ObjectBatch, check_batch_len};
pub use condition::{Condition, Validators};
pub use draft::{ObjectDraft, check_value_bytes};
pub use metrics::ObjectMetrics;
pub use request::{
    Address, DeleteOutcome, GetOptions, GetOutcome, GrantedLease, KEY_BYTES_MAX, Object, Options, PutOutcome,
    TAGS_MAX,
};

use self::condition::is_present;
use self::tag_names::TagNames;
use crate::cache::{Cache, Found, Lease, Namespaces, SharedLeases, Stamp};
use crate::domain::{InvalidationId, KeyHasher, Principal, Tag};
use crate::error::{Error, Result};
use crate::service::early_refresh::EarlyRefresh;

/// The use case. Shared by `Arc`.
pub struct Objects {
    cache: Arc<Cache>,
    namespaces: Arc<Namespaces>,
    leases: SharedLeases,
    early_refresh: EarlyRefresh,
    options: Options,
    metrics: Arc<ObjectMetrics>,
    tag_names: TagNames,
}

impl Objects {
    /// A use case over `cache`.
    pub fn new(
        cache: Arc<Cache>,
        namespaces: Arc<Namespaces>,
        options: Options,
        metrics: Arc<ObjectMetrics>,
    ) -> Objects {
        Objects {
            leases: cache.leases(options.leases_max),
            early_refresh: EarlyRefresh::new(options.early_refresh_beta),
            cache,
            namespaces,
            options,
            metrics,
            tag_names: TagNames::default(),
        }
    }

    /// The address of the object `key` in a namespace.
    ///
    /// # Errors
    /// `InvalidInput` for a key of no or too many bytes and an invalid name of a namespace; `NotFound` for an unknown namespace if only
    /// configured ones are allowed.
    pub fn address(&self, principal: &Principal, namespace: &str, key: &str) -> Result<Address> {
        let tenant = &principal.tenant;
        let namespace = self.namespaces.resolve(tenant, namespace)?;
        if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
            let message = format!("key must have 1 to {KEY_BYTES_MAX} bytes, got {}", key.len());
            return Err(Error::invalid("key", message));
        }
        let key = KeyHasher::new("likewise/object/v1")
            .field(tenant.as_str().as_bytes())
            .field(namespace.name.as_bytes())
            .field(key.as_bytes())
            .finish();
        Ok(Address { namespace, key, tenant: tenant.clone() })
    }

    /// The names of the tags of a found object, as far as this node knows them: another node that has stored it does not share them.
    ///
    /// Cost: a read of the disk for an object whose tags were not met since the start.
    pub async fn tag_names(&self, address: &Address, found: &Found) -> Vec<Arc<str>> {
        let tags = &found.entry.meta.tags;
        if let Some(names) = self.tag_names.of(tags) {
            return names;
        }
        // Without the disk the object is served all the same.
        let Ok(stored) = self.cache.named(address.key).await else { return Vec::new() };
        if let Some(stored) = stored {
            self.learn_tags(address, &stored.names.tags);
        }
        self.tag_names.give_up_on(tags);
        self.tag_names.of(tags).unwrap_or_default()
    }

    fn learn_tags(&self, address: &Address, names: &[String]) {
        let tags = names.iter().filter_map(|name| {
            let tag = Tag::named(name)?;
            Some((InvalidationId::tag(&address.tenant, &tag), name.as_str()))
        });
        self.tag_names.learn(tags);
    }

    /// The present point in the order of invalidations, for [`ObjectDraft::stamp`].
    pub fn stamp(&self) -> Stamp {
        self.cache.freshness().tokens().stamp()
    }

    /// Releases a lease: the next request for the object may get it.
    ///
    /// # Errors
    /// `Conflict` if it has ended; `Unavailable` if another node has granted it and Redis cannot be asked.
    pub async fn release(&self, address: &Address, lease: Lease) -> Result<()> {
        self.leases.release(&address.namespace, &address.key, lease).await
    }

    /// How many of the addresses hold an object.
    pub(super) async fn count(&self, addresses: &[Address]) -> u64 {
        let mut count = 0;
        for address in addresses {
            count += u64::from(self.find(address).await.is_some_and(|found| is_present(&found)));
        }
        count
    }
}
