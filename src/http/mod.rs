//! The HTTP face of the server: OpenAI's wire format over the use cases.
//!
//! Contains: one module a feature, with its routes, handlers and wire types; what features share (`extract`, `response`); the table of
//! routes; admission, which every request passes; the transport (`server`, `connections`). Must not contain: a decision about caching
//! or models. The one idea: a handler parses, calls one use case, and writes its response; what is the same for all routes is done
//! once, in admission.

mod admission;
mod answers;
mod api_key;
mod collections;
mod connections;
mod content_coding;
mod contract;
mod embeddings;
mod error_response;
mod error_shape;
mod extract;
mod forward;
mod home;
mod invalidation;
mod jobs;
mod label_value;
mod listing;
mod metrics;
mod models;
mod near_routes;
mod nodes;
mod objects;
mod offload;
mod operations;
mod options;
mod rerank;
mod reservation;
mod response;
mod router;
mod routes;
mod server;
mod stats;
mod warming;

pub use admission::HttpService;
pub use api_key::ApiKey;
pub use metrics::{HttpMetrics, ServerMetrics};
pub use operations::{Readiness, State};
pub use options::Options;
pub use router::{RouterParts, check_cached_paths, check_keys, openapi, router};
pub use server::{Server, port_holder, serve};
pub use warming::OwnRoutes;
