//! Requests for embeddings of a model that only an upstream has.

use std::sync::Arc;

use axum::http::HeaderName;
use axum::http::request::Parts;

use super::input::EmbeddingInput;
use super::wire::{EmbeddingsRequest, EncodingFormat};
use crate::domain::Principal;
use crate::error::Result;
use crate::http::extract::credential::credential;
use crate::http::extract::directives::CacheObject;
use crate::http::extract::forwarded_headers::forwarded_headers;
use crate::http::extract::known_members::{KnownMembers, known_members};
use crate::http::extract::trace_headers::trace_headers;
use crate::service::embeddings::{InputForm, UpstreamRequest};

/// Fields of requests whose vectors are cached. Others may change the form of the reply: such requests are passed on.
const KNOWN: [&str; 9] =
    ["cache", "dimensions", "encoding_format", "input", "input_type", "model", "task", "truncate", "user"];
/// Fields that are not sent along as they came.
const OURS: [&str; 2] = ["cache", "input"];

/// What a body asks of a model of an upstream.
pub(super) struct ParsedUpstreamRequest {
    model: String,
    inputs: Vec<String>,
    form: InputForm,
    fields: KnownMembers,
    cache: CacheObject,
    pub(super) format: EncodingFormat,
    /// The length of the vectors, if the request asks for one.
    pub(super) dimensions: Option<usize>,
}

impl ParsedUpstreamRequest {
    /// Reads a body. Gives `wire` back if only the upstream can judge it: it has other fields than those that are known here, or an
    /// empty input.
    pub(super) fn read(
        wire: EmbeddingsRequest,
        body: &[u8],
    ) -> Result<ParsedUpstreamRequest, Box<EmbeddingsRequest>> {
        let members = known_members(body, &KNOWN).filter(|_| !has_empty(&wire.input));
        let Some(mut fields) = members else { return Err(Box::new(wire)) };
        fields.retain(|name, value| !OURS.contains(&name.as_str()) && value.get() != "null");
        let dimensions = wire.dimensions.and_then(|dimensions| usize::try_from(dimensions).ok());
        let cache = wire.cache.unwrap_or_default();
        let parsed =
            ParsedUpstreamRequest::of(wire.model, wire.input, fields, wire.encoding_format, dimensions);
        Ok(ParsedUpstreamRequest { cache, ..parsed })
    }

    /// A request that was made in another API. `None` if it has an empty input. `fields` are those of OpenAI's API but `input`.
    pub(super) fn new(
        model: String,
        input: EmbeddingInput,
        fields: KnownMembers,
        format: EncodingFormat,
        dimensions: Option<usize>,
    ) -> Option<ParsedUpstreamRequest> {
        let is_empty = has_empty(&input);
        (!is_empty).then(|| ParsedUpstreamRequest::of(model, input, fields, format, dimensions))
    }

    fn of(
        model: String,
        input: EmbeddingInput,
        fields: KnownMembers,
        format: EncodingFormat,
        dimensions: Option<usize>,
    ) -> ParsedUpstreamRequest {
        let (form, inputs) = match input {
            EmbeddingInput::Texts(texts) => (InputForm::Text, texts),
            EmbeddingInput::Tokens(lists) => {
                (InputForm::TokenIds, lists.iter().map(|ids| json_of(ids)).collect())
            }
        };
        let cache = CacheObject::default();
        ParsedUpstreamRequest { model, inputs, form, fields, cache, format, dimensions }
    }

    /// The name of the model.
    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// The request of the use case.
    ///
    /// # Errors
    /// `InvalidInput` about a header.
    pub(super) fn into_request(
        self,
        head: &Parts,
        passed_on: &[HeaderName],
        principal: Arc<Principal>,
    ) -> Result<UpstreamRequest> {
        Ok(UpstreamRequest {
            model: self.model,
            inputs: self.inputs,
            form: self.form,
            fields: self.fields,
            headers: forwarded_headers(&head.headers, passed_on)?,
            traces: trace_headers(&head.headers),
            credential: credential(&head.headers),
            principal,
            directives: self.cache.with_headers(&head.headers)?,
        })
    }
}

/// Whether an input is empty, or there is none.
fn has_empty(input: &EmbeddingInput) -> bool {
    match input {
        EmbeddingInput::Texts(texts) => texts.is_empty() || texts.iter().any(String::is_empty),
        EmbeddingInput::Tokens(lists) => lists.iter().any(Vec::is_empty),
    }
}

/// A list of token ids in JSON.
fn json_of(ids: &[u32]) -> String {
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    format!("[{}]", ids.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::extract::json::parse;

    fn read(body: &str) -> Result<ParsedUpstreamRequest, Box<EmbeddingsRequest>> {
        ParsedUpstreamRequest::read(parse(body.as_bytes()).unwrap(), body.as_bytes())
    }

    #[test]
    fn known_fields_are_sent_along_as_they_came() {
        let parsed = read(
            r#"{"model": "m", "input": ["a", "b"], "dimensions": 256, "encoding_format": "base64", "user": null,
                "input_type": "query", "cache": {"no-store": true}}"#,
        );
        let parsed = parsed.unwrap_or_else(|_| panic!("it is known"));
        let fields: Vec<_> = parsed.fields.iter().map(|(name, value)| (name.as_str(), value.get())).collect();
        assert_eq!(
            fields,
            [
                ("dimensions", "256"),
                ("encoding_format", "\"base64\""),
                ("input_type", "\"query\""),
                ("model", "\"m\"")
            ]
        );
        assert_eq!((parsed.inputs, parsed.form), (vec!["a".to_owned(), "b".into()], InputForm::Text));
        assert_eq!(parsed.dimensions, Some(256));
    }

    #[test]
    fn token_ids_stay_ids() {
        let parsed =
            read(r#"{"model": "m", "input": [[1, 2], [3]]}"#).unwrap_or_else(|_| panic!("it is known"));
        assert_eq!(
            (parsed.inputs, parsed.form),
            (vec!["[1,2]".to_owned(), "[3]".into()], InputForm::TokenIds)
        );
    }

    #[test]
    fn what_only_the_upstream_can_judge_is_left_to_it() {
        for body in [
            r#"{"model": "m", "input": "a", "output_dtype": "int8"}"#,
            r#"{"model": "m", "input": []}"#,
            r#"{"model": "m", "input": ["a", ""]}"#,
            r#"{"model": "m", "input": [[]]}"#,
        ] {
            assert!(read(body).is_err(), "{body}");
        }
    }
}
