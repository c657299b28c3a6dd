//! Answers of language models: the routes of the dialects, and those of the cache of answers.
//!
//! Contains: handlers, wire types, the headers of their responses. Must not contain: a decision about caching, the JSON of a reply.

mod answer_id;
mod chat;
mod completions;
mod direct;

use std::sync::Arc;

use axum::http::HeaderName;
use utoipa_axum::routes;

use crate::dialects::ParseCache;
use crate::http::extract::body::BodyLimit;
use crate::http::routes::Routes;
use crate::service::Answers;

/// What the handlers of one dialect need.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) answers: Arc<Answers>,
    /// The cache of parsed requests, which names the dialect.
    pub(super) parse_cache: Arc<ParseCache>,
    /// Headers that are passed on and part of what is asked.
    pub(super) forwarded_headers: Vec<HeaderName>,
    pub(super) body_bytes_max: usize,
}

impl BodyLimit for Endpoint {
    fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }
}

/// The routes of the cache of answers, for applications that call their model themselves.
pub(super) fn routes() -> Routes<Arc<Endpoint>> {
    Routes::new().add(routes!(direct::store)).add(routes!(direct::lookup)).add(routes!(direct::delete))
}

/// The route of chat completions.
pub(super) fn chat_routes() -> Routes<Arc<Endpoint>> {
    Routes::new().add(routes!(chat::create)).beside_those_of_upstreams()
}

/// The route of completions.
pub(super) fn completions_routes() -> Routes<Arc<Endpoint>> {
    Routes::new().add(routes!(completions::create)).beside_those_of_upstreams()
}
