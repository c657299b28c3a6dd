//! Transformer layers over concatenated texts.

use std::sync::{Mutex, PoisonError};

use pulp::Simd;
use rayon::prelude::*;

use crate::attention::{AttentionBuffers, Heads, attend};
use crate::cost::PassCost;
use crate::lanes::{Kernel, dispatch};
use crate::linear::{Finish, Linear};
use crate::row_ops::{Activation, Norm};

/// Tokens of a piece of work: enough for each weight that is read from memory to be used often, and few enough for a piece to stay in the
/// processor's own cache.
const PIECE_TOKENS: usize = 96;
/// Rows of a thread where one text is divided: whole tiles, which pay for reading the weights once more.
const ROWS_MIN: usize = 12;
/// Rows between the two products of the feed-forward part.
const INNER_ROWS: usize = 48;

/// One transformer layer.
pub struct Layer {
    /// `hidden` to `3 hidden`: query, key and value. The query is scaled by 1 / sqrt(width of a head).
    pub query_key_value: Linear,
    /// `hidden` to `hidden`.
    pub attention_output: Linear,
    /// Of `hidden`.
    pub attention_norm: Norm,
    /// `hidden` to `feed forward`.
    pub up: Linear,
    /// `feed forward` to `hidden`.
    pub down: Linear,
    /// Of `hidden`.
    pub output_norm: Norm,
}

/// Transformer layers with their weights.
///
/// The hidden states of a text are the same to the last bit alone and in any batch, on any number of threads.
pub struct Layers {
    layers: Vec<Layer>,
    heads: Heads,
    activation: Activation,
    /// Buffers that no thread uses now; never more than threads have computed at a time.
    buffers: Mutex<Vec<PassBuffers>>,
}

/// What one thread computes in.
#[derive(Default)]
struct PassBuffers {
    projected: Vec<f32>,
    contexts: Vec<f32>,
    inner: Vec<f32>,
    attention: AttentionBuffers,
}

impl Layers {
    /// Layers whose hidden states have `hidden` numbers in `heads` heads, the first one first.
    ///
    /// # Panics
    /// If the shape of a layer is another one, or `hidden` is not a multiple of `heads`.
    pub fn new(layers: Vec<Layer>, hidden: usize, heads: usize, activation: Activation) -> Layers {
        assert!(heads > 0 && hidden > 0 && hidden.is_multiple_of(heads), "{heads} heads of {hidden} numbers");
        for layer in &layers {
            let inner = layer.up.outputs();
            let shapes = [&layer.query_key_value, &layer.attention_output, &layer.up, &layer.down]
                .map(|linear| (linear.inputs(), linear.outputs()));
            let expected = [(hidden, 3 * hidden), (hidden, hidden), (hidden, inner), (inner, hidden)];
            assert_eq!(shapes, expected, "a layer of another shape");
            let norms = [layer.attention_norm.width(), layer.output_norm.width()];
            assert_eq!(norms, [hidden; 2], "a normalization of another width");
        }
        let heads = Heads { count: heads, width: hidden / heads };
        Layers { layers, heads, activation, buffers: Mutex::default() }
    }

