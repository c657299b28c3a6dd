//! The verifier: a small cross-encoder that reads two questions together and says whether they ask the same.
//!
//! It is the first layers of the embedding model, trained further on pairs of questions, and shares the model's word embeddings. It
//! reads `[CLS] cached [SEP] question [SEP]`, both in canonical form. Its logit is good for a veto behind a similarity and the rules, and
//! useless as a score of unrelated texts. `tools/verifier` trains it and describes the file of its weights.
//!
//! Architecture: a cross-encoder as in Nogueira and Cho, "Passage Re-ranking with BERT", 2019, over [`super::encoder`]'s layers. The
//! features of the head, two means with their difference and product, are those of Conneau et al., "InferSent", 2017.

mod cross_encoder;
mod shipped;
mod weights;

#[cfg(test)]
mod tests;

pub use self::cross_encoder::Verifier;
pub(super) use self::shipped::{sha256, shipped_for};
