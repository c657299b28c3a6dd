//! Asks the endpoint: one batch, as many attempts as it takes or as are allowed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, HeaderValue};
use reqwest::{Response, StatusCode};
use serde::Serialize;
use tokio::time::Instant;

use super::options::{Encoding, RemoteOptions, Target};
use super::pace::{Pace, limited};
use super::refusal::{Cause, Failure, Said};
use super::reply::{self, Vector};
use crate::decompression::{Coding, decompressed};
use crate::embed::EmbedMetrics;
use crate::error::{Error, Kind, Result};
use crate::pacing::{self, LogLimit, retry_after};

/// Bytes of an answer beyond its vectors.
const ANSWER_BYTES_EXTRA: usize = 64 * 1024;

/// Bytes that an answer spends on a number at most, as decimals with all digits.
const ANSWER_BYTES_PER_NUMBER: usize = 32;

/// Bytes of an answer's error that are worth reading.
const ERROR_BYTES: usize = 64 * 1024;

/// Bodies longer than this are read on the runtime's blocking threads.
const INLINE_BYTES: usize = 64 * 1024;

/// A client of one endpoint. Shared by all requests in flight, which slow down together.
pub(super) struct Client {
    http: reqwest::Client,
    target: Target,
    key: Option<Secret>,
    options: RemoteOptions,
    pace: Pace,
    log: LogLimit,
    metrics: Arc<EmbedMetrics>,
}

/// A credential, which no log may show.
struct Secret(HeaderValue);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    input: &'a [&'a str],
    encoding_format: Encoding,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
}

/// Why an attempt gave no answer, and what may be done about it.
enum Fault {
    /// The endpoint asks to slow down, perhaps saying for how long.
    Pace(Option<Duration>),
    /// It may go better next time.
    Transient(Failure, Option<Duration>),
    /// It will not go better.
    Final(Failure),
}

/// How long and how often a batch may be asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) deadline: Instant,
    /// Attempts after the first that failed.
    pub(super) retries_max: u32,
}

