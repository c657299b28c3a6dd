//! Hidden states of BERT-family encoders: transformer layers in f32 on the processor's vector instructions.
//!
//! Texts lie one behind the other without padding, so a linear layer is one product. Weights are packed once, in the order in which they
//! are read. A piece of work passes all layers on one thread, and what follows a product is computed while its result is in the
//! registers or in the cache.
//!
//! A text's hidden states do not depend on its batch: each number is computed by the same operations in the same order, whatever is
//! computed beside it. Where a number is not finite, the states of its text are not.

mod attention;
mod cost;
mod lanes;
mod layers;
mod linear;
mod matrix;
mod row_ops;
#[cfg(test)]
mod tests;

pub use self::cost::{PassCost, product_rate};
pub use self::lanes::instruction_set;
pub use self::layers::{Layer, Layers};
pub use self::linear::{Dense, Linear};
pub use self::row_ops::{Activation, Norm};
