//! What the commands that ask a running server share.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use likewise::error::{Error, FieldPath, Kind, Result};
use likewise::pacing::{backoff, retry_after};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};

/// How often a server that is busy is asked.
const ATTEMPTS_MAX: u32 = 8;
/// The shortest and the longest wait for a server that is busy.
const WAITS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(30)];

/// Which server to ask.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// Where the server listens.
    #[arg(long, value_name = "URL", env = "LIKEWISE_URL", default_value = "http://127.0.0.1:8420")]
    url: String,
    /// The key to present; better given by the environment than on the command line.
    #[arg(long, value_name = "KEY", env = "LIKEWISE_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
}

impl ServerArgs {
    /// A request to the path whose segments are `segments`; they are percent-encoded here.
    pub(super) fn request(&self, method: Method, segments: &[&str]) -> Result<RequestBuilder> {
        let bad_url =
            || Error::new(Kind::InvalidInput, "--url must be an HTTP address").with("url", &self.url);
        let mut url = Url::parse(&self.url).map_err(|error| bad_url().source(error))?;
        url.path_segments_mut().map_err(|()| bad_url())?.pop_if_empty().extend(segments);
        // Fails only if a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A redirect would carry the key to somewhere else.
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        // No proxy has a server of this machine.
        let client = if is_loopback(&url) { client.no_proxy() } else { client };
        let client =
            client.build().map_err(|error| Error::new(Kind::Config, "cannot set up HTTP").source(error))?;
        let request = client.request(method, url);
        Ok(match &self.api_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        })
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The answer, if it is a success; otherwise the server's own words.
pub(super) async fn answer(request: RequestBuilder) -> Result<Response> {
    answered(send(request).await?).await
}

/// The same for what may be asked again: a server that has too much to do is asked once more when it has said, or a while
/// later.
pub(super) async fn answer_when_ready(request: impl Fn() -> Result<RequestBuilder>) -> Result<Response> {
    let mut attempts = 1;
    loop {
        let response = send(request()?).await?;
        let is_busy =
            matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        if !is_busy || attempts == ATTEMPTS_MAX {
            return answered(response).await;
        }
        let [first, longest] = WAITS;
        let asked = retry_after(|name| response.headers().get(name)?.to_str().ok());
        tokio::time::sleep(asked.unwrap_or_default().max(backoff(attempts, first, longest)).min(longest))
            .await;
        attempts += 1;
    }
}

async fn send(request: RequestBuilder) -> Result<Response> {
    let unreachable =
        |error| Error::new(Kind::Unavailable, "cannot reach the server; is it running?").source(error);
    request.send().await.map_err(unreachable)
}

async fn answered(response: Response) -> Result<Response> {
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
    let error = Error::new(kind, message).with("status", status);
    let param = said.as_ref().and_then(|said| said["error"]["param"].as_str());
    Err(param.into_iter().fold(error, |error, param| error.param(FieldPath::parse(param))))
}
