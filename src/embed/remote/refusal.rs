//! What an endpoint's refusal means: for the operator, for the sender of a text, and for the rest of its batch.

use reqwest::StatusCode;
use serde_json::Value;

use crate::error::{Error, Kind};

/// Characters of an endpoint's message that are passed on.
const MESSAGE_CHARS_MAX: usize = 300;

/// Where the cause of a failure lies, which says whether asking for parts of the batch may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The endpoint, the network or the configuration: a part of the batch would fail alike.
    Endpoint,
    /// A text of the batch.
    Text,
    /// A text, or the endpoint: some answer 500 or nonsense to a text that is too long.
    Unclear,
}

/// Why a batch has no vectors.
#[derive(Debug)]
pub(super) struct Failure {
    /// The error for all texts of the batch. It holds no word of the endpoint unless the cause is a text.
    pub(super) error: Error,
    pub(super) cause: Cause,
}

/// What an endpoint said with a status that is no success.
pub(super) struct Said {
    status: StatusCode,
    /// One line, cut.
    message: Option<String>,
    code: Option<String>,
}

impl Said {
    /// Reads the body of an error, whatever its shape.
    pub(super) fn read(status: StatusCode, body: &[u8]) -> Said {
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
        Said { status, message, code }
    }

    /// The message for the operator's log, without the key.
    pub(super) fn for_log(&self, shows_key: impl Fn(&str) -> bool) -> String {
        let words = self.message.iter().flat_map(|message| message.split(' '));
        words.map(|word| if shows_key(word) { "***" } else { word }).collect::<Vec<&str>>().join(" ")
    }

    /// A quota that is used up answers like a rate limit but does not pass.
    pub(super) fn is_used_up(&self) -> bool {
        self.code.as_deref() == Some("insufficient_quota")
    }

    /// The failure of the batch. `is_secret` recognizes words that no client may see.
    pub(super) fn failure(&self, is_secret: impl Fn(&str) -> bool) -> Failure {
        let cause = self.cause();
        let kind = match (cause, self.status) {
            (Cause::Text, StatusCode::BAD_REQUEST) => Kind::InvalidInput,
            (Cause::Text, StatusCode::PAYLOAD_TOO_LARGE) => Kind::TooLarge,
            (Cause::Text, StatusCode::UNPROCESSABLE_ENTITY) => Kind::Unprocessable,
            (Cause::Text | Cause::Endpoint | Cause::Unclear, _) => Kind::Upstream,
        };
        let error = match &self.message {
            Some(message) if kind != Kind::Upstream => {
                let message = redacted(message, is_secret);
                Error::new(kind, format!("the remote model refuses the text: {message}")).param("text")
            }
            None if kind != Kind::Upstream => {
                Error::new(kind, "the remote model refuses the text").param("text")
            }
            Some(_) | None => Error::new(kind, "ask the remote model").with("status", self.status.as_u16()),
        };
        Failure { error, cause }
    }

    fn cause(&self) -> Cause {
        match self.status.as_u16() {
            // Credentials, payment, address, method and form of our requests: the operator's.
            401..=407 | 410 | 411 | 415 | 417 | 421 | 426 | 428 | 431 => Cause::Endpoint,
            429 => Cause::Endpoint,
            400..=499 if self.is_about_configuration() => Cause::Endpoint,
            400..=499 => Cause::Text,
            500 => Cause::Unclear,
            _ => Cause::Endpoint,
        }
    }

    /// Google answers a wrong key with 400, others an unknown model.
    fn is_about_configuration(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default();
        let message = self.message.as_deref().unwrap_or_default().to_lowercase();
        matches!(code, "invalid_api_key" | "model_not_found" | "unsupported_model")
            || ["api key", "api_key", "api-key", "apikey", "unauthorized"]
                .iter()
                .any(|part| message.contains(part))
    }
}

/// A message without addresses and without what may be a key.
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
        let said = Said::read(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        said.failure(|word| word.contains("host.internal") || word.contains("k3y"))
    }

    #[test]
    fn the_status_says_whose_fault_it_is() {
        for (status, cause, kind) in [
            (400, Cause::Text, Kind::InvalidInput),
            (413, Cause::Text, Kind::TooLarge),
            (422, Cause::Text, Kind::Unprocessable),
            (451, Cause::Text, Kind::Upstream),
            (401, Cause::Endpoint, Kind::Upstream),
            (403, Cause::Endpoint, Kind::Upstream),
            (404, Cause::Endpoint, Kind::Upstream),
            (429, Cause::Endpoint, Kind::Upstream),
            (302, Cause::Endpoint, Kind::Upstream),
            (500, Cause::Unclear, Kind::Upstream),
            (503, Cause::Endpoint, Kind::Upstream),
        ] {
            let failure = failure(status, "");
            assert_eq!((failure.cause, failure.error.kind()), (cause, kind), "{status}");
        }
    }

    #[test]
    fn a_wrong_key_or_model_is_never_the_senders_fault() {
        for body in [
            r#"{"error":{"message":"API key not valid. Please pass a valid API key.","code":400}}"#,
            r#"{"error":{"message":"no such model","code":"model_not_found"}}"#,
            r#"{"error":{"message":"Incorrect API key provided: sk-1***9"}}"#,
        ] {
            let failure = failure(400, body);
            assert_eq!((failure.cause, failure.error.kind()), (Cause::Endpoint, Kind::Upstream), "{body}");
            assert_eq!(failure.error.to_string(), "ask the remote model (status: 400)");
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
        let said = failure(400, body).error.to_string();
        assert!(said.ends_with(": see *** at *** with Bearer *** or *** *** end"), "{said}");
        let said = Said::read(StatusCode::BAD_REQUEST, body.as_bytes()).for_log(|word| word.contains("k3y"));
        assert!(
            said.starts_with("see (https://a.b/c) at host.internal:80") && said.ends_with("*** end"),
            "{said}"
        );
        assert!(failure(400, "<html>").error.to_string().ends_with("refuses the text"));
        let long = format!(r#"{{"message":"{}"}}"#, "word ".repeat(1000));
        assert!(failure(400, &long).error.message().len() < 400);
    }
}
