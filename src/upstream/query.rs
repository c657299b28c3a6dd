//! Queries without what clients show who they are by.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::domain::is_credential;

/// The path without those parameters of its query that are credentials: they are for upstreams that clients hold keys of.
pub(super) fn without_credentials(path: &str) -> Cow<'_, str> {
    let Some((before, query)) = path.split_once('?') else { return Cow::Borrowed(path) };
    if !query.split('&').any(shows_credential) {
        return Cow::Borrowed(path);
    }
    let rest: Vec<&str> = query.split('&').filter(|parameter| !shows_credential(parameter)).collect();
    let mark = if rest.is_empty() { "" } else { "?" };
    Cow::Owned(format!("{before}{mark}{}", rest.join("&")))
}

fn shows_credential(parameter: &str) -> bool {
    let name = parameter.split('=').next().unwrap_or_default();
    let name = percent_decode_str(name).decode_utf8_lossy().to_ascii_lowercase();
    is_credential(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_left_out_and_nothing_else() {
        for (given, rest) in [
            ("/a", "/a"),
            ("/a?", "/a?"),
            ("/a?api-version=1&limit=2", "/a?api-version=1&limit=2"),
            ("/a?key=k", "/a"),
            ("/a?x=1&api-key=k&y=2&access_token=t", "/a?x=1&y=2"),
            ("/a?apiKey=k&api%5Fkey=k&%6Bey", "/a"),
            ("/a?page_token=t&after=x", "/a?page_token=t&after=x"),
        ] {
            assert_eq!(without_credentials(given), rest, "{given}");
        }
    }
}
