//! What each part of the decision says of pairs of texts.

use std::collections::HashMap;
use std::sync::Arc;

use likewise::app::Engine;
use likewise::domain::InputType;
use likewise::embed::Verifier;
use likewise::error::Result;
use likewise::matching::calibration::{MARGIN_MAX, PairFeatures};
use likewise::matching::guard::{CanonicalQuestion, Guard, Language, QuestionFeatures, Strictness};
use likewise::service::Directives;
use likewise::service::embeddings::Request;

use crate::cli::terminal;

/// Texts that are embedded at a time.
const CHUNK: usize = 256;

/// Judges pairs of the texts that it was made of, by their places.
///
/// Memory: the vectors and the features of all texts, and a margin for each pair that was read.
pub(in crate::cli) struct PairJudge<'a> {
    guard: &'a Guard,
    verifier: Option<&'a Verifier>,
    /// Unit vectors.
    vectors: Vec<Vec<f32>>,
    questions: Vec<JudgedQuestion>,
    margins: HashMap<(usize, usize), Option<f32>>,
}

struct JudgedQuestion {
    features: QuestionFeatures,
    canonical: CanonicalQuestion,
    is_exact_only: bool,
}

impl<'a> PairJudge<'a> {
    /// Embeds texts with the default model of an engine, and reads them by the rules.
    pub(in crate::cli) async fn new(
        engine: &'a Engine,
        guard: &'a Guard,
        texts: &[String],
    ) -> Result<PairJudge<'a>> {
        let vectors = embed(engine, texts).await?;
        let model = engine.models.default_model()?;
        let verifier = tokio::task::block_in_place(|| model.verifier()).map(Arc::as_ref);
        let read = |text: &String| JudgedQuestion {
            features: guard.features(text),
            canonical: guard.canonical(text),
            is_exact_only: guard.exact_only(text).is_some(),
        };
        let questions = texts.iter().map(read).collect();
        Ok(PairJudge { guard, verifier, vectors, questions, margins: HashMap::new() })
    }

    /// Whether the model has a verifier.
    pub(in crate::cli) fn has_verifier(&self) -> bool {
        self.verifier.is_some()
    }

    /// The cosine similarity of two texts.
    pub(in crate::cli) fn similarity(&self, one: usize, other: usize) -> f32 {
        dot(&self.vectors[one], &self.vectors[other])
    }

    /// The language of a text.
    pub(in crate::cli) fn language(&self, text: usize) -> Language {
        self.questions[text].canonical.language
    }

    /// Whether a text is answered in the same words only.
    pub(in crate::cli) fn is_exact_only(&self, text: usize) -> bool {
        self.questions[text].is_exact_only
    }

    /// Whether the rules let two texts share an answer.
    pub(in crate::cli) fn allows(&self, strictness: Strictness, stored: usize, asked: usize) -> bool {
        let [stored, asked] = [stored, asked].map(|place| &self.questions[place]);
        let may_share = !stored.is_exact_only && !asked.is_exact_only;
        may_share && self.guard.veto(strictness, &asked.features, &stored.features).is_none()
    }

    /// What two texts look like beside each other.
    pub(in crate::cli) fn pair_features(&self, stored: usize, asked: usize) -> PairFeatures {
        let [stored, asked] = [stored, asked].map(|place| &self.questions[place]);
        let conflicts = self.guard.conflicts(&asked.features, &stored.features);
        PairFeatures::of(&asked.canonical, &stored.canonical, &conflicts)
    }

    /// The verifier's margin. `None` if it cannot read the pair, or there is none. Two texts that are equal in the canonical form have
    /// the largest.
    ///
    /// Cost: a pass of the verifier on the calling thread, once a pair.
    pub(in crate::cli) fn margin(&mut self, stored: usize, asked: usize) -> Result<Option<f32>> {
        let Some(verifier) = self.verifier else { return Ok(None) };
        if let Some(margin) = self.margins.get(&(stored, asked)) {
            return Ok(*margin);
        }
        let [first, second] = [stored, asked].map(|place| &self.questions[place].canonical);
        let is_read = [first, second].iter().all(|question| verifier.reads(question.language.code()));
        let margin = if !is_read {
            None
        } else if first.text == second.text {
            Some(MARGIN_MAX)
        } else {
            verifier.margin(&first.text, &second.text)?
        };
        self.margins.insert((stored, asked), margin);
        Ok(margin)
    }

    /// For each text the others that are at least this similar, the nearest first.
    ///
    /// Cost: the dot products of all pairs, on two threads.
    pub(in crate::cli) fn neighbours(&self, similarity_min: f32) -> Vec<Vec<(usize, f32)>> {
        let of = |asked: usize| {
            let mut near: Vec<(usize, f32)> = (0..self.vectors.len())
                .filter(|&stored| stored != asked)
                .map(|stored| (stored, self.similarity(stored, asked)))
                .filter(|(_, similarity)| *similarity >= similarity_min)
                .collect();
            near.sort_by(|one, other| other.1.total_cmp(&one.1));
            near
        };
        let half = self.vectors.len().div_ceil(2);
        std::thread::scope(|scope| {
            let first = scope.spawn(|| (0..half).map(of).collect::<Vec<_>>());
            let second: Vec<_> = (half..self.vectors.len()).map(of).collect();
            let mut all = first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.extend(second);
            all
        })
    }
}

async fn embed(engine: &Engine, texts: &[String]) -> Result<Vec<Vec<f32>>> {
    let progress = terminal::bar(texts.len());
    let mut vectors: Vec<Vec<f32>> = Vec::with_capacity(texts.len());
    for chunk in texts.chunks(CHUNK) {
        let request = Request {
            model: Arc::clone(engine.models.default_model()?),
            texts: chunk.to_vec(),
            input_type: Some(InputType::Query),
            truncate: true,
            principal: Arc::default(),
            directives: Directives::default(),
            is_background: false,
        };
        let response = engine.embeddings.embed(&request).await?;
        vectors.extend(response.entries.iter().map(|entry| unit_vector(&entry.value)));
        progress.inc(chunk.len() as u64);
    }
    progress.finish_and_clear();
    Ok(vectors)
}

fn unit_vector(bytes: &[u8]) -> Vec<f32> {
    let vector: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&four| f32::from_le_bytes(four)).collect();
    let norm = dot(&vector, &vector).sqrt();
    vector.into_iter().map(|number| number / norm).collect()
}

/// In sixteen sums, which the compiler puts into vector registers.
fn dot(one: &[f32], other: &[f32]) -> f32 {
    let (one, other) = (one.as_chunks::<16>(), other.as_chunks::<16>());
    let mut sums = [0.0_f32; 16];
    for (x, y) in one.0.iter().zip(other.0) {
        (0..16).for_each(|at| sums[at] += x[at] * y[at]);
    }
    let rest: f32 = one.1.iter().zip(other.1).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
}
