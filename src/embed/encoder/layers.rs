//! Transformer layers over concatenated texts: the pass that the encoder and the verifier share.

use candle_core::{Result as CandleResult, Tensor};
use candle_nn::ops::{layer_norm, softmax_last_dim};

use super::fused::{AddBias, AddTensor, Gelu, GeluTanh, Relu};
use crate::embed::model_dir::{Activation, EncoderShape};

/// Transformer layers with their weights, in f32.
pub(in crate::embed) struct Layers {
    layers: Vec<Layer>,
    hidden: usize,
    heads: usize,
    norm_epsilon: f32,
    activation: Activation,
}

/// One transformer layer.
pub(super) struct Layer {
    /// `hidden x 3 hidden`; the query's part is scaled by 1 / sqrt(width of a head).
    pub(super) query_key_value: Linear,
    pub(super) attention_output: Linear,
    pub(super) attention_norm: Norm,
    pub(super) up: Linear,
    pub(super) down: Linear,
    pub(super) output_norm: Norm,
}

/// `x * weight + bias`, the weight already transposed to `inputs x outputs`.
pub(in crate::embed) struct Linear {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
}

/// A layer normalization.
pub(in crate::embed) struct Norm {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
}

/// Consecutive texts of equal length.
pub(in crate::embed) struct EqualLengths {
    pub(in crate::embed) texts: usize,
    pub(in crate::embed) length: usize,
}

impl Linear {
    /// Shapes: `rows x inputs` to `rows x outputs`.
    pub(in crate::embed) fn apply(&self, x: &Tensor) -> CandleResult<Tensor> {
        let y = x.matmul(&self.weight)?;
        y.inplace_op2(&self.bias, &AddBias)?;
        Ok(y)
    }

    /// As [`Linear::apply`], with an activation behind it.
    pub(in crate::embed) fn activate(&self, x: &Tensor, activation: Activation) -> CandleResult<Tensor> {
        let y = x.matmul(&self.weight)?;
        match activation {
            Activation::Gelu => y.inplace_op2(&self.bias, &Gelu)?,
            Activation::GeluTanh => y.inplace_op2(&self.bias, &GeluTanh)?,
            Activation::Relu => y.inplace_op2(&self.bias, &Relu)?,
        }
        Ok(y)
    }
}

impl Norm {
    pub(in crate::embed) fn apply(&self, x: &Tensor, epsilon: f32) -> CandleResult<Tensor> {
        layer_norm(x, &self.weight, &self.bias, epsilon)
    }
}

impl Layers {
    /// Layers of a model of this shape, the first one first.
    pub(super) fn new(layers: Vec<Layer>, shape: &EncoderShape) -> Layers {
        Layers {
            layers,
            hidden: shape.hidden,
            heads: shape.heads,
            norm_epsilon: shape.norm_epsilon as f32,
            activation: shape.activation,
        }
    }

    /// The last hidden state of every token. Shapes: `tokens x hidden` to the same.
    pub(in crate::embed) fn run(&self, embedded: Tensor, groups: &[EqualLengths]) -> CandleResult<Tensor> {
        let mut hidden = embedded;
        for layer in &self.layers {
            let attended = layer.attention_output.apply(&self.attend(&hidden, layer, groups)?)?;
            attended.inplace_op2(&hidden, &AddTensor)?;
            hidden = layer.attention_norm.apply(&attended, self.norm_epsilon)?;
            let inner = layer.down.apply(&layer.up.activate(&hidden, self.activation)?)?;
            inner.inplace_op2(&hidden, &AddTensor)?;
            hidden = layer.output_norm.apply(&inner, self.norm_epsilon)?;
        }
        Ok(hidden)
    }

    /// Self-attention, group by group: `tokens x hidden` to `tokens x hidden`.
    fn attend(&self, hidden: &Tensor, layer: &Layer, groups: &[EqualLengths]) -> CandleResult<Tensor> {
        let (heads, width) = (self.heads, self.hidden / self.heads);
        let projected = layer.query_key_value.apply(hidden)?;
        let mut contexts = Vec::with_capacity(groups.len());
        let mut at = 0;
        for group in groups {
            let tokens = group.texts * group.length;
            // texts x length x (query, key, value) x heads x width, to three of texts x heads x length x width.
            let parts = projected
                .narrow(0, at, tokens)?
                .reshape((group.texts, group.length, 3, heads, width))?
                .permute((2, 0, 3, 1, 4))?;
            let part = |n: usize| parts.get(n)?.contiguous();
            // The query is scaled by 1 / sqrt(width) in the weights.
            let scores = part(0)?.matmul(&part(1)?.transpose(2, 3)?)?;
            let context = softmax_last_dim(&scores)?.matmul(&part(2)?)?;
            contexts.push(context.transpose(1, 2)?.reshape((tokens, heads * width))?);
            at += tokens;
        }
        Tensor::cat(&contexts, 0)
    }
}
