//! The file of a verifier: matrices in int8 with a scale for each row, widened to f32 when they are read.

use std::collections::HashMap;

use likewise_encoder::{Activation, Layers, Linear, Norm};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::embed::encoder::{FloatTable, NamedTensors, floats};
use crate::embed::model_dir::EncoderShape;
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
    pub(super) positions: FloatTable,
    /// `2 x hidden`.
    pub(super) types: FloatTable,
    /// `3 x hidden`.
    pub(super) marks: FloatTable,
    pub(super) norm: Norm,
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
    /// The weights for these word embeddings, with the epsilon of their model's norms.
    pub(super) fn read(bytes: &[u8], words: &FloatTable, norm_epsilon: f64) -> Result<VerifierWeights> {
        let unreadable = |error| Error::new(Kind::Model, "cannot parse the verifier").source(error);
        let metadata = FileMetadata::read(bytes)?;
        let file = SafeTensors::deserialize(bytes).map_err(unreadable)?;
        let position_table = "embeddings.position_embeddings.weight";
        let tensors = NamedTensors::new(&file, position_table, widened)?;
        let first_number =
            |name| tensors.shape(name).and_then(|shape| shape.first().copied()).unwrap_or_default();
        let positions = first_number(position_table);
        let hidden: usize = metadata.number("hidden")?;
        let text_tokens_max: usize = metadata.number("text_tokens_max")?;
        if words.width() != hidden || 2 * text_tokens_max + SPECIAL_TOKENS > positions {
            return Err(Error::new(
                Kind::Model,
                "cannot use the verifier: its shape is not that of the model",
            ));
        }
        let shape = EncoderShape {
            hidden,
            layers: metadata.number("layers")?,
            heads: metadata.number("heads")?,
            feed_forward: first_number("encoder.layer.0.intermediate.dense.bias"),
            vocabulary: words.rows(),
            positions,
            first_position: 0,
            norm_epsilon,
            activation: Activation::Gelu,
        };
        if shape.heads == 0 || hidden == 0 || !hidden.is_multiple_of(shape.heads) || shape.feed_forward == 0 {
            return Err(Error::new(
                Kind::Model,
                "cannot use the verifier: its heads do not divide its width, or its layers are empty",
            ));
        }
        Ok(VerifierWeights {
            positions: tensors.table(position_table, positions, hidden)?,
            types: tensors.table("embeddings.token_type_embeddings.weight", 2, hidden)?,
            marks: tensors.table("embeddings.marks.weight", 3, hidden)?,
            norm: tensors.norm("embeddings.LayerNorm", hidden, norm_epsilon)?,
            layers: tensors.layers(&shape)?,
            inner: tensors.linear("head.inner", HEAD_FEATURES * hidden, HEAD_UNITS)?,
            output: tensors.linear("head.output", HEAD_UNITS, 1)?,
            logit_min: metadata.number("logit_min")?,
            text_tokens_max,
            languages: metadata.text("languages")?.split(',').map(str::to_owned).collect(),
        })
    }
}

/// The numbers of a tensor as f32. Those of int8 are multiplied by the scales of their rows.
pub(super) fn widened(file: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>> {
    let fault = |message: &str| {
        Error::new(Kind::Model, format!("cannot use the verifier: {message}")).with("tensor", name)
    };
    let tensor = file.tensor(name).map_err(|_| fault("a tensor is missing"))?;
    if tensor.dtype() != Dtype::I8 {
        return floats(file, name);
    }
    let [rows, columns] = tensor.shape() else { return Err(fault("only a matrix can be int8")) };
    let scale_name = format!("{name}.scale");
    let is_scale = |scale: TensorView<'_>| scale.dtype() == Dtype::F32 && scale.shape() == [*rows];
    if !file.tensor(&scale_name).is_ok_and(is_scale) {
        return Err(fault("a scale is missing"));
    }
    let scales = floats(file, &scale_name)?;
    let rows = tensor.data().chunks_exact((*columns).max(1)).zip(scales);
    Ok(rows
        .flat_map(|(row, scale)| row.iter().map(move |byte| f32::from(byte.cast_signed()) * scale))
        .collect())
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
