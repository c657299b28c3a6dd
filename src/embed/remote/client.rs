//! The HTTP client of an embeddings endpoint: sends a batch and retries it within its limits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, HeaderValue};
use reqwest::{Response, StatusCode};
use serde::Serialize;
use tokio::time::Instant;

use super::options::{Encoding, RemoteModel, RemoteOptions};
use super::rate_limit::{RateLimit, rate_limited};
use crate::decompression::{ReplyCoding, decompressed};
use crate::embed::EmbedMetrics;
use crate::embed::endpoint::{Failure, FailureCause, RefusedReply, RemoteVector, read_vectors};
use crate::error::{Error, Kind, Result};
use crate::pacing::{self, LogLimit, retry_after};

/// Bytes of a reply beside its vectors.
const ANSWER_BYTES_EXTRA: usize = 64 * 1024;

/// Bytes of one number of a vector at most, as a decimal with all digits.
const ANSWER_BYTES_PER_NUMBER: usize = 32;

/// Bytes of an error reply that are read at most.
const ERROR_BYTES: usize = 64 * 1024;

/// Bodies longer than this are read on the runtime's blocking threads.
const INLINE_BYTES: usize = 64 * 1024;

/// A client of one endpoint. All requests in flight share it, and so its rate limit.
pub(super) struct Client {
    http: reqwest::Client,
    target: RemoteModel,
    key: Option<EndpointKey>,
    options: RemoteOptions,
    rate_limit: RateLimit,
    log: LogLimit,
    metrics: Arc<EmbedMetrics>,
}

/// A credential. Its `Debug` output is masked.
struct EndpointKey(HeaderValue);

impl fmt::Debug for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[derive(Serialize)]
struct RemoteRequest<'a> {
    model: &'a str,
    input: &'a [&'a str],
    encoding_format: Encoding,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
}

/// Why an attempt failed, and whether a retry may succeed.
enum AttemptError {
    /// The endpoint limits the rate, with the wait that it asks for.
    RateLimited(Option<Duration>),
    /// A retry may succeed, after the wait that the endpoint asks for.
    Transient(Failure, Option<Duration>),
    /// A retry would fail alike.
    Final(Failure),
}

/// The deadline and the retries of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) deadline: Instant,
    /// Retries after failed attempts.
    pub(super) retries_max: u32,
}

