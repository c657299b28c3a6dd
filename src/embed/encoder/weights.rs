//! The weights of the encoder, in the layout of the forward pass.

use candle_core::{DType, Device, Result as CandleResult, Tensor};

use super::layers::{Layers, Norm};
use super::named_tensors::{NamedTensors, malformed};
use crate::embed::model_dir::EncoderShape;
use crate::error::{Error, Kind, Result};

/// All weights, in f32.
pub(super) struct Weights {
    /// `vocabulary x hidden`.
    pub(super) words: Tensor,
    /// `positions x hidden`, with the vector of token type 0 added: no other type is used.
    pub(super) positions: Tensor,
    pub(super) norm: Norm,
    pub(super) layers: Layers,
}

impl Weights {
    pub(super) fn read(bytes: &[u8], shape: &EncoderShape) -> Result<Weights> {
        let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)
            .map_err(|error| Error::new(Kind::Model, "cannot parse the weights").source(error))?;
        let first = "embeddings.word_embeddings.weight";
        let mut tensors = NamedTensors::new(tensors, first)?;
        let h = shape.hidden;
        let words = tensors.take(first, &[shape.vocabulary, h])?;
        let mut positions = tensors
            .take("embeddings.position_embeddings.weight", &[shape.positions + shape.first_position, h])?;
        if let Some(types) = tensors.take_any("embeddings.token_type_embeddings.weight") {
            positions = add_first_row(&positions, &types).map_err(malformed)?;
        }
        let norm = tensors.norm("embeddings.LayerNorm", h)?;
        Ok(Weights { words, positions, norm, layers: tensors.layers(shape)? })
    }
}

fn add_first_row(positions: &Tensor, types: &Tensor) -> CandleResult<Tensor> {
    positions.broadcast_add(&types.narrow(0, 0, 1)?.to_dtype(DType::F32)?)
}
