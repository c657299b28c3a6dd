//! Error replies of an endpoint: the message for the log, the error for clients, and whether a text is the cause.

use std::time::Duration;

use serde_json::Value;

use crate::error::{Error, FieldPath, Kind};

/// Characters of an endpoint's message that are passed on.
const MESSAGE_CHARS_MAX: usize = 300;

/// The cause of a failure. It decides whether the batch is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCause {
    /// The endpoint, the network or the configuration: each part of the batch would fail alike.
    Endpoint,
    /// A text of the batch.
    Text,
    /// A text or the endpoint: some endpoints reply to a text that is too long with 500 or an invalid body.
    Unclear,
}

/// A failed batch.
#[derive(Debug)]
pub struct Failure {
    /// The error of all texts of the batch. It quotes the endpoint only if the cause is a text.
    pub error: Error,
    /// The cause.
    pub cause: FailureCause,
}

/// A reply whose status is not 2xx.
pub struct RefusedReply {
    status: u16,
    /// The endpoint's message in one line, truncated.
    message: Option<String>,
    code: Option<String>,
    /// The field that is at fault.
    param: Option<String>,
}

impl RefusedReply {
    /// Parses the body of an error in any of the known shapes.
    pub fn read(status: u16, body: &[u8]) -> RefusedReply {
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |pointer: &&str| json.pointer(pointer).and_then(Value::as_str);
        // The shapes of OpenAI, Ollama, TEI, FastAPI and its validation, and RFC 9457.
        let places = [
            "/error/message",
            "/error",
            "/message",
            "/detail",
            "/detail/0/msg",
            "/errors/0/message",
            "/title",
        ];
        let message = places.iter().find_map(text).map(|message| {
            let words: Vec<&str> = message.split_whitespace().take(MESSAGE_CHARS_MAX).collect();
            words.join(" ").chars().take(MESSAGE_CHARS_MAX).collect()
        });
        let code = ["/error/code", "/code"].iter().find_map(text).map(str::to_owned);
        let param = text(&"/error/param").map(str::to_owned);
        RefusedReply { status, message, code, param }
    }

    /// The message for the log, without the key.
    pub fn for_log(&self, shows_key: impl Fn(&str) -> bool) -> String {
        let words = self.message.iter().flat_map(|message| message.split(' '));
        words.map(|word| if shows_key(word) { "***" } else { word }).collect::<Vec<&str>>().join(" ")
    }

    /// Whether the quota is used up: the status is that of a rate limit, but a wait does not help.
    pub fn is_used_up(&self) -> bool {
        self.code.as_deref() == Some("insufficient_quota")
    }

    /// The failure of the batch. `is_secret` recognizes words that no client may see.
    pub fn failure(&self, is_secret: impl Fn(&str) -> bool) -> Failure {
        let cause = self.cause();
        let kind = match (cause, self.status) {
            (FailureCause::Text, 400) => Kind::InvalidInput,
            (FailureCause::Text, 413) => Kind::TooLarge,
            (FailureCause::Text, 422) => Kind::Unprocessable,
            (FailureCause::Text | FailureCause::Endpoint | FailureCause::Unclear, _) => Kind::Upstream,
        };
        let error = match &self.message {
            Some(message) if kind != Kind::Upstream => {
                let message = redacted(message, is_secret);
                Error::new(kind, format!("the remote model refused the text: {message}")).param("text")
            }
            None if kind != Kind::Upstream => {
                Error::new(kind, "the remote model refused the text").param("text")
            }
            Some(_) | None => {
                Error::new(kind, "cannot embed by the remote model").with("status", self.status)
            }
        };
        Failure { error, cause }
    }

    /// The failure of a call that was made for one client, as that client would have got it without this server between: with the
    /// status and the words of the endpoint. Another client's text may be the cause where flights are joined, so that a refused
    /// batch is split.
    pub fn passed_on(&self, retry_after: Option<Duration>) -> Failure {
        let kind = match self.status {
            400 => Kind::InvalidInput,
            401 => Kind::Unauthorized,
            403 => Kind::Forbidden,
            404 => Kind::ModelNotFound,
            413 => Kind::TooLarge,
            422 => Kind::Unprocessable,
            429 => Kind::Overloaded,
            _ => Kind::Upstream,
        };
        let message = match &self.message {
            Some(message) => message.clone(),
            None => format!("the upstream refused the texts with status {}", self.status),
        };
        let param = self.param.as_deref().or((kind == Kind::ModelNotFound).then_some("model"));
        let mut error = Error::new(kind, message);
        error = param.iter().fold(error, |error, param| error.param(FieldPath::parse(param)));
        error = retry_after.iter().fold(error, |error, wait| error.retry_after(*wait));
        let names_input = param.is_none_or(|param| param.trim_start_matches("$.").starts_with("input"));
        let is_of_text = names_input && matches!(self.status, 400 | 413 | 422);
        let cause = if is_of_text && !self.is_about_configuration() {
            FailureCause::Unclear
        } else {
            FailureCause::Endpoint
        };
        Failure { error, cause }
    }

    fn cause(&self) -> FailureCause {
        match self.status {
            // Credentials, payment, address, method and form of requests: the operator must fix them.
            401..=407 | 410 | 411 | 415 | 417 | 421 | 426 | 428 | 431 => FailureCause::Endpoint,
            429 => FailureCause::Endpoint,
            400..=499 if self.is_about_configuration() => FailureCause::Endpoint,
            400..=499 => FailureCause::Text,
            500 => FailureCause::Unclear,
            _ => FailureCause::Endpoint,
        }
    }