impl Client {
    /// # Errors
    /// `Config` if the key is missing or is no valid header value.
    pub(super) fn new(
        target: RemoteModel,
        options: &RemoteOptions,
        metrics: Arc<EmbedMetrics>,
    ) -> Result<Client> {
        // Fails only if a provider is installed already; that one is used then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            // A redirect would send the key and the texts to another server.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| {
                Error::new(Kind::Config, "cannot set up the client of the remote model").source(error)
            })?;
        Ok(Client {
            http,
            target,
            key: options.api_key_env.as_deref().map(read_key).transpose()?,
            options: options.clone(),
            rate_limit: RateLimit::new(),
            log: LogLimit::new(),
            metrics,
        })
    }

    /// The limits of a batch that is sent now.
    pub(super) fn limits(&self) -> Limits {
        let deadline = Instant::now() + Duration::from_millis(self.options.deadline_ms);
        Limits { deadline, retries_max: self.options.retries_max }
    }

    /// Embeds `texts`: the vector or the error of each, in order.
    ///
    /// Cancel safety: dropping the future cancels the request and discards its reply.
    ///
    /// # Errors
    /// `Upstream` after the last attempt, or if the deadline allows no further one; `Timeout` if the last took too long;
    /// `Overloaded` if the endpoint asks for a longer wait than the deadline allows; and with [`FailureCause::Text`] the
    /// endpoint's own refusal as `InvalidInput`, `TooLarge` or `Unprocessable`.
    pub(super) async fn embed(
        &self,
        texts: &[&str],
        limits: Limits,
    ) -> Result<Vec<Result<RemoteVector>>, Failure> {
        let Limits { deadline, retries_max } = limits;
        let (mut failures, mut paces) = (0, 0);
        loop {
            let admission = self.rate_limit.admit(deadline).await.map_err(endpoint_failure)?;
            let timeout = deadline.min(Instant::now() + Duration::from_millis(self.options.timeout_ms));
            let attempt = tokio::time::timeout_at(timeout, self.attempt(texts)).await;
            let late = || {
                let error =
                    Error::new(Kind::Timeout, "cannot embed by the remote model: the attempt timed out");
                AttemptError::Transient(endpoint_failure(error), None)
            };
            let wait = match attempt.unwrap_or_else(|_| Err(late())) {
                Err(AttemptError::RateLimited(asked)) => {
                    paces += 1;
                    let wait = self.backoff(paces, asked);
                    self.rate_limit.pause(Instant::now() + wait);
                    if Instant::now() + wait >= deadline {
                        return Err(endpoint_failure(rate_limited(wait)));
                    }
                    self.metrics.retries.inc();
                    continue;
                }
                Err(AttemptError::Transient(failure, asked)) => {
                    failures += 1;
                    if failures > retries_max {
                        admission.answered();
                        return Err(failure);
                    }
                    let wait = self.backoff(failures, asked);
                    if Instant::now() + wait >= deadline {
                        // No retry can end before the deadline, so the callers get the failure now.
                        admission.answered();
                        return Err(failure);
                    }
                    wait
                }
                Err(AttemptError::Final(failure)) => {
                    admission.answered();
                    return Err(failure);
                }
                Ok(vectors) => {
                    admission.answered();
                    return Ok(vectors);
                }
            };
            admission.answered();
            self.metrics.retries.inc();
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends one request and parses its reply.
    async fn attempt(&self, texts: &[&str]) -> Result<Vec<Result<RemoteVector>>, AttemptError> {
        let body = RemoteRequest {
            model: &self.target.model,
            input: texts,
            encoding_format: self.options.encoding,
            dimensions: self.options.sends_dimensions.then_some(self.target.dim),
        };
        let request = self.http.post(&self.target.url).json(&body).header(ACCEPT_ENCODING, "identity");
        let request = match &self.key {
            Some(EndpointKey(key)) => request.header(AUTHORIZATION, key.clone()),
            None => request,
        };
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(self.refused(status, response).await);
        }
        let numbers = texts.len().saturating_mul(self.target.dim);
        let limit = numbers.saturating_mul(ANSWER_BYTES_PER_NUMBER).saturating_add(ANSWER_BYTES_EXTRA);
        let body = self.read_body(response, limit).await?;
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        let dim = Some(self.target.dim);
        let read = if body.len() <= INLINE_BYTES {
            read_vectors(&body, &lengths, dim)
        } else {
            let read = tokio::task::spawn_blocking(move || read_vectors(&body, &lengths, dim)).await;
            let lost =
                |error| Error::new(Kind::Internal, "cannot read the remote model's reply").source(error);
            read.map_err(lost).flatten()
        };
        // Some endpoints leave out a text that they cannot read, or write NaN, which is invalid JSON.
        read.map_err(|error| AttemptError::Final(Failure { error, cause: FailureCause::Unclear }))
    }

    /// The wait before the next attempt: the one that the endpoint asks for, up to the limit, plus jitter. Without one, or
    /// after two attempts whose waits were too short, exponential backoff.
    fn backoff(&self, attempt: u32, asked: Option<Duration>) -> Duration {
        let longest = Duration::from_millis(self.options.retry_after_ms_max);
        let first = Duration::from_millis(self.options.backoff_ms);
        let own = pacing::backoff(attempt, first, Duration::from_millis(self.options.backoff_ms_max));
        match asked.map(|asked| asked.min(longest)) {
            Some(asked) if attempt <= 2 => asked + first.min(asked).mul_f64(pacing::random() / 2.0),
            Some(asked) => asked.max(own),
            None => own,
        }
    }

    /// A failure of the connection. Its details, such as the address, go to the log, not to clients.
    fn unreachable(&self, error: reqwest::Error) -> AttemptError {
        let error = error.without_url();
        let mut chain = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            chain = format!("{chain}: {error}");
            cause = error.source();
        }
        self.warn("unreachable", &chain);
        let error = Error::new(Kind::Upstream, "cannot reach the remote model");
        AttemptError::Transient(endpoint_failure(error), None)
    }

    /// Classifies a reply whose status is not 2xx.
    async fn refused(&self, status: StatusCode, response: Response) -> AttemptError {
        let asked = retry_after(|name| response.headers().get(name)?.to_str().ok());
        let body = self.read_body(response, ERROR_BYTES).await.unwrap_or_default();
        let reply = RefusedReply::read(status.as_u16(), &body);
        self.warn(status.as_str(), &reply.for_log(|word| self.shows_key(word)));
        match status {
            StatusCode::TOO_MANY_REQUESTS if !reply.is_used_up() => return AttemptError::RateLimited(asked),
            _ => {}
        }
        let failure = reply.failure(|word| self.is_secret(word));
        match status {
            StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT => {
                AttemptError::Transient(Failure { cause: FailureCause::Endpoint, ..failure }, asked)
            }
            _ if status.is_server_error() => AttemptError::Transient(failure, asked),
            _ => AttemptError::Final(failure),
        }
    }

    /// Whether a word of the endpoint's message contains the key or the host.
    fn is_secret(&self, word: &str) -> bool {
        self.shows_key(word) || word.contains(&self.target.host)
    }

    fn shows_key(&self, word: &str) -> bool {
        let key = self.key.as_ref().and_then(|EndpointKey(key)| key.to_str().ok());
        let key = key.and_then(|key| key.strip_prefix("Bearer ")).filter(|key| !key.is_empty());
        key.is_some_and(|key| word.contains(key))
    }

    /// The whole body, decompressed.
    ///
    /// # Errors
    /// `AttemptError::Final` if it is longer than `bytes_max`.
    async fn read_body(&self, mut response: Response, bytes_max: usize) -> Result<Vec<u8>, AttemptError> {
        let lines = response.headers().get_all(CONTENT_ENCODING).iter().map(HeaderValue::as_bytes);
        let coding = ReplyCoding::of(lines);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            append(&mut body, &chunk, bytes_max).map_err(AttemptError::Final)?;
        }
        match coding {
            None => Ok(body),
            Some(ReplyCoding::Other) => {
                self.warn("compressed", "unsupported content-encoding");
                let error = "cannot read the remote model's reply: its content-encoding is not supported";
                Err(AttemptError::Final(endpoint_failure(Error::new(Kind::Upstream, error))))
            }
            Some(coding) => decompress(body, coding, bytes_max).await.map_err(AttemptError::Final),
        }
    }

    /// Logs a failure, at most once a second.
    fn warn(&self, failure: &str, reply: &str) {
        if self.log.admits() {
            tracing::warn!(model = self.target.model, failure, reply, "the remote model failed");
        }
    }
}

