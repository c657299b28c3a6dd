//! Asks each upstream once for its models, to see whether it can be reached and accepts the key. It changes and costs nothing.

use std::time::{Duration, SystemTime};

use reqwest::header::{DATE, HeaderMap};

use super::base_url;
use super::options::Options;
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
            let (status, date) = match ask(&client, base_url, route.key.secret()).await {
                Ok((status, date)) => (Ok(status), date),
                Err(error) => (Err(error), None),
            };
            probes.push(UpstreamProbe {
                base_url: base_url.clone(),
                status,
                date,
                advice: base_url::advice(base_url),
                has_key: route.key.secret().is_some(),
                asks_with_client_keys: matches!(route.key, RouteCredential::Clients),
            });
        }
    }
    Ok(probes)
}

async fn ask(
    client: &reqwest::Client,
    base_url: &str,
    key: Option<&str>,
) -> Result<(u16, Option<SystemTime>)> {
    let request = client.get(format!("{base_url}/models"));
    let request = key.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
    let response = request.send().await.map_err(|error| {
        Error::new(Kind::Unavailable, format!("cannot reach {base_url}")).source(error.without_url())
    })?;
    Ok((response.status().as_u16(), date(response.headers())))
}

fn date(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}
