//! What the configuration says of upstreams.

use serde::{Deserialize, Serialize};

use super::forwards::{self, Forwards};
use crate::domain::KeyHeader;
use crate::error::{Error, Kind, Result};

/// Options of upstreams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The upstream for every model that no route names, such as `https://api.example.com/v1`.
    pub base_url: Option<String>,
    /// The environment variable that holds its key. Without it that of `OPENAI_API_KEY`, if there is one.
    pub api_key_env: Option<String>,
    /// The header in which the upstream expects the key. Without it that of the API that is called: `x-api-key` for messages, `authorization`
    /// for all others.
    pub key_header: Option<KeyHeaderName>,
    /// Whether requests carry their client's credential to the upstream instead of a key of ours.
    pub forward_client_key: bool,
    /// Upstreams by model; the first route that names a model has it.
    pub routes: Vec<RouteOptions>,
    /// What models cost, for the money that is saved; the first entry that names a model has it.
    pub prices: Vec<PriceOptions>,
    /// Headers of a request that are passed on. They are part of what is asked.
    pub forwarded_headers: Vec<String>,
    /// Other routes that are passed on with a key of ours, each as a method and a path below `/v1`. Where requests carry their
    /// client's credential, all are.
    pub forwards: Vec<String>,
    /// Whether streams are asked to end with what they used, also where the client does not ask (who then does not see
    /// it): only so can a streamed answer be replayed as a whole one.
    pub request_usage: bool,
    /// Whether `Cache-Group-Invalidation` (RFC 9875) of a reply that is passed on hides the entries of its client's tenant with these
    /// groups as tags.
    pub obey_group_invalidation: bool,
    /// Milliseconds that a connection may take to open.
    pub connect_ms: u64,
    /// Milliseconds that a stream may be silent, once its head has come.
    pub idle_ms: u64,
    /// Milliseconds that an answer may take from its first attempt to its last byte; less than a request may take.
    pub total_ms: u64,
    /// Attempts after the first that failed before its first byte.
    pub retries_max: u32,
    /// Milliseconds before the second attempt; each further wait is twice as long, and each varies by half.
    pub backoff_ms: u64,
    /// Milliseconds of the longest wait between attempts. An upstream that asks for more is passed on with what it said.
    pub backoff_ms_max: u64,
    /// Requests under way to all upstreams; one more is refused.
    pub requests_max: usize,
    /// Bytes of an answer that is held for many, with some for each event of a stream. A longer stream goes through and is not
    /// kept; a longer whole answer is an error.
    pub answer_bytes_max: usize,
}

/// An upstream for some models.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteOptions {
    /// Names of models; a final `*` stands for any rest.
    pub models: Vec<String>,
    /// Where they are answered; the further ones in turn if an attempt fails. They are taken to answer alike.
    pub base_urls: Vec<String>,
    /// The environment variable that holds the key.
    pub api_key_env: Option<String>,
    /// The header of the key, as for the upstream of every model.
    pub key_header: Option<KeyHeaderName>,
    /// Whether requests carry their client's credential instead.
    pub forward_client_key: bool,
}

/// A header in which upstreams expect a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyHeaderName {
    /// `authorization: Bearer KEY`.
    Authorization,
    /// `x-api-key: KEY`.
    XApiKey,
}

impl KeyHeaderName {
    /// The header, and what precedes the key in it.
    pub(super) fn header(self) -> KeyHeader {
        match self {
            KeyHeaderName::Authorization => KeyHeader::BEARER,
            KeyHeaderName::XApiKey => KeyHeader::X_API_KEY,
        }
    }
}

/// What a model costs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PriceOptions {
    /// Names of models; a final `*` stands for any rest.
    pub models: Vec<String>,
    /// Dollars for a million tokens read.
    pub prompt_usd_per_million: f64,
    /// Dollars for a million tokens written.
    pub completion_usd_per_million: f64,
    /// Dollars for a million tokens of the prompt that the provider reads from its own cache. Without it as other tokens of the prompt.
    pub cached_prompt_usd_per_million: Option<f64>,
    /// Dollars for a million tokens of the prompt that the provider writes to its own cache. Without it as other tokens of the prompt.
    pub written_prompt_usd_per_million: Option<f64>,
    /// Dollars for a million tokens of reasoning. Without it as other tokens of the completion.
    pub reasoning_usd_per_million: Option<f64>,
}

