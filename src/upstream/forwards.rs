//! Which routes that are not served here are passed on with the operator's key.
//!
//! Behind that key are the files, models and members of the operator's account too, so only what is listed goes through. The list is
//! compared with the path as its upstream will read it, and what two readers might read differently is on no list.

use percent_encoding::percent_decode_str;

use crate::error::{Error, Kind, Result};

/// What asks a model, lists models, or belongs to a response.
pub(super) const DEFAULT: [&str; 21] = [
    "GET /models",
    "GET /models/**",
    "POST /embeddings",
    "POST /fim/completions",
    "POST /responses/compact",
    "POST /responses/input_tokens",
    "GET /responses/*",
    "DELETE /responses/*",
    "POST /responses/*/cancel",
    "GET /responses/*/input_items",
    "POST /messages/count_tokens",
    "POST /moderations",
    "POST /images/generations",
    "POST /images/edits",
    "POST /images/variations",
    "POST /audio/speech",
    "POST /audio/transcriptions",
    "POST /audio/translations",
    "POST /rerank",
    "POST /score",
    "POST /tokenize",
];

/// Stands for any method, and for one part of a path.
const ANY: &str = "*";
/// Stands for one part of a path or several, at its end.
const REST: &str = "**";

/// The routes of the list.
#[derive(Debug)]
pub(super) struct Forwards(Vec<Pattern>);

#[derive(Debug)]
struct Pattern {
    method: String,
    parts: Vec<String>,
}

impl Forwards {
    /// Reads the list of the options.
    ///
    /// # Errors
    /// `Config`, naming the entry.
    pub(super) fn new(list: &[String]) -> Result<Forwards> {
        let read = |(place, entry): (usize, &String)| {
            Pattern::read(entry).ok_or_else(|| {
                Error::new(Kind::Config, format!(
                    "upstream.forwards[{place}] must be a method and a path below /v1, as in `POST /images/*`, where `*` stands for \
                     one part and a final `**` for any rest, got `{entry}`"
                ))
            })
        };
        list.iter().enumerate().map(read).collect::<Result<_>>().map(Forwards)
    }

    /// Whether a request is on the list. `path` is that below `/v1`, as it came, with or without a query.
    pub(super) fn lists(&self, method: &str, path: &str) -> bool {
        let path = path.split('?').next().unwrap_or_default();
        let Ok(path) = percent_decode_str(path).decode_utf8() else { return false };
        let Some(path) = path.strip_prefix('/') else { return false };
        let parts: Vec<&str> = path.split('/').collect();
        // A HEAD is a GET without its body.
        let method = if method == "HEAD" { "GET" } else { method };
        parts.iter().all(|part| is_plain(part)) && self.0.iter().any(|pattern| pattern.names(method, &parts))
    }
}

impl Pattern {
    fn read(entry: &str) -> Option<Pattern> {
        let (method, path) = entry.split_once(' ')?;
        let is_method =
            method == ANY || (!method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase()));
        let parts: Vec<String> = path.trim().strip_prefix('/')?.split('/').map(String::from).collect();
        let last = parts.len() - 1;
        let is_part =
            |(at, part): (usize, &String)| part == ANY || (part == REST && at == last) || is_plain(part);
        let is_path = parts.iter().enumerate().all(is_part) && parts[0] != "v1";
        (is_method && is_path).then(|| Pattern { method: method.to_owned(), parts })
    }

    fn names(&self, method: &str, parts: &[&str]) -> bool {
        let (known, has_rest) = match self.parts.split_last() {
            Some((last, known)) if last == REST => (known, true),
            Some(_) | None => (&self.parts[..], false),
        };
        let is_long_enough = if has_rest { parts.len() > known.len() } else { parts.len() == known.len() };
        is_long_enough
            && (self.method == ANY || self.method == method)
            && known.iter().zip(parts).all(|(known, part)| known == ANY || known == part)
    }
}

/// Whether every reader of a path takes the part for the same: no empty or dotted one, no parameters, nothing encoded twice.
fn is_plain(part: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:@+=,".contains(&byte);
    !matches!(part, "" | "." | "..") && part.bytes().all(is_plain)
}

