//! What answers the lines of a job that warms: the routes of this server, without a connection.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::Response;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::admission::HttpService;
use super::extract::body::read;
use super::objects::put_absent;
use super::response::headers::CACHE_STATUS;
use crate::domain::Principal;
use crate::embed::ModelRegistry;
use crate::error::{Error, Kind, Result};
use crate::pacing::{is_busy, retry_after};
use crate::service::Objects;
use crate::service::warming::{LineRequest, WarmOutcome, WarmTarget};

/// Bytes of an answer that are read: those of the largest answer that may be stored, about.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How long a line waits for clients, at most.
const IDLE_WITHIN: Duration = Duration::from_secs(1);
/// How often it is looked whether requests of clients are under way.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a server is left alone that is busy and says nothing.
const BUSY_WAIT: Duration = Duration::from_secs(1);
/// The longest wait that a busy server or model may ask for.
const BUSY_MAX: Duration = Duration::from_secs(300);
/// Bytes of an answer that is no JSON, in the reason of a refusal.
const REASON_BYTES_MAX: usize = 200;

/// The routes of this server.
pub struct OwnRoutes {
    service: HttpService,
    objects: Arc<Objects>,
    models: Arc<ModelRegistry>,
}

/// What is read of an answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AnswerFields {
    usage: Option<UsageFields>,
    error: Option<ErrorFields>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct UsageFields {
    completion_tokens: u32,
    /// The same, as responses and messages name it.
    output_tokens: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorFields {
    message: String,
}

impl OwnRoutes {
    /// The routes of `service`.
    pub fn new(service: HttpService, objects: Arc<Objects>, models: Arc<ModelRegistry>) -> OwnRoutes {
        OwnRoutes { service, objects, models }
    }

    async fn post(&self, line: &LineRequest, only_if_cached: bool) -> WarmOutcome {
        match self.try_post(line, only_if_cached).await {
            Ok(outcome) => outcome,
            Err(error) => WarmOutcome::Refused(error.to_string()),
        }
    }

    async fn try_post(&self, line: &LineRequest, only_if_cached: bool) -> Result<WarmOutcome> {
        let response = self.service.answer_own(request(line, only_if_cached)?).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        if only_if_cached && status == StatusCode::GATEWAY_TIMEOUT {
            return Ok(WarmOutcome::Missing);
        }
        let fields = fields_of(response).await?;
        Ok(outcome(status, &headers, fields))
    }

    /// Stores the object of a line, if there is none under its key.
    async fn store(&self, line: &LineRequest) -> WarmOutcome {
        let [_, _, namespace, _] = &line.path[..] else {
            return WarmOutcome::Refused("its path is not that of objects".to_owned());
        };
        match put_absent(&self.objects, &Principal::default(), namespace, line.body.as_bytes()).await {
            Ok(0) => WarmOutcome::Cached,
            Ok(_) => WarmOutcome::Made { completion_tokens: 0 },
            Err(error) if error.kind() == Kind::Overloaded => WarmOutcome::Busy(BUSY_WAIT),
            Err(error) => WarmOutcome::Refused(error.to_string()),
        }
    }
}

impl WarmTarget for OwnRoutes {
    fn look_up<'a>(&'a self, line: &'a LineRequest) -> BoxFuture<'a, WarmOutcome> {
        if line.kind == "objects" { self.store(line).boxed() } else { self.post(line, true).boxed() }
    }

    fn make<'a>(&'a self, line: &'a LineRequest) -> BoxFuture<'a, WarmOutcome> {
        self.post(line, false).boxed()
    }

    fn when_idle(&self) -> BoxFuture<'_, ()> {
        let idle = async {
            while self.service.requests_in_flight() > 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        // A server that is never idle is warmed all the same.
        tokio::time::timeout(IDLE_WITHIN, idle).map(|_| ()).boxed()
    }

    fn default_model(&self) -> Option<&str> {
        self.models.default_model().ok().map(|model| &*model.card().name)
    }

    fn is_own_model(&self, model: &str) -> bool {
        self.models.find(model).is_some()
    }
}

fn request(line: &LineRequest, only_if_cached: bool) -> Result<Request<Body>> {
    let path = line.path.iter().map(|part| format!("/{}", utf8_percent_encode(part, NON_ALPHANUMERIC)));
    let request = Request::builder()
        .method(Method::POST)
        .uri(path.collect::<String>())
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let request = line.headers().iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let request = if only_if_cached {
        request.header(header::CACHE_CONTROL, HeaderValue::from_static("only-if-cached"))
    } else {
        request
    };
    request
        .body(Body::from(line.body.clone()))
        .map_err(|error| Error::new(Kind::InvalidInput, "the line names no path").source(error))
}

async fn fields_of(response: Response) -> Result<AnswerFields> {
    let body = read(response.into_body(), ANSWER_BYTES_MAX).await?;
    let as_text = || {
        let text = String::from_utf8_lossy(&body[..body.len().min(REASON_BYTES_MAX)]).into_owned();
        AnswerFields { usage: None, error: Some(ErrorFields { message: text }) }
    };
    Ok(serde_json::from_slice(&body).unwrap_or_else(|_| as_text()))
}

fn outcome(status: StatusCode, headers: &HeaderMap, fields: AnswerFields) -> WarmOutcome {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    if status.is_success() {
        let is_hit = header(CACHE_STATUS.as_str())
            .is_some_and(|status| status.split(';').any(|part| part.trim() == "hit"));
        let usage = fields.usage.unwrap_or_default();
        let completion_tokens = usage.completion_tokens.max(usage.output_tokens);
        return if is_hit { WarmOutcome::Cached } else { WarmOutcome::Made { completion_tokens } };
    }
    if is_busy(status.as_u16(), header) {
        return WarmOutcome::Busy(retry_after(header).unwrap_or(BUSY_WAIT).min(BUSY_MAX));
    }
    let reason = fields.error.unwrap_or_default().message;
    WarmOutcome::Refused(format!("{} {reason}", status.as_u16()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(path: &[&str]) -> LineRequest {
        LineRequest {
            kind: "texts",
            path: path.iter().map(|&part| part.to_owned()).collect(),
            body: "{}".into(),
        }
    }

    #[test]
    fn each_part_of_a_path_stays_one() {
        let of = |path: &[&str]| request(&line(path), false).unwrap().uri().to_string();
        assert_eq!(of(&["v1", "embeddings"]), "/v1/embeddings");
        assert_eq!(of(&["v1", "collections", "a/b?c", "search"]), "/v1/collections/a%2Fb%3Fc/search");
        let cached = request(&line(&["v1"]), true).unwrap();
        assert_eq!(cached.headers()[header::CACHE_CONTROL], "only-if-cached");
        let message = request(&line(&["v1", "messages"]), true).unwrap();
        assert_eq!(message.headers()["anthropic-version"], "2023-06-01");
    }

    #[test]
    fn an_answer_says_what_became_of_the_line() {
        let of = |status: u16, headers: &[(&'static str, &str)], body: &str| {
            let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            let fields = serde_json::from_str(body).unwrap();
            outcome(StatusCode::from_u16(status).unwrap(), &headers.collect(), fields)
        };
        let usage = r#"{"usage":{"prompt_tokens":3,"completion_tokens":7}}"#;
        assert_eq!(of(200, &[], usage), WarmOutcome::Made { completion_tokens: 7 });
        let usage = r#"{"usage":{"input_tokens":3,"output_tokens":9}}"#;
        assert_eq!(of(200, &[], usage), WarmOutcome::Made { completion_tokens: 9 });
        assert_eq!(of(529, &[("retry-after", "3")], "{}"), WarmOutcome::Busy(Duration::from_secs(3)));
        assert_eq!(
            of(200, &[("cache-status", "likewise; fwd=miss")], "{}"),
            WarmOutcome::Made { completion_tokens: 0 }
        );
        assert_eq!(of(200, &[("cache-status", "likewise; hit; ttl=9")], usage), WarmOutcome::Cached);
        assert_eq!(of(429, &[("retry-after", "3")], "{}"), WarmOutcome::Busy(Duration::from_secs(3)));
        assert_eq!(of(503, &[("retry-after", "9999")], "{}"), WarmOutcome::Busy(BUSY_MAX));
        let refused = r#"{"error":{"message":"no such model"}}"#;
        for (status, headers) in [(404, &[][..]), (429, &[("x-should-retry", "false")])] {
            let expected = WarmOutcome::Refused(format!("{status} no such model"));
            assert_eq!(of(status, headers, refused), expected);
        }
    }
}
