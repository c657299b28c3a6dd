//! Files of a model directory.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, Kind, Result};

pub(super) fn required<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs_err::read_to_string(path)
        .map_err(|error| Error::new(Kind::Model, "cannot read the model directory").source(error))?;
    serde_json::from_str(&text).map_err(|error| {
        Error::new(Kind::Model, "cannot parse a file of the model directory")
            .with("path", path.display())
            .source(error)
    })
}

/// The error of a model that needs an unsupported feature.
pub(super) fn unsupported(what: &str, path: &Path) -> Error {
    Error::new(Kind::Model, format!("cannot use the model: {what}")).with("path", path.display())
}

pub(super) fn optional<T: DeserializeOwned + Default>(path: &Path) -> Result<T> {
    if path.exists() { required(path) } else { Ok(T::default()) }
}
