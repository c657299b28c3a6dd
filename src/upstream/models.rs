//! What upstreams say that can be asked of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::client::Upstream;
use super::reply::{Headers, UpstreamCall};
use super::routes::{RouteCredential, UpstreamRoute};
use crate::domain::{Credential, KeyHeader};
use crate::error::{Error, Kind, Result};

/// How long a list is waited for, and its bytes at most.
const WITHIN: Duration = Duration::from_secs(5);
pub(super) const LIST_BYTES_MAX: usize = 4 << 20;

/// OpenAI's list of models; the rest of what it says of one is left as it is.
#[derive(Deserialize)]
struct List {
    data: Vec<Box<RawValue>>,
}

/// The models of a list, if `body` is one.
pub(super) fn read_list(body: &[u8]) -> Option<Vec<Box<RawValue>>> {
    serde_json::from_slice::<List>(body).ok().map(|list| list.data)
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    id: std::borrow::Cow<'a, str>,
}

/// A model of which only the name is known.
#[derive(Serialize)]
struct Unseen<'a> {
    id: &'a str,
    object: &'a str,
    created: u32,
    owned_by: &'a str,
}

/// The models that the configuration names.
fn unseen(route: &UpstreamRoute) -> Vec<Box<RawValue>> {
    let unseen = |id| Unseen { id, object: "model", created: 0, owned_by: "upstream" };
    route.whole_names().filter_map(|id| to_raw_value(&unseen(id)).ok()).collect()
}

impl Upstream {
    /// The models of all routes, each as its upstream describes it; of an upstream that does not tell in time, those that the
    /// configuration names. One call a route, all at once.
    pub(super) async fn list(&self, credential: Option<&Credential>, traces: &Headers) -> Vec<Box<RawValue>> {
        join_all(self.routes().map(|route| self.models_of(route, credential, traces))).await.concat()
    }

    async fn models_of(
        &self,
        route: &Arc<UpstreamRoute>,
        credential: Option<&Credential>,
        traces: &Headers,
    ) -> Vec<Box<RawValue>> {
        // A client's credential is for one upstream: others that take one must not see it.
        if matches!(route.key, RouteCredential::Clients) && !self.is_of_none(route) {
            return unseen(route);
        }
        let listed = tokio::time::timeout(WITHIN, self.list_of(route, credential, traces)).await;
        let late = || Error::new(Kind::Timeout, "it took too long");
        let listed = listed.unwrap_or_else(|_| Err(late()));
        self.report_listing(route, listed.as_ref().err());
        match listed {
            Ok(mut models) => {
                models.retain(|model| self.asks_at(model, route));
                models
            }
            Err(_) => unseen(route),
        }
    }

    /// Counts a list that could not be read, and logs the first one of a row and the end of the row. A client's wrong credential
    /// is no failure of the upstream.
    fn report_listing(&self, route: &UpstreamRoute, error: Option<&Error>) {
        match error {
            Some(error) if error.kind() == Kind::Unauthorized => {}
            Some(error) => {
                self.count_failed_list();
                if route.lists_models.swap(false, Ordering::Relaxed) {
                    tracing::warn!(%error, upstream = &*route.name,
                        "an upstream does not list its models: /v1/models has only those of the configuration");
                }
            }
            None => {
                if !route.lists_models.swap(true, Ordering::Relaxed) {
                    tracing::info!(upstream = &*route.name, "an upstream lists its models again");
                }
            }
        }
    }

    async fn list_of(
        &self,
        route: &Arc<UpstreamRoute>,
        credential: Option<&Credential>,
        traces: &Headers,
    ) -> Result<Vec<Box<RawValue>>> {
        let call = UpstreamCall {
            method: "GET".into(),
            path: "/models".into(),
            model: None,
            headers: traces.clone(),
            key_header: KeyHeader::BEARER,
            credential: credential.cloned(),
            body: Bytes::new(),
            needs_clients_key: false,
            may_repeat: true,
            may_wait: false,
        };
        let mut reply = self.call_on(route, call).await?;
        let body = reply.whole(LIST_BYTES_MAX).await?;
        let is_refused = matches!(route.key, RouteCredential::Clients) && matches!(reply.status, 401 | 403);
        let kind = if is_refused { Kind::Unauthorized } else { Kind::Upstream };
        let fault = || Error::new(kind, "it is no list of models").with("status", reply.status);
        read_list(&body).filter(|_| reply.is_success()).ok_or_else(fault)
    }

    /// Whether requests for a model that `route` describes are routed there.
    fn asks_at(&self, model: &RawValue, route: &Arc<UpstreamRoute>) -> bool {
        let named = serde_json::from_str::<Named<'_>>(model.get());
        named.is_ok_and(|named| self.route_of(&named.id).is_ok_and(|known| Arc::ptr_eq(known, route)))
    }
}
