//! From judged searches to a threshold that keeps a budget: the share of searches that may get a wrong answer in other words.
//!
//! Contains: the weights of similarity, verifier and other features of a pair in one score, and the bounds of a share that was counted. Must not contain: files,
//! texts. The one idea: what was seen on a sample is a bound and no promise, so a threshold is chosen by the upper end of an interval
//! (Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", 1934).

mod binomial;
mod pair_features;
mod weights;

use serde::{Deserialize, Serialize};

pub use self::binomial::{share_max, share_min};
pub use self::pair_features::PairFeatures;
pub use self::weights::{JudgedCandidate, MARGIN_MAX, ScoreWeights};
use super::guard::Strictness;
use crate::error::{Error, Kind, Result};

/// The version of the format.
const VERSION: u32 = 1;
/// The confidence of the bound on the wrong share.
pub const CONFIDENCE: f64 = 0.9;
/// Of the budget that a threshold is chosen for: searches to come differ from those that were judged.
const AIM: f64 = 0.9;

/// What judged searches say of an embedding model with a guard and the verifier. A JSON file holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    version: u32,
    /// The embedding model.
    pub model: String,
    /// Which conflicts forbade an answer.
    pub guard: Strictness,
    /// Candidates less similar than this were not looked at.
    pub similarity_min: f32,
    /// The score of a candidate.
    pub weights: ScoreWeights,
    /// Searches that were judged, with and without a candidate.
    pub searches: usize,
    /// Scores of the candidates whose answer was wrong, the highest first.
    wrong_scores: Vec<f64>,
}

/// What was judged, and how candidates were found.
#[derive(Debug)]
pub struct Sample<'a> {
    /// The embedding model.
    pub model: &'a str,
    /// Which conflicts forbade an answer.
    pub guard: Strictness,
    /// Candidates less similar than this were not looked at.
    pub similarity_min: f32,
    /// Searches with and without a candidate.
    pub searches: usize,
    /// The candidates that neither the guard nor the verifier has refused, at most one of a request.
    pub candidates: &'a [JudgedCandidate],
}

impl Calibration {
    /// The calibration of a sample.
    pub fn of(sample: &Sample<'_>) -> Calibration {
        let weights = ScoreWeights::fit(sample.candidates, sample.searches);
        let wrong = sample.candidates.iter().filter(|candidate| !candidate.is_right);
        let mut wrong_scores: Vec<f64> = wrong.map(|candidate| weights.score_of(candidate)).collect();
        wrong_scores.sort_by(|one, other| other.total_cmp(one));
        Calibration {
            version: VERSION,
            model: sample.model.into(),
            guard: sample.guard,
            similarity_min: sample.similarity_min,
            weights,
            searches: sample.searches,
            wrong_scores,
        }
    }

    /// Reads the JSON of a calibration.
    ///
    /// # Errors
    /// `Config` for what is none, or of another version.
    pub fn parse(json: &str) -> Result<Calibration> {
        let fault = |message: String| Error::new(Kind::Config, message);
        let calibration: Calibration = serde_json::from_str(json)
            .map_err(|error| fault("the file is no calibration".into()).source(error))?;
        let are_sorted = calibration.wrong_scores.is_sorted_by(|one, next| one >= next);
        let are_finite = calibration.weights.are_finite()
            && calibration.wrong_scores.iter().all(|score| score.is_finite());
        if calibration.version != VERSION {
            return Err(fault(format!("the calibration has version {}, not {VERSION}", calibration.version)));
        }
        let is_similarity = (0.0..=1.0).contains(&calibration.similarity_min);
        if !are_sorted
            || !are_finite
            || !is_similarity
            || !calibration.weights.are_increasing()
            || calibration.wrong_scores.len() > calibration.searches
        {
            return Err(fault("the numbers of the calibration contradict each other".into()));
        }
        Ok(calibration)
    }