    /// Google replies to a wrong key with 400, others to an unknown model.
    fn is_about_configuration(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default();
        let message = self.message.as_deref().unwrap_or_default().to_lowercase();
        matches!(code, "invalid_api_key" | "model_not_found" | "unsupported_model")
            || ["api key", "api_key", "api-key", "apikey", "unauthorized"]
                .iter()
                .any(|part| message.contains(part))
    }
}

/// A message with addresses and possible keys masked.
fn redacted(message: &str, is_secret: impl Fn(&str) -> bool) -> String {
    let mut follows_bearer = false;
    let mut shown = |word| {
        let is_hidden = follows_bearer || word_is_secret(word) || is_secret(word);
        follows_bearer = word.eq_ignore_ascii_case("bearer");
        if is_hidden { "***" } else { word }
    };
    message.split(' ').map(&mut shown).collect::<Vec<&str>>().join(" ")
}

fn word_is_secret(word: &str) -> bool {
    let bare = word.trim_start_matches(['"', '\'', '`', '(', '[', '<']);
    bare.contains("://") || bare.contains("***") || bare.starts_with("sk-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, body: &str) -> Failure {
        let reply = RefusedReply::read(status, body.as_bytes());
        reply.failure(|word| word.contains("host.internal") || word.contains("k3y"))
    }

    #[test]
    fn the_status_says_whose_fault_it_is() {
        for (status, cause, kind) in [
            (400, FailureCause::Text, Kind::InvalidInput),
            (413, FailureCause::Text, Kind::TooLarge),
            (422, FailureCause::Text, Kind::Unprocessable),
            (451, FailureCause::Text, Kind::Upstream),
            (401, FailureCause::Endpoint, Kind::Upstream),
            (403, FailureCause::Endpoint, Kind::Upstream),
            (404, FailureCause::Endpoint, Kind::Upstream),
            (429, FailureCause::Endpoint, Kind::Upstream),
            (302, FailureCause::Endpoint, Kind::Upstream),
            (500, FailureCause::Unclear, Kind::Upstream),
            (503, FailureCause::Endpoint, Kind::Upstream),
        ] {
            let failure = failure(status, "");
            assert_eq!((failure.cause, failure.error.kind()), (cause, kind), "{status}");
        }
    }

    #[test]
    fn a_clients_own_call_fails_with_the_endpoints_status_and_words() {
        let passed_on = |status, body: &str| RefusedReply::read(status, body.as_bytes()).passed_on(None);
        for (status, kind) in [
            (400, Kind::InvalidInput),
            (401, Kind::Unauthorized),
            (403, Kind::Forbidden),
            (404, Kind::ModelNotFound),
            (413, Kind::TooLarge),
            (422, Kind::Unprocessable),
            (429, Kind::Overloaded),
            (500, Kind::Upstream),
        ] {
            let Failure { error, .. } = passed_on(status, r#"{"error":{"message":"no, since"}}"#);
            assert_eq!((error.kind(), error.message()), (kind, "no, since"), "{status}");
        }
        let of_field = passed_on(400, r#"{"error":{"message":"m","param":"dimensions"}}"#);
        assert_eq!(
            (of_field.cause, of_field.error.param_name()),
            (FailureCause::Endpoint, Some("dimensions"))
        );
        for body in ["", r#"{"error":{"message":"m","param":"$.input"}}"#] {
            assert_eq!(passed_on(400, body).cause, FailureCause::Unclear, "{body}");
        }
        let asked = RefusedReply::read(429, b"").passed_on(Some(Duration::from_secs(7)));
        assert_eq!(asked.error.retry_after_seconds(), Some(7));
    }

    #[test]
    fn a_wrong_key_or_model_is_never_the_senders_fault() {
        for body in [
            r#"{"error":{"message":"API key not valid. Please pass a valid API key.","code":400}}"#,
            r#"{"error":{"message":"no such model","code":"model_not_found"}}"#,
            r#"{"error":{"message":"Incorrect API key provided: sk-1***9"}}"#,
        ] {
            let failure = failure(400, body);
            assert_eq!(
                (failure.cause, failure.error.kind()),
                (FailureCause::Endpoint, Kind::Upstream),
                "{body}"
            );
            assert_eq!(failure.error.to_string(), "cannot embed by the remote model (status: 400)");
        }
    }

    #[test]
    fn the_message_is_passed_on_without_addresses_and_keys() {
        for body in [
            r#"{"error":{"message":"too\n long"}}"#,
            r#"{"error":"too long"}"#,
            r#"{"message":"too long"}"#,
            r#"{"detail":"too long"}"#,
            r#"{"detail":[{"loc":["body","input"],"msg":"too long"}]}"#,
        ] {
            assert!(failure(422, body).error.message().ends_with(": too long"), "{body}");
        }
        let body = r#"{"error":{"message":"see (https://a.b/c) at host.internal:80 with Bearer abc or sk-9 \"k3y\" end"}}"#;
        let reply = failure(400, body).error.to_string();
        assert!(reply.ends_with(": see *** at *** with Bearer *** or *** *** end"), "{reply}");
        let reply = RefusedReply::read(400, body.as_bytes()).for_log(|word| word.contains("k3y"));
        assert!(
            reply.starts_with("see (https://a.b/c) at host.internal:80") && reply.ends_with("*** end"),
            "{reply}"
        );
        assert!(failure(400, "<html>").error.to_string().ends_with("refused the text"));
        let long = format!(r#"{{"message":"{}"}}"#, "word ".repeat(1000));
        assert!(failure(400, &long).error.message().len() < 400);
    }
}
