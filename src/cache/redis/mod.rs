//! Redis or Valkey, which many nodes share.
//!
//! Contains: the connections to the servers and what bounds each call, the breaker, the names of keys, the encoding of
//! entries. Must not contain: a second opinion on freshness. The one idea: a call of a request has a limit of its own and
//! never waits for a connection, so a Redis that is silent costs a request that limit, a few times, and then nothing.

mod breaker;
mod call_error;
mod client;
mod clock_offset;
mod connector;
mod dedicated;
mod embedding_claims;
pub mod envelope;
mod keys;
mod link;
mod metrics;
mod node_registry;
mod options;
mod replies;
mod script;
mod server_identity;
mod servers;
mod shared_leases;
mod shared_log;
mod shared_pairs;
mod shared_write;
mod state;
mod tier;

pub use breaker::BreakerState;
pub use call_error::CallError;
pub use client::RedisClient;
pub use clock_offset::ClockOffset;
pub use dedicated::DedicatedConnection;
pub use embedding_claims::EmbeddingClaims;
pub use envelope::Envelope;
pub use keys::KeySpace;
pub use metrics::{CallOutcome, RedisMetrics};
pub use node_registry::{Located, NodeRegistry, RegisteredNode, RegisteredNodes};
pub use options::{BreakerOptions, RedisMode, RedisOptions, RedisUrl, SingleFlightScope};
pub use script::LuaScript;
pub(in crate::cache) use shared_leases::{LeaseTerms, SharedClaim};
pub(in crate::cache) use shared_log::{SharedLog, TOKENS_SHARD};
pub use shared_pairs::SharedPairs;
pub use shared_write::Replaces;
pub(in crate::cache) use shared_write::{NoneBehind, SharedWrite, Written};
pub(in crate::cache) use tier::Current;
pub use tier::{RedisEntries, RedisTier, RedisTierParts};
