//! From which score on a candidate is served, and how that follows from the answers that clients call wrong.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::options::{SemanticOptions, Similarities, VerifierMode};
use crate::domain::{ByPrefix, Key};
use crate::error::{Error, Kind, Result};
use crate::matching::calibration::{
    CONFIDENCE, Calibration, PairFeatures, ScoreWeights, share_max, share_min,
};
use crate::matching::guard::Language;
use crate::sync::lock;

/// Hits whose scores are remembered of a generation. There are two: when the younger one is full, the older one is dropped.
const GENERATION_HITS: usize = 8192;
/// The confidence with which the budget is exceeded before the threshold rises, and the wrong hits that it takes. Each report is another look
/// at the same share, so both are larger than for one look.
const RAISING_CONFIDENCE: f64 = 0.99;
const RAISING_HITS_MIN: usize = 3;
/// Wrong hits that are remembered.
const WRONG_HITS_MAX: usize = 100_000;
/// Of the budget that is left to the wrong answers above a raised threshold.
const AIM: f64 = 0.9;

/// The threshold of a model, of the options, or of a calibration.
///
/// A client that calls an answer wrong may raise it, and never lowers it: the reported ones are at most all wrong ones, so that the lower
/// bound of their share of all searches is one of the true share.
#[derive(Debug)]
pub(super) struct Acceptance {
    /// Questions that are less similar are not looked at.
    similarities: Similarities,
    weights: ScoreWeights,
    /// The share of searches that may end in a wrong answer.
    wrong_share_max: Option<f64>,
    searches: AtomicU64,
    /// The bits of the smallest score.
    score_min: AtomicU64,
    hits: Mutex<Hits>,
}

#[derive(Debug, Default)]
struct Hits {
    /// By pair of questions.
    young: HashMap<Key, PairHits, ByPrefix>,
    old: HashMap<Key, PairHits, ByPrefix>,
    /// Scores of hits that clients have called wrong.
    wrong_scores: Vec<f64>,
}

/// How often a pair was served, with its score.
#[derive(Debug, Clone, Copy)]
struct PairHits {
    score: f64,
    count: u32,
}

/// The wrong answers that clients have reported, since the start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReportedWrong {
    /// Searches for questions in other words.
    pub searches: u64,
    /// Those that ended in an answer that a client has called wrong.
    pub wrong: u64,
    /// Bounds of the share of such searches, each with 90 % confidence.
    pub share: (f64, f64),
    /// The smallest score that is served: the cosine similarity, or that of the calibration.
    pub score_min: f64,
}

impl Acceptance {
    /// The threshold of the options for a model. `None` if there is none: then nothing is served in other words.
    ///
    /// # Errors
    /// `Config` about a calibration that cannot be read, is of another model or other options, or has too few searches for the budget.
    pub(super) fn new(options: &SemanticOptions, model: &str) -> Result<Option<Acceptance>> {
        if let Some(path) = &options.calibration_file {
            let calibrated = Acceptance::calibrated(options, model, path);
            return calibrated.map(Some).map_err(|error| error.with("path", path.display()));
        }
        let similarities = match options.similarity_min {
            Some(min) => Some(Similarities::same(min)),
            None => Similarities::shipped(model),
        };
        let by_similarity = |similarities: Similarities| {
            let score_min = f64::from(similarities.least());
            Acceptance::from_score(similarities, ScoreWeights::SIMILARITY, score_min, options)
        };
        Ok(similarities.map(by_similarity))
    }

    fn calibrated(options: &SemanticOptions, model: &str, path: &Path) -> Result<Acceptance> {
        let fault = |message: String| Error::new(Kind::Config, message);
        let unreadable = |error| fault("cannot read answers.semantic.calibration_file".into()).source(error);
        let calibration = Calibration::parse(&fs_err::read_to_string(path).map_err(unreadable)?)?;
        if calibration.model != model {
            return Err(fault(format!(
                "the calibration is of the model `{}`, not of `{model}`",
                calibration.model
            )));
        }
        if calibration.guard != options.guard || options.verifier != VerifierMode::Required {
            return Err(fault(format!(
                "the calibration is of answers.semantic.guard = \"{}\" with the verifier required",
                calibration.guard.as_str()
            )));
        }
        let budget = options.wrong_share_max.unwrap_or_default();
        let score_min = calibration.score_min(budget).ok_or_else(|| {
            let searches = calibration.searches;
            fault(format!(
                "{searches} judged searches are too few for answers.semantic.wrong_share_max = {budget}"
            ))
        })?;
        let similarities = Similarities::same(calibration.similarity_min);
        Ok(Acceptance::from_score(similarities, calibration.weights, score_min, options))
    }

