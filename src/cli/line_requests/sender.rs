//! Sends the request of a line, again where the server is busy or restarts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use likewise::error::{Error, Kind, Result};
use likewise::service::warming::LineRequest;
use reqwest::Response;
use reqwest::header::HeaderMap;

use super::pace::RequestPace;
use super::post;
use crate::cli::client::{ServerClient, busy_wait, send, unreachable_wait};

/// The longest wait that a busy server may ask for.
const BUSY_MAX: Duration = Duration::from_secs(300);
/// The longest time for one answer. The server has limits of its own, which are shorter.
const ANSWER_MAX: Duration = Duration::from_secs(1800);

/// Sends requests to one server.
pub(super) struct LineSender {
    client: ServerClient,
    pace: RequestPace,
    /// Whether the server has been reached: one that never was is not waited for.
    has_answered: AtomicBool,
}

/// Where an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Served {
    /// From a cache of the server.
    Cache,
    /// From the work that was done for another request.
    Repeated,
    /// Made for this request.
    Computed,
}

/// The server's answer to a line, read to its end.
#[derive(Debug)]
pub(in crate::cli) struct LineAnswer {
    pub(in crate::cli) status: u16,
    pub(in crate::cli) request_id: String,
    pub(in crate::cli) body: Vec<u8>,
    pub(in crate::cli) served: Served,
}

impl LineSender {
    pub(super) fn new(client: ServerClient, pace: RequestPace) -> LineSender {
        LineSender { client, pace, has_answered: AtomicBool::new(false) }
    }

    /// Sends a request at its turn. The answer of a server that is busy is returned only after several attempts.
    ///
    /// # Errors
    /// `Unavailable` if the server cannot be reached: at once at the beginning, later after several attempts.
    pub(super) async fn send(&self, request: &LineRequest) -> Result<LineAnswer> {
        let mut attempts = 1;
        loop {
            self.pace.turn().await;
            let wait = match self.ask(request, attempts).await {
                Ok(AskOutcome::Answered(answer)) => return Ok(answer),
                Ok(AskOutcome::Busy(wait)) => wait,
                Err(error) => {
                    let wait =
                        unreachable_wait(attempts).filter(|_| self.has_answered.load(Ordering::Relaxed));
                    wait.ok_or(error)?
                }
            };
            self.pace.hold(wait);
            attempts += 1;
        }
    }

    async fn ask(&self, request: &LineRequest, attempts: u32) -> Result<AskOutcome> {
        let response = send(post(request, &self.client).timeout(ANSWER_MAX)).await?;
        self.has_answered.store(true, Ordering::Relaxed);
        match busy_wait(&response, attempts, BUSY_MAX) {
            Some(wait) => Ok(AskOutcome::Busy(wait)),
            None => LineAnswer::read(response).await.map(AskOutcome::Answered),
        }
    }
}

enum AskOutcome {
    Answered(LineAnswer),
    Busy(Duration),
}

impl LineAnswer {
    async fn read(response: Response) -> Result<LineAnswer> {
        let broken = |error| Error::new(Kind::Unavailable, "cannot read the server's answer").source(error);
        let status = response.status().as_u16();
        let request_id = header(response.headers(), "x-request-id").unwrap_or_default().to_owned();
        let served = Served::of(header(response.headers(), "cache-status").unwrap_or_default());
        let body = response.bytes().await.map_err(broken)?.to_vec();
        Ok(LineAnswer { status, request_id, body, served })
    }

    /// Whether the request was answered, and not refused.
    pub(in crate::cli) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What a refusal says.
    pub(in crate::cli) fn message(&self) -> String {
        let said = serde_json::from_slice::<serde_json::Value>(&self.body).ok();
        let message = said.as_ref().and_then(|said| said["error"]["message"].as_str());
        let message = message.map_or_else(|| String::from_utf8_lossy(&self.body), Into::into);
        message.chars().take(500).collect()
    }
}

impl Served {
    /// By the header `cache-status` (RFC 9211) of the answer.
    fn of(cache_status: &str) -> Served {
        let has = |wanted: &str| cache_status.split(';').any(|part| part.trim() == wanted);
        if has("hit") {
            Served::Cache
        } else if has("collapsed") {
            Served::Repeated
        } else {
            Served::Computed
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_where_it_comes_from() {
        for (status, served) in [
            ("likewise; hit; ttl=1500; detail=memory", Served::Cache),
            ("likewise; fwd=miss", Served::Computed),
            ("likewise; fwd=miss; collapsed", Served::Repeated),
            ("likewise; fwd=miss; detail=partial", Served::Computed),
            ("", Served::Computed),
        ] {
            assert_eq!(Served::of(status), served, "{status}");
        }
    }

    #[test]
    fn a_refusal_is_in_the_words_of_the_server() {
        let answer = |body: &str| LineAnswer {
            status: 400,
            request_id: String::new(),
            body: body.into(),
            served: Served::Computed,
        };
        assert_eq!(answer(r#"{"error":{"message":"no such model"}}"#).message(), "no such model");
        assert_eq!(answer("bad gateway").message(), "bad gateway");
        assert!(!answer("").is_success());
    }
}
