//! The file of a verifier: matrices in int8 with a scale for each row, widened to f32 when they are read.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::embed::encoder::{Layers, Linear, NamedTensors, Norm, malformed};
use crate::embed::model_dir::{Activation, EncoderShape};
use crate::error::{Error, Kind, Result};

const FORMAT: &str = "likewise-verifier-1";
/// Units between the features of a pair and the logit.
const HEAD_UNITS: usize = 128;
/// The first token, two means, their difference and their product.
const HEAD_FEATURES: usize = 5;
/// What a pair has beside its two texts.
const SPECIAL_TOKENS: usize = 3;

/// All weights, in f32, and what the file says about them.
pub(super) struct VerifierWeights {
    /// `positions x hidden`.
    pub(super) positions: Tensor,
    /// `2 x hidden`.
    pub(super) types: Tensor,
    /// `3 x hidden`.
    pub(super) marks: Tensor,
    pub(super) norm: Norm,
    pub(super) norm_epsilon: f32,
    pub(super) layers: Layers,
    pub(super) inner: Linear,
    pub(super) output: Linear,
    /// The logit from which two questions count as the same.
    pub(super) logit_min: f32,
    /// Tokens of a text; longer ones are not read.
    pub(super) text_tokens_max: usize,
    /// Languages that it was trained on, by their two letters.
    pub(super) languages: Vec<String>,
}

impl VerifierWeights {
    /// The weights for word embeddings of these dimensions, `vocabulary x hidden`, with the epsilon of their model's norms.
    pub(super) fn read(bytes: &[u8], words: &[usize], norm_epsilon: f64) -> Result<VerifierWeights> {
        let unreadable = |error| Error::new(Kind::Model, "cannot parse the verifier").source(error);
        let metadata = FileMetadata::read(bytes)?;
        let file = SafeTensors::deserialize(bytes).map_err(unreadable)?;
        let named = file.tensors();
        let views: HashMap<&str, &TensorView<'_>> =
            named.iter().map(|(name, view)| (name.as_str(), view)).collect();
        let tensors = views
            .iter()
            .filter(|(name, _)| !name.ends_with(".scale"))
            .map(|(name, view)| Ok(((*name).to_owned(), widened(name, view, &views)?)))
            .collect::<Result<HashMap<_, _>>>()?;

        let position_table = "embeddings.position_embeddings.weight";
        let positions =
            tensors.get(position_table).and_then(|table| table.dims().first().copied()).unwrap_or(0);
        let feed_forward =
            tensors.get("encoder.layer.0.intermediate.dense.bias").map_or(0, Tensor::elem_count);
        let hidden: usize = metadata.number("hidden")?;
        let text_tokens_max: usize = metadata.number("text_tokens_max")?;
        if words.get(1) != Some(&hidden) || 2 * text_tokens_max + SPECIAL_TOKENS > positions {
            return Err(Error::new(
                Kind::Model,
                "cannot use the verifier: its shape is not that of the model",
            ));
        }
        let shape = EncoderShape {
            hidden,
            layers: metadata.number("layers")?,
            heads: metadata.number("heads")?,
            feed_forward,
            vocabulary: words[0],
            positions,
            first_position: 0,
            norm_epsilon,
            activation: Activation::Gelu,
        };
        if shape.heads == 0 || !hidden.is_multiple_of(shape.heads) {
            return Err(Error::new(
                Kind::Model,
                "cannot use the verifier: its heads do not divide its width",
            ));
        }
        let mut tensors = NamedTensors::new(tensors, position_table)?;
        Ok(VerifierWeights {
            positions: tensors.take(position_table, &[positions, hidden])?,
            types: tensors.take("embeddings.token_type_embeddings.weight", &[2, hidden])?,
            marks: tensors.take("embeddings.marks.weight", &[3, hidden])?,
            norm: tensors.norm("embeddings.LayerNorm", hidden)?,
            norm_epsilon: shape.norm_epsilon as f32,
            layers: tensors.layers(&shape)?,
            inner: tensors.linear("head.inner", HEAD_FEATURES * hidden, HEAD_UNITS)?,
            output: tensors.linear("head.output", HEAD_UNITS, 1)?,
            logit_min: metadata.number("logit_min")?,
            text_tokens_max,
            languages: metadata.text("languages")?.split(',').map(str::to_owned).collect(),
        })
    }
}

/// A tensor as f32. That of int8 is multiplied by the scales of its rows.
pub(super) fn widened(
    name: &str,
    view: &TensorView<'_>,
    views: &HashMap<&str, &TensorView<'_>>,
) -> Result<Tensor> {
    let fault = |message: &str| {
        Error::new(Kind::Model, format!("cannot use the verifier: {message}")).with("tensor", name)
    };
    let dtype = view.dtype();
    let values: Vec<f32> = if dtype == Dtype::F32 {
        floats(view.data())
    } else if dtype == Dtype::I8 {
        let [rows, columns] = view.shape() else { return Err(fault("only a matrix can be int8")) };
        let scale = views.get(format!("{name}.scale").as_str());
        let scale = scale.filter(|scale| scale.dtype() == Dtype::F32 && scale.shape() == [*rows]);
        let scale = floats(scale.ok_or_else(|| fault("a scale is missing"))?.data());
        let rows = view.data().chunks_exact((*columns).max(1)).zip(&scale);
        rows.flat_map(|(row, scale)| row.iter().map(move |byte| f32::from(byte.cast_signed()) * scale))
            .collect()
    } else {
        return Err(fault(&format!("the type {dtype:?} is not supported")));
    };
    Tensor::from_vec(values, view.shape(), &Device::Cpu).map_err(malformed)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|&four| f32::from_le_bytes(four)).collect()
}

/// The texts of a file beside its tensors.
pub(super) struct FileMetadata(HashMap<String, String>);

impl FileMetadata {
    /// Reads them, without the tensors.
    ///
    /// # Errors
    /// `Model` if the file is of another format.
    pub(super) fn read(bytes: &[u8]) -> Result<FileMetadata> {
        let unreadable = |error| Error::new(Kind::Model, "cannot parse the verifier").source(error);
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
        let metadata = FileMetadata(header.metadata().clone().unwrap_or_default());
        match metadata.text("format")? {
            FORMAT => Ok(metadata),
            other => {
                let message = format!("cannot use the verifier: its format must be {FORMAT}, got {other}");
                Err(Error::new(Kind::Model, message))
            }
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<&str> {
        let missing = || {
            Error::new(Kind::Model, "cannot use the verifier: its metadata lacks a name").with("name", name)
        };
        self.0.get(name).map(String::as_str).ok_or_else(missing)
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T> {
        let text = self.text(name)?;
        let fault = || {
            Error::new(Kind::Model, "cannot use the verifier: its metadata must be a number")
                .with("name", name)
                .with("got", text)
        };
        text.parse().map_err(|_| fault())
    }
}
