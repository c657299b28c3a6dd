//! What the commands that ask a running server share.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use likewise::domain::KeyHeader;
use likewise::error::{Error, FieldPath, Kind, Result};
use likewise::pacing::{backoff, is_busy, retry_after};
use reqwest::{Method, RequestBuilder, Response, Url};

/// How often a server that is busy is asked.
const ATTEMPTS_MAX: u32 = 8;
/// The shortest and the longest wait for a server that is busy.
const WAITS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(30)];

/// Which server to ask.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// Where the server listens.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "LIKEWISE_URL",
        default_value = "http://127.0.0.1:8420"
    )]
    url: String,
    /// The key to present; better given by the environment than on the command line.
    #[arg(long, global = true, value_name = "KEY", env = "LIKEWISE_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
}

/// A server to ask many times: its requests share connections.
pub(super) struct ServerClient {
    http: reqwest::Client,
    url: Url,
    api_key: Option<String>,
}

impl ServerArgs {
    /// The server to ask.
    ///
    /// # Errors
    /// `InvalidInput` if `--url` is no address, `Config` if HTTP cannot be set up.
    pub(super) fn client(&self) -> Result<ServerClient> {
        let bad_url =
            || Error::new(Kind::InvalidInput, "--url must be an HTTP address").with("url", &self.url);
        let url = Url::parse(&self.url).map_err(|error| bad_url().source(error))?;
        if url.cannot_be_a_base() {
            return Err(bad_url());
        }
        // Fails only if a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A redirect would carry the key to somewhere else.
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        // No proxy has a server of this machine.
        let http = if is_loopback(&url) { http.no_proxy() } else { http };
        let http =
            http.build().map_err(|error| Error::new(Kind::Config, "cannot set up HTTP").source(error))?;
        Ok(ServerClient { http, url, api_key: self.api_key.clone() })
    }

    /// A request to the path whose segments are `segments`; they are percent-encoded here.
    pub(super) fn request(&self, method: Method, segments: &[&str]) -> Result<RequestBuilder> {
        Ok(self.client()?.request(method, segments, KeyHeader::BEARER))
    }
}

impl ServerClient {
    /// A request to the path whose segments are `segments`; they are percent-encoded here. `key_header` has the key.
    pub(super) fn request<'a>(
        &self,
        method: Method,
        segments: impl IntoIterator<Item = &'a &'a str>,
        key_header: KeyHeader,
    ) -> RequestBuilder {
        let mut url = self.url.clone();
        // An address that is no base was refused before.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        let request = self.http.request(method, url);
        match &self.api_key {
            Some(key) => request.header(key_header.name, format!("{}{key}", key_header.prefix)),
            None => request,
        }
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
        match busy_wait(&response, attempts, WAITS[1]) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return answered(response).await,
        }
        attempts += 1;
    }
}

/// How long to wait before a server that is busy is asked again, after so many attempts; `longest` at most, whatever it asks for. `None`
/// if it is not busy, if it says that another attempt is of no use, or if it was asked often enough.
pub(super) fn busy_wait(response: &Response, attempts: u32, longest: Duration) -> Option<Duration> {
    let header = |name: &str| response.headers().get(name)?.to_str().ok();
    if !is_busy(response.status().as_u16(), header) || attempts >= ATTEMPTS_MAX {
        return None;
    }
    let own = backoff(attempts, WAITS[0], WAITS[1]);
    Some(retry_after(header).unwrap_or_default().max(own).min(longest))
}

/// How long to wait before a server is asked again that could not be reached; `None` after enough attempts.
pub(super) fn unreachable_wait(attempts: u32) -> Option<Duration> {
    (attempts < ATTEMPTS_MAX).then(|| backoff(attempts, WAITS[0], WAITS[1]))
}

/// The response, whatever its status.
///
/// # Errors
/// `Unavailable` if the server cannot be reached.
pub(super) async fn send(request: RequestBuilder) -> Result<Response> {
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