impl PriceOptions {
    /// Its prices with the names of their options.
    fn prices(&self) -> impl Iterator<Item = (&'static str, f64)> {
        [
            ("prompt_usd_per_million", Some(self.prompt_usd_per_million)),
            ("completion_usd_per_million", Some(self.completion_usd_per_million)),
            ("cached_prompt_usd_per_million", self.cached_prompt_usd_per_million),
            ("written_prompt_usd_per_million", self.written_prompt_usd_per_million),
            ("reasoning_usd_per_million", self.reasoning_usd_per_million),
        ]
        .into_iter()
        .filter_map(|(name, usd)| Some((name, usd?)))
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            base_url: None,
            api_key_env: None,
            key_header: None,
            forward_client_key: false,
            routes: Vec::new(),
            prices: Vec::new(),
            forwarded_headers: ["openai-organization", "openai-project", "openai-beta"]
                .map(String::from)
                .into(),
            forwards: forwards::DEFAULT.map(String::from).into(),
            request_usage: true,
            obey_group_invalidation: false,
            connect_ms: 5_000,
            idle_ms: 60_000,
            total_ms: 590_000,
            retries_max: 2,
            backoff_ms: 250,
            backoff_ms_max: 10_000,
            requests_max: 1024,
            answer_bytes_max: 16 << 20,
        }
    }
}

impl Options {
    /// Whether there is any upstream.
    pub fn is_configured(&self) -> bool {
        self.base_url.is_some() || !self.routes.is_empty()
    }

    /// Whether any upstream sees credentials of clients.
    pub fn forwards_any_client_key(&self) -> bool {
        self.forward_client_key || self.routes.iter().any(|route| route.forward_client_key)
    }

    /// Checks every value.
    ///
    /// # Errors
    /// `Config`, naming the key.
    pub fn validate(&self) -> Result<()> {
        const DAY_MS: u64 = 86_400_000;
        Forwards::new(&self.forwards)?;
        in_range("connect_ms", self.connect_ms, 1, DAY_MS)?;
        in_range("idle_ms", self.idle_ms, 1, DAY_MS)?;
        in_range("total_ms", self.total_ms, 1, DAY_MS)?;
        in_range("retries_max", self.retries_max.into(), 0, 100)?;
        in_range("backoff_ms", self.backoff_ms, 1, DAY_MS)?;
        in_range("backoff_ms_max", self.backoff_ms_max, 1, DAY_MS)?;
        in_range("requests_max", self.requests_max as u64, 1, 1 << 20)?;
        in_range("answer_bytes_max", self.answer_bytes_max as u64, 1024, 1 << 30)?;
        for (place, price) in self.prices.iter().enumerate() {
            if let Some((name, usd)) = price.prices().find(|(_, usd)| !(0.0..1e6).contains(usd)) {
                let message =
                    format!("prices[{place}].{name} must be dollars from 0 to a million, got {usd}");
                return Err(config(&message));
            }
            if price.models.is_empty() {
                return Err(config(&format!("prices[{place}].models names no model")));
            }
        }
        Ok(())
    }
}

/// Whether `pattern` names `model`.
pub(super) fn names(pattern: &str, model: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => model.starts_with(beginning),
        None => pattern == model,
    }
}

fn in_range(key: &str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(config(&format!("{key} must be {min} to {max}, got {value}")))
}

/// An error about a key of the section.
pub(super) fn config(message: &str) -> Error {
    Error::new(Kind::Config, format!("upstream.{message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_out_of_range_names_its_key() {
        let refused = |options: Options| {
            let error = options.validate().unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            error.to_string()
        };
        let base = Options::default;
        assert!(base().validate().is_ok());
        assert!(refused(Options { idle_ms: 0, ..base() }).contains("upstream.idle_ms"));
        assert!(refused(Options { answer_bytes_max: 1, ..base() }).contains("upstream.answer_bytes_max"));
        let price = PriceOptions { prompt_usd_per_million: f64::NAN, ..PriceOptions::default() };
        assert!(
            refused(Options { prices: vec![price], ..base() })
                .contains("upstream.prices[0].prompt_usd_per_million")
        );
        let price = PriceOptions { cached_prompt_usd_per_million: Some(-0.1), ..PriceOptions::default() };
        assert!(
            refused(Options { prices: vec![price], ..base() })
                .contains("upstream.prices[0].cached_prompt_usd_per_million")
        );
        let price = PriceOptions::default();
        assert!(refused(Options { prices: vec![price], ..base() }).contains("upstream.prices[0].models"));
    }

    #[test]
    fn a_star_stands_for_any_rest() {
        assert!(names("gpt-*", "gpt-5") && names("*", "x") && names("m", "m"));
        assert!(!names("gpt-*", "o3") && !names("m", "mm") && !names("a*b", "axb"));
    }
}
