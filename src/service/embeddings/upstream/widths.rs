//! How many numbers the vectors of models have, as upstreams have sent them.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::cache::Stamp;
use crate::domain::Key;
use crate::sync::lock;

/// Models whose length is remembered. Clients choose their names.
const MODELS_MAX: usize = 4096;

/// Lengths of vectors, by model.
#[derive(Debug, Default)]
pub(super) struct VectorWidths(Mutex<HashMap<Key, Width>>);

#[derive(Debug, Clone, Copy)]
struct Width {
    dim: usize,
    /// When it was learnt, in the order of invalidations.
    since: Stamp,
}

impl VectorWidths {
    /// The length that is known.
    pub(super) fn get(&self, model: &Key) -> Option<usize> {
        lock(&self.0).get(model).map(|width| width.dim)
    }

    /// Learns the length of a vector at `now`, unless another one is known and `is_current`: since then, nothing of the model has been
    /// invalidated.
    ///
    /// # Errors
    /// The length that is known.
    pub(super) fn expect(
        &self,
        model: Key,
        dim: usize,
        now: Stamp,
        is_current: impl Fn(Stamp) -> bool,
    ) -> Result<(), usize> {
        let mut widths = lock(&self.0);
        match widths.get(&model) {
            Some(width) if width.dim == dim => return Ok(()),
            Some(width) if is_current(width.since) => return Err(width.dim),
            Some(_) | None => {}
        }
        if widths.len() >= MODELS_MAX && !widths.contains_key(&model) {
            widths.clear();
        }
        widths.insert(model, Width { dim, since: now });
        Ok(())
    }
}
