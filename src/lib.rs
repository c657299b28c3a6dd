//! Likewise answers a question that was already answered, likewise: one server between an application and its
//! models that never pays twice for the same work.
//!
//! `ARCHITECTURE.md` describes the modules and which may import which.

pub mod app;
pub mod byte_budget;
pub mod cache;
pub mod config;
mod decompression;
pub mod dialects;
pub mod domain;
pub mod embed;
pub mod error;
pub mod http;
pub mod labels;
pub mod line_files;
pub mod matching;
pub mod metrics;
pub mod model_fetch;
pub mod nodes;
pub mod pacing;
mod raw_object;
pub mod request_identity;
pub mod search;
pub mod service;
pub mod sse;
pub mod storage;
mod sync;
pub mod upstream;