    fn from_score(
        similarities: Similarities,
        weights: ScoreWeights,
        score_min: f64,
        options: &SemanticOptions,
    ) -> Acceptance {
        Acceptance {
            similarities,
            weights,
            wrong_share_max: options.wrong_share_max,
            searches: AtomicU64::new(0),
            score_min: AtomicU64::new(score_min.to_bits()),
            hits: Mutex::default(),
        }
    }

    /// Questions that are less similar are not looked at.
    pub(super) fn similarity_min(&self, language: Language) -> f32 {
        self.similarities.of(language)
    }

    /// A stored question of this language that is less similar is refused.
    pub(super) fn similarity_min_of_pair(&self, asked: Language, stored: Language) -> f32 {
        self.similarities.of_pair(asked, stored)
    }

    /// The score of a candidate, with the verifier's margin if it has read the two. Its `features` are read only where they count.
    pub(super) fn score(
        &self,
        similarity: f32,
        margin: Option<f32>,
        features: impl FnOnce() -> PairFeatures,
    ) -> f64 {
        self.weights.score(similarity, margin.unwrap_or_default(), features)
    }

    /// The smallest score that is served.
    pub(super) fn score_min(&self) -> f64 {
        f64::from_bits(self.score_min.load(Ordering::Relaxed))
    }

    pub(super) fn count_search(&self) {
        self.searches.fetch_add(1, Ordering::Relaxed);
    }

    /// Remembers the score of a pair that was served.
    pub(super) fn remember_hit(&self, pair: Key, score: f64) {
        let mut hits = lock(&self.hits);
        let before = hits.forget(&pair).map_or(0, |known| known.count);
        if hits.young.len() == GENERATION_HITS {
            hits.old = std::mem::take(&mut hits.young);
        }
        hits.young.insert(pair, PairHits { score, count: before + 1 });
    }

    /// Counts the hits of a pair that a client calls wrong, if it was served lately, and raises the threshold where the budget is certainly exceeded.
    pub(super) fn report_wrong(&self, pair: Key) {
        let mut hits = lock(&self.hits);
        let Some(PairHits { score, count }) = hits.forget(&pair) else { return };
        let known = hits.wrong_scores.len();
        hits.wrong_scores.resize((known + count as usize).min(WRONG_HITS_MAX), score);
        let (Some(budget), searches) = (self.wrong_share_max, self.searches.load(Ordering::Relaxed)) else {
            return;
        };
        let score_min = self.score_min();
        let mut served: Vec<f64> =
            hits.wrong_scores.iter().copied().filter(|score| *score >= score_min).collect();
        let searches = usize::try_from(searches).unwrap_or(usize::MAX);
        let low = share_min(served.len(), searches, RAISING_CONFIDENCE);
        if served.len() < RAISING_HITS_MIN || low <= budget {
            return;
        }
        served.sort_by(|one, other| other.total_cmp(one));
        let allowed = (AIM * budget * searches as f64) as usize;
        let Some(first_over) = served.get(allowed) else { return };
        let raised = first_over.next_up();
        self.score_min.store(raised.to_bits(), Ordering::Relaxed);
        let wrong = served.len();
        tracing::warn!(
            wrong,
            searches,
            budget,
            score_min = raised,
            "more answers in other words were wrong than answers.semantic.wrong_share_max allows: fewer are served from now on"
        );
    }

    /// What clients have reported.
    pub(super) fn reported(&self) -> ReportedWrong {
        let wrong = lock(&self.hits).wrong_scores.len();
        let searches = self.searches.load(Ordering::Relaxed);
        let of = usize::try_from(searches).unwrap_or(usize::MAX);
        ReportedWrong {
            searches,
            wrong: wrong as u64,
            share: (share_min(wrong, of, CONFIDENCE), share_max(wrong, of, CONFIDENCE)),
            score_min: self.score_min(),
        }
    }
}

