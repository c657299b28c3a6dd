//! Probes, metrics and statistics for operators.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::Json;
use axum::extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::domain::Principal;
use crate::error::{Error, Kind};
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::routes::{Access, Routes};
use crate::http::stats::{RedisStats, Statistics, Stats};

/// Where the server stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Parts are being built.
    Starting = 0,
    /// Requests are welcome.
    Ready = 1,
    /// Requests under way are finished, new ones go elsewhere.
    Stopping = 2,
}

/// The state of the server, written by the application and read by the probe. Shared by `Arc`.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// Announces a new state.
    pub fn set(&self, state: State) {
        self.0.store(state as u8, Ordering::Release);
    }

    /// The state announced last.
    pub fn get(&self) -> State {
        match self.0.load(Ordering::Acquire) {
            0 => State::Starting,
            1 => State::Ready,
            _ => State::Stopping,
        }
    }
}

/// The parts that the probes, metrics and statistics read.
pub(super) struct Operations {
    pub(super) readiness: Arc<Readiness>,
    pub(super) statistics: Arc<Statistics>,
}

/// The routes of this feature.
pub(super) fn routes() -> Routes<Arc<Operations>> {
    Routes::new()
        .add_for(Access::Probe, routes!(healthz))
        // Its name in other servers.
        .add_undocumented(Access::Probe, "/health", axum::routing::get(healthz))
        .add_for(Access::Probe, routes!(readyz))
        .add_for(Access::Monitoring, routes!(metrics))
        .add_for(Access::Monitoring, routes!(stats))
}

/// Whether the process is alive.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "getHealth",
    tag = "operations",
    responses(
        (status = 200, body = String, description = "The process is alive"),
    )
)]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether requests are welcome, and with `verbose` in which state.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReadinessReport {
    /// `ready`: the server takes requests.
    #[schema(pattern = "^ready$")]
    status: &'static str,
    /// Names of the models that embed on this server; none on a server without a model.
    models: Vec<String>,
    /// How this node stands to Redis, if one is configured. A node that cannot reach it is ready too: it is slower, not wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    redis: Option<RedisStats>,
}

/// Whether requests are welcome.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "getReadiness",
    tag = "operations",
    params(("verbose" = Option<String>, Query, description = "With any value, or none: the answer is JSON and says how the node stands to Redis")),
    responses(
        (status = 200, description = "The server takes requests", content(
            (String = "text/plain"),
            (ReadinessReport = "application/json"),
        )),
        (status = 503, body = ErrorBody, description = "The server is starting or stopping, or the thread of a model has ended"),
    )
)]
pub(super) async fn readyz(
    extract::State(operations): extract::State<Arc<Operations>>,
    extract::RawQuery(query): extract::RawQuery,
) -> Result<Response, Problem> {
    let unready = |why| Err(Problem(Error::new(Kind::Unavailable, why)));
    match operations.readiness.get() {
        State::Starting => unready("the server is starting"),
        State::Stopping => unready("the server is stopping"),
        State::Ready if !operations.statistics.models.embedders().all(|model| model.is_alive()) => {
            unready("the model's thread has died")
        }
        State::Ready if is_verbose(query.as_deref().unwrap_or_default()) => {
            let statistics = &operations.statistics;
            let models = statistics.models.embedders().map(|model| model.card().name.clone()).collect();
            let report = ReadinessReport { status: "ready", models, redis: statistics.redis() };
            Ok(Json(report).into_response())
        }
        State::Ready => Ok("ready\n".into_response()),
    }
}

/// Probes of other servers are asked with parameters of their own, so none is refused.
fn is_verbose(query: &str) -> bool {
    query.split('&').any(|field| field.split('=').next() == Some("verbose"))
}

/// Metrics in OpenMetrics format.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "getMetrics",
    tag = "operations",
    responses(
        (status = 200, body = String, content_type = "application/openmetrics-text", description = "The metrics, in the OpenMetrics text format"),
    )
)]
pub(super) async fn metrics(
    extract::State(operations): extract::State<Arc<Operations>>,
) -> impl IntoResponse {
    operations.statistics.observe();
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], operations.statistics.metrics.registry.render())
}

/// Statistics as JSON.
#[utoipa::path(
    get,
    path = "/v1/stats",
    operation_id = "getStats",
    tag = "operations",
    responses(
        (status = 200, body = Stats, description = "The statistics"),
    )
)]
pub(super) async fn stats(
    extract::State(operations): extract::State<Arc<Operations>>,
    extract::Extension(principal): extract::Extension<Arc<Principal>>,
) -> Json<Stats> {
    Json(operations.statistics.read(&principal))
}
