//! Answers of language models: the routes of chat completions, and those of the cache of answers.
//!
//! Contains: handlers, wire types, the headers of their responses. Must not contain: a decision about caching, the JSON of a reply.

pub(super) mod answer_id;
pub(super) mod chat;
pub(super) mod direct;
