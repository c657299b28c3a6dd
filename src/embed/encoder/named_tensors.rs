//! Tensors of a weights file by their names in `transformers`.

use half::{bf16, f16};
use likewise_encoder::{Dense, Layer, Layers, Linear, Norm};
use safetensors::{Dtype, SafeTensors};

use super::float_table::FloatTable;
use crate::embed::model_dir::EncoderShape;
use crate::error::{Error, Kind, Result};

/// Prefixes of the names of tensors; sentence-transformers writes none.
const PREFIXES: [&str; 4] = ["", "bert.", "roberta.", "model."];

/// Tensors of a file by name.
pub(in crate::embed) struct NamedTensors<'a> {
    file: &'a SafeTensors<'a>,
    prefix: &'static str,
    widen: Widen,
}

/// Reads the tensor of a file as f32.
type Widen = fn(&SafeTensors<'_>, &str) -> Result<Vec<f32>>;

/// The matrix and the bias of a linear layer.
struct DenseValues {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl DenseValues {
    fn part(&self, scale: f32) -> Dense<'_> {
        Dense { weight: &self.weight, bias: &self.bias, scale }
    }
}

impl<'a> NamedTensors<'a> {
    /// Tensors of an encoder, whatever stands before the name `marker`; `widen` reads them.
    ///
    /// # Errors
    /// `Model` if no prefix leads to `marker`.
    pub(in crate::embed) fn new(
        file: &'a SafeTensors<'a>,
        marker: &str,
        widen: Widen,
    ) -> Result<NamedTensors<'a>> {
        let has = |prefix: &&str| file.tensor(&format!("{prefix}{marker}")).is_ok();
        let prefix = PREFIXES.into_iter().find(has).ok_or_else(|| missing(marker))?;
        Ok(NamedTensors { file, prefix, widen })
    }

    /// The shape of a tensor, if it is there.
    pub(in crate::embed) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.file.tensor(&format!("{}{name}", self.prefix)).ok().map(|tensor| tensor.shape().to_vec())
    }

    /// The numbers of the tensor `name` of this shape.
    ///
    /// # Errors
    /// `Model` if it is missing, misshapen, not finite or of another type than numbers.
    pub(in crate::embed) fn take(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let full = format!("{}{name}", self.prefix);
        let tensor = self.file.tensor(&full).map_err(|_| missing(&full))?;
        if tensor.shape() != shape {
            return Err(Error::new(Kind::Model, "cannot use the weights: a tensor has the wrong shape")
                .with("tensor", &full)
                .with("expected", format!("{shape:?}"))
                .with("got", format!("{:?}", tensor.shape())));
        }
        let values = (self.widen)(self.file, &full)?;
        if !values.iter().all(|value| value.is_finite()) {
            return Err(Error::new(Kind::Model, "cannot use the weights: a tensor is not finite")
                .with("tensor", &full));
        }
        Ok(values)
    }

    pub(in crate::embed) fn table(&self, name: &str, rows: usize, width: usize) -> Result<FloatTable> {
        Ok(FloatTable::new(self.take(name, &[rows, width])?, width))
    }

    pub(in crate::embed) fn norm(&self, name: &str, width: usize, epsilon: f64) -> Result<Norm> {
        let weight = self.take(&format!("{name}.weight"), &[width])?;
        let bias = self.take(&format!("{name}.bias"), &[width])?;
        Ok(Norm::new(&weight, &bias, epsilon as f32))
    }

    pub(in crate::embed) fn linear(&self, name: &str, inputs: usize, outputs: usize) -> Result<Linear> {
        Ok(Linear::new(inputs, &[self.dense(name, inputs, outputs)?.part(1.0)]))
    }

    fn dense(&self, name: &str, inputs: usize, outputs: usize) -> Result<DenseValues> {
        let weight = self.take(&format!("{name}.weight"), &[outputs, inputs])?;
        Ok(DenseValues { weight, bias: self.take(&format!("{name}.bias"), &[outputs])? })
    }

    /// The first `shape.layers` layers of a model.
    ///
    /// # Errors
    /// As [`NamedTensors::take`].
    pub(in crate::embed) fn layers(&self, shape: &EncoderShape) -> Result<Layers> {
        let layers = (0..shape.layers).map(|n| self.layer(n, shape)).collect::<Result<_>>()?;
        Ok(Layers::new(layers, shape.hidden, shape.heads, shape.activation))
    }

    fn layer(&self, n: usize, shape: &EncoderShape) -> Result<Layer> {
        let (h, inner) = (shape.hidden, shape.feed_forward);
        let name = |part: &str| format!("encoder.layer.{n}.{part}");
        let norm = |part: &str| self.norm(&name(part), h, shape.norm_epsilon);
        let query = self.dense(&name("attention.self.query"), h, h)?;
        let key = self.dense(&name("attention.self.key"), h, h)?;
        let value = self.dense(&name("attention.self.value"), h, h)?;
        let scale = (1.0 / ((h / shape.heads) as f64).sqrt()) as f32;
        Ok(Layer {
            query_key_value: Linear::new(h, &[query.part(scale), key.part(1.0), value.part(1.0)]),
            attention_output: self.linear(&name("attention.output.dense"), h, h)?,
            attention_norm: norm("attention.output.LayerNorm")?,
            up: self.linear(&name("intermediate.dense"), h, inner)?,
            down: self.linear(&name("output.dense"), inner, h)?,
            output_norm: norm("output.LayerNorm")?,
        })
    }
}

/// The numbers of a tensor as f32.
///
/// # Errors
/// `Model` if they are not f64, f32, f16 or bf16.
pub(in crate::embed) fn floats(file: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>> {
    let tensor = file.tensor(name).map_err(|_| missing(name))?;
    let bytes = tensor.data();
    let dtype = tensor.dtype();
    if dtype == Dtype::F32 {
        Ok(bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    } else if dtype == Dtype::F16 {
        Ok(bytes.as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect())
    } else if dtype == Dtype::BF16 {
        Ok(bytes.as_chunks().0.iter().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()).collect())
    } else if dtype == Dtype::F64 {
        Ok(bytes.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes) as f32).collect())
    } else {
        let message = format!("cannot use the weights: the type {dtype:?} of a tensor is not supported");
        Err(Error::new(Kind::Model, message).with("tensor", name))
    }
}

fn missing(name: &str) -> Error {
    Error::new(Kind::Model, "cannot use the weights: a tensor is missing").with("tensor", name)
}
