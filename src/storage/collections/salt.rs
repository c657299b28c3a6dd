//! The salt of a store.

/// Random bytes that every checksum of a store begins with.
pub type Salt = [u8; 16];
