//! What a configuration says of a remote model.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// Options of a remote model. `base_url`, `model` and `dim` belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemoteOptions {
    /// The endpoint without `/embeddings`, such as `https://api.example.com/v1`. Without it the model is local.
    pub base_url: Option<String>,
    /// The model's name as the endpoint knows it.
    pub model: Option<String>,
    /// Numbers in each vector.
    pub dim: Option<usize>,
    /// Whether to ask for `dim` by the request's `dimensions`; many models refuse the field.
    pub sends_dimensions: bool,
    /// The environment variable that holds the key; without it no key is sent. The key itself stands in no file.
    pub api_key_env: Option<String>,
    /// How vectors are asked for; both forms are understood in answers.
    pub encoding: Encoding,
    /// Texts in a request.
    pub batch_texts_max: usize,
    /// Bytes of text in a request. Endpoints limit tokens, and a token is one byte at the very least.
    pub batch_bytes_max: usize,
    /// Requests in flight.
    pub requests_max: usize,
    /// Milliseconds that one attempt may take.
    pub timeout_ms: u64,
    /// Milliseconds that a batch may take with all its attempts and waits.
    pub deadline_ms: u64,
    /// Attempts after the first that failed. A reply that asks to slow down is not a failure.
    pub retries_max: u32,
    /// Milliseconds before the second attempt; each further wait is twice as long, and each varies by half.
    pub backoff_ms: u64,
    /// Milliseconds of the longest wait that the endpoint has not asked for.
    pub backoff_ms_max: u64,
    /// Milliseconds of the longest wait that the endpoint may ask for; after it one request probes.
    pub retry_after_ms_max: u64,
}

impl Default for RemoteOptions {
    fn default() -> RemoteOptions {
        RemoteOptions {
            base_url: None,
            model: None,
            dim: None,
            sends_dimensions: false,
            api_key_env: None,
            encoding: Encoding::default(),
            batch_texts_max: 256,
            batch_bytes_max: 256 * 1024,
            requests_max: 4,
            timeout_ms: 30_000,
            deadline_ms: 120_000,
            retries_max: 4,
            backoff_ms: 250,
            backoff_ms_max: 8_000,
            retry_after_ms_max: 60_000,
        }
    }
}

/// How vectors travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Little-endian single precision in base64: a quarter of the bytes, and exact.
    #[default]
    Base64,
    /// Decimal numbers.
    Float,
}

/// Which model is asked, and where.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The whole address of the endpoint's route.
    pub(super) url: String,
    /// The host in it, which no client's error may show.
    pub(super) host: String,
    pub(super) model: String,
    pub(super) dim: usize,
}

impl RemoteOptions {
    /// Checks every value and finds the target.
    ///
    /// # Errors
    /// `Config`, naming the key.
    pub(super) fn target(&self) -> Result<Target> {
        let base_url = self.base_url.as_deref().ok_or_else(|| config("embed.remote.base_url is not set"))?;
        let host = host_of(base_url)?;
        let model = self.model.as_deref().filter(|model| !model.is_empty());
        let model =
            model.ok_or_else(|| config("embed.remote.model is not set, but embed.remote.base_url is"))?;
        let dim =
            self.dim.ok_or_else(|| config("embed.remote.dim is not set, but embed.remote.base_url is"))?;
        const HOUR_MS: u64 = 3_600_000;
        in_range("dim", dim as u64, 1, 1 << 16)?;
        in_range("batch_texts_max", self.batch_texts_max as u64, 1, 2048)?;
        in_range("batch_bytes_max", self.batch_bytes_max as u64, 1024, 1 << 28)?;
        in_range("requests_max", self.requests_max as u64, 1, 1024)?;
        in_range("timeout_ms", self.timeout_ms, 1, HOUR_MS)?;
        in_range("deadline_ms", self.deadline_ms, 1, HOUR_MS)?;
        in_range("backoff_ms", self.backoff_ms, 1, HOUR_MS)?;
        in_range("backoff_ms_max", self.backoff_ms_max, 1, HOUR_MS)?;
        in_range("retry_after_ms_max", self.retry_after_ms_max, 1, HOUR_MS)?;
        let url = format!("{}/embeddings", base_url.trim_end_matches('/'));
        Ok(Target { url, host, model: model.to_owned(), dim })
    }
}

fn host_of(base_url: &str) -> Result<String> {
    let url = reqwest::Url::parse(base_url)
        .map_err(|error| config("embed.remote.base_url is not an address").source(error))?;
    if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
        return Err(config("embed.remote.base_url must be http or https, without query and fragment"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(config(
            "embed.remote.base_url must hold no credential; name its variable in api_key_env",
        ));
    }
    let host = url.host_str().filter(|host| !host.is_empty());
    host.map(str::to_owned).ok_or_else(|| config("embed.remote.base_url names no host"))
}

fn in_range(key: &str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(config(&format!("embed.remote.{key} must be {min} to {max}, got {value}")))
}

fn config(message: &str) -> Error {
    Error::new(Kind::Config, message)
}