    /// The JSON of the calibration.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).unwrap_or_default();
        json.push('\n');
        json
    }

    /// The smallest score at which the wrong share of all searches is at most `wrong_share_max`, with 90 % confidence. `None` if there
    /// were too few searches to tell: about 256 without a wrong one for 1 %.
    pub fn score_min(&self, wrong_share_max: f64) -> Option<f64> {
        let allowed = wrong_allowed(self.searches, AIM * wrong_share_max)?;
        // Just above the first wrong one that is too many, or what any candidate has.
        let least = self.weights.least(self.similarity_min);
        Some(self.wrong_scores.get(allowed).map_or(least, |score| score.next_up()))
    }
}

/// The most wrong ones of `searches` at which the upper bound of their share is at most `share`.
fn wrong_allowed(searches: usize, share: f64) -> Option<usize> {
    let keeps = |wrong: usize| share_max(wrong, searches, CONFIDENCE) <= share;
    if !keeps(0) {
        return None;
    }
    // The bound grows with each wrong one, and is above their share.
    let (mut low, mut high) = (0, (share * searches as f64).floor() as usize + 1);
    while high - low > 1 {
        let middle = low.midpoint(high);
        if keeps(middle) { low = middle } else { high = middle }
    }
    Some(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::guard::{CanonicalQuestion, Language};

    fn no_features() -> PairFeatures {
        let question = CanonicalQuestion { text: String::new(), language: Language::English };
        PairFeatures::of(&question, &question, &[])
    }

    fn candidates(right: usize, wrong: usize) -> Vec<JudgedCandidate> {
        let candidate = |place: usize, count: usize, is_right| JudgedCandidate {
            similarity: 0.75 + 0.25 * (place as f32 + 0.5) / count as f32 - if is_right { 0.0 } else { 0.1 },
            margin: if is_right { 3.0 } else { 1.0 },
            features: no_features(),
            is_right,
        };
        let right = (0..right).map(|place| candidate(place, right, true));
        right.chain((0..wrong).map(|place| candidate(place, wrong, false))).collect()
    }

    fn calibration(searches: usize, candidates: &[JudgedCandidate]) -> Calibration {
        let (guard, similarity_min) = (Strictness::Strict, 0.7);
        Calibration::of(&Sample { model: "m", guard, similarity_min, searches, candidates })
    }

    #[test]
    fn a_larger_budget_has_a_lower_threshold_and_each_keeps_its_share() {
        let candidates = candidates(600, 200);
        let calibrated = calibration(2000, &candidates);
        let mut before = f64::MAX;
        for budget in [0.005, 0.01, 0.02, 0.05, 0.5] {
            let score_min = calibrated.score_min(budget).unwrap();
            assert!(score_min <= before);
            before = score_min;
            let is_wrong = |candidate: &&JudgedCandidate| {
                !candidate.is_right && calibrated.weights.score_of(candidate) >= score_min
            };
            let wrong = candidates.iter().filter(is_wrong).count();
            assert!(share_max(wrong, 2000, CONFIDENCE) <= AIM * budget, "{budget}: {wrong}");
            let one_more = wrong + 1;
            assert!(wrong == 200 || share_max(one_more, 2000, CONFIDENCE) > AIM * budget, "{budget}");
        }
    }

    #[test]
    fn too_few_searches_promise_nothing() {
        assert_eq!(calibration(250, &candidates(100, 0)).score_min(0.01), None);
        assert!(calibration(260, &candidates(100, 0)).score_min(0.01).is_some());
        assert_eq!(calibration(0, &[]).score_min(0.5), None);
    }

    #[test]
    fn a_calibration_survives_its_file_and_another_file_is_refused() {
        let calibrated = calibration(500, &candidates(300, 30));
        let json = calibrated.to_json();
        assert_eq!(Calibration::parse(&json).unwrap(), calibrated);
        for (from, to, named) in [
            ("\"version\": 1", "\"version\": 2", "version 2"),
            ("\"searches\": 500", "\"searches\": 5", "contradict"),
            ("\"guard\"", "\"gard\"", "no calibration"),
            ("\"similarity_min\": 0.7", "\"similarity_min\": 7", "contradict"),
            ("\"similarity\": ", "\"similarity\": -", "contradict"),
            ("\"bias\"", "\"features\": {\"oracle\": 1.0}, \"bias\"", "no calibration"),
        ] {
            let error = Calibration::parse(&json.replacen(from, to, 1)).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
