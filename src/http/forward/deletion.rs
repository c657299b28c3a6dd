//! An answer that a client has deleted at its upstream is not served again: its id would be one that the upstream does not know.

use std::sync::Arc;

use tracing::Instrument as _;

use crate::cache::{Mode, Propagation};
use crate::domain::Principal;
use crate::error::{Error, Kind, Result};
use crate::service::Invalidation;
use crate::service::invalidation::Target;
use crate::upstream::{Origin, Reply, UpstreamCall};

/// Sends the deletion of the answer that the upstream has stored under `id`, and hides the answers of the caller's tenant with that id,
/// unless the reply says that the upstream still has it.
///
/// The reply is passed on also if the disk did not take that: then they are hidden until the next start.
///
/// Cost: one invalidation, which is one flush of the disk. Cancel safety: a deletion that has begun is finished, since the upstream may
/// have obeyed it already.
pub(super) async fn delete(
    origin: &Arc<dyn Origin>,
    call: UpstreamCall,
    invalidation: &Arc<Invalidation>,
    principal: Arc<Principal>,
    id: String,
) -> (Result<Reply>, Propagation) {
    let (origin, invalidation) = (Arc::clone(origin), Arc::clone(invalidation));
    let deleting = async move {
        let reply = origin.ask(call).await;
        let propagation = if may_be_deleted(&reply) {
            hide(&invalidation, &principal, id).await
        } else {
            Propagation::Complete
        };
        (reply, propagation)
    };
    let died = |died| Error::new(Kind::Internal, "cannot pass on a deletion").source(died);
    let done = tokio::spawn(deleting.in_current_span()).await;
    done.unwrap_or_else(|error| (Err(died(error)), Propagation::Complete))
}

/// Whether the upstream may not have the answer any more. A reply that is lost says nothing, and a second deletion finds nothing: a needless miss
/// costs less than an id that is refused.
fn may_be_deleted(reply: &Result<Reply>) -> bool {
    match reply {
        Ok(reply) => !(400..500).contains(&reply.status) || matches!(reply.status, 404 | 410),
        // Other errors are those of calls that were not sent.
        Err(error) => matches!(error.kind(), Kind::Upstream | Kind::Timeout),
    }
}

async fn hide(invalidation: &Invalidation, principal: &Principal, id: String) -> Propagation {
    let hidden = invalidation.invalidate(principal, &Target::UpstreamAnswer(id), Mode::Hard).await;
    hidden.unwrap_or_else(|error| {
        tracing::error!(%error, "failed to write to disk that an upstream has deleted an answer");
        Propagation::Complete
    })
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use futures_util::stream;

    use super::*;

    #[test]
    fn only_a_refusal_says_that_the_answer_is_still_there() {
        let replied = |status| Ok(Reply::new(status, Vec::new(), stream::empty().boxed()));
        for status in [200, 204, 404, 410, 500, 502, 504] {
            assert!(may_be_deleted(&replied(status)), "{status}");
        }
        for status in [400, 401, 403, 409, 429] {
            assert!(!may_be_deleted(&replied(status)), "{status}");
        }
        let failed = |kind| Err(Error::new(kind, "it failed"));
        assert!([Kind::Upstream, Kind::Timeout].map(failed).iter().all(may_be_deleted));
        assert!(![Kind::Overloaded, Kind::ModelNotFound].map(failed).iter().any(may_be_deleted));
    }
}
