//! The API that other paths below its own belong to.

use super::Dialect;
use super::messages::Messages;

/// APIs with other routes below their path, which take the key, the headers and the errors of the API itself.
const PARENTS: [&dyn Dialect; 1] = [&Messages];

/// The API that `path` is, or lies below; with or without a query. `None` for what is called as OpenAI's API.
pub fn parent_api(path: &str) -> Option<&'static dyn Dialect> {
    let is_below = |api: &&&dyn Dialect| {
        let rest = path.strip_prefix(api.upstream_path());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    };
    PARENTS.iter().find(is_below).copied()
}
