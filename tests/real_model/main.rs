//! What only a real model can show: its vectors are those of sentence-transformers, and clients of others work with it.
//!
//! `make test` fetches the default model and says where it is in `LIKEWISE_TEST_MODEL`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it stands")]

mod clients;
mod evaluation;
mod golden;
mod model;
mod other_words;
#[path = "../it/program.rs"]
#[expect(dead_code, reason = "the tests without a real model use the rest")]
mod program;
mod reasking;
#[path = "../it/upstream.rs"]
#[expect(dead_code, reason = "the tests without a real model use the rest")]
mod upstream;
mod verifier;
