//! What the commands that ask a running server share.

use clap::Args;
use likewise::error::{Error, Kind, Result};
use reqwest::{Method, RequestBuilder, Response, Url};

/// Which server to ask.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// Where the server listens.
    #[arg(long, value_name = "URL", env = "LIKEWISE_URL", default_value = "http://127.0.0.1:8420")]
    url: String,
    /// The key to present; better given by the environment than on the command line.
    #[arg(long, value_name = "KEY", env = "LIKEWISE_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
}

impl Target {
    /// A request to the path whose segments are `segments`; they are percent-encoded here.
    pub(super) fn request(&self, method: Method, segments: &[&str]) -> Result<RequestBuilder> {
        let bad_url =
            || Error::new(Kind::InvalidInput, "--url is not an HTTP address").with("url", &self.url);
        let mut url = Url::parse(&self.url).map_err(|error| bad_url().source(error))?;
        url.path_segments_mut().map_err(|()| bad_url())?.pop_if_empty().extend(segments);
        // Fails only if a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A redirect would carry the key to somewhere else.
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
        let client = client.map_err(|error| Error::new(Kind::Config, "set up HTTP").source(error))?;
        let request = client.request(method, url);
        Ok(match &self.api_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        })
    }
}

/// The answer, if it is a success; otherwise the server's own words.
pub(super) async fn answer(request: RequestBuilder) -> Result<Response> {
    let unreachable = |error| Error::new(Kind::Unavailable, "ask the server; is it running?").source(error);
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let kind = match status.as_u16() {
        404 | 504 => Kind::NotCached,
        401 => Kind::Unauthorized,
        400..=499 => Kind::InvalidInput,
        _ => Kind::Upstream,
    };
    let body = response.text().await.unwrap_or_default();
    let said = serde_json::from_str::<serde_json::Value>(&body).ok();
    let message = said.as_ref().and_then(|said| said["error"]["message"].as_str()).unwrap_or(&body);
    Err(Error::new(kind, message).with("status", status))
}