/// Adds a piece to a body of at most `bytes_max`.
fn append(body: &mut Vec<u8>, piece: &[u8], bytes_max: usize) -> Result<(), Failure> {
    if body.len() + piece.len() > bytes_max {
        let error = Error::new(Kind::Upstream, "cannot read the remote model's reply: it is too long");
        return Err(Failure { error: error.with("bytes_max", bytes_max), cause: FailureCause::Unclear });
    }
    body.extend_from_slice(piece);
    Ok(())
}

async fn decompress(body: Vec<u8>, coding: ReplyCoding, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let whole = stream::once(std::future::ready(Ok(Bytes::from(body)))).boxed();
    let (mut pieces, mut plain) = (decompressed(whole, coding), Vec::new());
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| Failure { error, cause: FailureCause::Unclear })?;
        append(&mut plain, &piece, bytes_max)?;
    }
    Ok(plain)
}

fn endpoint_failure(error: Error) -> Failure {
    Failure { error, cause: FailureCause::Endpoint }
}

fn read_key(variable: &str) -> Result<EndpointKey> {
    let config = |what: &str| {
        Error::new(
            Kind::Config,
            format!("cannot read the remote model's key from the environment variable `{variable}`: {what}"),
        )
    };
    let key = std::env::var(variable).map_err(|_| {
        config("it is not set or not UTF-8")
            .advise(format!("type `export {variable}=...` before the server starts"))
    })?;
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.trim()))
        .map_err(|_| config("it contains characters that are invalid in a header"))?;
    value.set_sensitive(true);
    Ok(EndpointKey(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let secret = EndpointKey(HeaderValue::from_static("Bearer sk-1"));
        assert_eq!(format!("{secret:?}"), "***");
    }
}