    /// Replaces the embeddings of the tokens of texts, which lie one behind the other, by their last hidden states. The work is divided among
    /// the threads of the current pool.
    ///
    /// Shapes: `hidden: tokens x hidden`; `lengths`: tokens of each text.
    ///
    /// Cost: that of [`Layers::cost`]. Where a text is divided, each thread packs the keys and values of all its tokens. A thread holds
    /// `4 hidden` numbers for each token of a piece, which has up to 96 tokens or is one text; and for 48 rows, those of the feed-forward part and a
    /// score for each token. They stay for the next pass.
    ///
    /// # Panics
    /// If the lengths are not those of `hidden`.
    pub fn run(&self, hidden: &mut [f32], lengths: &[usize]) {
        let width = self.heads.hidden();
        assert_eq!(lengths.iter().sum::<usize>() * width, hidden.len(), "lengths of other texts");
        // What each thread would have if all had the same.
        let share = (hidden.len() / width).div_ceil(rayon::current_num_threads());
        let pieces = pieces(hidden, lengths, width, share.clamp(1, PIECE_TOKENS));
        // A text that is much more than a share would keep one thread busy while the others wait.
        let is_divided = |piece: &Piece<'_>| match piece.lengths {
            [length] => *length >= 2 * ROWS_MIN && 2 * length > 3 * share,
            _ => false,
        };
        let (divided, whole): (Vec<_>, Vec<_>) = pieces.into_iter().partition(is_divided);
        divided.into_iter().for_each(|piece| self.run_divided(piece.hidden));
        whole.into_par_iter().for_each(|piece| {
            self.with_buffers(|buffers| dispatch(PieceKernel { layers: self, piece, buffers }));
        });
    }

    /// Computes one text on all threads: each has some of the rows, and waits for the others' keys and values in each layer.
    fn run_divided(&self, text: &mut [f32]) {
        let width = self.heads.hidden();
        let rows = (text.len() / width).div_ceil(rayon::current_num_threads()).max(ROWS_MIN);
        let mut projected = vec![0.0; 3 * text.len()];
        for layer in &self.layers {
            projected
                .par_chunks_mut(rows * 3 * width)
                .zip(text.par_chunks(rows * width))
                .for_each(|(projected, hidden)| dispatch(ProjectKernel { layer, hidden, projected }));
            let projected = &projected[..];
            text.par_chunks_mut(rows * width).enumerate().for_each(|(part, hidden)| {
                self.with_buffers(|buffers| {
                    let first = part * rows;
                    dispatch(RowsKernel { layers: self, layer, projected, first, hidden, buffers });
                });
            });
        }
    }

    /// What a pass costs.
    pub fn cost(&self) -> PassCost {
        let parameters = |layer: &Layer| {
            let linears = [&layer.query_key_value, &layer.attention_output, &layer.up, &layer.down];
            linears.map(|linear| linear.inputs() * linear.outputs()).into_iter().sum::<usize>()
        };
        let per_token = 2 * self.layers.iter().map(parameters).sum::<usize>();
        let per_pair = 4 * self.layers.len() * self.heads.hidden();
        PassCost { per_token: per_token as u64, per_pair: per_pair as u64 }
    }

    /// As [`Layers::run`], on this thread with this instruction set.
    #[cfg(test)]
    pub(crate) fn run_with<S: Simd>(&self, simd: S, hidden: &mut [f32], lengths: &[usize]) {
        let piece = Piece { hidden, lengths };
        self.with_buffers(|buffers| {
            simd.vectorize(crate::lanes::WithLanes(PieceKernel { layers: self, piece, buffers }))
        });
    }

    fn with_buffers<T>(&self, work: impl FnOnce(&mut PassBuffers) -> T) -> T {
        let free = || self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = free().pop().unwrap_or_default();
        let result = work(&mut buffers);
        free().push(buffers);
        result
    }

    /// The rest of a layer behind attention, for rows with their contexts.
    #[inline(always)]
    fn finish<S: Simd, const N: usize>(
        &self,
        simd: S,
        layer: &Layer,
        hidden: &mut [f32],
        contexts: &[f32],
        inner: &mut Vec<f32>,
    ) {
        let rows = INNER_ROWS * self.heads.hidden();
        for (hidden, contexts) in hidden.chunks_mut(rows).zip(contexts.chunks(rows)) {
            layer.attention_output.apply_lanes::<S, N>(simd, contexts, hidden, Finish::Add);
            layer.attention_norm.apply_lanes::<S, N>(simd, hidden);
            inner.resize(hidden.len() / self.heads.hidden() * layer.up.outputs(), 0.0);
            layer.up.apply_lanes::<S, N>(simd, hidden, inner, Finish::Activate(self.activation));
            layer.down.apply_lanes::<S, N>(simd, inner, hidden, Finish::Add);
            layer.output_norm.apply_lanes::<S, N>(simd, hidden);
        }
    }
}

/// Consecutive whole texts.
struct Piece<'a> {
    hidden: &'a mut [f32],
    lengths: &'a [usize],
}

/// Divides texts into pieces of at most so many tokens, or one text.
fn pieces<'a>(
    mut hidden: &'a mut [f32],
    mut lengths: &'a [usize],
    width: usize,
    tokens_max: usize,
) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    while !lengths.is_empty() {
        let mut tokens = 0;
        let fits = |length: &&usize| {
            tokens += **length;
            tokens <= tokens_max
        };
        let texts = lengths.iter().take_while(fits).count().max(1);
        let (own, behind) = lengths.split_at(texts);
        let (states, rest) = hidden.split_at_mut(own.iter().sum::<usize>() * width);
        pieces.push(Piece { hidden: states, lengths: own });
        (hidden, lengths) = (rest, behind);
    }
    pieces
}

/// All layers of a piece.
struct PieceKernel<'a> {
    layers: &'a Layers,
    piece: Piece<'a>,
    buffers: &'a mut PassBuffers,
}

impl Kernel for PieceKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const N: usize>(self, simd: S) {
        let PieceKernel { layers, piece: Piece { hidden, lengths }, buffers } = self;
        let width = layers.heads.hidden();
        let PassBuffers { projected, contexts, inner, attention } = buffers;
        projected.resize(3 * hidden.len(), 0.0);
        contexts.resize(hidden.len(), 0.0);
        for layer in &layers.layers {
            layer.query_key_value.apply_lanes::<S, N>(simd, hidden, projected, Finish::Store);
            let mut at = 0;
            for length in lengths {
                let tokens = at..at + length * width;
                let projected = &projected[3 * tokens.start..3 * tokens.end];
                at = tokens.end;
                attend::<S, N>(simd, layers.heads, projected, 0, &mut contexts[tokens], attention);
            }
            layers.finish::<S, N>(simd, layer, hidden, contexts, inner);
        }
    }
}

/// Query, key and value of rows.
struct ProjectKernel<'a> {
    layer: &'a Layer,
    hidden: &'a [f32],
    projected: &'a mut [f32],
}

impl Kernel for ProjectKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const N: usize>(self, simd: S) {
        self.layer.query_key_value.apply_lanes::<S, N>(simd, self.hidden, self.projected, Finish::Store);
    }
}

/// One layer for the rows `first ..` of a text, whose projections are all there.
struct RowsKernel<'a> {
    layers: &'a Layers,
    layer: &'a Layer,
    projected: &'a [f32],
    first: usize,
    hidden: &'a mut [f32],
    buffers: &'a mut PassBuffers,
}

impl Kernel for RowsKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const N: usize>(self, simd: S) {
        let RowsKernel { layers, layer, projected, first, hidden, buffers } = self;
        buffers.contexts.resize(hidden.len(), 0.0);
        attend::<S, N>(simd, layers.heads, projected, first, &mut buffers.contexts, &mut buffers.attention);
        layers.finish::<S, N>(simd, layer, hidden, &buffers.contexts, &mut buffers.inner);
    }
}
