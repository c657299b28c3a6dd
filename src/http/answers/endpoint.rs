//! What the handlers of answers need.

use std::sync::Arc;

use axum::http::HeaderName;

use crate::dialects::{Dialect, ParseCache};
use crate::http::extract::body::BodyLimit;
use crate::service::Answers;
use crate::service::answers::CachedRouteOptions;

/// What the handlers of answers need.
#[derive(Clone)]
pub(in crate::http) struct Endpoint {
    pub(in crate::http) answers: Arc<Answers>,
    /// Headers that are forwarded and part of the identity of a request.
    pub(in crate::http) forwarded_headers: Vec<HeaderName>,
    pub(in crate::http) body_bytes_max: usize,
}

impl Endpoint {
    /// What the handler of a dialect needs.
    pub(in crate::http) fn for_dialect(&self, dialect: &'static dyn Dialect) -> DialectEndpoint {
        DialectEndpoint {
            answers: Arc::clone(&self.answers),
            parse_cache: ParseCache::new(dialect, self.answers.identity_rules()),
            forwarded_headers: self.forwarded_headers_of(dialect),
            defaults: self.answers.route_defaults(dialect),
            body_bytes_max: self.body_bytes_max,
        }
    }

    /// The headers that are forwarded to an API, and part of the identity of its requests.
    pub(super) fn forwarded_headers_of(&self, dialect: &dyn Dialect) -> Vec<HeaderName> {
        let mut forwarded_headers = self.forwarded_headers.clone();
        let own = dialect.identity_headers().iter().map(|header| HeaderName::from_static(header.name));
        // The order of those that are configured is part of the identity of stored answers.
        own.for_each(|name| {
            if !forwarded_headers.contains(&name) {
                forwarded_headers.push(name);
            }
        });
        forwarded_headers
    }
}

impl BodyLimit for Endpoint {
    fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }
}

/// What the handler of one dialect needs.
pub(in crate::http) struct DialectEndpoint {
    pub(super) answers: Arc<Answers>,
    /// The cache of parsed requests, which knows the dialect.
    pub(super) parse_cache: ParseCache,
    pub(super) forwarded_headers: Vec<HeaderName>,
    /// What holds for requests that leave it open.
    pub(super) defaults: CachedRouteOptions,
    pub(super) body_bytes_max: usize,
}

impl BodyLimit for DialectEndpoint {
    fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }
}
