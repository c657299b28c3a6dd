//! The part of `/v1/stats` about questions in other words.

use serde::Serialize;
use utoipa::ToSchema;

use crate::service::Answers;
use crate::service::answers::{AnswerMetrics, SemanticOutcome};

/// Searches for questions in other words, by what became of them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SemanticStats {
    /// An answer was served.
    hit: u64,
    /// No stored question was near enough.
    none: u64,
    /// Those that were near enough ask something else.
    refused: u64,
    /// The question is answered in the same words only.
    exact_only: u64,
    /// The question had no vector.
    unavailable: u64,
    /// Hits that clients have called wrong, since the start.
    wrong: u64,
    /// Bounds of the share of searches that ended so, each with 90 % confidence. Wrong answers that no client reports are not in it.
    wrong_share: [f64; 2],
    /// The smallest score that is served: the cosine similarity, or that of the calibration; null if nothing is.
    #[schema(required)]
    score_min: Option<f64>,
    /// Pairs of questions that share no answer since a client has said that it is wrong.
    wrong_pairs: usize,
    /// Hits whose question was sent to the upstream too, and whose two answers were compared, since the start.
    reasked: u64,
    /// Those whose answers differ.
    reasked_differing: u64,
    /// Bounds of the share of hits whose answers differ, each with 90 % confidence.
    reasked_differing_share: [f64; 2],
    /// Bytes of memory for the vectors of stored questions.
    bytes: usize,
}

impl SemanticStats {
    /// The statistics of this moment.
    pub(super) fn of(answers: &Answers, metrics: &AnswerMetrics) -> SemanticStats {
        let count = |outcome| metrics.semantic.with(outcome).get();
        let reported = answers.reported_wrong();
        let (low, high) = reported.map_or((0.0, 1.0), |reported| reported.share);
        let reasked = answers.reasked();
        let (differing_low, differing_high) = reasked.map_or((0.0, 1.0), |reasked| reasked.differing_share);
        SemanticStats {
            hit: count(SemanticOutcome::Hit),
            none: count(SemanticOutcome::None),
            refused: count(SemanticOutcome::Refused),
            exact_only: count(SemanticOutcome::ExactOnly),
            unavailable: count(SemanticOutcome::Unavailable),
            wrong: reported.map_or(0, |reported| reported.wrong),
            wrong_share: [low, high],
            score_min: reported.map(|reported| reported.score_min),
            wrong_pairs: answers.wrong_pairs(),
            reasked: reasked.map_or(0, |reasked| reasked.compared),
            reasked_differing: reasked.map_or(0, |reasked| reasked.differing),
            reasked_differing_share: [differing_low, differing_high],
            bytes: answers.question_bytes(),
        }
    }
}
