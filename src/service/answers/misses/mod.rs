//! Why a request missed: in which members it differs from the nearest stored request of the same caller.
//!
//! Contains: the requests that are remembered for it, in bounded memory, the comparison, and the members that separated most misses. Must
//! not contain: a decision about caching. The one idea: a stored request that differs in one member is found by one lookup for each member,
//! and the two are compared only then, while the upstream works.

mod fingerprint;
mod remembered;
mod summary;

use std::borrow::Cow;
use std::sync::Mutex;

use self::fingerprint::{LeafHasher, RequestFingerprint};
use self::remembered::{RememberedRequest, RememberedRequests};
use self::summary::MissSummary;
pub use self::summary::SeparatedMisses;
use super::request::AnswerRequest;
use crate::cache::{Freshness, Verdict};
use crate::domain::{Credential, EntryMeta, TenantId};
use crate::request_identity::{IdentityParts, IdentityRules, Json, MemberDifference, differences};
use crate::sync::lock;

/// Longer bodies are neither compared nor remembered.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Members that are named of a miss.
const DIFFERENCES_MAX: usize = 4;
/// Rows of the summary.
const ROWS_SHOWN: usize = 20;

/// The comparison of requests that miss with stored ones. Shared by its owner's `Arc`.
#[derive(Debug)]
pub(super) struct MissComparison {
    hasher: LeafHasher,
    remembered: Mutex<RememberedRequests>,
    summary: Mutex<MissSummary>,
    rules: IdentityRules,
}

/// A request on its way: it is remembered, and its answer is stored, in either order.
#[derive(Debug, Default)]
pub(super) struct PendingRequest(Mutex<PendingState>);

#[derive(Debug, Default)]
enum PendingState {
    #[default]
    New,
    Remembered(u64),
    Stored(EntryMeta),
}

impl MissComparison {
    /// A comparison that remembers requests in so many bytes. `None` if these are none.
    pub(super) fn new(bytes_max: usize, rules: IdentityRules) -> Option<MissComparison> {
        (bytes_max > 0).then(|| MissComparison {
            hasher: LeafHasher::random(),
            remembered: Mutex::new(RememberedRequests::new(bytes_max)),
            summary: Mutex::default(),
            rules,
        })
    }

    /// In which members a request differs from the nearest stored one of the same caller; none if there is none to compare it with. It is
    /// remembered itself as `pending`, unless its answer is not to be stored.
    pub(super) fn compare(
        &self,
        request: &AnswerRequest,
        namespace: &str,
        pending: Option<&PendingRequest>,
        freshness: &Freshness,
    ) -> Vec<MemberDifference> {
        let Some(parts) = self.parts(request, namespace) else { return Vec::new() };
        let caller = self.caller(request);
        let fingerprint = RequestFingerprint::of(&self.hasher, caller, &parts);
        let is_servable =
            |answer: &EntryMeta| matches!(freshness.judge(answer), Verdict::Fresh | Verdict::Stale);
        let nearest = lock(&self.remembered).nearest(caller, &fingerprint, is_servable);
        let found = nearest.map(|nearest| differences(&parts, &nearest.parts, DIFFERENCES_MAX));
        let found = found.unwrap_or_default();
        if !found.named.is_empty() {
            lock(&self.summary).count(&request.principal.tenant, &found);
        }
        if let Some(pending) = pending {
            self.add(RememberedRequest::new(caller, fingerprint, parts), pending);
        }
        found.named
    }

    /// Remembers a request as `pending` that is not compared: it demands a new answer.
    pub(super) fn remember(&self, request: &AnswerRequest, namespace: &str, pending: &PendingRequest) {
        let Some(parts) = self.parts(request, namespace) else { return };
        let caller = self.caller(request);
        let fingerprint = RequestFingerprint::of(&self.hasher, caller, &parts);
        self.add(RememberedRequest::new(caller, fingerprint, parts), pending);
    }

    /// The answer to a request is stored.
    pub(super) fn stored(&self, pending: &PendingRequest, answer: &EntryMeta) {
        let mut state = lock(&pending.0);
        if let PendingState::Remembered(number) = *state {
            lock(&self.remembered).stored(number, answer.clone());
        }
        *state = PendingState::Stored(answer.clone());
    }

    /// The members that separated most misses of a tenant from a stored request.
    pub(super) fn most_separating(&self, tenant: &TenantId) -> Vec<SeparatedMisses> {
        lock(&self.summary).most(tenant, ROWS_SHOWN)
    }

    fn add(&self, request: RememberedRequest, pending: &PendingRequest) {
        let mut state = lock(&pending.0);
        let mut remembered = lock(&self.remembered);
        let number = remembered.add(request);
        match &*state {
            PendingState::Stored(answer) => remembered.stored(number, answer.clone()),
            PendingState::New | PendingState::Remembered(_) => *state = PendingState::Remembered(number),
        }
    }

    /// What the identity of a request is made of, with what is outside its body as further members.
    fn parts<'a>(&self, request: &'a AnswerRequest, namespace: &'a str) -> Option<IdentityParts<'a>> {
        if request.body.len() > BODY_BYTES_MAX {
            return None;
        }
        let mut parts = request.parsed.dialect.identity_parts(&request.body, &self.rules).ok()?;
        let Json::Object(members) = &mut parts.scope else { return None };
        let mut add = |name: Cow<'static, str>, value: Cow<'a, str>| {
            // A member of the body that is called so stands for itself.
            if members.iter().all(|(known, _)| *known != name) {
                members.push((name, Json::Text(value)));
            }
        };
        add("cache:namespace".into(), namespace.into());
        request.query.iter().for_each(|query| add("url:query".into(), query.into()));
        for (name, value) in request.parsed.canonical_headers(&request.headers).iter() {
            add(format!("header:{name}").into(), value.clone().into());
        }
        Some(parts)
    }

    /// Requests of two callers are never compared: the place of a difference would show what the other one has asked.
    fn caller(&self, request: &AnswerRequest) -> u64 {
        let credential = request.credential.as_ref().map(Credential::as_bytes);
        self.hasher.of((&request.principal.tenant, credential, request.parsed.dialect.record_code()))
    }
}
