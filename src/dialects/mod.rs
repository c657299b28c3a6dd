//! The formats in which clients and upstreams speak of answers: one dialect per API.
//!
//! Contains: the parsing of requests, the reading of complete replies, the assembly of streams into complete answers, their replay in
//! either form, and the shape of errors. Must not contain: transport, a decision about caching, I/O, an async function. The one idea: everything that
//! differs between two APIs of language models is behind [`Dialect`], so that the use case knows neither a path nor a member of
//! their JSON.

pub mod chat_completions;
pub mod choices;
pub mod completions;
mod conversation;
mod delivery_id;
mod error_reply;
mod exact_body;
mod hosted_feature;
mod hosted_features;
mod identity_header;
mod ignored_members;
pub mod messages;
mod null_members;
mod parse_cache;
mod paths;
pub mod responses;
#[cfg(test)]
mod test_requests;
mod tool_types;
mod uncacheable;
mod unstorable;
mod usage;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

// Routes that no dialect owns have errors of OpenAI's shape.
pub use choices::{ErrorType, error_body};
pub use error_reply::{ErrorClass, ErrorReply};
pub use exact_body::ExactBody;
pub use hosted_feature::HostedFeature;
pub use hosted_features::HostedFeatures;
pub use identity_header::IdentityHeader;
pub use parse_cache::ParseCache;
pub use paths::{of_path, parent_api, stored_answer_id};
pub use uncacheable::Uncacheable;
pub use unstorable::Unstorable;

use crate::domain::{Key, KeyHeader, TokenUsage, UnixSeconds};
use crate::error::Result;
use crate::request_identity::{
    Identity, IdentityParts, IdentityRules, NormalizedQuestion, Partition, of_cache_key, of_request,
};
use crate::sse::Event;

/// One API of language models.
pub trait Dialect: fmt::Debug + Send + Sync {
    /// The byte that names the dialect in stored answers (`docs/internals/store-format.md`). It never changes.
    fn record_code(&self) -> u8;

    /// The path of the API at an upstream, below its base URL.
    fn upstream_path(&self) -> &str;

    /// The header in which an upstream expects the operator's key.
    fn key_header(&self) -> KeyHeader;

    /// The headers that are part of what a request asks. They are forwarded as they came.
    fn identity_headers(&self) -> &[IdentityHeader];

    /// Parses a request. Only members that decide how it is cached are checked; the upstream checks the others. `rules` decide which
    /// requests share an identity.
    ///
    /// # Errors
    /// `InvalidInput`, naming the field.
    fn parse(&'static self, body: &[u8], rules: &IdentityRules) -> Result<ParsedRequest>;

    /// What the identity of a request is made of.
    ///
    /// # Errors
    /// As [`Dialect::parse`]; `InvalidInput` also where only the bytes of a body count.
    fn identity_parts<'a>(&self, body: &'a [u8], rules: &IdentityRules) -> Result<IdentityParts<'a>>;

    /// Whether another wording of a request's question may ask the same: the question ends the request, which has texts alone and offers
    /// no tools, and nothing in it is about the words of others, as an order to translate them is. A body of more than 64 KiB is not
    /// read.
    fn is_rewordable(&self, body: &[u8]) -> bool;

    /// The body that the upstream gets: without the members that are for this server, and with a request for token usage if
    /// `requests_usage` and the request streams without one.
    ///
    /// # Errors
    /// `InvalidInput` for a body that is no object.
    fn upstream_body(&self, request: &ParsedRequest, body: &Bytes, requests_usage: bool) -> Result<Bytes>;

    /// Whether a success with this status and this `content-type` may be an answer. Some servers give their answers other types, so that
    /// an API whose answers are known by their members reads them all.
    fn may_be_answer(&self, _status: u16, _content_type: Option<&str>) -> bool {
        true
    }

    /// Whether stored answers are replayed whole also to requests that may be answered by a stream.
    fn replays_whole_only(&self) -> bool {
        false
    }

    /// Whether the API has tools that its upstream runs, and state that it holds.
    fn has_hosted_features(&self) -> bool {
        false
    }

    /// Reads a complete reply. `None` if it is no answer of this API.
    fn read_reply(&self, body: &[u8]) -> Option<Answer>;

    /// The id under which the upstream has stored an answer, if replays have it. `None` if each delivery has an id of its own.
    fn kept_id(&self, _answer: &[u8]) -> Option<String> {
        None
    }

    /// The text of an answer. `None` if it has several choices, or says anything else than one text.
    fn text_of_answer(&self, answer: &[u8]) -> Option<String>;

    /// An assembler for one stream.
    fn assembler(&self) -> Box<dyn Assembler>;

    /// An event of a stream without its token usage. `None` if it has none.
    fn without_usage(&self, event: &Bytes) -> Option<Bytes>;

    /// A stored answer as a new JSON response.
    fn replay_json(&self, answer: &[u8], created: UnixSeconds) -> Vec<u8>;

    /// A stored answer as a new stream. `None` if a stream cannot represent it exactly.
    fn replay_events(&self, answer: &[u8], created: UnixSeconds, form: StreamForm)
    -> Option<Box<dyn Replay>>;

