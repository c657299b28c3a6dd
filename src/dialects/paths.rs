//! The APIs by their paths.

use super::Dialect;
use super::chat_completions::ChatCompletions;
use super::completions::Completions;
use super::messages::Messages;
use super::responses::Responses;

/// The APIs that are read here.
const DIALECTS: [&dyn Dialect; 4] = [&ChatCompletions, &Completions, &Messages, &Responses];

/// APIs with other routes below their path, which take the key, the headers and the errors of the API itself.
const PARENTS: [&dyn Dialect; 1] = [&Messages];

/// The API that `path` is, or lies below; with or without a query. `None` for what is called as OpenAI's API.
pub fn parent_api(path: &str) -> Option<&'static dyn Dialect> {
    PARENTS.iter().find(|api| is_within(path, **api)).copied()
}

/// The id of the answer that a path below the upstream's own stands for, if that is one of those which keep their ids. `path` is decoded,
/// and has no query: `responses/resp_1`.
pub fn stored_answer_id(path: &str) -> Option<&str> {
    let below = path.strip_prefix(Responses.upstream_path().trim_start_matches('/'))?;
    below.strip_prefix('/').filter(|id| !id.is_empty() && !id.contains('/'))
}

/// Whether `path` is the path of an API, or lies below it; with or without a query.
pub(super) fn is_within(path: &str, api: &dyn Dialect) -> bool {
    let rest = path.strip_prefix(api.upstream_path());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

/// The API whose path this is, as `/v1/chat/completions`.
pub fn of_path(path: &str) -> Option<&'static dyn Dialect> {
    let below = path.strip_prefix("/v1")?;
    DIALECTS.iter().find(|api| api.upstream_path() == below).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_stored_answer_has_its_id() {
        assert_eq!(stored_answer_id("responses/resp_1"), Some("resp_1"));
        for path in [
            "responses",
            "responses/",
            "responses/resp_1/cancel",
            "responses2/a",
            "chat/completions/a",
            "/responses/a",
        ] {
            assert_eq!(stored_answer_id(path), None, "{path}");
        }
    }
}