impl Hits {
    /// A pair that was served lately.
    fn forget(&mut self, pair: &Key) -> Option<PairHits> {
        let [young, old] = [self.young.remove(pair), self.old.remove(pair)];
        young.or(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::KeyHasher;

    const MODEL: &str = "all-MiniLM-L6-v2";

    fn pair(number: u32) -> Key {
        KeyHasher::new("test").field(&number.to_le_bytes()).finish()
    }

    fn with_budget(wrong_share_max: Option<f64>) -> Acceptance {
        let options = SemanticOptions { wrong_share_max, ..SemanticOptions::default() };
        Acceptance::new(&options, MODEL).unwrap().unwrap()
    }

    /// Each hundredth of 2,000 searches is reported as wrong, the later the more similar.
    fn report(acceptance: &Acceptance) {
        for number in 0..2000 {
            acceptance.count_search();
            acceptance.remember_hit(pair(number), 0.85 + f64::from(number) / 20_000.0);
        }
        (0..2000).step_by(100).for_each(|number| acceptance.report_wrong(pair(number)));
    }

    #[test]
    fn reports_within_the_budget_change_nothing_and_more_raise_the_threshold() {
        for (budget, is_raised) in
            [(None, false), (Some(0.02), false), (Some(0.01), false), (Some(0.004), true)]
        {
            let acceptance = with_budget(budget);
            report(&acceptance);
            let reported = acceptance.reported();
            assert_eq!((reported.searches, reported.wrong), (2000, 20));
            assert!(reported.share.0 < 0.01 && reported.share.1 > 0.01, "{reported:?}");
            assert_eq!(reported.score_min > f64::from(0.85_f32), is_raised, "{budget:?}: {reported:?}");
            if let Some(budget) = budget {
                let hits = lock(&acceptance.hits);
                let above = hits.wrong_scores.iter().filter(|score| **score >= reported.score_min).count();
                assert!(share_min(above, 2000, CONFIDENCE) <= budget);
            }
        }
    }

    #[test]
    fn the_stricter_language_of_a_pair_decides() {
        let acceptance = with_budget(None);
        let min_of = |asked, stored| acceptance.similarity_min_of_pair(asked, stored);
        assert_eq!(min_of(Language::English, Language::English), 0.85);
        for (asked, stored) in
            [(Language::English, Language::Spanish), (Language::Spanish, Language::English)]
        {
            assert_eq!(min_of(asked, stored), 0.94);
        }
    }

    #[test]
    fn what_was_not_served_is_not_counted_and_what_was_is_counted_once() {
        let acceptance = with_budget(Some(0.01));
        acceptance.report_wrong(pair(1));
        acceptance.count_search();
        acceptance.remember_hit(pair(1), 0.9);
        acceptance.count_search();
        acceptance.remember_hit(pair(1), 0.9);
        acceptance.report_wrong(pair(1));
        acceptance.report_wrong(pair(1));
        assert_eq!(acceptance.reported().wrong, 2, "each hit once");
        assert!(acceptance.score_min() < 0.86, "two are too few to tell");
        (0..4 * GENERATION_HITS as u32).for_each(|number| acceptance.remember_hit(pair(number), 0.9));
        let hits = lock(&acceptance.hits);
        assert!(hits.young.len() <= GENERATION_HITS && hits.old.len() <= GENERATION_HITS);
    }

    #[test]
    fn a_calibration_of_something_else_is_refused() {
        use crate::matching::calibration::{JudgedCandidate, Sample};
        use crate::matching::guard::{CanonicalQuestion, Strictness};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("calibration.json");
        let question = CanonicalQuestion { text: "a".to_owned(), language: Language::English };
        let features = PairFeatures::of(&question, &question, &[]);
        let candidate = |n: u16| {
            let is_right = !n.is_multiple_of(50);
            JudgedCandidate { similarity: 0.9, margin: 1.0, features, is_right }
        };
        let candidates: Vec<JudgedCandidate> = (0..400).map(candidate).collect();
        let sample = Sample {
            model: MODEL,
            guard: Strictness::Strict,
            similarity_min: 0.75,
            searches: 1000,
            candidates: &candidates,
        };
        fs_err::write(&path, Calibration::of(&sample).to_json()).unwrap();
        let options = SemanticOptions {
            calibration_file: Some(path.clone()),
            wrong_share_max: Some(0.02),
            ..SemanticOptions::default()
        };
        let calibrated = Acceptance::new(&options, MODEL).unwrap().unwrap();
        assert_eq!(calibrated.similarity_min(Language::Spanish), 0.75);
        assert!(calibrated.score_min().is_finite());
        let normal = SemanticOptions { guard: Strictness::Normal, ..options.clone() };
        let unverified = SemanticOptions { verifier: VerifierMode::WherePossible, ..options.clone() };
        let small = SemanticOptions { wrong_share_max: Some(0.001), ..options.clone() };
        let missing = SemanticOptions { calibration_file: Some(dir.path().join("no")), ..options.clone() };
        for (options, model, named) in [
            (&options, "other", "of the model"),
            (&normal, MODEL, "strict"),
            (&unverified, MODEL, "verifier"),
            (&small, MODEL, "too few"),
            (&missing, MODEL, "cannot read"),
        ] {
            let error = Acceptance::new(options, model).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
