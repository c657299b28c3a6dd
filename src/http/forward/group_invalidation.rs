//! `Cache-Group-Invalidation` of an upstream (RFC 9875, section 3): what it has changed is hidden here too.

use axum::http::Method;
use bytes::Bytes;

use crate::cache::{Mode, Propagation};
use crate::domain::Principal;
use crate::http::extract::cache_groups::invalidated;
use crate::service::Invalidation;
use crate::service::invalidation::{NAMES_MAX, Target};

/// Hides the entries of the caller's tenant that carry a group which the reply with these `lines` invalidates. Replies to safe methods and errors invalidate
/// nothing (section 3, and RFC 9111, section 4.4).
///
/// The upstream has done what it was asked, so that its reply is passed on also if the disk did not take the invalidation: then the
/// entries are hidden until the next start.
pub(super) async fn obey(
    invalidation: &Invalidation,
    principal: &Principal,
    method: &Method,
    status: u16,
    lines: &[Bytes],
) -> Propagation {
    if method.is_safe() || !(200..400).contains(&status) || lines.is_empty() {
        return Propagation::Complete;
    }
    let Some(tags) = invalidated(lines.iter().map(Bytes::as_ref)) else {
        tracing::warn!("an upstream sent a cache-group-invalidation that is no list of strings");
        return Propagation::Complete;
    };
    let mut propagation = Propagation::Complete;
    for tags in tags.chunks(NAMES_MAX) {
        match invalidation.invalidate(principal, &Target::Tags(tags.to_vec()), Mode::Hard).await {
            Ok(done) => propagation = propagation.max(done),
            Err(error) => tracing::error!(%error, "failed to write an invalidation by an upstream to disk"),
        }
    }
    propagation
}
