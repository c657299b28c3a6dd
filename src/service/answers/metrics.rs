//! The metrics of requested answers.

use super::reason::Reason;
use super::semantic::{Reasked, SemanticOutcome};
use crate::cache::PairJudgement;
use crate::domain::LookupOutcome;
use crate::metrics::{ByLabel, Counter, FloatCounter, FloatGauge, ModuleMetrics, Registry};

/// The metrics of requested answers.
#[derive(Debug)]
pub struct AnswerMetrics {
    /// Answers found fresh.
    pub hits: Counter,
    /// Answers found stale, and served.
    pub stale: Counter,
    /// Answers generated for the request.
    pub misses: Counter,
    /// Answers generated for another request.
    pub coalesced: Counter,
    /// Requests that bypassed the cache.
    pub bypassed: Counter,
    /// Hits on an answer to another spelling of the question.
    pub(super) normalized_hits: Counter,
    /// Searches for questions in other words, by what became of them.
    pub semantic: ByLabel<SemanticOutcome, Counter>,
    /// Feedback on answers to questions in other words, by what it says.
    pub(super) feedback: ByLabel<PairJudgement, Counter>,
    /// Hits in other words whose question was sent to the upstream too, by whether its answer agrees with the one that was served.
    pub(super) reasked: ByLabel<Reasked, Counter>,
    /// Bounds of the share of searches for questions in other words that ended in an answer that a client has called wrong, 90 % each.
    pub wrong_share_low: FloatGauge,
    /// The upper one.
    pub wrong_share_high: FloatGauge,
    /// Bounds of the share of hits in other words whose answer differs from the one that the upstream gives to the question itself, 90 % each.
    pub differing_share_low: FloatGauge,
    /// The upper one.
    pub differing_share_high: FloatGauge,
    /// Replies that were not stored, by reason.
    pub(super) not_stored: ByLabel<Reason, Counter>,
    /// Generations that were aborted because all their clients had left.
    pub(super) abandoned: Counter,
    /// Tokens that upstreams have used.
    pub spent_tokens: Counter,
    /// Dollars that upstreams have cost, by the price table.
    pub spent_usd: FloatCounter,
    /// Tokens served from the cache instead of the upstream.
    pub saved_tokens: Counter,
    /// Dollars that these would have cost, by the price table.
    pub saved_usd: FloatCounter,
}

impl AnswerMetrics {
    /// Counts a reply of a route whose answers are not cached.
    pub fn count_uncached_route(&self) {
        self.not_stored.with(Reason::Route).inc();
    }
}

impl ModuleMetrics for AnswerMetrics {
    fn register(registry: &mut Registry) -> AnswerMetrics {
        let outcomes: ByLabel<LookupOutcome, Counter> =
            registry.by_label("answers", "Requested answers", "outcome");
        AnswerMetrics {
            hits: outcomes.with(LookupOutcome::Hit),
            stale: outcomes.with(LookupOutcome::Stale),
            misses: outcomes.with(LookupOutcome::Miss),
            coalesced: outcomes.with(LookupOutcome::Coalesced),
            bypassed: outcomes.with(LookupOutcome::Bypass),
            normalized_hits: registry
                .counter("answers_normalized_hits", "Hits on another spelling of the question"),
            semantic: registry.by_label(
                "answers_semantic",
                "Searches for questions in other words",
                "outcome",
            ),
            feedback: registry.by_label(
                "answers_feedback",
                "Feedback on answers to questions in other words",
                "judgement",
            ),
            reasked: registry.by_label(
                "answers_reasked",
                "Hits in other words whose question was sent to the upstream too",
                "result",
            ),
            wrong_share_low: registry.float_gauge(
                "answers_wrong_share_low",
                "Lower bound (90 %) of the share of searches in other words that ended in an answer reported as wrong",
            ),
            wrong_share_high: registry.float_gauge(
                "answers_wrong_share_high",
                "Upper bound (90 %) of the share of searches in other words that ended in an answer reported as wrong",
            ),
            differing_share_low: registry.float_gauge(
                "answers_differing_share_low",
                "Lower bound (90 %) of the share of hits in other words whose answer differs from the upstream's own",
            ),
            differing_share_high: registry.float_gauge(
                "answers_differing_share_high",
                "Upper bound (90 %) of the share of hits in other words whose answer differs from the upstream's own",
            ),
            not_stored: registry.by_label("answers_not_stored", "Replies not stored", "reason"),
            abandoned: registry.counter("answers_abandoned", "Generations aborted because all clients left"),
            spent_tokens: registry.counter("answers_spent_tokens", "Tokens used by upstreams"),
            spent_usd: registry.float_counter("answers_spent_usd", "Dollars spent on upstreams"),
            saved_tokens: registry.counter("answers_saved_tokens", "Tokens served from the cache"),
            saved_usd: registry.float_counter("answers_saved_usd", "Dollars saved by the cache"),
        }
    }
}

impl AnswerMetrics {
    /// Counts a lookup by its outcome.
    pub(super) fn count(&self, outcome: LookupOutcome) {
        let counter = match outcome {
            LookupOutcome::Hit => &self.hits,
            LookupOutcome::Stale => &self.stale,
            LookupOutcome::Miss => &self.misses,
            LookupOutcome::Coalesced => &self.coalesced,
            LookupOutcome::Bypass => &self.bypassed,
        };
        counter.inc();
    }
}
