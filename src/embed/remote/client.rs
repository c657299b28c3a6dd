//! Asks the endpoint: one batch, as many attempts as it takes or as are allowed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Response, StatusCode};
use serde::Serialize;
use tokio::time::Instant;

use super::options::{Encoding, RemoteOptions, Target};
use super::reply::{self, Vector};
use crate::error::{Error, Kind, Result};
use crate::metrics::Metrics;
use crate::pacing::{self, retry_after};

/// The longest wait that an endpoint may ask for at a time; the batch's deadline ends it earlier.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

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
    /// No request starts before this moment: the endpoint has asked to slow down.
    resume: Mutex<Option<Instant>>,
    metrics: Arc<Metrics>,
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
    input: &'a [String],
    encoding_format: Encoding,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
}

/// Why an attempt gave no answer, and what may be done about it.
enum Fault {
    /// The endpoint asks to slow down, perhaps saying for how long.
    Pace(Error, Option<Duration>),
    /// It may go better next time.
    Transient(Error, Option<Duration>),
    /// It will not go better.
    Final(Error),
}

impl Client {
    /// # Errors
    /// `Config` for a key that is missing or cannot be sent.
    pub(super) fn new(target: Target, options: &RemoteOptions, metrics: Arc<Metrics>) -> Result<Client> {
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
            resume: Mutex::new(None),
            metrics,
        })
    }

    /// The vector of each text or why there is none, in order.
    ///
    /// Cancel safety: dropping the future ends the request; what the endpoint has done is lost.
    ///
    /// # Errors
    /// `Upstream` after the last attempt or where another would come too late, `Timeout` if the last took too long.
    pub(super) async fn embed(&self, texts: &[String]) -> Result<Vec<Result<Vector>>> {
        let deadline = Instant::now() + Duration::from_millis(self.options.deadline_ms);
        let mut failures = 0;
        let mut paces = 0;
        loop {
            self.until_resumed(deadline).await?;
            let timeout = deadline.min(Instant::now() + Duration::from_millis(self.options.timeout_ms));
            let attempt = tokio::time::timeout_at(timeout, self.attempt(texts)).await;
            let late =
                Fault::Transient(Error::new(Kind::Timeout, "wait for the remote model's answer"), None);
            let fault = match attempt.unwrap_or(Err(late)) {
                Ok(vectors) => return Ok(vectors),
                Err(fault) => fault,
            };
            let (error, wait) = match fault {
                Fault::Final(error) => return Err(error),
                Fault::Pace(error, asked) => {
                    paces += 1;
                    let wait = self.backoff(paces, asked);
                    self.pause(wait);
                    (error, wait)
                }
                Fault::Transient(error, asked) => {
                    failures += 1;
                    if failures > self.options.retries_max {
                        return Err(error.with("attempts", failures));
                    }
                    (error, self.backoff(failures, asked))
                }
            };
            let next = Instant::now() + wait;
            if next >= deadline {
                // Waiting for a deadline that cannot be met would only make the callers wait.
                return Err(error.with("deadline_ms", self.options.deadline_ms));
            }
            self.metrics.upstream_retries.inc();
            tokio::time::sleep_until(next).await;
        }
    }

    /// One request and its answer.
    async fn attempt(&self, texts: &[String]) -> Result<Vec<Result<Vector>>, Fault> {
        let body = Request {
            model: &self.target.model,
            input: texts,
            encoding_format: self.options.encoding,
            dimensions: self.options.sends_dimensions.then_some(self.target.dim),
        };
        let mut request = self.http.post(&self.target.url).json(&body);
        if let Some(Secret(key)) = &self.key {
            request = request.header(AUTHORIZATION, key.clone());
        }
        let response = request.send().await.map_err(|error| unreachable_fault(error.without_url()))?;
        let status = response.status();
        if !status.is_success() {
            return Err(refused(status, response).await);
        }
        let numbers = texts.len().saturating_mul(self.target.dim);
        let limit = numbers.saturating_mul(ANSWER_BYTES_PER_NUMBER).saturating_add(ANSWER_BYTES_EXTRA);
        let body = read_body(response, limit).await?;
        let lengths: Vec<usize> = texts.iter().map(String::len).collect();
        let dim = self.target.dim;
        if body.len() <= INLINE_BYTES {
            return reply::read(&body, &lengths, dim).map_err(Fault::Final);
        }
        let read = tokio::task::spawn_blocking(move || reply::read(&body, &lengths, dim)).await;
        let lost = |error| Error::new(Kind::Internal, "read the remote model's answer").source(error);
        read.map_err(lost).flatten().map_err(Fault::Final)
    }

    /// How long to wait before the next attempt: what the endpoint asks for and a little more, or ever longer.
    fn backoff(&self, attempt: u32, asked: Option<Duration>) -> Duration {
        let first = Duration::from_millis(self.options.backoff_ms);
        match asked {
            Some(asked) => asked.min(RETRY_AFTER_MAX) + first.min(asked).mul_f64(pacing::random() / 2.0),
            None => pacing::backoff(attempt, first, Duration::from_millis(self.options.backoff_ms_max)),
        }
    }

    /// Makes every request wait.
    fn pause(&self, wait: Duration) {
        let until = Some(Instant::now() + wait);
        let mut resume = self.resume.lock().unwrap_or_else(PoisonError::into_inner);
        *resume = (*resume).max(until);
    }

    async fn until_resumed(&self, deadline: Instant) -> Result<()> {
        let resume = *self.resume.lock().unwrap_or_else(PoisonError::into_inner);
        match resume {
            Some(moment) if moment >= deadline => {
                Err(Error::new(Kind::Upstream, "wait for the remote model's rate limit")
                    .with("deadline_ms", self.options.deadline_ms))
            }
            Some(moment) => {
                tokio::time::sleep_until(moment).await;
                Ok(())
            }
            None => Ok(()),
        }
    }
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

fn unreachable_fault(error: reqwest::Error) -> Fault {
    Fault::Transient(Error::new(Kind::Upstream, "ask the remote model").source(error), None)
}

/// Sorts an answer that is no success.
async fn refused(status: StatusCode, response: Response) -> Fault {
    let asked = retry_after(|name| response.headers().get(name)?.to_str().ok());
    let body = read_body(response, ERROR_BYTES).await.unwrap_or_default();
    let error: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let said = |field: &str| error.pointer(field).and_then(serde_json::Value::as_str);
    let mut fault = Error::new(Kind::Upstream, "ask the remote model").with("status", status.as_u16());
    if let Some(message) = said("/error/message") {
        // The endpoint's words, on one line and not at any length.
        let words: Vec<&str> = message.split_whitespace().collect();
        fault = fault.with("message", words.join(" ").chars().take(300).collect::<String>());
    }
    // A quota that is used up answers like a rate limit but does not pass.
    let is_used_up = said("/error/code") == Some("insufficient_quota");
    match status {
        StatusCode::TOO_MANY_REQUESTS if !is_used_up => Fault::Pace(fault, asked),
        StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT => Fault::Transient(fault, asked),
        _ if status.is_server_error() => Fault::Transient(fault, asked),
        _ => Fault::Final(fault),
    }
}

/// The whole body, unless it is longer than any right answer.
async fn read_body(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable_fault(error.without_url()))? {
        if body.len() + chunk.len() > bytes_max {
            let error = Error::new(Kind::Upstream, "read the remote model's answer: it is too long");
            return Err(Fault::Final(error.with("bytes_max", bytes_max)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
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
