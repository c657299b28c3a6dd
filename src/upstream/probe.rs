//! Asks each upstream once for its models, to see whether it can be reached and accepts the key. It changes and costs nothing.

use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt as _};
use reqwest::header::{ACCEPT_ENCODING, DATE, HeaderMap};

use super::base_url;
use super::models::{LIST_BYTES_MAX, read_list};
use super::options::Options;
use super::reply::Reply;
use super::response_headers::passed_on;
use super::routes::{RouteCredential, UpstreamRoutes};
use crate::error::{Error, Kind, Result};

const TIMEOUT: Duration = Duration::from_secs(10);

/// What one address of an upstream answered.
#[derive(Debug)]
pub struct UpstreamProbe {
    /// The address.
    pub base_url: String,
    /// The status of `GET /models`.
    pub status: Result<u16>,
    /// Whether its body is a list of models.
    pub lists_models: bool,
    /// The upstream's clock.
    pub date: Option<SystemTime>,
    /// What to type instead of the address, if it is probably mistaken.
    pub advice: Option<String>,
    /// Whether the operator's key was sent.
    pub has_key: bool,
    /// Whether calls carry the keys of clients, so that none was sent.
    pub asks_with_client_keys: bool,
}

/// Asks all upstreams of the options, one after another.
///
/// # Errors
/// `Config`, naming the option that cannot be used.
pub async fn probe(options: &Options) -> Result<Vec<UpstreamProbe>> {
    // Fails only if a provider is installed already; that one is used then.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        // A redirect would carry the key to another server.
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .build()
        .map_err(|error| Error::new(Kind::Config, "cannot set up HTTP").source(error))?;
    let mut probes = Vec::new();
    for route in UpstreamRoutes::new(options)?.all() {
        for base_url in &route.base_urls {
            let (status, date, lists_models) = match ask(&client, base_url, route.key.secret()).await {
                Ok(ModelsReply { status, date, is_list }) => (Ok(status), date, is_list),
                Err(error) => (Err(error), None, false),
            };
            probes.push(UpstreamProbe {
                base_url: base_url.clone(),
                status,
                lists_models,
                date,
                advice: base_url::advice(base_url),
                has_key: route.key.secret().is_some(),
                asks_with_client_keys: matches!(route.key, RouteCredential::Clients),
            });
        }
    }
    Ok(probes)
}

/// The reply to `GET /models`.
struct ModelsReply {
    status: u16,
    date: Option<SystemTime>,
    is_list: bool,
}

async fn ask(client: &reqwest::Client, base_url: &str, key: Option<&str>) -> Result<ModelsReply> {
    let request = client.get(format!("{base_url}/models")).header(ACCEPT_ENCODING, "identity");
    let request = key.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
    let response = request.send().await.map_err(|error| {
        Error::new(Kind::Unavailable, format!("cannot reach {base_url}")).source(error.without_url())
    })?;
    let (status, date) = (response.status(), date(response.headers()));
    let is_list = status.is_success() && is_list(response).await;
    Ok(ModelsReply { status: status.as_u16(), date, is_list })
}

/// Whether the body is a list of models, read as the server reads it. A body that breaks off is none.
async fn is_list(response: reqwest::Response) -> bool {
    let (status, headers) = (response.status().as_u16(), passed_on(response.headers()));
    let pieces = stream::unfold(Some(response), |response| async move {
        let mut response = response?;
        let broken = |error: reqwest::Error| {
            Error::new(Kind::Upstream, "cannot read the list of models").source(error.without_url())
        };
        match response.chunk().await.transpose()? {
            Ok(bytes) => Some((Ok(bytes), Some(response))),
            Err(error) => Some((Err(broken(error)), None)),
        }
    });
    let mut reply = Reply::new(status, headers, pieces.boxed()).decoded();
    reply.whole(LIST_BYTES_MAX).await.is_ok_and(|body| read_list(&body).is_some())
}

fn date(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}
