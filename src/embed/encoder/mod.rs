//! The BERT and XLM-R encoder, without padding.
//!
//! The tokens of all texts of a batch are concatenated in one matrix (`tokens x hidden`), so every linear layer is one matrix
//! product without padded rows. Attention runs once for each length of texts, so it needs no mask. A text attends only to its
//! own tokens: its vector does not depend on its batch, except for the rounding of the matrix products.
//!
//! Architecture: Devlin et al., "BERT", 2018; layer by layer as in `transformers` `models/bert/modeling_bert.py` (v4.57),
//! with RoBERTa's positions.

mod fused;
mod layers;
mod named_tensors;
mod weights;

use candle_core::{Device, Result as CandleResult, Tensor};

use self::fused::AddTensor;
pub(super) use self::layers::{EqualLengths, Layers, Linear, Norm};
pub(super) use self::named_tensors::{NamedTensors, malformed};
use self::weights::Weights;
use super::model_dir::{EncoderShape, Pooling};
use super::tokenizer::TokenizedText;
use crate::error::{Error, Kind, Result};

/// The numeric recipe, part of the model's fingerprint: change it whenever vectors change beyond rounding.
pub(super) const RECIPE: &str = "f32-packed-1";

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
    pub(super) fn words(&self) -> &Tensor {
        &self.weights.words
    }

    /// Embeds texts. Shapes: `texts: n`, returns `n` vectors of `hidden` numbers, in the order of the texts.
    ///
    /// Cost: about `2 x tokens x parameters of the layers` operations, and some 12 x hidden x tokens x 4 bytes of
    /// memory.
    ///
    /// # Errors
    /// `Internal` if a product fails or a vector is zero or not finite: such a vector must not reach a caller.
    pub(super) fn embed(&self, texts: &[&TokenizedText]) -> Result<Vec<Vec<f32>>> {
        // Sorted by length: attention runs once for each length.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&text| texts[text].ids.len());
        let ids: Vec<&[u32]> = order.iter().map(|&text| texts[text].ids.as_slice()).collect();
        let hidden = self
            .forward(&ids)
            .and_then(|hidden| hidden.flatten_all()?.to_vec1::<f32>())
            .map_err(|error| Error::new(Kind::Internal, "cannot run the encoder").source(error))?;

        let mut vectors = vec![Vec::new(); texts.len()];
        let mut rows = hidden.chunks_exact(self.shape.hidden);
        for &text in &order {
            let tokens: Vec<&[f32]> = rows.by_ref().take(texts[text].ids.len()).collect();
            vectors[text] = self.pool(&tokens)?;
        }
        Ok(vectors)
    }

    /// The last hidden state of every token: `tokens x hidden`.
    fn forward(&self, texts: &[&[u32]]) -> CandleResult<Tensor> {
        let ids: Vec<u32> = texts.iter().flat_map(|ids| ids.iter().copied()).collect();
        let first = self.shape.first_position as u32;
        let positions: Vec<u32> =
            texts.iter().flat_map(|ids| (0..ids.len() as u32).map(|p| first + p)).collect();
        let words = self.weights.words.index_select(&Tensor::new(ids, &Device::Cpu)?, 0)?;
        let places = self.weights.positions.index_select(&Tensor::new(positions, &Device::Cpu)?, 0)?;
        words.inplace_op2(&places, &AddTensor)?;
        let embedded = self.weights.norm.apply(&words, self.shape.norm_epsilon as f32)?;
        self.weights.layers.run(embedded, &groups(texts))
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

fn groups(texts: &[&[u32]]) -> Vec<EqualLengths> {
    texts
        .chunk_by(|one, two| one.len() == two.len())
        .map(|group| EqualLengths { texts: group.len(), length: group[0].len() })
        .collect()
}
