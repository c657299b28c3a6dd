//! What is looked at before a new generation is served.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::fill::blocking;
use super::task::ReembedTask;
use crate::domain::Principal;
use crate::error::{Error, Kind, Result};
use crate::search::{Collection, Metric, Query, Results, View};
use crate::service::background_work::{Interruption, WorkControl};
use crate::service::collections::query_vectors::vector_of;
use crate::service::{Collections, Directives};

/// Documents of the sample.
const SAMPLE_DOCUMENTS: usize = 64;
/// Neighbours that are compared.
const NEIGHBOURS: usize = 10;
/// The least cosine of a stored vector and that of its text embedded again. Remote models do not give equal digits twice.
const COSINE_MIN: f64 = 0.999;

/// What was found in a sample of a new generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReembedVerification {
    /// Documents of the sample.
    pub sampled: usize,
    /// The least cosine of a stored vector and that of its text, embedded again without the cache.
    pub cosine_min: f64,
    /// Vectors of all documents that are not finite, or whose length is zero.
    pub bad_vectors: usize,
    /// Documents of the sample that a search for their own vector does not find. Not looked at with the inner product, by which longer vectors
    /// score higher.
    pub not_found_by_own_vector: usize,
    /// The share of the ten nearest documents that both models agree on, as a mean. Reported only: another model has other neighbours.
    pub neighbour_overlap: f64,
    /// The share of the exact results that the new index finds; `None` without an index.
    pub index_recall: Option<f64>,
}

impl ReembedVerification {
    /// # Errors
    /// `Internal` naming what is wrong with the new generation.
    pub(super) fn check(&self, recall_min: f64) -> Result<()> {
        let fault = if self.cosine_min < COSINE_MIN {
            format!("a text embedded again has the cosine {:.6} with its stored vector", self.cosine_min)
        } else if self.bad_vectors > 0 {
            format!("{} vectors are not finite or zero", self.bad_vectors)
        } else if self.not_found_by_own_vector > 0 {
            format!("{} documents are not found by their own vectors", self.not_found_by_own_vector)
        } else if let Some(recall) = self.index_recall.filter(|recall| *recall < recall_min) {
            format!(
                "the new index finds {recall:.3} of the exact results, less than collections.recall_target"
            )
        } else {
            return Ok(());
        };
        let message =
            format!("the new vectors are not served, because they did not pass verification: {fault}");
        Err(Error::new(Kind::Internal, message))
    }
}

/// Documents of a view, spread over it, with their vectors.
#[derive(Debug, Default)]
struct DocumentSample {
    ids: Vec<String>,
    texts: Vec<String>,
    /// One after the other.
    vectors: Vec<f32>,
    bad_vectors: usize,
}

impl DocumentSample {
    fn take(view: &View) -> DocumentSample {
        let every = view.documents().div_ceil(SAMPLE_DOCUMENTS).max(1);
        let mut sample = DocumentSample::default();
        for (place, (document, vector)) in view.iter().enumerate() {
            let square: f64 = vector.iter().map(|&number| f64::from(number) * f64::from(number)).sum();
            sample.bad_vectors += usize::from(!square.is_finite() || square == 0.0);
            if place % every == 0 {
                sample.ids.push(document.id.to_owned());
                sample.texts.push(document.text.unwrap_or_default().to_owned());
                sample.vectors.extend_from_slice(vector);
            }
        }
        sample
    }
}

impl Collections {
    /// Looks at a sample of a new generation, and at all of its vectors.
    pub(super) async fn verify(
        &self,
        principal: &Arc<Principal>,
        task: &ReembedTask,
        target: &Arc<Collection>,
        control: &WorkControl,
    ) -> Result<ReembedVerification, Interruption> {
        control.check()?;
        let view = target.view();
        let looked_at = Arc::clone(&view);
        let sample = blocking(move || DocumentSample::take(&looked_at)).await?;
        if sample.ids.is_empty() {
            return Ok(ReembedVerification {
                sampled: 0,
                cosine_min: 1.0,
                bad_vectors: 0,
                not_found_by_own_vector: 0,
                neighbour_overlap: 1.0,
                index_recall: None,
            });
        }
        let cosine_min = self.cosine_min(principal, task, &sample, view.dim()).await?;
        control.check()?;
        let exact = self.neighbours(&view, &sample.vectors, None).await?;
        let has_longer_neighbours = target.settings().metric == Metric::InnerProduct;
        let not_found_by_own_vector =
            if has_longer_neighbours { 0 } else { not_found(&sample, view.dim(), &exact) };
        let index_recall = if view.indexed_rows() > 0 {
            let by_index = self.neighbours(&view, &sample.vectors, Some(self.catalog.ef())).await?;
            Some(mean_overlap(&exact, &by_index))
        } else {
            None
        };
        let neighbour_overlap = self.overlap_with_former(&task.source.view(), &sample, &exact).await?;
        Ok(ReembedVerification {
            sampled: sample.ids.len(),
            cosine_min,
            bad_vectors: sample.bad_vectors,
            not_found_by_own_vector,
            neighbour_overlap,
            index_recall,
        })
    }

