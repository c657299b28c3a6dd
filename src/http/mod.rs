//! The HTTP face of the server: OpenAI's wire format over the use cases.
//!
//! What lives here: wire types, the one translation of errors to status codes, the gate that every request passes,
//! handlers, the router, the connection loop. What must never: a decision about caching or models. The one idea: a
//! handler parses, calls one use case, and writes its answer; everything that is the same for all routes is done once,
//! in the gate.

mod admission;
mod answers;
mod collections;
mod connections;
mod content_coding;
mod contract;
mod embeddings;
mod error_response;
mod extract;
mod forward;
mod invalidation;
mod metrics;
mod models;
mod objects;
mod offload;
mod operations;
mod options;
mod reservation;
mod response;
mod router;
mod routes;
mod server;

pub use admission::{ApiKey, Gated};
pub use metrics::{HttpMetrics, ServerMetrics};
pub use models::Names;
pub use operations::{Readiness, State};
pub use options::Options;
pub use router::{Parts, openapi, router};
pub use server::{Server, serve};
