//! The weights of the encoder, in the layout of the forward pass.

use likewise_encoder::{Layers, Norm};
use safetensors::SafeTensors;

use super::float_table::FloatTable;
use super::named_tensors::{NamedTensors, floats};
use crate::embed::model_dir::EncoderShape;
use crate::error::{Error, Kind, Result};

/// All weights, in f32.
pub(super) struct Weights {
    /// `vocabulary x hidden`.
    pub(super) words: FloatTable,
    /// `positions x hidden`, with the vector of token type 0 added: no other type is used.
    pub(super) positions: FloatTable,
    pub(super) norm: Norm,
    pub(super) layers: Layers,
}

impl Weights {
    pub(super) fn read(bytes: &[u8], shape: &EncoderShape) -> Result<Weights> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|error| Error::new(Kind::Model, "cannot parse the weights").source(error))?;
        let first = "embeddings.word_embeddings.weight";
        let tensors = NamedTensors::new(&file, first, floats)?;
        let h = shape.hidden;
        let words = tensors.table(first, shape.vocabulary, h)?;
        let places = shape.positions + shape.first_position;
        let mut positions = tensors.take("embeddings.position_embeddings.weight", &[places, h])?;
        let types = "embeddings.token_type_embeddings.weight";
        if let Some(shape) = tensors.shape(types) {
            let count = shape.first().copied().unwrap_or_default();
            add_first_row(&mut positions, &tensors.take(types, &[count, h])?, h);
        }
        let norm = tensors.norm("embeddings.LayerNorm", h, shape.norm_epsilon)?;
        let positions = FloatTable::new(positions, h);
        Ok(Weights { words, positions, norm, layers: tensors.layers(shape)? })
    }
}

/// Adds the first row of a table, if it has one, to all rows of another one.
fn add_first_row(rows: &mut [f32], table: &[f32], width: usize) {
    for row in rows.chunks_exact_mut(width) {
        row.iter_mut().zip(table).for_each(|(x, first)| *x += first);
    }
}
