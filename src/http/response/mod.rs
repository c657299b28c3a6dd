//! What responses of all features share: names of headers, bodies in chunks, compression.

pub(super) mod cache_status;
pub(super) mod chunked;
pub(super) mod compression;
pub(super) mod headers;
