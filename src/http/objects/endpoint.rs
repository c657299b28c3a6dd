//! What the handlers of objects need.

use std::sync::Arc;

use crate::byte_budget::ByteBudget;
use crate::http::extract::body::BodyLimit;
use crate::service::Objects;

/// What the handlers need.
pub(in crate::http) struct Endpoint {
    pub(in crate::http) objects: Arc<Objects>,
    pub(in crate::http) body_bytes_max: usize,
    pub(in crate::http) budget: Arc<ByteBudget>,
}

impl BodyLimit for Endpoint {
    fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }
}
