//! BERT and XLM-R: from token ids to a vector.
//!
//! The tokens of all texts of a batch lie one behind the other, without padding. A text's vector does not depend on its batch.
//!
//! Architecture: Devlin et al., "BERT", 2018; layer by layer as in `transformers` `models/bert/modeling_bert.py` (v4.57),
//! with RoBERTa's positions.

mod float_table;
mod named_tensors;
mod weights;

use likewise_encoder::PassCost;
use rayon::prelude::*;

pub(super) use self::float_table::FloatTable;
pub(super) use self::named_tensors::{NamedTensors, floats};
use self::weights::Weights;
use super::model_dir::{EncoderShape, Pooling};
use super::tokenizer::TokenizedText;
use crate::error::{Error, Kind, Result};

/// The numeric recipe, part of the model's fingerprint: change it whenever vectors change beyond rounding.
pub(super) const RECIPE: &str = "f32-packed-1";
/// Tokens whose embeddings one thread looks up at a time.
const TOKENS_PER_TASK: usize = 64;

/// An encoder with its weights in memory.
pub(super) struct Encoder {
    shape: EncoderShape,
    pooling: Pooling,
    normalizes: bool,
    weights: Weights,
}

impl Encoder {
    /// An encoder from the bytes of a `model.safetensors`. Half-precision weights are widened to f32.
    ///
    /// # Errors
    /// `Model` if a tensor is missing, misshapen or not finite.
    pub(super) fn new(
        bytes: &[u8],
        shape: EncoderShape,
        pooling: Pooling,
        normalizes: bool,
    ) -> Result<Encoder> {
        let weights = Weights::read(bytes, &shape)?;
        Ok(Encoder { shape, pooling, normalizes, weights })
    }

    /// The word embeddings: `vocabulary x hidden`.
    pub(super) fn words(&self) -> &FloatTable {
        &self.weights.words
    }

    /// What a pass costs.
    pub(super) fn cost(&self) -> PassCost {
        self.weights.layers.cost()
    }

    /// Embeds texts. Shapes: `texts: n`, returns `n` vectors of `hidden` numbers, in the order of the texts.
    ///
    /// Cost: that of the layers, and `8 x hidden x tokens` bytes of memory.
    ///
    /// # Errors
    /// `Internal` if a vector is zero or not finite: such a vector must not reach a caller.
    pub(super) fn embed(&self, texts: &[&TokenizedText]) -> Result<Vec<Vec<f32>>> {
        // The longest first: what is left for the last thread is short.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&text| std::cmp::Reverse(texts[text].ids.len()));
        let ids: Vec<&[u32]> = order.iter().map(|&text| texts[text].ids.as_slice()).collect();
        let hidden = self.forward(&ids);

        let mut vectors = vec![Vec::new(); texts.len()];
        let mut rows = hidden.chunks_exact(self.shape.hidden);
        for &text in &order {
            let tokens: Vec<&[f32]> = rows.by_ref().take(texts[text].ids.len()).collect();
            vectors[text] = self.pool(&tokens)?;
        }
        Ok(vectors)
    }

    /// The last hidden state of every token: `tokens x hidden`.
    fn forward(&self, texts: &[&[u32]]) -> Vec<f32> {
        let Weights { words, positions, norm, layers } = &self.weights;
        let tokens: Vec<(u32, usize)> =
            texts.iter().flat_map(|ids| ids.iter().copied().zip(self.shape.first_position..)).collect();
        let mut hidden = vec![0.0; tokens.len() * self.shape.hidden];
        let pieces = hidden.par_chunks_mut(TOKENS_PER_TASK * self.shape.hidden);
        pieces.zip(tokens.par_chunks(TOKENS_PER_TASK)).for_each(|(hidden, tokens)| {
            for (row, &(id, position)) in hidden.chunks_exact_mut(self.shape.hidden).zip(tokens) {
                let sums = words.row(id as usize).iter().zip(positions.row(position)).map(|(a, b)| a + b);
                row.iter_mut().zip(sums).for_each(|(place, sum)| *place = sum);
            }
            norm.apply(hidden);
        });
        let lengths: Vec<usize> = texts.iter().map(|ids| ids.len()).collect();
        layers.run(&mut hidden, &lengths);
        hidden
    }

    /// The vector of a text from the hidden states of its tokens.
    fn pool(&self, tokens: &[&[f32]]) -> Result<Vec<f32>> {
        let mut vector: Vec<f64> = match self.pooling {
            Pooling::Cls => tokens.first().map(|token| widen(token)).unwrap_or_default(),
            Pooling::Last => tokens.last().map(|token| widen(token)).unwrap_or_default(),
            Pooling::Mean => {
                let mut sum = vec![0.0; self.shape.hidden];
                for token in tokens {
                    sum.iter_mut().zip(*token).for_each(|(sum, &x)| *sum += f64::from(x));
                }
                sum.iter_mut().for_each(|sum| *sum /= tokens.len() as f64);
                sum
            }
        };
        let norm = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
        if !norm.is_finite() || norm == 0.0 {
            return Err(Error::new(
                Kind::Internal,
                "cannot use the model's vector: it is zero or not finite",
            ));
        }
        if self.normalizes {
            vector.iter_mut().for_each(|x| *x /= norm);
        }
        Ok(vector.into_iter().map(|x| x as f32).collect())
    }
}

fn widen(token: &[f32]) -> Vec<f64> {
    token.iter().map(|&x| f64::from(x)).collect()
}
