//! Tensors of a weights file by their names in `transformers`.

use std::collections::HashMap;

use candle_core::{DType, Result as CandleResult, Storage, Tensor};

use super::layers::{Layer, Layers, Linear, Norm};
use crate::embed::model_dir::EncoderShape;
use crate::error::{Error, Kind, Result};

/// Prefixes of the names of tensors; sentence-transformers writes none.
const PREFIXES: [&str; 4] = ["", "bert.", "roberta.", "model."];

/// Tensors by name; each is taken once.
pub(in crate::embed) struct NamedTensors {
    tensors: HashMap<String, Tensor>,
    prefix: &'static str,
}

impl NamedTensors {
    /// Tensors of an encoder, whatever stands before the name `marker`.
    ///
    /// # Errors
    /// `Model` if no prefix leads to `marker`.
    pub(in crate::embed) fn new(tensors: HashMap<String, Tensor>, marker: &str) -> Result<NamedTensors> {
        let prefix = PREFIXES.into_iter().find(|prefix| tensors.contains_key(&format!("{prefix}{marker}")));
        Ok(NamedTensors { prefix: prefix.ok_or_else(|| missing(marker))?, tensors })
    }

    /// A tensor of any shape and type, if it is there.
    pub(super) fn take_any(&mut self, name: &str) -> Option<Tensor> {
        self.tensors.remove(&format!("{}{name}", self.prefix))
    }

    /// The tensor `name` as contiguous f32.
    pub(in crate::embed) fn take(&mut self, name: &str, dims: &[usize]) -> Result<Tensor> {
        let full = format!("{}{name}", self.prefix);
        let tensor = self.tensors.remove(&full).ok_or_else(|| missing(&full))?;
        if tensor.dims() != dims {
            return Err(Error::new(Kind::Model, "cannot use the weights: a tensor has the wrong shape")
                .with("tensor", &full)
                .with("expected", format!("{dims:?}"))
                .with("got", format!("{:?}", tensor.dims())));
        }
        let tensor = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.contiguous()).map_err(malformed)?;
        if !is_finite(&tensor).map_err(malformed)? {
            return Err(Error::new(Kind::Model, "cannot use the weights: a tensor is not finite")
                .with("tensor", &full));
        }
        Ok(tensor)
    }

    pub(in crate::embed) fn norm(&mut self, name: &str, width: usize) -> Result<Norm> {
        Ok(Norm {
            weight: self.take(&format!("{name}.weight"), &[width])?,
            bias: self.take(&format!("{name}.bias"), &[width])?,
        })
    }

    pub(in crate::embed) fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<Linear> {
        let weight = self.take(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.take(&format!("{name}.bias"), &[outputs])?;
        Ok(Linear { weight: transposed(&weight).map_err(malformed)?, bias })
    }

    /// The first `shape.layers` layers of a model.
    ///
    /// # Errors
    /// `Model` if a tensor is missing, misshapen or not finite.
    pub(in crate::embed) fn layers(&mut self, shape: &EncoderShape) -> Result<Layers> {
        let layers = (0..shape.layers).map(|n| self.layer(n, shape)).collect::<Result<_>>()?;
        Ok(Layers::new(layers, shape))
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

/// Whether all numbers of a contiguous tensor of f32 are finite. Read in place: the words of some models take a third of their memory.
fn is_finite(tensor: &Tensor) -> CandleResult<bool> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { candle_core::bail!("the tensor is not in memory") };
    let numbers = storage.as_slice::<f32>()?.iter().skip(layout.start_offset()).take(tensor.elem_count());
    Ok(numbers.copied().all(f32::is_finite))
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

pub(in crate::embed) fn malformed(error: candle_core::Error) -> Error {
    Error::new(Kind::Model, "cannot convert the weights").source(error)
}
