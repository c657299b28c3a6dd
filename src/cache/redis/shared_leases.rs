//! Leases that all nodes see: in Redis, one string a key, which ends by itself. A value that is stored or removed ends the lease of its key.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Value;

use super::call_error::CallError;
use super::replies::number;
use super::script::{LuaScript, appending};
use super::shared_log::{SharedLog, event_of};
use crate::cache::change_log::{KIND_LEASE_ENDED, LogPosition};
use crate::cache::lease::Lease;
use crate::domain::{InvalidationId, Key};
use crate::storage::le_bytes::u64_at;

static CLAIM: LazyLock<LuaScript> = LazyLock::new(|| LuaScript::new(include_str!("scripts/claim_lease.lua")));
static RENEW: LazyLock<LuaScript> = LazyLock::new(|| LuaScript::new(include_str!("scripts/renew_lease.lua")));
static END: LazyLock<LuaScript> = LazyLock::new(|| LuaScript::new(appending!("scripts/end_lease.lua")));

/// What a lease says besides its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache) struct LeaseTerms {
    /// The last event of the tokens that the granting node had applied.
    pub(in crate::cache) position: LogPosition,
    /// Whose key it is, as in [`crate::domain::NamespaceId::tenant`].
    pub(in crate::cache) tenant: Option<InvalidationId>,
}

/// What came of asking for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache) enum SharedClaim {
    /// This node has it.
    Granted {
        /// Whether the key has a value.
        has_value: bool,
        /// The number of the last event of its shard.
        number: u64,
    },
    /// A client of some node has it.
    Held {
        lease: Lease,
        /// How long it lasts unless it is renewed.
        left: Duration,
    },
}

impl SharedLog {
    /// Asks for the lease of a key.
    ///
    /// # Errors
    /// [`CallError`]. Then the lease may be granted, until it ends by itself.
    pub(in crate::cache) async fn claim_lease(
        &self,
        key: &Key,
        lease: Lease,
        lasts: Duration,
        terms: LeaseTerms,
    ) -> Result<SharedClaim, CallError> {
        let keys = self.client.keys();
        let names = [keys.lease(key), keys.object(key), keys.state(self.shard_of(key))];
        let LeaseTerms { position, tenant } = terms;
        let tenant = tenant.map_or(0, |tenant| tenant.0);
        let value = [lease.0, position.generation, position.number, tenant].map(u64::to_le_bytes).concat();
        let reply = self.run(&CLAIM, &names, &[value, millis(lasts)], self.client.response_max()).await?;
        let Value::Array(parts) = &reply else { return Err(CallError::NotConnected) };
        match parts.as_slice() {
            [Value::Int(0), has_value, last] => Ok(SharedClaim::Granted {
                has_value: number(has_value) == Some(1),
                number: number(last).unwrap_or_default().unsigned_abs(),
            }),
            [left, Value::BulkString(held)] => Ok(SharedClaim::Held {
                lease: Lease(u64_at(held, 0).unwrap_or_default()),
                left: Duration::from_millis(number(left).unwrap_or_default().unsigned_abs()),
            }),
            _ => Err(CallError::NotConnected),
        }
    }

    /// The lease of a key, and its terms.
    ///
    /// # Errors
    /// [`CallError`].
    pub(in crate::cache) async fn lease(&self, key: &Key) -> Result<Option<(Lease, LeaseTerms)>, CallError> {
        let mut get = redis::cmd("GET");
        get.arg(self.client.keys().lease(key));
        let Value::BulkString(value) = self.client.command(&get, self.client.response_max()).await? else {
            return Ok(None);
        };
        let held = || {
            let position = LogPosition { generation: u64_at(&value, 8)?, number: u64_at(&value, 16)? };
            let tenant = Some(InvalidationId(u64_at(&value, 24)?)).filter(|tenant| tenant.0 != 0);
            Some((Lease(u64_at(&value, 0)?), LeaseTerms { position, tenant }))
        };
        Ok(held())
    }

    /// Lets a lease last from now on. Returns whether it was still the lease of the key.
    ///
    /// # Errors
    /// [`CallError`].
    pub(in crate::cache) async fn renew_lease(
        &self,
        key: &Key,
        lease: Lease,
        lasts: Duration,
    ) -> Result<bool, CallError> {
        let names = [self.client.keys().lease(key)];
        let arguments = [lease.0.to_le_bytes().into(), millis(lasts)];
        let reply = self.run(&RENEW, &names, &arguments, self.client.response_max()).await?;
        Ok(number(&reply) == Some(1))
    }

    /// Ends a lease without a value. Returns whether it was still the lease of the key.
    ///
    /// # Errors
    /// [`CallError`].
    pub(in crate::cache) async fn end_lease(
        &self,
        key: &Key,
        lease: Lease,
        nonce: u64,
    ) -> Result<bool, CallError> {
        let (keys, shard) = (self.client.keys(), self.shard_of(key));
        let names = [keys.state(shard), keys.events(shard), keys.lease(key)];
        let arguments: [Vec<u8>; 5] = [
            nonce.to_le_bytes().into(),
            self.node.0.to_le_bytes().into(),
            event_of(KIND_LEASE_ENDED, key),
            self.events_max.to_string().into(),
            lease.0.to_le_bytes().into(),
        ];
        let reply = self.run(&END, &names, &arguments, self.client.response_max()).await?;
        Ok(number(&reply) == Some(1))
    }
}

fn millis(duration: Duration) -> Vec<u8> {
    duration.as_millis().to_string().into()
}
