//! Use cases, one file each: what the server does for its users, without HTTP and without JSON.
//!
//! What lives here: the walk of a request through cache and models. What must never: wire formats, status codes,
//! files, sockets. The one idea: a use case is a plain async function of plain values, so that the HTTP server, the
//! command line and the tests call the same code.

pub mod embeddings;

pub use embeddings::Embeddings;
