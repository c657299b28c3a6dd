//! Similarity and the verifier's margin in one score: a logistic regression on judged candidates.

use serde::{Deserialize, Serialize};

/// Larger margins count as this one, and so do questions that are equal in the canonical form.
pub const MARGIN_MAX: f32 = 8.0;
/// Judged candidates from which on weights are fitted; fewer are scored by their similarity.
const CANDIDATES_MIN: usize = 100;
/// Keeps weights finite where the candidates are separated without an error.
const RIDGE: f64 = 1e-2;
const STEPS: usize = 50;

/// A stored question whose answer neither the guard nor the verifier refuses, and whether it is right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JudgedCandidate {
    /// The cosine similarity of the two questions.
    pub similarity: f32,
    /// The verifier's margin.
    pub margin: f32,
    /// Whether the answer is right.
    pub is_right: bool,
}

/// The score of a candidate: the logarithm of the odds that its answer is right, or its similarity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreWeights {
    bias: f64,
    similarity: f64,
    margin: f64,
}

impl ScoreWeights {
    /// The similarity alone.
    pub const SIMILARITY: ScoreWeights = ScoreWeights { bias: 0.0, similarity: 1.0, margin: 0.0 };

    /// The weights that fit candidates best, by Newton's method. Where one would be negative, the similarity alone.
    pub fn fit(candidates: &[JudgedCandidate]) -> ScoreWeights {
        let right = candidates.iter().filter(|candidate| candidate.is_right).count();
        if candidates.len() < CANDIDATES_MIN || right == 0 || right == candidates.len() {
            return ScoreWeights::SIMILARITY;
        }
        let mut weights = [0.0; 3];
        for _ in 0..STEPS {
            let Some(step) = newton_step(candidates, weights) else { return ScoreWeights::SIMILARITY };
            (0..3).for_each(|at| weights[at] += step[at]);
            if step.iter().all(|part| part.abs() < 1e-9) {
                break;
            }
        }
        let [bias, similarity, margin] = weights;
        let fitted = ScoreWeights { bias, similarity, margin };
        if fitted.are_finite() && fitted.are_increasing() { fitted } else { ScoreWeights::SIMILARITY }
    }

    /// The score of a candidate.
    pub fn score(&self, similarity: f32, margin: f32) -> f64 {
        let [_, similarity, margin] = features(similarity, margin);
        self.bias + self.similarity * similarity + self.margin * margin
    }

    /// The score of a judged candidate.
    pub fn score_of(&self, candidate: &JudgedCandidate) -> f64 {
        self.score(candidate.similarity, candidate.margin)
    }

    /// Whether a nearer candidate, or one that the verifier likes better, never has a lower score.
    pub(super) fn are_increasing(&self) -> bool {
        self.similarity > 0.0 && self.margin >= 0.0
    }

    pub(super) fn are_finite(&self) -> bool {
        [self.bias, self.similarity, self.margin].iter().all(|weight| weight.is_finite())
    }
}

fn features(similarity: f32, margin: f32) -> [f64; 3] {
    [1.0, f64::from(similarity), f64::from(margin.clamp(0.0, MARGIN_MAX))]
}

/// The step towards the best weights. `None` if there is no direction.
fn newton_step(candidates: &[JudgedCandidate], weights: [f64; 3]) -> Option<[f64; 3]> {
    // The gradient in the last column.
    let mut system = [[0.0; 4]; 3];
    for at in 0..3 {
        let ridge = if at == 0 { 0.0 } else { RIDGE };
        system[at][at] = ridge;
        system[at][3] = -ridge * weights[at];
    }
    for candidate in candidates {
        let features = features(candidate.similarity, candidate.margin);
        let logit: f64 = features.iter().zip(weights).map(|(feature, weight)| feature * weight).sum();
        let probability = 1.0 / (1.0 + (-logit).exp());
        let residual = f64::from(u8::from(candidate.is_right)) - probability;
        let curvature = (probability * (1.0 - probability)).max(1e-9);
        for row in 0..3 {
            (0..3).for_each(|column| system[row][column] += curvature * features[row] * features[column]);
            system[row][3] += residual * features[row];
        }
    }
    solve(system)
}

/// Gauss's elimination with the largest pivot.
fn solve(mut system: [[f64; 4]; 3]) -> Option<[f64; 3]> {
    for column in 0..3 {
        let pivot = (column..3)
            .max_by(|&one, &other| system[one][column].abs().total_cmp(&system[other][column].abs()))?;
        system.swap(column, pivot);
        if system[column][column].abs() < 1e-12 {
            return None;
        }
        for row in 0..3 {
            if row != column {
                let factor = system[row][column] / system[column][column];
                (0..4).for_each(|at| system[row][at] -= factor * system[column][at]);
            }
        }
    }
    Some(std::array::from_fn(|at| system[at][3] / system[at][at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(similarity: f32, margin: f32, is_right: bool) -> JudgedCandidate {
        JudgedCandidate { similarity, margin, is_right }
    }

    #[test]
    fn the_weights_are_those_that_made_the_labels() {
        // As many candidates of each cell of a grid are right as the true weights say.
        let (mut candidates, truth) = (Vec::new(), ScoreWeights { bias: -9.0, similarity: 8.0, margin: 0.5 });
        for (row, column) in (0..30).flat_map(|row| (0..30).map(move |column| (row, column))) {
            let (similarity, margin) = (0.7 + row as f32 / 100.0, column as f32 / 5.0);
            let probability = 1.0 / (1.0 + (-truth.score(similarity, margin)).exp());
            let right = (probability * 200.0).round() as usize;
            candidates.extend((0..200).map(|place| candidate(similarity, margin, place < right)));
        }
        let fitted = ScoreWeights::fit(&candidates);
        assert!((fitted.similarity - truth.similarity).abs() < 0.1, "{fitted:?}");
        assert!((fitted.margin - truth.margin).abs() < 0.01, "{fitted:?}");
        assert!((fitted.bias - truth.bias).abs() < 0.1, "{fitted:?}");
    }

    #[test]
    fn what_cannot_be_fitted_is_scored_by_similarity() {
        let few = [candidate(0.9, 1.0, true), candidate(0.8, 1.0, false)];
        let all_right = vec![candidate(0.9, 1.0, true); 300];
        let backwards: Vec<JudgedCandidate> =
            (0..300).map(|n| candidate(0.7 + n as f32 / 1000.0, 1.0, n < 150)).collect();
        for candidates in [&few[..], &all_right, &backwards, &[]] {
            assert_eq!(ScoreWeights::fit(candidates), ScoreWeights::SIMILARITY);
        }
        let separated: Vec<JudgedCandidate> =
            (0..300).map(|n| candidate(0.7 + n as f32 / 1000.0, 1.0, n >= 150)).collect();
        let fitted = ScoreWeights::fit(&separated);
        assert!(fitted.score(0.95, 1.0) > fitted.score(0.75, 1.0), "{fitted:?}");
    }
}
