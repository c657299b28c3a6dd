//! Routes of the upstream that are cached by the exact bodies of their requests, because the configuration lists them.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::HeaderName;
use axum::response::Response;
use axum::routing::post;

use super::Endpoint;
use super::dialect_handler::takes_trailers;
use super::response::respond;
use crate::dialects::ExactBody;
use crate::domain::Principal;
use crate::http::admission::ConcurrencyPermit;
use crate::http::error_response::Problem;
use crate::http::extract::body::{BodyLimit, Received};
use crate::http::extract::credential::credential;
use crate::http::extract::directives::AnswerCacheObject;
use crate::http::extract::field_names::FieldNames;
use crate::http::extract::forwarded_headers::forwarded_headers;
use crate::http::extract::model_name::check_model_name;
use crate::http::extract::trace_headers::trace_headers;
use crate::http::forward::target::model_of;
use crate::http::offload::offload;
use crate::http::routes::{Access, Routes};
use crate::service::Answers;
use crate::service::answers::{AnswerRequest, CachedRouteOptions};

/// Fields of the use case in a request whose directives are headers.
const FIELDS: FieldNames = FieldNames(&[("ttl_seconds", "x-cache-ttl")]);

/// What the handler of one route needs.
pub(in crate::http) struct CachedRoute {
    answers: Arc<Answers>,
    dialect: &'static ExactBody,
    options: CachedRouteOptions,
    forwarded_headers: Vec<HeaderName>,
    body_bytes_max: usize,
}

impl BodyLimit for CachedRoute {
    fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }
}

/// A route of the configuration, with its state.
pub(in crate::http) fn cached_route(
    endpoint: &Endpoint,
    options: &CachedRouteOptions,
) -> (Routes<Arc<CachedRoute>>, Arc<CachedRoute>) {
    let upstream_path = options.path.strip_prefix("/v1").unwrap_or(&options.path);
    // Leaked: a route is made once, at the start, and lives as long as the process.
    let dialect: &'static ExactBody = Box::leak(Box::new(ExactBody::new(upstream_path)));
    let routes =
        Routes::new().add_undocumented(Access::Client, &options.path, post(answer)).in_dialect(dialect);
    let state = CachedRoute {
        answers: Arc::clone(&endpoint.answers),
        dialect,
        options: options.clone(),
        forwarded_headers: endpoint.forwarded_headers_of(dialect),
        body_bytes_max: endpoint.body_bytes_max,
    };
    (routes, Arc::new(state))
}

/// Answers a request. The body is opaque but for the model that it names, which decides on the upstream.
async fn answer(
    State(route): State<Arc<CachedRoute>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(permit): Extension<Arc<ConcurrencyPermit>>,
    Received { head, body }: Received,
) -> Result<Response, Problem> {
    let body = body.read().await?;
    let model = model_of(&head.headers, &body).await?;
    model.as_deref().map_or(Ok(()), check_model_name)?;
    let (dialect, hashed) = (route.dialect, body.clone());
    let parsed = offload(body.len(), move || dialect.request(model, &hashed)).await?;
    let (directives, tags) = AnswerCacheObject::default().with_headers(&head.headers, "x-cache-tags")?;
    let request = AnswerRequest {
        parsed: Arc::new(parsed),
        body,
        query: head.uri.query().map(str::to_owned),
        principal,
        credential: credential(&head.headers),
        headers: forwarded_headers(&head.headers, &route.forwarded_headers)?,
        traces: trace_headers(&head.headers),
        directives: route.options.complete(directives),
        tags,
        default_ttl_seconds: route.options.ttl_seconds,
        cached_features: None,
    };
    let takes_trailers = takes_trailers(&head.headers);
    // A request that waits for an upstream must not delay cache hits of other requests.
    permit.release();
    let response = route.answers.ask(request).await.map_err(|error| FIELDS.apply(error))?;
    Ok(respond(response, dialect, takes_trailers))
}
