//! The server from outside, and the guarantees that no single module can test. One binary, so that it is linked once.
//!
//! Tests start the real program on a free port with a data directory of their own and talk HTTP. They need neither the
//! network nor a model: `model` makes one. What needs a real model is in `tests/real_model`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it stands")]

mod advisories;
mod answers;
mod architecture;
mod bad_input;
mod batch;
mod cache;
mod circles;
mod collections;
mod collections_limits;
mod collections_model;
mod commands;
mod connections;
mod consistency;
mod contract;
mod data_directories;
mod docs;
mod doctor;
mod documents;
mod embedding_apis;
mod endpoint;
mod every_route;
mod first_page;
mod floods;
mod forwarded_embeddings;
mod imports;
mod indexes;
mod inflight;
mod invalidation;
mod kill;
mod kill_documents;
mod kill_objects;
mod lifecycle;
mod line_files;
mod listing;
mod load;
mod model;
mod model_fetch;
mod objects;
mod objects_model;
mod pairs;
mod program;
mod queueing;
mod random_load;
mod raw;
mod redis;
mod reembed;
mod remote;
mod rerank;
mod several_models;
mod spans;
mod startup;
mod storage;
mod tenants;
mod upstream;
mod upstream_embeddings;
mod verify;
mod vocabulary;
mod warm_at_start;
mod warm_restart;
mod without_model;
