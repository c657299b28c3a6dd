//! What the handlers of collections need, and the name in their paths.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::byte_budget::ByteBudget;
use crate::error::Result;
use crate::http::error_response::Problem;
use crate::http::extract::body::BodyLimit;
use crate::http::extract::path::path;
use crate::service::Collections;

/// What the handlers need.
pub(in crate::http) struct Endpoint {
    pub(in crate::http) collections: Arc<Collections>,
    pub(in crate::http) body_bytes_max: usize,
    pub(in crate::http) budget: Arc<ByteBudget>,
}

impl BodyLimit for Endpoint {
    fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }
}

/// The name of a collection, in the path.
pub(in crate::http) struct CollectionName(pub(super) String);

impl<S: Sync> FromRequestParts<S> for CollectionName {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<CollectionName, Problem> {
        Ok(CollectionName(path(head, "name").await?))
    }
}
