//! Similarity, the verifier's margin and the other features of a pair in one score: a logistic regression on judged candidates.

use serde::{Deserialize, Serialize};

use super::pair_features::{FEATURES, PairFeatures, by_name, name_of};

/// Larger margins count as this one, and so do questions that are equal in the canonical form.
pub const MARGIN_MAX: f32 = 8.0;
/// Judged candidates from which on weights are fitted; fewer are scored by their similarity.
const CANDIDATES_MIN: usize = 100;
/// Searches from which on all features are fitted; fewer do not tell their weights from noise.
const SEARCHES_OF_FEATURES_MIN: usize = 3000;
/// Candidates that have a feature from which on it is fitted.
const CANDIDATES_OF_FEATURE_MIN: usize = 20;
/// Keeps weights finite where the candidates are separated without an error.
const RIDGE: f64 = 1e-2;
/// Keeps the weights of features that few candidates have small.
const RIDGE_OF_FEATURE: f64 = 1.0;
const STEPS: usize = 50;

/// A stored question whose answer neither the guard nor the verifier refuses, and whether it is right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JudgedCandidate {
    /// The cosine similarity of the two questions.
    pub similarity: f32,
    /// The verifier's margin.
    pub margin: f32,
    /// What they look like beside each other.
    pub features: PairFeatures,
    /// Whether the answer is right.
    pub is_right: bool,
}

/// The score of a candidate: the logarithm of the odds that its answer is right, or its similarity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreWeights {
    bias: f64,
    similarity: f64,
    margin: f64,
    /// By features of [`PairFeatures`], which the file has by their names. Empty if only similarity and margin count.
    #[serde(default, with = "by_name", skip_serializing_if = "Vec::is_empty")]
    features: Vec<(usize, f64)>,
}

impl ScoreWeights {
    /// The similarity alone.
    pub const SIMILARITY: ScoreWeights =
        ScoreWeights { bias: 0.0, similarity: 1.0, margin: 0.0, features: Vec::new() };

    /// The weights that fit the candidates of so many searches best, by Newton's method: of all features from 3,000 searches on, of
    /// similarity and margin below. Where the weight of one of these two would be negative, the next simpler score; the simplest one is
    /// the similarity alone.
    pub fn fit(candidates: &[JudgedCandidate], searches: usize) -> ScoreWeights {
        let right = candidates.iter().filter(|candidate| candidate.is_right).count();
        if candidates.len() < CANDIDATES_MIN || right == 0 || right == candidates.len() {
            return ScoreWeights::SIMILARITY;
        }
        let of_all = || {
            let is_fitted = |feature: &usize| is_common(candidates, *feature);
            let features: Vec<usize> = (0..FEATURES).filter(is_fitted).collect();
            fitted(candidates, &features)
        };
        let all = if searches >= SEARCHES_OF_FEATURES_MIN { of_all() } else { None };
        all.or_else(|| fitted(candidates, &[])).unwrap_or(ScoreWeights::SIMILARITY)
    }

    /// The score of a candidate. Its `features` are read only where one has a weight.
    pub fn score(&self, similarity: f32, margin: f32, features: impl FnOnce() -> PairFeatures) -> f64 {
        let of_two = self.score_of_two(similarity, margin);
        if self.features.is_empty() {
            return of_two;
        }
        let features = features();
        let weighted = |(feature, weight): &(usize, f64)| weight * f64::from(features.values()[*feature]);
        of_two + self.features.iter().map(weighted).sum::<f64>()
    }

    /// The score of a judged candidate.
    pub fn score_of(&self, candidate: &JudgedCandidate) -> f64 {
        self.score(candidate.similarity, candidate.margin, || candidate.features)
    }

    /// The names of the features that count beside similarity and margin.
    pub fn feature_names(&self) -> impl Iterator<Item = String> {
        self.features.iter().map(|(feature, _)| name_of(*feature))
    }

    /// The least score of any candidate that is at least this similar.
    pub(super) fn least(&self, similarity_min: f32) -> f64 {
        let least_of_features: f64 = self.features.iter().map(|(_, weight)| weight.min(0.0)).sum();
        self.score_of_two(similarity_min, 0.0) + least_of_features
    }

    /// Whether a nearer candidate, or one that the verifier likes better, never has a lower score.
    pub(super) fn are_increasing(&self) -> bool {
        self.similarity > 0.0 && self.margin >= 0.0
    }

