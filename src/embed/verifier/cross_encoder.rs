//! The network, and what it reads of two texts.

use std::collections::HashSet;

use likewise_encoder::Activation;

use super::weights::VerifierWeights;
use crate::embed::encoder::FloatTable;
use crate::embed::tokenizer::Tokenizer;
use crate::error::{Error, Kind, Result};

/// A token occurs in the other text too, or is a special token.
const MARK_SHARED: u32 = 1;
/// A token with a digit does not occur in the other text.
const MARK_OTHER_DIGIT: u32 = 2;
/// Any other token that does not occur in the other text.
const MARK_OTHER: u32 = 0;

/// A verifier with its weights in memory.
pub struct Verifier {
    tokenizer: Tokenizer,
    /// `[CLS]` and `[SEP]`.
    specials: (u32, u32),
    with_digit: HashSet<u32>,
    /// The word embeddings of the embedding model: `vocabulary x hidden`.
    words: FloatTable,
    weights: VerifierWeights,
}

/// What the verifier reads of a pair: one number a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PairTokens {
    pub(super) ids: Vec<u32>,
    /// 0 for the first text and its special tokens, 1 for the second.
    pub(super) types: Vec<u32>,
    pub(super) marks: Vec<u32>,
}

impl Verifier {
    /// A verifier from the bytes of its file, for the model whose tokenizer, word embeddings and epsilon of norms these are.
    ///
    /// # Errors
    /// `Model` if the file is of another format or another model, or a tensor is missing, misshapen or not finite.
    pub(in crate::embed) fn new(
        bytes: &[u8],
        tokenizer: Tokenizer,
        words: FloatTable,
        norm_epsilon: f64,
    ) -> Result<Verifier> {
        let weights = VerifierWeights::read(bytes, &words, norm_epsilon)?;
        Ok(Verifier {
            specials: tokenizer.specials()?,
            with_digit: tokenizer.ids_with_digits(),
            tokenizer,
            words,
            weights,
        })
    }

    /// Whether it was trained on texts of a language, by its two letters.
    pub fn reads(&self, language: &str) -> bool {
        self.weights.languages.iter().any(|known| known == language)
    }

    /// How much a stored question and an asked one, both in canonical form, ask the same: the logit less the one at which they count as
    /// the same, so that a negative number is a veto. `None` if a text has no token or more than it reads.
    ///
    /// Cost: 2 x parameters x tokens operations: some 5 ms on one core for two sentences. Runs on the threads of the current pool.
    ///
    /// # Errors
    /// `Internal` if the logit is not finite.
    pub fn margin(&self, stored: &str, asked: &str) -> Result<Option<f32>> {
        let Some(pair) = self.pair(stored, asked)? else { return Ok(None) };
        let logit = self.logit(&pair);
        if !logit.is_finite() {
            return Err(Error::new(Kind::Internal, "cannot use the verifier's logit: it is not finite"));
        }
        Ok(Some(logit - self.weights.logit_min))
    }

    pub(super) fn pair(&self, first: &str, second: &str) -> Result<Option<PairTokens>> {
        let (first, second) = (self.tokenizer.word_ids(first)?, self.tokenizer.word_ids(second)?);
        let is_read = |ids: &[u32]| (1..=self.weights.text_tokens_max).contains(&ids.len());
        if !is_read(&first) || !is_read(&second) {
            return Ok(None);
        }
        let (start, end) = self.specials;
        let ids = [&[start][..], &first, &[end], &second, &[end]].concat();
        let types = [vec![0; first.len() + 2], vec![1; second.len() + 1]].concat();
        let shared = [MARK_SHARED];
        let marks =
            [&shared[..], &self.marks(&first, &second), &shared, &self.marks(&second, &first), &shared]
                .concat();
        Ok(Some(PairTokens { ids, types, marks }))
    }

    fn marks(&self, own: &[u32], other: &[u32]) -> Vec<u32> {
        let mark = |id: &u32| match id {
            id if other.contains(id) => MARK_SHARED,
            id if self.with_digit.contains(id) => MARK_OTHER_DIGIT,
            _ => MARK_OTHER,
        };
        own.iter().map(mark).collect()
    }

    fn logit(&self, pair: &PairTokens) -> f32 {
        let weights = &self.weights;
        let mut hidden = Vec::with_capacity(pair.ids.len() * self.words.width());
        for (position, &id) in pair.ids.iter().enumerate() {
            let (types, marks) = (pair.types[position] as usize, pair.marks[position] as usize);
            let (words, positions) = (self.words.row(id as usize), weights.positions.row(position));
            let sums =
                words.iter().zip(positions).zip(weights.types.row(types)).zip(weights.marks.row(marks));
            hidden.extend(sums.map(|(((word, position), types), mark)| word + position + types + mark));
        }
        weights.norm.apply(&mut hidden);
        weights.layers.run(&mut hidden, &[pair.ids.len()]);
        let inner = weights.inner.apply(&self.features(pair, &hidden), Some(Activation::Gelu));
        weights.output.apply(&inner, None)[0]
    }

    /// What the head reads: the first token, the means of both texts, their difference and their product.
    fn features(&self, pair: &PairTokens, hidden: &[f32]) -> Vec<f32> {
        let width = self.words.width();
        let of_first = pair.types.iter().filter(|&&kind| kind == 0).count();
        let (first, second) = hidden.split_at(of_first * width);
        let (one, two) = (mean(first, width), mean(second, width));
        let differences = one.iter().zip(&two).map(|(one, two)| (one - two).abs());
        let products = one.iter().zip(&two).map(|(one, two)| one * two);
        let token = hidden[..width].iter().copied();
        token
            .chain(one.iter().copied())
            .chain(two.iter().copied())
            .chain(differences)
            .chain(products)
            .collect()
    }
}

/// The mean of rows.
fn mean(rows: &[f32], width: usize) -> Vec<f32> {
    let mut mean = vec![0.0; width];
    for row in rows.chunks_exact(width) {
        mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    let count = (rows.len() / width) as f32;
    mean.iter_mut().for_each(|sum| *sum /= count);
    mean
}
