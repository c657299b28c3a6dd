//! Pages of the reference that are generated, and compared with the committed ones. `make openapi` writes them.

mod configuration;
mod http_api;
mod metrics;

use super::root;

/// Writes the pages instead of comparing them.
const WRITE: &str = "LIKEWISE_WRITE_REFERENCE";

/// Compares a page of the reference with the generated one.
fn compare(page: &str, generated: &str) {
    let path = root().join("docs/reference").join(page);
    if std::env::var_os(WRITE).is_some() {
        fs_err::write(&path, generated).unwrap();
    }
    let committed = fs_err::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "docs/reference/{page} has drifted: run `make openapi` and read the difference"
    );
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
