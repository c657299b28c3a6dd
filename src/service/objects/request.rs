//! Requests for objects, their results, and the options that limit them.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::cache::{Found, Lease, Namespace, Propagation};
use crate::domain::{Key, TenantId};
use crate::service::Directives;

/// Bytes that a key may have.
pub const KEY_BYTES_MAX: usize = 1024;
/// Tags that one entry may carry.
pub const TAGS_MAX: usize = 64;

/// Limits of requests for objects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Leases at the same time; more are refused.
    pub leases_max: usize,
    /// The longest duration of a lease in seconds.
    pub lease_seconds_max: u32,
    /// The longest wait for the lease of another client in milliseconds.
    pub wait_ms_max: u64,
    /// How early objects that are asked for often are refreshed, before they are stale: with 1 the share of the requests that get the
    /// lease of a fresh object grows from nothing to all within a few times as long as its last holder took. 0 gives leases of stale and
    /// missing objects only.
    pub early_refresh_beta: f64,
}

impl Default for Options {
    fn default() -> Options {
        Options { leases_max: 65_536, lease_seconds_max: 300, wait_ms_max: 30_000, early_refresh_beta: 0.0 }
    }
}

/// The address of an object.
#[derive(Debug, Clone)]
pub struct Address {
    pub(super) namespace: Namespace,
    pub(super) key: Key,
    pub(super) tenant: TenantId,
}

impl Address {
    /// The object's identity.
    pub fn key(&self) -> Key {
        self.key
    }

    /// The longest value that may be stored there.
    pub fn value_bytes_max(&self) -> usize {
        self.namespace.policy.value_bytes_max
    }

    /// The longest TTL of an object there.
    pub fn ttl_seconds_max(&self) -> u32 {
        self.namespace.policy.ttl_seconds_max
    }
}

/// The options of a get.
#[derive(Debug, Clone, Default)]
pub struct GetOptions {
    /// Its cache directives.
    pub directives: Directives,
    /// Requests a lease of so many seconds if the object is missing or stale.
    pub lease_seconds: Option<u32>,
    /// How long to wait while another client holds the lease.
    pub wait: Duration,
}

/// A found object.
#[derive(Debug, Clone)]
pub struct Object {
    /// The entry with the tier that held it.
    pub found: Found,
    /// The bytes as they were stored.
    pub value: Bytes,
    /// Seconds since it was stored.
    pub age_seconds: u32,
    /// Seconds until it expires; negative once it has.
    pub fresh_seconds: i64,
    /// The lease, if this request must refresh the object: it is stale, or chance says so.
    pub lease: Option<GrantedLease>,
}

/// A lease that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantedLease {
    /// The lease, which the put must present.
    pub lease: Lease,
    /// Its duration in seconds.
    pub seconds: u32,
}

/// The outcome of a get.
#[derive(Debug)]
pub enum GetOutcome {
    /// The object.
    Hit(Box<Object>),
    /// There is none that satisfies the request.
    Miss {
        /// The lease, if this request must produce the value.
        lease: Option<GrantedLease>,
        /// Whether another client holds the lease.
        is_held: bool,
    },
}

/// An object that was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutOutcome {
    /// Its validator.
    pub validator: u128,
    /// Whether other nodes have it.
    pub propagation: Propagation,
}

/// What came of a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteOutcome {
    /// Whether there was an object.
    pub was_there: bool,
    /// Whether it is removed from other nodes.
    pub propagation: Propagation,
}
