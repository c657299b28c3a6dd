//! The transport to upstreams: which one serves which model, and how it is called.
//!
//! Contains: routes, the client, retries, limits of time and size, loop detection, which headers, routes and errors are passed on,
//! prices. Must not contain: a decision about caching, the JSON of answers. The one idea: a reply is passed on as it arrives, but for the
//! operator's key.

mod base_url;
mod client;
mod error_filter;
mod forwards;
mod hop_by_hop;
mod loop_detection;
mod metrics;
mod models;
mod options;
mod prices;
mod probe;
mod query;
mod redaction;
mod refusal;
mod reply;
mod response_headers;
mod routes;

pub use client::Upstream;
pub use hop_by_hop::is_hop_by_hop;
pub use metrics::UpstreamMetrics;
pub use options::{Options, PriceOptions, RouteOptions};
pub use prices::Prices;
pub use probe::{UpstreamProbe, probe};
pub use reply::{Headers, Origin, Reply, UpstreamCall};
