//! The default model.

use std::path::PathBuf;

/// How the model is served.
pub(crate) const NAME: &str = "all-MiniLM-L6-v2";

/// The directory of the model.
pub(crate) fn dir() -> PathBuf {
    let dir = std::env::var_os("LIKEWISE_TEST_MODEL")
        .expect("LIKEWISE_TEST_MODEL is not set: run `make test`, or set it to $(cargo run -- fetch)");
    PathBuf::from(dir)
}
