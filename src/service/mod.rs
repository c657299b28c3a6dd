//! Use cases, one file each: what the server does for its users, without HTTP and without JSON.
//!
//! Contains: the walk of a request through cache and models. Must not contain: wire formats, status codes,
//! files, sockets. The one idea: a use case is a plain async function of plain values, so that the HTTP server, the
//! command line and the tests call the same code.

pub mod answers;
pub mod background_work;
pub mod collections;
mod directives;
mod early_refresh;
pub mod embeddings;
pub mod invalidation;
pub mod jobs;
pub mod listing;
pub mod objects;
pub mod rerank;
mod spans;
mod upstream_calls;
pub mod warming;

pub use answers::Answers;
pub use collections::Collections;
pub use directives::Directives;
pub use embeddings::Embeddings;
pub use invalidation::Invalidation;
pub use jobs::Jobs;
pub use listing::Listing;
pub use objects::Objects;
pub use rerank::Rerank;

use crate::cache::Policy;
use crate::domain::Tag;
use crate::error::{Error, Result};

/// Refuses more tags than an entry may carry.
fn check_tags(tags: &[Tag]) -> Result<()> {
    if tags.len() <= objects::TAGS_MAX {
        return Ok(());
    }
    let message = format!("an entry must have at most {} tags, got {}", objects::TAGS_MAX, tags.len());
    Err(Error::invalid("tags", message))
}

/// The lifetime that a request asks for, or that of the policy.
fn ttl_seconds(policy: &Policy, asked: Option<u32>) -> Result<u32> {
    let param = "ttl_seconds";
    let max = policy.ttl_seconds_max;
    match asked {
        Some(0) => Err(Error::invalid(param, "the TTL must be at least 1 second; no-store stores nothing")),
        Some(ttl) if ttl > max => {
            Err(Error::invalid(param, format!("the TTL must be at most {max} seconds, got {ttl}")))
        }
        Some(ttl) => Ok(ttl),
        None => Ok(policy.ttl_seconds),
    }
}
