//! The weights of the encoder, in the layout of the forward pass.

use std::collections::HashMap;

use candle_core::{DType, Device, Result as CandleResult, Tensor};

use super::super::model_dir::EncoderShape;
use crate::error::{Error, Kind, Result};

/// All weights, in f32.
pub(super) struct Weights {
    /// `vocabulary x hidden`.
    pub(super) words: Tensor,
    /// `positions x hidden`, with the vector of token type 0 added: no other type is used.
    pub(super) positions: Tensor,
    pub(super) norm: Norm,
    pub(super) layers: Vec<Layer>,
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
pub(super) struct Linear {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
}

/// A layer normalization.
pub(super) struct Norm {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
}

/// Prefixes of the names of tensors; sentence-transformers writes none.
const PREFIXES: [&str; 4] = ["", "bert.", "roberta.", "model."];

impl Weights {
    pub(super) fn read(bytes: &[u8], shape: &EncoderShape) -> Result<Weights> {
        let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)
            .map_err(|error| Error::new(Kind::Model, "cannot parse the weights").source(error))?;
        let first = "embeddings.word_embeddings.weight";
        let prefix = PREFIXES.into_iter().find(|prefix| tensors.contains_key(&format!("{prefix}{first}")));
        let prefix = prefix.ok_or_else(|| missing(first))?;
        let mut tensors = NamedTensors { tensors, prefix };
        let h = shape.hidden;
        let words = tensors.take(first, &[shape.vocabulary, h])?;
        let mut positions = tensors
            .take("embeddings.position_embeddings.weight", &[shape.positions + shape.first_position, h])?;
        if let Some(types) =
            tensors.tensors.remove(&format!("{prefix}embeddings.token_type_embeddings.weight"))
        {
            positions = add_first_row(&positions, &types).map_err(malformed)?;
        }
        let norm = tensors.norm("embeddings.LayerNorm", h)?;
        let layers = (0..shape.layers).map(|n| tensors.layer(n, shape)).collect::<Result<_>>()?;
        Ok(Weights { words, positions, norm, layers })
    }
}

fn add_first_row(positions: &Tensor, types: &Tensor) -> CandleResult<Tensor> {
    positions.broadcast_add(&types.narrow(0, 0, 1)?.to_dtype(DType::F32)?)
}

/// Tensors by name; each is taken once.
struct NamedTensors {
    tensors: HashMap<String, Tensor>,
    prefix: &'static str,
}

impl NamedTensors {
    /// The tensor `name` as contiguous f32.
    fn take(&mut self, name: &str, dims: &[usize]) -> Result<Tensor> {
        let full = format!("{}{name}", self.prefix);
        let tensor = self.tensors.remove(&full).ok_or_else(|| missing(&full))?;
        if tensor.dims() != dims {
            return Err(Error::new(Kind::Model, "cannot use the weights: a tensor has the wrong shape")
                .with("tensor", &full)
                .with("expected", format!("{dims:?}"))
                .with("got", format!("{:?}", tensor.dims())));
        }
        let tensor = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.contiguous()).map_err(malformed)?;
        let sum =
            tensor.abs().and_then(|t| t.sum_all()).and_then(|t| t.to_scalar::<f32>()).map_err(malformed)?;
        if !sum.is_finite() {
            return Err(Error::new(Kind::Model, "cannot use the weights: a tensor is not finite")
                .with("tensor", &full));
        }
        Ok(tensor)
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<Norm> {
        Ok(Norm {
            weight: self.take(&format!("{name}.weight"), &[width])?,
            bias: self.take(&format!("{name}.bias"), &[width])?,
        })
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<Linear> {
        let weight = self.take(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.take(&format!("{name}.bias"), &[outputs])?;
        Ok(Linear { weight: transposed(&weight).map_err(malformed)?, bias })
    }

    fn layer(&mut self, n: usize, shape: &EncoderShape) -> Result<Layer> {
        let (h, inner) = (shape.hidden, shape.feed_forward);
        let name = |part: &str| format!("encoder.layer.{n}.{part}");
        let query = self.linear(&name("attention.self.query"), h, h)?;
        let key = self.linear(&name("attention.self.key"), h, h)?;
        let value = self.linear(&name("attention.self.value"), h, h)?;
        let scale = 1.0 / ((h / shape.heads) as f64).sqrt();
        Ok(Layer {
            query_key_value: joined(&query, &key, &value, scale).map_err(malformed)?,
            attention_output: self.linear(&name("attention.output.dense"), h, h)?,
            attention_norm: self.norm(&name("attention.output.LayerNorm"), h)?,
            up: self.linear(&name("intermediate.dense"), h, inner)?,
            down: self.linear(&name("output.dense"), inner, h)?,
            output_norm: self.norm(&name("output.LayerNorm"), h)?,
        })
    }
}

fn transposed(weight: &Tensor) -> CandleResult<Tensor> {
    weight.t()?.contiguous()
}

/// One linear layer for query, key and value together.
fn joined(query: &Linear, key: &Linear, value: &Linear, scale: f64) -> CandleResult<Linear> {
    let scaled = |tensor: &Tensor| tensor.affine(scale, 0.0);
    Ok(Linear {
        weight: Tensor::cat(&[&scaled(&query.weight)?, &key.weight, &value.weight], 1)?.contiguous()?,
        bias: Tensor::cat(&[&scaled(&query.bias)?, &key.bias, &value.bias], 0)?,
    })
}

fn missing(name: &str) -> Error {
    Error::new(Kind::Model, "cannot use the weights: a tensor is missing").with("tensor", name)
}

fn malformed(error: candle_core::Error) -> Error {
    Error::new(Kind::Model, "cannot convert the weights").source(error)
}