/// Said of a route that is on no list.
pub(super) fn not_listed(method: &str, path: &str) -> Error {
    const SHOWN_CHARS: usize = 100;
    let path: String = path.split('?').next().unwrap_or_default().chars().take(SHOWN_CHARS).collect();
    let message = format!(
        "`{method} /v1{path}` is not passed on with this server's key: its operator may list it in upstream.forwards"
    );
    Error::new(crate::error::Kind::NotFound, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwards(list: &[&str]) -> Result<Forwards> {
        Forwards::new(&list.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_asks_a_model_is_passed_on_by_default() {
        let by_default = forwards(&DEFAULT).unwrap();
        for (method, path) in [
            ("POST", "/moderations"),
            ("POST", "/moderations?api-version=1"),
            ("POST", "/responses/compact"),
            ("GET", "/responses/resp_1"),
            ("HEAD", "/responses/resp_1"),
            ("GET", "/responses/resp_1/input_items?limit=2"),
            ("POST", "/responses/resp_1/cancel"),
            ("POST", "/messages/count_tokens"),
            ("GET", "/models/ft:gpt-4o:org::1"),
            ("GET", "/models/meta%2Fllama"),
            ("GET", "/models/meta/llama"),
            ("POST", "/audio/transcriptions"),
        ] {
            assert!(by_default.lists(method, path), "{method} {path}");
        }
    }

    #[test]
    fn what_is_the_operators_is_not() {
        let by_default = forwards(&DEFAULT).unwrap();
        for path in [
            "/files",
            "/files/file-1/content",
            "/organization/admin_api_keys",
            "/organization/users",
            "/fine_tuning/jobs",
            "/batches",
            "/vector_stores/vs_1",
            "/assistants",
            "/threads/t/runs",
            "/uploads",
            "/evals",
            "/containers",
            "/conversations/c",
            "/realtime/sessions",
            "/realtime/client_secrets",
            "/messages/batches",
            "/fim",
            "/dashboard/billing/usage",
            "",
            "/",
        ] {
            for method in ["GET", "POST", "DELETE", "PUT", "PATCH"] {
                assert!(!by_default.lists(method, path), "{method} {path}");
            }
        }
        for (method, path) in [
            ("DELETE", "/models/ft:m"),
            ("GET", "/moderations"),
            ("post", "/moderations"),
            ("GET", "/responses"),
        ] {
            assert!(!by_default.lists(method, path), "{method} {path}");
        }
    }

    #[test]
    fn no_spelling_of_a_path_gets_around_the_list() {
        let some = forwards(&["GET /responses/*", "GET /responses/*/input_items", "GET /models/**"]).unwrap();
        for path in [
            "/responses/%2e%2e",
            "/responses/../files",
            "/responses/%2e%2e/files",
            "/responses/..%2ffiles",
            "/responses/%252e%252e",
            "/responses/..%252ffiles",
            "/responses/..;",
            "/responses/x;/../files",
            "/responses/x%3b/../files",
            "/responses/%5c..%5cfiles",
            "/responses/x%00",
            "/responses/x%3F",
            "/responses/x%23",
            "/responses/%ff",
            "/responses/",
            "/responses//",
            "//responses/x",
            "/responses/x/",
            "/responses/x/files",
            "/models/%2e%2e/files",
            "/models/%252e%252e/files",
            "/models/x%2f..%2f..%2ffiles",
            "/models/a/./b",
            "/models",
            "/Responses/x",
            "/RESPONSES/x",
            "/files?/responses/x",
            "responses/x",
        ] {
            assert!(!some.lists("GET", path), "{path}");
        }
    }

    #[test]
    fn a_list_says_what_stands_for_anything() {
        let some = forwards(&["* /files/*", "POST /a/**"]).unwrap();
        assert!(some.lists("PATCH", "/files/x") && !some.lists("GET", "/files/x/y"));
        assert!(some.lists("POST", "/a/b/c") && !some.lists("POST", "/a") && !some.lists("GET", "/a/b"));
        assert!(!forwards(&[]).unwrap().lists("POST", "/moderations"));
        for entry in [
            "",
            "POST",
            "POST completions",
            "post /completions",
            "/completions",
            "POST /a/**/b",
            "POST /a*",
            "POST /v1/files",
            "POST /a//b",
            "POST /../a",
            "POST /a%2fb",
            "POST /",
            "GET, POST /a",
        ] {
            let error = forwards(&["GET /models", entry]).unwrap_err().to_string();
            assert!(error.contains("upstream.forwards[1]"), "{entry}: {error}");
        }
    }
}