    pub(super) fn are_finite(&self) -> bool {
        let of_features = self.features.iter().map(|(_, weight)| *weight);
        [self.bias, self.similarity, self.margin].into_iter().chain(of_features).all(f64::is_finite)
    }

    fn score_of_two(&self, similarity: f32, margin: f32) -> f64 {
        let [one, similarity, margin] = of_two(similarity, margin);
        self.bias * one + self.similarity * similarity + self.margin * margin
    }
}

/// What the bias, the similarity and the margin are multiplied with.
fn of_two(similarity: f32, margin: f32) -> [f64; 3] {
    [1.0, f64::from(similarity), f64::from(margin.clamp(0.0, MARGIN_MAX))]
}

/// Whether enough candidates have a feature for a weight of its own.
fn is_common(candidates: &[JudgedCandidate], feature: usize) -> bool {
    let has = |candidate: &&JudgedCandidate| candidate.features.values()[feature] > 0.0;
    candidates.iter().filter(has).count() >= CANDIDATES_OF_FEATURE_MIN
}

/// The best weights of similarity, margin and some features. `None` if there are none, or one of the first two would be negative.
fn fitted(candidates: &[JudgedCandidate], features: &[usize]) -> Option<ScoreWeights> {
    let row = |candidate: &JudgedCandidate| -> Vec<f64> {
        let of_pair = features.iter().map(|&feature| f64::from(candidate.features.values()[feature]));
        of_two(candidate.similarity, candidate.margin).into_iter().chain(of_pair).collect()
    };
    let rows: Vec<(Vec<f64>, bool)> =
        candidates.iter().map(|candidate| (row(candidate), candidate.is_right)).collect();
    let mut weights = vec![0.0; 3 + features.len()];
    for _ in 0..STEPS {
        let step = newton_step(&rows, &weights)?;
        weights.iter_mut().zip(&step).for_each(|(weight, part)| *weight += part);
        if step.iter().all(|part| part.abs() < 1e-9) {
            break;
        }
    }
    let fitted = ScoreWeights {
        bias: weights[0],
        similarity: weights[1],
        margin: weights[2],
        features: features.iter().copied().zip(weights[3..].iter().copied()).collect(),
    };
    (fitted.are_finite() && fitted.are_increasing()).then_some(fitted)
}

/// The step towards the best weights. `None` if there is no direction.
fn newton_step(rows: &[(Vec<f64>, bool)], weights: &[f64]) -> Option<Vec<f64>> {
    let count = weights.len();
    // The gradient in the last column.
    let mut system = vec![vec![0.0; count + 1]; count];
    for (at, row) in system.iter_mut().enumerate() {
        let ridge = match at {
            0 => 0.0,
            1 | 2 => RIDGE,
            _ => RIDGE_OF_FEATURE,
        };
        row[at] = ridge;
        row[count] = -ridge * weights[at];
    }
    for (values, is_right) in rows {
        let logit: f64 = values.iter().zip(weights).map(|(value, weight)| value * weight).sum();
        let probability = 1.0 / (1.0 + (-logit).exp());
        let residual = f64::from(u8::from(*is_right)) - probability;
        let curvature = (probability * (1.0 - probability)).max(1e-9);
        for (row, value) in system.iter_mut().zip(values) {
            row.iter_mut().zip(values).for_each(|(cell, other)| *cell += curvature * value * other);
            row[count] += residual * value;
        }
    }
    solve(system)
}

