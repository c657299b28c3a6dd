//! What handlers read of a request: its body, path, query, headers and directives to the cache.
//!
//! Contains: parsers, each with the one message for its fault. Must not contain: a use case, a response. The one idea: every part of a
//! request has one reader, so that two routes never read it differently.

pub(super) mod body;
pub(super) mod bounded_list;
pub(super) mod cache_control;
pub(super) mod cache_groups;
pub(super) mod cache_member;
pub(super) mod credential;
pub(super) mod directives;
pub(super) mod field_names;
pub(super) mod forwarded_headers;
pub(super) mod headers;
pub(super) mod json;
pub(super) mod known_members;
pub(super) mod model_name;
pub(super) mod other_caches;
pub(super) mod path;
pub(super) mod query;
mod structured_strings;
pub(super) mod text_encoding;
pub(super) mod trace_headers;
