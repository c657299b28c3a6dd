//! `POST /tokenize` of Text Embeddings Inference: the tokens of texts, as the default model reads them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::input_type_of;
use crate::embed::TextToken;
use crate::error::{Error, Kind, Result};
use crate::http::embeddings::Endpoint;
use crate::http::embeddings::input::EmbeddingInput;
use crate::http::error_response::Problem;
use crate::http::extract::body::Received;
use crate::http::extract::field_names::FieldNames;
use crate::http::offload::offload;
use crate::http::reservation::ResponseReservation;

/// What the answer to a byte of text may take while it is made: a token of its own, and that in JSON.
const BYTES_PER_INPUT_BYTE: usize = 192;

const FIELDS: FieldNames = FieldNames(&[("texts", "inputs")]);

#[derive(Deserialize)]
struct TokenizeRequest {
    inputs: EmbeddingInput,
    #[serde(default = "adds_special_tokens")]
    add_special_tokens: bool,
    prompt_name: Option<String>,
}

fn adds_special_tokens() -> bool {
    true
}

/// A token as the API has it. `start` and `stop` are bytes of the text, and null for a special token.
#[derive(Serialize)]
struct WireToken<'a> {
    id: u32,
    text: &'a str,
    special: bool,
    start: Option<usize>,
    stop: Option<usize>,
}

impl<'a> From<&'a TextToken> for WireToken<'a> {
    fn from(token: &'a TextToken) -> WireToken<'a> {
        let (start, stop) = token.span.as_ref().map(|span| (span.start, span.end)).unzip();
        WireToken { id: token.id, text: &token.text, special: token.span.is_none(), start, stop }
    }
}

/// A list for each input, also if there is only one. Nothing is truncated.
pub(super) async fn create(
    State(endpoint): State<Arc<Endpoint>>,
    Received { body, .. }: Received,
) -> Result<Response, Problem> {
    let asked: TokenizeRequest = body.json().await?;
    let EmbeddingInput::Texts(mut texts) = asked.inputs else {
        return Err(Error::invalid("inputs", "inputs must be a text or a list of texts").into());
    };
    if texts.is_empty() {
        return Err(Error::invalid("inputs", "inputs must not be an empty list").into());
    }
    let model = Arc::clone(endpoint.models.default_model()?);
    if let Some(name) = asked.prompt_name.as_deref() {
        let prompt = model.card().prompts.for_input(Some(input_type_of("prompt_name", name)?));
        texts.iter_mut().for_each(|text| text.insert_str(0, prompt));
    }
    let bytes: usize = texts.iter().map(String::len).sum();
    let held = ResponseReservation::reserve(&endpoint.budget, bytes.saturating_mul(BYTES_PER_INPUT_BYTE))?;
    let embeddings = Arc::clone(&endpoint.embeddings);
    let work = move || json(&embeddings.tokenize(&*model, &texts, asked.add_special_tokens)?);
    let json = offload(bytes, work).await?.map_err(|error| FIELDS.apply(error))?;
    let mut response = Response::new(Body::from(json));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(held.attach(response))
}

fn json(all: &[Vec<TextToken>]) -> Result<Vec<u8>> {
    let lists: Vec<Vec<WireToken<'_>>> =
        all.iter().map(|tokens| tokens.iter().map(WireToken::from).collect()).collect();
    serde_json::to_vec(&lists)
        .map_err(|error| Error::new(Kind::Internal, "cannot write tokens").source(error))
}
