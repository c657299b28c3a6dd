//! The network, and what it reads of two texts.

use std::collections::HashSet;

use candle_core::{Device, Result as CandleResult, Tensor};

use super::weights::VerifierWeights;
use crate::embed::encoder::EqualLengths;
use crate::embed::model_dir::Activation;
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
    words: Tensor,
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
        words: Tensor,
        norm_epsilon: f64,
    ) -> Result<Verifier> {
        let weights = VerifierWeights::read(bytes, words.dims(), norm_epsilon)?;
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
    /// Cost: 2 x parameters x tokens operations: some 5 to 15 ms on one core for two sentences. Runs on the calling thread and the
    /// threads of matrix products.
    ///
    /// # Errors
    /// `Internal` if a product fails.
    pub fn margin(&self, stored: &str, asked: &str) -> Result<Option<f32>> {
        let Some(pair) = self.pair(stored, asked)? else { return Ok(None) };
        let logit = self
            .logit(&pair)
            .map_err(|error| Error::new(Kind::Internal, "cannot run the verifier").source(error))?;
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

    fn logit(&self, pair: &PairTokens) -> CandleResult<f32> {
        let (length, of_first) = (pair.ids.len(), pair.types.iter().filter(|&&kind| kind == 0).count());
        let weights = &self.weights;
        let rows = |table: &Tensor, ids: &[u32]| table.index_select(&Tensor::new(ids, &Device::Cpu)?, 0);
        let embedded = (rows(&self.words, &pair.ids)? + weights.positions.narrow(0, 0, length)?)?;
        let embedded = (embedded + rows(&weights.types, &pair.types)?)?;
        let embedded = (embedded + rows(&weights.marks, &pair.marks)?)?;
        let embedded = weights.norm.apply(&embedded, weights.norm_epsilon)?;
        let hidden = weights.layers.run(embedded, &[EqualLengths { texts: 1, length }])?;
        let one = hidden.narrow(0, 0, of_first)?.mean_keepdim(0)?;
        let two = hidden.narrow(0, of_first, length - of_first)?.mean_keepdim(0)?;
        let features =
            Tensor::cat(&[&hidden.narrow(0, 0, 1)?, &one, &two, &(&one - &two)?.abs()?, &(&one * &two)?], 1)?;
        let inner = weights.inner.activate(&features, Activation::Gelu)?;
        weights.output.apply(&inner)?.flatten_all()?.get(0)?.to_scalar::<f32>()
    }
}
