//! Answers of language models: the routes of the dialects, and those of the cache of answers.
//!
//! Contains: handlers, wire types, the headers of their responses. Must not contain: a decision about caching, the JSON of a reply.

mod answer_id;
mod cached_route;
mod chat_completions;
mod completions;
mod contract;
mod dialect_handler;
mod direct;
mod endpoint;
mod explain;
mod feedback;
mod messages;
mod response;
mod responses;

use std::sync::Arc;

use utoipa_axum::routes;

pub(super) use self::answer_id::format_id;
pub(super) use self::cached_route::cached_route;
pub(super) use self::endpoint::{DialectEndpoint, Endpoint};
use crate::dialects::Dialect;
use crate::dialects::chat_completions::ChatCompletions;
use crate::dialects::completions::Completions;
use crate::dialects::messages::Messages;
use crate::dialects::responses::Responses;
use crate::http::routes::Routes;

/// The routes of the cache of answers, for applications that call their model themselves.
pub(super) fn routes() -> Routes<Arc<Endpoint>> {
    Routes::new()
        .add(routes!(direct::store))
        .add(routes!(direct::lookup))
        .add(routes!(explain::explain))
        .add(routes!(feedback::give))
        .add(routes!(direct::delete))
}

/// The routes of each dialect.
pub(super) fn dialect_routes() -> [(&'static dyn Dialect, Routes<Arc<DialectEndpoint>>); 4] {
    [
        (&ChatCompletions, Routes::new().add(routes!(chat_completions::create))),
        (&Completions, Routes::new().add(routes!(completions::create))),
        (&Messages, Routes::new().add(routes!(messages::create))),
        (&Responses, Routes::new().add(routes!(responses::create))),
    ]
}
