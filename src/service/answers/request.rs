//! A request for an answer: as it was received, and resolved.

use std::sync::Arc;

use bytes::Bytes;

use super::inflight::{Caller, StorePolicy};
use super::lookup::Match;
use super::store::tags_of;
use super::stored_answer::StoredAnswer;
use crate::cache::Namespace;
use crate::dialects::{Dialect, ParsedRequest};
use crate::domain::{Credential, Principal, Tag};
use crate::request_identity::Identity;
use crate::service::Directives;
use crate::upstream::Headers;

/// A request for an answer.
#[derive(Debug)]
pub struct AnswerRequest {
    /// The parsed request.
    pub parsed: Arc<ParsedRequest>,
    /// Its body.
    pub body: Bytes,
    /// The query string, which is forwarded and part of the identity.
    pub query: Option<String>,
    /// The sender.
    pub principal: Arc<Principal>,
    /// The credential of the client.
    pub credential: Option<Credential>,
    /// Headers that are forwarded and part of the identity.
    pub headers: Vec<(String, String)>,
    /// Headers that are forwarded only.
    pub traces: Headers,
    /// Its cache directives.
    pub directives: Directives,
    /// The tags of the answer.
    pub tags: Vec<Tag>,
}

/// A request with its namespace, identity and policy resolved.
#[derive(Debug, Clone)]
pub(super) struct ResolvedRequest {
    pub(super) identity: Identity,
    pub(super) namespace: Namespace,
    pub(super) model: Arc<str>,
    pub(super) question: Option<Arc<str>>,
    pub(super) store_policy: StorePolicy,
    pub(super) caller: Caller,
    /// Generations that were completed before the lookup ([`InflightTable::completed`]).
    pub(super) completed: u64,
}

/// The form that a client requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResponseForm {
    pub(super) dialect: &'static dyn Dialect,
    pub(super) streams: bool,
    pub(super) wants_usage: bool,
}

impl ResolvedRequest {
    /// A replacement inherits the tags of the answer it replaces, and its requested TTL unless this request sets one.
    pub(super) fn inherit(&mut self, before: Option<&Match>, directives: &Directives) {
        let Some(Match { found: before, .. }) = before else { return };
        self.store_policy.depend_on(tags_of(&before.entry));
        let was_requested =
            StoredAnswer::decode(&before.entry.value).is_some_and(|record| record.is_ttl_requested);
        if directives.ttl_seconds.is_none() && was_requested {
            let meta = &before.entry.meta;
            self.store_policy.ttl_seconds = meta.expires.since(meta.created).max(1);
            self.store_policy.is_ttl_requested = true;
            self.store_policy.inherits_ttl = true;
        }
    }
}

impl ResponseForm {
    pub(super) fn of(request: &ParsedRequest) -> ResponseForm {
        ResponseForm { dialect: request.dialect, streams: request.streams, wants_usage: request.wants_usage }
    }
}
