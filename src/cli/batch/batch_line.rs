//! A line of a batch, in OpenAI's form (platform.openai.com/docs/guides/batch, "Prepare your batch file").

use std::collections::BTreeMap;

use likewise::error::{Error, Kind, Result};
use likewise::service::warming::LineRequest;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::cli::json_lines::parsed;

/// The routes that a line may name.
const URLS: [&str; 5] =
    ["/v1/embeddings", "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"];

/// The fields of a line, as far as it is a JSON object.
pub(super) struct BatchLine(BTreeMap<String, Box<RawValue>>);

impl BatchLine {
    /// # Errors
    /// `InvalidInput` if the line is no JSON object.
    pub(super) fn read(line: &str) -> Result<BatchLine> {
        parsed(line).map(BatchLine)
    }

    /// # Errors
    /// `InvalidInput` if there is none.
    pub(super) fn custom_id(&self) -> Result<String> {
        let id = self.text("custom_id")?.ok_or_else(|| fault("custom_id is missing"))?;
        if id.is_empty() { Err(fault("custom_id must not be empty")) } else { Ok(id) }
    }

    /// The request that it asks for. Its body is sent as it stands.
    ///
    /// # Errors
    /// `InvalidInput` naming the field that is missing or wrong.
    pub(super) fn request(self) -> Result<LineRequest> {
        if let Some(method) = self.text("method")?.filter(|method| method != "POST") {
            return Err(fault(&format!("method must be POST, got {method:?}")));
        }
        let url = self.text("url")?.ok_or_else(|| fault("url is missing"))?;
        let url = URLS
            .into_iter()
            .find(|known| *known == url)
            .ok_or_else(|| fault(&format!("url must be one of {}, got {url:?}", URLS.join(", "))))?;
        let body = self.0.get("body").ok_or_else(|| fault("body is missing"))?.get();
        let fields: Value = parsed(body)?;
        if !fields.is_object() {
            return Err(fault("body must be a JSON object"));
        }
        if !matches!(fields["stream"], Value::Null | Value::Bool(false)) {
            return Err(fault("body.stream must be false: a batch has whole answers"));
        }
        let path = url.split('/').skip(1).map(str::to_owned).collect();
        Ok(LineRequest { kind: url, path, body: body.to_owned() })
    }

    fn text(&self, field: &str) -> Result<Option<String>> {
        let Some(value) = self.0.get(field) else { return Ok(None) };
        serde_json::from_str(value.get()).map(Some).map_err(|_| fault(&format!("{field} must be a string")))
    }
}

fn fault(message: &str) -> Error {
    Error::new(Kind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Result<LineRequest> {
        let line = BatchLine::read(line)?;
        line.custom_id()?;
        line.request()
    }

    #[test]
    fn a_body_is_sent_as_it_stands() {
        let line =
            r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{ "z": 1e2,  "a":[]}}"#;
        let path = ["v1", "chat", "completions"].map(str::to_owned).to_vec();
        let expected =
            LineRequest { kind: "/v1/chat/completions", path, body: r#"{ "z": 1e2,  "a":[]}"#.into() };
        assert_eq!(request(line).unwrap(), expected);
        assert!(request(r#"{"custom_id":"a","url":"/v1/embeddings","body":{"stream":null}}"#).is_ok());
        for url in ["/v1/responses", "/v1/messages"] {
            let line = format!(r#"{{"custom_id":"a","url":"{url}","body":{{}}}}"#);
            assert_eq!(request(&line).unwrap().kind, url);
        }
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        for (line, what) in [
            ("not json", "cannot read a line"),
            ("[]", "cannot read a line"),
            (r#"{"url":"/v1/embeddings","body":{}}"#, "custom_id is missing"),
            (r#"{"custom_id":7,"url":"/v1/embeddings","body":{}}"#, "custom_id must be a string"),
            (r#"{"custom_id":"","url":"/v1/embeddings","body":{}}"#, "custom_id must not be empty"),
            (r#"{"custom_id":"a","body":{}}"#, "url is missing"),
            (r#"{"custom_id":"a","url":"/v1/files","body":{}}"#, "url must be one of /v1/embeddings, "),
            (r#"{"custom_id":"a","method":"GET","url":"/v1/embeddings","body":{}}"#, "method must be POST"),
            (r#"{"custom_id":"a","url":"/v1/embeddings"}"#, "body is missing"),
            (r#"{"custom_id":"a","url":"/v1/embeddings","body":[1]}"#, "body must be a JSON object"),
            (
                r#"{"custom_id":"a","url":"/v1/completions","body":{"stream":true}}"#,
                "body.stream must be false",
            ),
        ] {
            let error = request(line).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidInput, "{line}");
            assert!(error.message().contains(what), "{line}: {error}");
        }
    }
}