impl Client {
    /// # Errors
    /// `Config` for a key that is missing or cannot be sent.
    pub(super) fn new(target: Target, options: &RemoteOptions, metrics: Arc<EmbedMetrics>) -> Result<Client> {
        // Fails only if a provider was installed before, which is then the one in use.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            // A redirect would carry the key and the texts to somewhere else.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| {
                Error::new(Kind::Config, "set up the client of the remote model").source(error)
            })?;
        Ok(Client {
            http,
            target,
            key: options.api_key_env.as_deref().map(read_key).transpose()?,
            options: options.clone(),
            pace: Pace::new(),
            log: LogLimit::new(),
            metrics,
        })
    }

    /// The limits of a batch that is asked for from now on.
    pub(super) fn limits(&self) -> Limits {
        let deadline = Instant::now() + Duration::from_millis(self.options.deadline_ms);
        Limits { deadline, retries_max: self.options.retries_max }
    }

    /// The vector of each text or why there is none, in order.
    ///
    /// Cancel safety: dropping the future ends the request; what the endpoint has done is lost.
    ///
    /// # Errors
    /// `Upstream` after the last attempt or where another would come too late, `Timeout` if the last took too long,
    /// `Overloaded` where the endpoint asks for a longer wait than the deadline allows; and with [`Cause::Text`] the
    /// endpoint's own refusal as `InvalidInput`, `TooLarge` or `Unprocessable`.
    pub(super) async fn embed(&self, texts: &[&str], limits: Limits) -> Result<Vec<Result<Vector>>, Failure> {
        let Limits { deadline, retries_max } = limits;
        let (mut failures, mut paces) = (0, 0);
        loop {
            let admission = self.pace.admit(deadline).await.map_err(of_endpoint)?;
            let timeout = deadline.min(Instant::now() + Duration::from_millis(self.options.timeout_ms));
            let attempt = tokio::time::timeout_at(timeout, self.attempt(texts)).await;
            let late = || {
                let error = Error::new(Kind::Timeout, "wait for the remote model's answer");
                Fault::Transient(of_endpoint(error), None)
            };
            let wait = match attempt.unwrap_or_else(|_| Err(late())) {
                Err(Fault::Pace(asked)) => {
                    paces += 1;
                    let wait = self.backoff(paces, asked);
                    self.pace.pause(Instant::now() + wait);
                    if Instant::now() + wait >= deadline {
                        return Err(of_endpoint(limited(wait)));
                    }
                    self.metrics.retries.inc();
                    continue;
                }
                Err(Fault::Transient(failure, asked)) => {
                    failures += 1;
                    if failures > retries_max {
                        admission.answered();
                        return Err(failure);
                    }
                    let wait = self.backoff(failures, asked);
                    if Instant::now() + wait >= deadline {
                        // Waiting for a deadline that cannot be met would only make the callers wait.
                        admission.answered();
                        return Err(failure);
                    }
                    wait
                }
                Err(Fault::Final(failure)) => {
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

    /// One request and its answer.
    async fn attempt(&self, texts: &[&str]) -> Result<Vec<Result<Vector>>, Fault> {
        let body = Request {
            model: &self.target.model,
            input: texts,
            encoding_format: self.options.encoding,
            dimensions: self.options.sends_dimensions.then_some(self.target.dim),
        };
        let request = self.http.post(&self.target.url).json(&body).header(ACCEPT_ENCODING, "identity");
        let request = match &self.key {
            Some(Secret(key)) => request.header(AUTHORIZATION, key.clone()),
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
        let dim = self.target.dim;
        let read = if body.len() <= INLINE_BYTES {
            reply::read(&body, &lengths, dim)
        } else {
            let read = tokio::task::spawn_blocking(move || reply::read(&body, &lengths, dim)).await;
            let lost = |error| Error::new(Kind::Internal, "read the remote model's answer").source(error);
            read.map_err(lost).flatten()
        };
        // Some endpoints lose count of a text that they cannot read, or write NaN, which is no JSON.
        read.map_err(|error| Fault::Final(Failure { error, cause: Cause::Unclear }))
    }

    /// How long to wait before the next attempt: what the endpoint asks for and a little more, up to the limit, or ever
    /// longer where it asks for nothing or, time and again, for too little.
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

    /// A failure of the connection. Its details, such as the address, are for the operator's log.
    fn unreachable(&self, error: reqwest::Error) -> Fault {
        let error = error.without_url();
        let mut chain = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            chain = format!("{chain}: {error}");
            cause = error.source();
        }
        self.warn("unreachable", &chain);
        let error = Error::new(Kind::Upstream, "ask the remote model: the connection fails");
        Fault::Transient(of_endpoint(error), None)
    }

    /// Sorts an answer that is no success.
    async fn refused(&self, status: StatusCode, response: Response) -> Fault {
        let asked = retry_after(|name| response.headers().get(name)?.to_str().ok());
        let body = self.read_body(response, ERROR_BYTES).await.unwrap_or_default();
        let said = Said::read(status, &body);
        self.warn(status.as_str(), &said.for_log(|word| self.shows_key(word)));
        match status {
            StatusCode::TOO_MANY_REQUESTS if !said.is_used_up() => return Fault::Pace(asked),
            _ => {}
        }
        let failure = said.failure(|word| self.is_secret(word));
        match status {
            StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT => {
                Fault::Transient(Failure { cause: Cause::Endpoint, ..failure }, asked)
            }
            _ if status.is_server_error() => Fault::Transient(failure, asked),
            _ => Fault::Final(failure),
        }
    }

    /// Whether a word of the endpoint's shows the key or the address.
    fn is_secret(&self, word: &str) -> bool {
        self.shows_key(word) || word.contains(&self.target.host)
    }

    fn shows_key(&self, word: &str) -> bool {
        let key = self.key.as_ref().and_then(|Secret(key)| key.to_str().ok());
        let key = key.and_then(|key| key.strip_prefix("Bearer ")).filter(|key| !key.is_empty());
        key.is_some_and(|key| word.contains(key))
    }

    /// The whole body, decompressed, unless it is longer than any right answer.
    async fn read_body(&self, mut response: Response, bytes_max: usize) -> Result<Vec<u8>, Fault> {
        let lines = response.headers().get_all(CONTENT_ENCODING).iter().map(HeaderValue::as_bytes);
        let coding = Coding::of(lines);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            append(&mut body, &chunk, bytes_max).map_err(Fault::Final)?;
        }
        match coding {
            None => Ok(body),
            Some(Coding::Other) => {
                self.warn("compressed", "by a coding that this server does not read");
                let error = "read the remote model's answer: its content-encoding is not known";
                Err(Fault::Final(of_endpoint(Error::new(Kind::Upstream, error))))
            }
            Some(coding) => decompress(body, coding, bytes_max).await.map_err(Fault::Final),
        }
    }

    /// Reports a failure to the operator, at most once a second.
    fn warn(&self, failure: &str, said: &str) {
        if self.log.admits() {
            tracing::warn!(model = self.target.model, failure, said, "the remote model fails");
        }
    }
}

/// Adds a piece to a body of at most `bytes_max`.
fn append(body: &mut Vec<u8>, piece: &[u8], bytes_max: usize) -> Result<(), Failure> {
    if body.len() + piece.len() > bytes_max {
        let error = Error::new(Kind::Upstream, "read the remote model's answer: it is too long");
        return Err(Failure { error: error.with("bytes_max", bytes_max), cause: Cause::Unclear });
    }
    body.extend_from_slice(piece);
    Ok(())
}

async fn decompress(body: Vec<u8>, coding: Coding, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let whole = stream::once(std::future::ready(Ok(Bytes::from(body)))).boxed();
    let (mut pieces, mut plain) = (decompressed(whole, coding), Vec::new());
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| Failure { error, cause: Cause::Unclear })?;
        append(&mut plain, &piece, bytes_max)?;
    }
    Ok(plain)
}

fn of_endpoint(error: Error) -> Failure {
    Failure { error, cause: Cause::Endpoint }
}

fn read_key(variable: &str) -> Result<Secret> {
    let config = |what: &str| {
        Error::new(
            Kind::Config,
            format!("read the remote model's key from the environment variable `{variable}`: {what}"),
        )
    };
    let key = std::env::var(variable).map_err(|_| config("it is not set or not UTF-8"))?;
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.trim()))
        .map_err(|_| config("it holds characters that no header may have"))?;
    value.set_sensitive(true);
    Ok(Secret(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let secret = Secret(HeaderValue::from_static("Bearer sk-1"));
        assert_eq!(format!("{secret:?}"), "***");
    }
}
