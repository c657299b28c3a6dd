//! Mistakes in the address of an upstream, which is that of its API with its version: `https://api.openai.com/v1`.

use bytes::Bytes;
use futures_util::stream;
use reqwest::Url;

use super::reply::Reply;
use crate::error::{Error, Kind, Result};

/// Routes that are called below the address, and that operators paste with it.
const ROUTES: [&str; 6] =
    ["/chat/completions", "/completions", "/responses", "/messages", "/embeddings", "/models"];

/// Bytes of a 404 that are read.
const ERROR_BYTES_MAX: usize = 1 << 20;

/// What to type instead of an address that is probably mistaken. Some servers do answer without a version, so it is tried all the same.
pub(super) fn advice(base_url: &str) -> Option<String> {
    let trimmed = base_url.trim_end_matches('/');
    if let Some(base) = ROUTES.iter().find_map(|route| trimmed.strip_suffix(route)) {
        return Some(format!("it contains a route; type --upstream {base}"));
    }
    let has_path = Url::parse(base_url).is_ok_and(|url| url.path() != "/");
    (!has_path)
        .then(|| format!("it has no path, and most servers answer below /v1; type --upstream {trimmed}/v1"))
}

/// The reply, or an error in its place if the address is mistaken and the upstream does not know the route. A reply about an unknown
/// model is passed on.
///
/// # Errors
/// `Upstream`; as [`Reply::whole`].
pub(super) async fn explained(base_url: &str, path: &str, mut reply: Reply) -> Result<Reply> {
    let is_route = ROUTES.contains(&path.split('?').next().unwrap_or(path));
    if reply.status != 404 || !is_route || advice(base_url).is_none() {
        return Ok(reply);
    }
    let body = reply.whole(ERROR_BYTES_MAX).await?;
    if names_model(&body) {
        let whole = stream::once(std::future::ready(Ok(body)));
        return Ok(Reply::new(reply.status, reply.headers, Box::pin(whole)));
    }
    let message = "the upstream has no such route (404): the address in upstream.base_url (--upstream) should end with the version of \
                   the API, such as /v1, and with nothing behind it";
    Err(Error::new(Kind::Upstream, message).with("upstream", base_url))
}

fn names_model(body: &Bytes) -> bool {
    String::from_utf8_lossy(body).to_ascii_lowercase().contains("model")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_without_a_version_and_with_a_route_are_noticed() {
        for good in ["https://api.openai.com/v1", "http://h/v1/", "http://h/openai/v2", "http://h/api"] {
            assert_eq!(advice(good), None, "{good}");
        }
        for (bad, typed) in [
            ("http://h:11434", "--upstream http://h:11434/v1"),
            ("http://h/", "--upstream http://h/v1"),
            ("https://h/v1/chat/completions", "--upstream https://h/v1"),
            ("https://h/v1/chat/completions/", "--upstream https://h/v1"),
            ("https://h/v1/completions", "--upstream https://h/v1"),
        ] {
            assert!(advice(bad).is_some_and(|advice| advice.ends_with(typed)), "{bad}");
        }
    }

    #[tokio::test]
    async fn only_a_404_about_the_route_of_a_mistaken_address_is_explained() {
        let reply = |status, body: &'static str| {
            Reply::new(status, Vec::new(), Box::pin(stream::once(std::future::ready(Ok(Bytes::from(body))))))
        };
        let explain =
            async |base_url, path, status, body| explained(base_url, path, reply(status, body)).await;
        let error = explain("http://h", "/chat/completions", 404, "404 page not found").await.err().unwrap();
        assert!(error.message().contains("such as /v1") && !error.message().contains("http://h"), "{error}");
        for (base_url, path, status, body) in [
            ("http://h/v1", "/chat/completions", 404, "404 page not found"),
            ("http://h", "/chat/completions", 404, "{\"error\":{\"code\":\"model_not_found\"}}"),
            ("http://h", "/chat/completions", 500, "no"),
            ("http://h", "/responses/r", 404, "no"),
        ] {
            let mut passed = explain(base_url, path, status, body).await.unwrap();
            assert_eq!((passed.status, &passed.whole(100).await.unwrap()[..]), (status, body.as_bytes()));
        }
    }
}
