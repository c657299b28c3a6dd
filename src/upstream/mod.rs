//! The language models behind us: who answers which model, how they are asked, and what their answers are.
//!
//! What lives here: connections, retries, limits of time and size, the reading of event streams, and the two forms of one
//! answer. What must never: a decision about caching. The one idea: what an upstream says is passed on as it came, and an
//! answer is what can be shown to be a whole one; everything else is only bytes. Only this room knows the upstream's
//! HTTP and the JSON of its answers.

mod answer;
mod assembly;
mod client;
mod connection;
mod events;
mod forwards;
mod listing;
mod members;
mod options;
mod prices;
mod query;
mod redaction;
mod refusal;
mod replay;
mod reply;
mod routes;
mod shown;
mod unfit;
mod via;

pub use answer::{Answer, Usage};
pub use assembly::{Assembly, Note};
pub use client::Upstream;
pub use connection::is_of_connection;
pub use events::{Event, Events};
pub use members::{with_usage, without, without_usage};
pub use options::{Options, PriceOptions, RouteOptions};
pub use prices::Prices;
pub use replay::{Replay, as_json};
pub use reply::{Call, Headers, Origin, Reply};
pub use unfit::Unfit;
