//! Random numbers of tokens and leases.

use crate::error::{Error, Kind, Result};

/// A number that was not used before; never 0.
pub(super) fn random_id() -> Result<u64> {
    let token = getrandom::u64().map_err(|error| {
        Error::new(Kind::Io, "cannot draw a random number").source(std::io::Error::from(error))
    })?;
    Ok(token.max(1))
}
