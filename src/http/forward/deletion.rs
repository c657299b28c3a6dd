//! An answer that a client has deleted at its upstream is served no more: its id would be one that the upstream does not know.

use axum::http::Method;

use crate::cache::{Mode, Propagation};
use crate::domain::Principal;
use crate::service::Invalidation;
use crate::service::invalidation::Target;

/// Hides the answers of the caller's tenant that the upstream has stored under `id`, if it says that it has deleted them.
///
/// Its reply is passed on also if the disk did not take that: then they are hidden until the next start.
///
/// Cost: one invalidation, which is one flush of the disk.
pub(super) async fn obey(
    invalidation: &Invalidation,
    principal: &Principal,
    method: &Method,
    status: u16,
    id: Option<String>,
) -> Propagation {
    let Some(id) = id.filter(|_| *method == Method::DELETE && (200..300).contains(&status)) else {
        return Propagation::Complete;
    };
    invalidation.invalidate(principal, &Target::UpstreamAnswer(id), Mode::Hard).await.unwrap_or_else(
        |error| {
            tracing::error!(%error, "failed to write to disk that an upstream has deleted an answer");
            Propagation::Complete
        },
    )
}
