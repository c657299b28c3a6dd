//! A response to a request for an answer, and its outcome.

use std::time::Duration;

use bytes::Bytes;

use super::broadcast::EventStream;
use super::reason::Reason;
use super::semantic::SemanticReport;
use crate::dialects::Replay;
use crate::domain::{EntryMeta, Key, LookupOutcome, TierName};
use crate::labels::label_enum;
use crate::request_identity::{Identity, MemberDifference};
use crate::upstream::Headers;

/// A response.
#[derive(Debug)]
pub struct AnswerResponse {
    /// The status code.
    pub status: u16,
    /// The upstream's headers.
    pub headers: Headers,
    /// The body.
    pub body: Body,
    /// The outcome of the lookup.
    pub outcome: AnswerOutcome,
    /// Why the cache was bypassed, or the answer is not stored.
    pub reason: Option<Reason>,
    /// The id of the stored answer.
    pub id: Option<Key>,
    /// The cost that was saved, where it is known already.
    pub saved: Option<Saved>,
    /// What became of the search for a question in other words, if there was one.
    pub semantic: Option<SemanticReport>,
    /// The members in which a request that missed differs from the nearest stored one of the same caller.
    pub differences: Vec<MemberDifference>,
    /// How long the lookup took.
    pub lookup: Duration,
    /// How long the upstream took to respond.
    pub upstream: Option<Duration>,
}

/// The body of a response.
#[derive(Debug)]
pub enum Body {
    /// Complete.
    Whole(Bytes),
    /// Complete, as events.
    Events(Bytes),
    /// Events that are produced as they are read, and the first of them.
    Replay(Bytes, Box<dyn Replay>),
    /// Events as they arrive from the upstream.
    Live(EventStream),
}

/// The outcome of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerOutcome {
    /// The answer was in the cache.
    Hit(HitInfo),
    /// The answer was not in the cache: the upstream was called.
    Miss,
    /// The request demands a call of the upstream (`no-cache`).
    ForcedRefresh,
    /// The request joined a generation in flight.
    Coalesced,
    /// The cache was bypassed.
    Bypass,
    /// The upstream failed, and an expired answer was served; with the upstream's status, if it responded.
    StaleIfError(HitInfo, Option<u16>),
}

/// Where a stored answer was found, and its age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HitInfo {
    /// The tier that held it.
    pub tier: TierName,
    /// Whether it is due for a refresh.
    pub is_stale: bool,
    /// How the stored question matches.
    pub match_kind: MatchKind,
    /// Seconds since it was generated.
    pub age_seconds: u32,
    /// Seconds until it expires; negative once it has.
    pub fresh_seconds: i64,
}

label_enum! {
    /// How a stored question matches the question of a request.
    pub enum MatchKind {
        /// Word for word.
        Exact = "exact",
        /// Once both are normalized.
        Normalized = "normalized",
        /// In other words.
        Semantic = "semantic",
    }
}

/// The cost of an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Saved {
    /// Tokens of prompt and completion.
    pub tokens: u64,
    /// Dollars, if the price is known.
    pub usd: Option<f64>,
}

impl MatchKind {
    /// How the entry that was found under the key of `identity` matches it.
    pub(super) fn of(found: &EntryMeta, identity: &Identity) -> MatchKind {
        if found.validator == identity.exact.half() { MatchKind::Exact } else { MatchKind::Normalized }
    }
}

impl AnswerOutcome {
    /// Whether the response is a stored answer.
    pub fn is_from_cache(&self) -> bool {
        match self {
            AnswerOutcome::Hit(_) | AnswerOutcome::StaleIfError(..) => true,
            AnswerOutcome::Miss
            | AnswerOutcome::ForcedRefresh
            | AnswerOutcome::Coalesced
            | AnswerOutcome::Bypass => false,
        }
    }

    /// The outcome without its details.
    pub(super) fn lookup(&self) -> LookupOutcome {
        match self {
            AnswerOutcome::Hit(hit) if hit.is_stale => LookupOutcome::Stale,
            AnswerOutcome::Hit(_) => LookupOutcome::Hit,
            AnswerOutcome::StaleIfError(..) => LookupOutcome::Stale,
            AnswerOutcome::Miss | AnswerOutcome::ForcedRefresh => LookupOutcome::Miss,
            AnswerOutcome::Coalesced => LookupOutcome::Coalesced,
            AnswerOutcome::Bypass => LookupOutcome::Bypass,
        }
    }
}

impl AnswerResponse {
    pub(super) fn new(status: u16, headers: Headers, body: Body, outcome: AnswerOutcome) -> AnswerResponse {
        AnswerResponse {
            status,
            headers,
            body,
            outcome,
            reason: None,
            id: None,
            saved: None,
            semantic: None,
            differences: Vec::new(),
            lookup: Duration::ZERO,
            upstream: None,
        }
    }
}
