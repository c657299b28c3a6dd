//! What answers the requests of lines.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::warm_line::LineRequest;

/// What became of the request of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WarmOutcome {
    /// It was in a cache.
    Cached,
    /// It was made, and is in a cache now as far as its answer may be kept. With the tokens that a model wrote for it.
    Made {
        /// Tokens of the completion, as the model counts them.
        completion_tokens: u32,
    },
    /// No cache has it, and it was not to be made.
    Missing,
    /// The server or a model is busy: it is to be asked for again after this time.
    Busy(Duration),
    /// It was refused, or has failed. With the reason.
    Refused(String),
}

/// What answers the requests of lines, as it would those of clients.
pub trait WarmTarget: Send + Sync {
    /// Looks a request up in the caches. Asks no model. An object is stored if there is none under its key: the line is older than what
    /// an application has stored since.
    fn look_up<'a>(&'a self, request: &'a LineRequest) -> BoxFuture<'a, WarmOutcome>;

    /// Answers a request, by a model if no cache has it.
    ///
    /// Cancel safety: dropping it is a client that leaves.
    fn make<'a>(&'a self, request: &'a LineRequest) -> BoxFuture<'a, WarmOutcome>;

    /// Waits until no request of a client is under way, for some time at most: a server that always has some is warmed slowly.
    fn when_idle(&self) -> BoxFuture<'_, ()>;

    /// The model of texts whose line names none.
    fn default_model(&self) -> Option<&str>;

    /// Whether the server has the model itself, so that no upstream is paid for it.
    fn is_own_model(&self, model: &str) -> bool;
}