/// Gauss's elimination with the largest pivot.
fn solve(mut system: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let count = system.len();
    for column in 0..count {
        let pivot = (column..count)
            .max_by(|&one, &other| system[one][column].abs().total_cmp(&system[other][column].abs()))?;
        system.swap(column, pivot);
        if system[column][column].abs() < 1e-12 {
            return None;
        }
        let pivot = system[column].clone();
        for (_, row) in system.iter_mut().enumerate().filter(|(at, _)| *at != column) {
            let factor = row[column] / pivot[column];
            row.iter_mut().zip(&pivot).for_each(|(cell, other)| *cell -= factor * other);
        }
    }
    Some((0..count).map(|at| system[at][count] / system[at][at]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::guard::{Guard, Lexicon};

    fn features(first: &str, second: &str) -> PairFeatures {
        let guard = Guard::new(Lexicon::builtin());
        let [first, second] = [first, second].map(|question| guard.canonical(question));
        PairFeatures::of(&first, &second, &[])
    }

    fn candidate(similarity: f32, margin: f32, is_right: bool) -> JudgedCandidate {
        JudgedCandidate { similarity, margin, features: features("a b c", "a b c"), is_right }
    }

    fn weights(bias: f64, similarity: f64, margin: f64) -> ScoreWeights {
        ScoreWeights { bias, similarity, margin, features: Vec::new() }
    }

    #[test]
    fn the_weights_are_those_that_made_the_labels() {
        // As many candidates of each cell of a grid are right as the true weights say.
        let (mut candidates, truth) = (Vec::new(), weights(-9.0, 8.0, 0.5));
        let known = candidate(0.0, 0.0, false);
        for (row, column) in (0..30).flat_map(|row| (0..30).map(move |column| (row, column))) {
            let (similarity, margin) = (0.7 + row as f32 / 100.0, column as f32 / 5.0);
            let probability = 1.0 / (1.0 + (-truth.score(similarity, margin, || known.features)).exp());
            let right = (probability * 200.0).round() as usize;
            candidates.extend((0..200).map(|place| JudgedCandidate {
                similarity,
                margin,
                is_right: place < right,
                ..known
            }));
        }
        let fitted = ScoreWeights::fit(&candidates, 200);
        assert!((fitted.similarity - truth.similarity).abs() < 0.1, "{fitted:?}");
        assert!((fitted.margin - truth.margin).abs() < 0.01, "{fitted:?}");
        assert!((fitted.bias - truth.bias).abs() < 0.1, "{fitted:?}");
        assert_eq!(fitted.feature_names().count(), 0, "there are too few searches");
    }

    #[test]
    fn features_count_from_three_thousand_searches_on() {
        // Similarity and margin say little; what decides is how many words two questions share.
        let (alike, unlike) = (features("a b c d", "a b c d"), features("a b c d", "a b x y"));
        let candidates: Vec<JudgedCandidate> = (0..2000_usize)
            .map(|n| {
                let is_right = n % 2 == 0;
                // One of ten has the other label.
                let features = if is_right == (n % 10 < 9) { alike } else { unlike };
                JudgedCandidate {
                    similarity: 0.8 + (n % 7) as f32 / 50.0 + if is_right { 0.01 } else { 0.0 },
                    margin: (n / 10 % 5) as f32 + if is_right { 0.5 } else { 0.0 },
                    features,
                    is_right,
                }
            })
            .collect();
        let fitted = ScoreWeights::fit(&candidates, 3000);
        assert!(fitted.feature_names().any(|name| name == "words"), "{fitted:?}");
        let score = |features| fitted.score(0.85, 2.0, || features);
        assert!(score(alike) > score(unlike) + 1.0, "{fitted:?}");
        let least = fitted.least(0.8);
        assert!(candidates.iter().all(|candidate| fitted.score_of(candidate) >= least));
        assert_eq!(ScoreWeights::fit(&candidates, 2999).feature_names().count(), 0);
        let json = serde_json::to_string(&fitted).unwrap();
        assert!(json.contains("\"features\":{") && json.contains("\"words\":"), "{json}");
        assert_eq!(serde_json::from_str::<ScoreWeights>(&json).unwrap(), fitted);
    }

    #[test]
    fn what_cannot_be_fitted_is_scored_by_similarity() {
        let few = [candidate(0.9, 1.0, true), candidate(0.8, 1.0, false)];
        let all_right = vec![candidate(0.9, 1.0, true); 300];
        let known = candidate(0.0, 1.0, false);
        let rising = |from_right: fn(u16) -> bool| -> Vec<JudgedCandidate> {
            let one = |n: u16| JudgedCandidate {
                similarity: 0.7 + f32::from(n) / 1000.0,
                is_right: from_right(n),
                ..known
            };
            (0..300).map(one).collect()
        };
        let backwards = rising(|n| n < 150);
        for candidates in [&few[..], &all_right, &backwards, &[]] {
            assert_eq!(ScoreWeights::fit(candidates, 5000), ScoreWeights::SIMILARITY);
        }
        let fitted = ScoreWeights::fit(&rising(|n| n >= 150), 300);
        let score = |similarity| fitted.score(similarity, 1.0, || known.features);
        assert!(score(0.95) > score(0.75), "{fitted:?}");
    }
}