    /// The least cosine of the sample's vectors and those of its texts, embedded again.
    async fn cosine_min(
        &self,
        principal: &Arc<Principal>,
        task: &ReembedTask,
        sample: &DocumentSample,
        dim: usize,
    ) -> Result<f64> {
        let texts = sample.texts.clone();
        let mut request = self.background_request(&task.model, texts, principal);
        request.directives = Directives { no_cache: true, no_store: true, ..Directives::default() };
        let embedded = self.embeddings.embed(&request).await?;
        let stored = sample.vectors.chunks_exact(dim);
        let cosines =
            embedded.entries.iter().zip(stored).map(|(entry, stored)| cosine(&vector_of(entry), stored));
        Ok(cosines.fold(1.0, f64::min))
    }

    /// The nearest documents of each vector, with their vectors: exact without `ef`.
    async fn neighbours(&self, view: &Arc<View>, vectors: &[f32], ef: Option<usize>) -> Result<Vec<Results>> {
        let query = Query {
            vectors: vectors.to_vec(),
            k: NEIGHBOURS,
            filter: None,
            score_min: None,
            has_vectors: true,
            ef,
            bytes_max: self.options.result_bytes_max,
        };
        self.catalog.search(Arc::clone(view), Arc::new(query)).await
    }

    /// The share of neighbours that the former generation has too.
    async fn overlap_with_former(
        &self,
        former: &Arc<View>,
        sample: &DocumentSample,
        found: &[Results],
    ) -> Result<f64> {
        let (mut vectors, mut compared) = (Vec::new(), Vec::new());
        for (id, results) in sample.ids.iter().zip(found) {
            // A document that was removed meanwhile has no former neighbours.
            if let Some((_, vector)) = former.get(id) {
                vectors.extend_from_slice(vector);
                compared.push(results.clone());
            }
        }
        if compared.is_empty() {
            return Ok(1.0);
        }
        let formerly = self.neighbours(former, &vectors, None).await?;
        Ok(mean_overlap(&formerly, &compared))
    }
}

/// Documents of the sample that are not among the results for their vectors, nor any of an equal vector.
fn not_found(sample: &DocumentSample, dim: usize, found: &[Results]) -> usize {
    let is_missing = |((id, vector), results): ((&String, &[f32]), &Results)| {
        let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
        !results.iter().any(|hit| hit.document.id == id || hit.vector == bytes)
    };
    sample
        .ids
        .iter()
        .zip(sample.vectors.chunks_exact(dim))
        .zip(found)
        .filter(|each| is_missing(*each))
        .count()
}

/// The share of the documents of `one` that are in `other` too, as a mean over all queries.
fn mean_overlap(one: &[Results], other: &[Results]) -> f64 {
    let share = |(one, other): (&Results, &Results)| {
        let other: HashSet<&str> = other.iter().map(|hit| hit.document.id).collect();
        let common = one.iter().filter(|hit| other.contains(hit.document.id)).count();
        common as f64 / one.iter().count().max(1) as f64
    };
    one.iter().zip(other).map(share).sum::<f64>() / one.len().max(1) as f64
}

fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let product =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum() };
    product(one, other) / (product(one, one) * product(other, other)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: ReembedVerification = ReembedVerification {
        sampled: 64,
        cosine_min: 0.9999,
        bad_vectors: 0,
        not_found_by_own_vector: 0,
        neighbour_overlap: 0.1,
        index_recall: Some(0.97),
    };

    #[test]
    fn each_fault_is_named() {
        assert!(GOOD.check(0.95).is_ok());
        assert!(ReembedVerification { index_recall: None, ..GOOD }.check(0.95).is_ok());
        for (bad, word) in [
            (ReembedVerification { cosine_min: 0.9, ..GOOD }, "cosine 0.9"),
            (ReembedVerification { bad_vectors: 2, ..GOOD }, "2 vectors"),
            (ReembedVerification { not_found_by_own_vector: 3, ..GOOD }, "3 documents"),
            (ReembedVerification { index_recall: Some(0.9), ..GOOD }, "recall_target"),
        ] {
            let error = bad.check(0.95).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
