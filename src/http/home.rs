//! `/`: where the server stands, and where to go on, for people and for programs.

mod page;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::http::admission::Authorized;
use crate::http::routes::{Access, Routes};
use crate::http::stats::{LookupNumbers, Statistics};

/// What the handler reads.
pub(super) struct HomeEndpoint {
    pub(super) statistics: Arc<Statistics>,
    /// Whether requests need a key.
    pub(super) has_keys: bool,
}

/// Where the server stands, and where to go on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Home {
    /// `likewise`.
    service: &'static str,
    /// What the server does, absent for a sender who may not see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<HomeState>,
    /// What to do to see more.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
    /// Paths of other pages.
    links: HomeLinks,
}

/// What the server does.
#[derive(Debug, Serialize, ToSchema)]
struct HomeState {
    /// Version of the server.
    version: &'static str,
    /// Seconds since the server started.
    uptime_seconds: u64,
    /// Names under which embedding models are served.
    models: Vec<String>,
    /// Requested texts.
    texts: LookupNumbers,
    /// Requested answers of language models.
    answers: LookupNumbers,
    /// Requested objects.
    objects: LookupNumbers,
    /// Queries of collections.
    searches: LookupNumbers,
}

/// Paths of other pages.
#[derive(Debug, Serialize, ToSchema)]
struct HomeLinks {
    /// The contract, as OpenAPI.
    contract: &'static str,
    /// The models.
    models: &'static str,
    /// The statistics, as JSON.
    statistics: &'static str,
    /// The metrics, for Prometheus.
    metrics: &'static str,
    /// Whether the process is alive.
    health: &'static str,
    /// Whether requests are welcome.
    readiness: &'static str,
}

const LINKS: HomeLinks = HomeLinks {
    contract: "/openapi.json",
    models: "/v1/models",
    statistics: "/v1/stats",
    metrics: "/metrics",
    health: "/healthz",
    readiness: "/readyz",
};

const NEEDS_KEY: &str = "send an API key to see more: curl -H 'authorization: Bearer KEY' and this address";
const FROM_ELSEWHERE: &str = "open this page by its address, as http://127.0.0.1:8420/, to see more";

/// The routes of this feature.
pub(super) fn routes() -> Routes<Arc<HomeEndpoint>> {
    Routes::new().add_for(Access::OptionalKey, routes!(home))
}

/// The first page: what the server does, and links. As HTML for browsers, else as JSON. Without a key, where there are keys, it has links only.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "getHome",
    tag = "operations",
    responses(
        (status = 200, description = "What the server does, and where to go on", content(
            (Home = "application/json"),
            (String = "text/html"),
        )),
    )
)]
async fn home(
    State(endpoint): State<Arc<HomeEndpoint>>,
    authorized: Option<Extension<Authorized>>,
    headers: HeaderMap,
) -> Response {
    let home = endpoint.home(authorized.is_some());
    let mut response = if wants_html(&headers) { page::html(&home) } else { Json(home).into_response() };
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept, authorization"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl HomeEndpoint {
    fn home(&self, is_authorized: bool) -> Home {
        let hint = if self.has_keys { NEEDS_KEY } else { FROM_ELSEWHERE };
        Home {
            service: "likewise",
            state: is_authorized.then(|| HomeState::read(&self.statistics)),
            hint: (!is_authorized).then_some(hint),
            links: LINKS,
        }
    }
}

impl HomeState {
    fn read(statistics: &Statistics) -> HomeState {
        let [texts, answers, objects, searches] = statistics.lookups();
        HomeState {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: statistics.started.elapsed().as_secs(),
            models: statistics.models.list().map(|(name, _)| name.to_owned()).collect(),
            texts,
            answers,
            objects,
            searches,
        }
    }
}

/// Browsers name HTML. Programs and curl take anything, and get JSON.
fn wants_html(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepts.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_html = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"));
        is_html && !parts.any(|part| matches!(part, "q=0" | "q=0.0"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_html_and_programs_json() {
        let wants = |accept: &'static str| {
            wants_html(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
        };
        assert!(
            wants("text/html,application/xhtml+xml,*/*;q=0.8")
                && wants("application/json;q=0.1, Text/HTML;q=0.5")
        );
        assert!(!wants("*/*") && !wants("application/json") && !wants("text/html;q=0, */*"));
        assert!(!wants_html(&HeaderMap::new()));
    }
}
