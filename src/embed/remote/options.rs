//! Options of a remote model.

use serde::{Deserialize, Serialize};

use crate::embed::option_path::option_path;
use crate::error::{Error, Kind, Result};

/// Options of a remote model. `base_url`, `model` and `dim` belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemoteOptions {
    /// The endpoint without `/embeddings`, such as `https://api.example.com/v1`. If absent, the model is local.
    pub base_url: Option<String>,
    /// The model's name as the endpoint knows it.
    pub model: Option<String>,
    /// Numbers in each vector.
    pub dim: Option<usize>,
    /// Whether requests have `dimensions` with the value of `dim`; many models refuse the field.
    pub sends_dimensions: bool,
    /// The environment variable that holds the API key. If absent, no key is sent.
    pub api_key_env: Option<String>,
    /// The encoding of vectors in replies; either is accepted.
    pub encoding: Encoding,
    /// Texts in a request.
    pub batch_texts_max: usize,
    /// Bytes of text in a request. Endpoints limit tokens, and a token has one byte or more.
    pub batch_bytes_max: usize,
    /// Requests in flight.
    pub requests_max: usize,
    /// Milliseconds that one attempt may take.
    pub timeout_ms: u64,
    /// Milliseconds that a batch may take with all its attempts and waits.
    pub deadline_ms: u64,
    /// Retries of a batch. Rate limits do not count.
    pub retries_max: u32,
    /// Milliseconds before the first retry. Each further wait is twice as long; jitter varies each by half.
    pub backoff_ms: u64,
    /// The longest wait of the backoff in milliseconds.
    pub backoff_ms_max: u64,
    /// The longest wait in milliseconds that a rate limit may ask for; after it one request probes.
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

/// The encoding of vectors in replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Little-endian f32 in base64: a quarter of the bytes, and exact.
    #[default]
    Base64,
    /// Decimal numbers.
    Float,
}

/// The checked name, address and dimensions of a remote model.
#[derive(Debug, Clone)]
pub(super) struct RemoteModel {
    /// The URL of the endpoint's route.
    pub(super) url: String,
    /// The host of the URL. Error messages for clients must not contain it.
    pub(super) host: String,
    pub(super) model: String,
    pub(super) dim: usize,
}

impl RemoteOptions {
    /// Checks every value and returns the model.
    ///
    /// # Errors
    /// `Config`, naming the key.
    pub(super) fn remote_model(&self) -> Result<RemoteModel> {
        let base_url = self.base_url.as_deref().ok_or_else(|| config("base_url", "must be set"))?;
        let host = host_of(base_url)?;
        let model = self.model.as_deref().filter(|model| !model.is_empty());
        let model = model.ok_or_else(|| config("model", "must be set with base_url"))?;
        let dim = self.dim.ok_or_else(|| config("dim", "must be set with base_url"))?;
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
        Ok(RemoteModel { url, host, model: model.to_owned(), dim })
    }
}

fn host_of(base_url: &str) -> Result<String> {
    let refuse = |fault: &str| config("base_url", fault);
    let url = reqwest::Url::parse(base_url).map_err(|error| refuse("must be a URL").source(error))?;
    if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("must be http or https, without query and fragment"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("must not contain a credential; set api_key_env instead"));
    }
    let host = url.host_str().filter(|host| !host.is_empty());
    host.map(str::to_owned).ok_or_else(|| refuse("must name a host"))
}

fn in_range(key: &'static str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(config(key, &format!("must be {min} to {max}, got {value}")))
}

fn config(key: &'static str, fault: &str) -> Error {
    let path = option_path("remote").field(key);
    Error::naming(Kind::Config, path, "", &format!(" {fault}"))
}
