//! Resolves a request: its namespace, its identity, its policy, and whether it has a place in the cache.

use std::sync::Arc;

use super::inflight::{Caller, StorePolicy};
use super::reason::Reason;
use super::request::{AnswerRequest, ResolvedRequest};
use super::state::Answers;
use super::stored_kinds::StoredKinds;
use crate::dialects::ParsedRequest;
use crate::domain::{Credential, InvalidationId};
use crate::error::Result;
use crate::request_identity::Partition;
use crate::service::check_tags;

impl Answers {
    /// A request with its namespace, identity and policy resolved.
    ///
    /// # Errors
    /// `InvalidInput` for a TTL past its limit and too many tags; `ModelNotFound` if no upstream serves the model; `Loop` for a request that
    /// this server has sent.
    pub(super) fn resolve(&self, request: &AnswerRequest) -> Result<ResolvedRequest> {
        check_tags(&request.tags)?;
        self.origin.refuse_own(&request.traces)?;
        let upstream = self.origin.name(request.parsed.named_model())?;
        let shares_across_keys = self.options.share_across_keys && !request.parsed.is_credential_bound;
        let namespace =
            self.namespaces.of_answers(&request.principal.tenant, request.directives.namespace.as_deref())?;
        let partition = Partition {
            tenant: &request.principal.tenant,
            namespace: &namespace.name,
            credential: request.credential.as_ref().filter(|_| !shares_across_keys).map(Credential::as_bytes),
            upstream: &upstream,
            query: request.query.as_deref(),
            headers: &request.headers,
        };
        let cache_key = request.directives.cache_key.as_deref();
        let identity = match cache_key {
            Some(cache_key) => request.parsed.identity_by_key(&partition, cache_key),
            None => request.parsed.identity(&partition),
        };
        let lifetime = match request.default_ttl_seconds {
            Some(default) if !request.directives.sets_ttl() => {
                crate::service::ttl_seconds(&namespace.policy, Some(default))?
            }
            _ => request.directives.ttl_seconds(&namespace.policy)?,
        };
        let tags =
            request.tags.iter().map(|tag| InvalidationId::tag(&request.principal.tenant, tag)).collect();
        // A JSON answer always reports usage; a stream does on request.
        let reports_usage = !request.parsed.streams || request.parsed.wants_usage || self.request_usage;
        Ok(ResolvedRequest {
            tenant: request.principal.tenant.clone(),
            identity,
            caller: Caller {
                credential: request.credential.clone().filter(|_| self.forwards_client_keys),
                streams: request.parsed.streams,
                requests_usage: reports_usage,
                may_wait: true,
            },
            model: Arc::clone(&request.parsed.model),
            // Answers under a key of their client's own are found by that key only.
            question: request.parsed.question.clone().filter(|_| cache_key.is_none()),
            semantic: None,
            store_policy: StorePolicy {
                tags,
                reports_usage,
                ttl_seconds: lifetime,
                is_ttl_requested: request.directives.sets_ttl(),
                inherits_ttl: false,
            },
            shares_across_keys,
            kinds: StoredKinds::of(
                &request.directives,
                request.cached_features,
                &namespace.policy,
                &self.options,
            ),
            completed: 0,
            namespace,
        })
    }

    /// Why a request has no place in the cache.
    pub(super) fn bypass(&self, request: &ParsedRequest, kinds: StoredKinds) -> Option<Reason> {
        if let Some(reason) = kinds.reason_against_features(request.hosted) {
            Some(reason)
        } else if request.temperature.is_some_and(|temperature| temperature > self.options.temperature_max) {
            Some(Reason::Temperature)
        } else if !request.is_exact {
            Some(Reason::Number)
        } else {
            None
        }
    }
}