    /// The body of an error response.
    fn error_body(&self, error: &ErrorReply<'_>) -> Vec<u8>;

    /// An error as an event of a stream that has begun.
    fn error_event(&self, error: &ErrorReply<'_>) -> Vec<u8>;
}

/// What a stream has beside the events of its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamForm {
    /// Whether it reports token usage.
    pub wants_usage: bool,
    /// Whether `data: [DONE]` ends it, in an API whose upstreams differ in that. In all others the format decides.
    pub ends_with_done: bool,
}

/// Assembles the events of a stream into a complete answer.
pub trait Assembler: Send + Sync {
    /// Adds an event.
    fn push(&mut self, event: &Event) -> Note;

    /// Whether an event may report token usage beside other members.
    fn may_report_usage(&self, event: &Event) -> bool;

    /// Records that the stream has ended without an error.
    fn end(&mut self);

    /// Whether the event that ends the stream has arrived.
    fn is_done(&self) -> bool;

    /// Whether every part of the answer has ended.
    fn has_ended(&self) -> bool;

    /// The token usage, if the stream has reported it.
    fn usage(&self) -> Option<TokenUsage>;

    /// Drops what was collected: there will be no complete answer.
    fn give_up(&mut self);

    /// Takes the complete answer, as JSON, out of the assembler.
    ///
    /// # Errors
    /// Why there is none.
    fn finish(&mut self) -> Result<Vec<u8>, Unstorable>;
}

/// Produces the events of a stored answer as they are read.
pub trait Replay: fmt::Debug + Send + Sync {
    /// The next events, about `bytes` of them. `None` at the end.
    fn next_bytes(&mut self, bytes: usize) -> Option<Bytes>;

    /// Bytes of the answer that it holds, and about how many it will produce.
    fn bytes_held_and_expected(&self) -> (usize, usize);

    /// Whether all of it was read.
    fn is_over(&self) -> bool;
}

/// The role of one event in its stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Note {
    /// It reports token usage, and nothing else.
    pub is_usage: bool,
    /// It reports that the answer has failed.
    pub is_error: bool,
}

/// A request for an answer, as far as it is read here.
#[derive(Debug)]
pub struct ParsedRequest {
    /// The API that it belongs to.
    pub dialect: &'static dyn Dialect,
    /// The model. Empty if the upstream knows it by a template that the request names.
    pub model: Arc<str>,
    /// Whether it requests a stream of events.
    pub streams: bool,
    /// Whether the stream is to report token usage.
    pub wants_usage: bool,
    /// The sampling temperature. `None` if the request sets none.
    pub temperature: Option<f64>,
    /// Whether it offers the model tools that its client may have to run.
    pub has_tools: bool,
    /// What its answer depends on beside what it says, or does beside answering.
    pub hosted: HostedFeatures,
    /// Whether its answer has ids or secrets which the upstream knows by the credential, so that it is never shared between credentials.
    pub is_credential_bound: bool,
    /// Whether it has a member with cache directives, which is not sent to the upstream.
    pub has_directives: bool,
    /// Whether every number of it is represented exactly; otherwise it has no identity.
    pub is_exact: bool,
    /// The question, word for word: the last words of the user. `None` if there are none.
    pub question: Option<Arc<str>>,
    /// What the question has in common with those that share its identity.
    form: Option<NormalizedQuestion>,
    /// The hash of everything else that the request says.
    scope: Key,
    /// The key domain of the API's scopes.
    scope_domain: &'static str,
}

impl ParsedRequest {
    /// The model, if the request names one.
    pub fn named_model(&self) -> Option<&str> {
        Some(&*self.model).filter(|model| !model.is_empty())
    }

    /// The identity of the request. `partition` has the headers that are forwarded, as they came.
    pub fn identity(&self, partition: &Partition<'_>) -> Identity {
        let headers = self.canonical_headers(partition.headers);
        let partition = &Partition { headers: &headers, ..*partition };
        of_request(partition, self.scope_domain, &self.scope, self.question.as_deref(), self.form.as_ref())
    }

    /// The identity of the request under a key of its client's own, which replaces everything that the body says but the model.
    pub fn identity_by_key(&self, partition: &Partition<'_>, cache_key: &str) -> Identity {
        let headers = self.canonical_headers(partition.headers);
        let partition = &Partition { headers: &headers, ..*partition };
        of_cache_key(partition, self.dialect.upstream_path(), &self.model, cache_key)
    }

    /// The headers that are forwarded, as the identity has them: a set has one spelling.
    pub fn canonical_headers<'a>(&self, headers: &'a [(String, String)]) -> Cow<'a, [(String, String)]> {
        identity_header::canonical(self.dialect.identity_headers(), headers)
    }
}

/// A complete answer, and what must be known of it before it is stored.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The JSON without the members that name its delivery; every other member as it arrived.
    pub json: Bytes,
    /// Its token usage, if it reports that.
    pub usage: Option<TokenUsage>,
    /// Why it may not be stored, if the answer itself is the reason.
    pub unstorable: Option<Unstorable>,
    /// What the upstream ran for it, as far as it has items of that.
    pub hosted: HostedFeatures,
    /// Whether it calls a tool that the client runs.
    pub calls_tools: bool,
    /// Whether a part of it ended at the limit of tokens.
    pub is_truncated: bool,
    /// Whether it came as a stream that `data: [DONE]` ended.
    pub ends_with_done: bool,
}
