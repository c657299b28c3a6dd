//! Answers of language models: the routes of the dialects, and those of the cache of answers.
//!
//! Contains: handlers, wire types, the headers of their responses. Must not contain: a decision about caching, the JSON of a reply.

mod answer_id;
mod chat_completions;
mod completions;
mod contract;
mod dialect_handler;
mod direct;
mod response;

use std::sync::Arc;

use axum::http::HeaderName;
use utoipa_axum::routes;

use crate::dialects::chat_completions::ChatCompletions;
use crate::dialects::completions::Completions;
use crate::dialects::{Dialect, ParseCache};
use crate::http::extract::body::BodyLimit;
use crate::http::routes::Routes;
use crate::service::Answers;

/// What the handlers of answers need.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) answers: Arc<Answers>,
    /// Headers that are forwarded and part of the identity of a request.
    pub(super) forwarded_headers: Vec<HeaderName>,
    pub(super) body_bytes_max: usize,
}

impl Endpoint {
    /// What the handler of a dialect needs.
    pub(super) fn for_dialect(&self, dialect: &'static dyn Dialect) -> DialectEndpoint {
        DialectEndpoint {
            answers: Arc::clone(&self.answers),
            parse_cache: ParseCache::new(dialect, self.answers.normalization()),
            forwarded_headers: self.forwarded_headers.clone(),
            body_bytes_max: self.body_bytes_max,
        }
    }
}

impl BodyLimit for Endpoint {
    fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }
}

/// What the handler of one dialect needs.
pub(super) struct DialectEndpoint {
    answers: Arc<Answers>,
    /// The cache of parsed requests, which knows the dialect.
    parse_cache: ParseCache,
    forwarded_headers: Vec<HeaderName>,
    body_bytes_max: usize,
}

impl BodyLimit for DialectEndpoint {
    fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }
}

/// The routes of the cache of answers, for applications that call their model themselves.
pub(super) fn routes() -> Routes<Arc<Endpoint>> {
    Routes::new().add(routes!(direct::store)).add(routes!(direct::lookup)).add(routes!(direct::delete))
}

/// The routes of each dialect.
pub(super) fn dialect_routes() -> [(&'static dyn Dialect, Routes<Arc<DialectEndpoint>>); 2] {
    [
        (&ChatCompletions, Routes::new().add(routes!(chat_completions::create))),
        (&Completions, Routes::new().add(routes!(completions::create))),
    ]
}
