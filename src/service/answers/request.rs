//! A request for an answer: as it was received, and resolved.

use std::sync::Arc;

use bytes::Bytes;

use super::inflight::{Caller, StorePolicy};
use super::reason::Reason;
use super::semantic::SemanticQuestion;
use super::stored_kinds::StoredKinds;
use crate::cache::Namespace;
use crate::dialects::{Dialect, HostedFeatures, ParsedRequest};
use crate::domain::{Credential, Key, Principal, Tag, TenantId};
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
    /// The lifetime of the answer, in seconds, if the directives set none. `None` for that of its namespace.
    pub default_ttl_seconds: Option<u32>,
    /// The features whose answers its route caches. `None` for those of the server.
    pub cached_features: Option<HostedFeatures>,
}

/// A request with its namespace, identity and policy resolved.
#[derive(Debug, Clone)]
pub(super) struct ResolvedRequest {
    pub(super) tenant: TenantId,
    pub(super) identity: Identity,
    pub(super) namespace: Namespace,
    pub(super) model: Arc<str>,
    pub(super) question: Option<Arc<str>>,
    /// The question with its vector, if its answer may be served to questions in other words.
    pub(super) semantic: Option<SemanticQuestion>,
    pub(super) store_policy: StorePolicy,
    /// The kinds of answers that are stored for it, and served to it.
    pub(super) kinds: StoredKinds,
    pub(super) caller: Caller,
    /// Whether its identity is that of requests with other credentials too.
    pub(super) shares_across_keys: bool,
    /// Generations that were completed before the lookup ([`InflightTable::completed`]).
    pub(super) completed: u64,
}

impl ResolvedRequest {
    /// Why an answer that uses these features has no place in the cache. What the upstream holds or encrypts belongs to one credential, whether or
    /// not the request has asked for it.
    pub(super) fn reason_against_features(&self, features: HostedFeatures) -> Option<Reason> {
        let cached = if self.shares_across_keys { HostedFeatures::default() } else { self.kinds.hosted };
        features.beyond(cached).map(Reason::from)
    }

    /// The scope that is stored with the answer.
    pub(super) fn scope(&self) -> Key {
        self.semantic.as_ref().map_or(self.identity.scope, SemanticQuestion::scope)
    }
}

/// The form that a client requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResponseForm {
    pub(super) dialect: &'static dyn Dialect,
    pub(super) streams: bool,
    pub(super) wants_usage: bool,
    /// The kinds of stored answers that it may be.
    pub(super) kinds: StoredKinds,
}

impl ResponseForm {
    pub(super) fn of(request: &ParsedRequest, kinds: StoredKinds) -> ResponseForm {
        let &ParsedRequest { dialect, streams, wants_usage, .. } = request;
        ResponseForm { dialect, streams, wants_usage, kinds }
    }
}
