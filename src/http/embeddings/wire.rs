//! The bodies of requests for embeddings and of their answers, as OpenAI's clients write and read them.

use serde::Deserialize;
use utoipa::ToSchema;

use super::input::EmbeddingInput;
use crate::http::extract::directives::CacheObject;
use crate::http::extract::json::{null_is_default, object};

/// A request for embeddings. Other fields are ignored; for a model that only an upstream has they are passed on with the request, which is not
/// cached then.
#[derive(Debug, Deserialize, ToSchema)]
pub(in crate::http) struct EmbeddingsRequest {
    /// Name of the model, as `/v1/models` lists it.
    #[schema(min_length = 1)]
    pub(in crate::http) model: String,
    /// The texts to embed, or their token ids.
    pub(in crate::http) input: EmbeddingInput,
    /// How vectors are written: `float` (default) or `base64` (little-endian f32).
    #[serde(default, deserialize_with = "null_is_default")]
    pub(in crate::http) encoding_format: EncodingFormat,
    /// Length of the vectors; other than the model's own only if the model was trained for it (Matryoshka).
    #[schema(minimum = 1)]
    pub(in crate::http) dimensions: Option<u32>,
    /// The use of the texts, which selects the prompt of the model.
    pub(in crate::http) input_type: Option<InputTypeName>,
    /// Whether a text longer than the model reads is cut (default) or refused.
    pub(in crate::http) truncate: Option<bool>,
    /// The cache directives of the request.
    #[serde(default, deserialize_with = "object")]
    pub(in crate::http) cache: Option<CacheObject>,
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum EncodingFormat {
    #[default]
    Float,
    Base64,
}

/// The use of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum InputTypeName {
    #[serde(alias = "search_query")]
    Query,
    #[serde(alias = "search_document", alias = "passage")]
    Document,
}

// `response.rs` writes answers; from here to `Usage` is their shape, for the contract and for the tests that read them.

/// The answer to a request for embeddings.
#[derive(Deserialize, ToSchema)]
#[cfg_attr(test, derive(Debug))]
#[cfg_attr(not(test), expect(dead_code, reason = "describes the shape in the OpenAPI document"))]
pub(super) struct EmbeddingsAnswer {
    /// `list`.
    pub(in crate::http) object: String,
    /// One element for each input, in the order of the inputs.
    pub(in crate::http) data: Vec<EmbeddingObject>,
    /// The model that embedded.
    pub(in crate::http) model: String,
    /// Tokens of the inputs, cached ones included.
    pub(super) usage: Usage,
}

/// One vector.
#[derive(Deserialize, ToSchema)]
#[cfg_attr(test, derive(Debug))]
#[cfg_attr(not(test), expect(dead_code, reason = "describes the shape in the OpenAPI document"))]
pub(super) struct EmbeddingObject {
    /// `embedding`.
    pub(in crate::http) object: String,
    /// The place of the input in the request.
    pub(in crate::http) index: usize,
    /// The vector.
    pub(in crate::http) embedding: Vector,
}

/// A vector as the request asked for it.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[cfg_attr(test, derive(Debug, PartialEq))]
#[cfg_attr(not(test), expect(dead_code, reason = "describes the shape in the OpenAPI document"))]
pub(in crate::http) enum Vector {
    /// Numbers.
    Float(Vec<f32>),
    /// Little-endian f32 in base64.
    Base64(String),
}

/// Tokens of a request.
#[derive(Deserialize, ToSchema)]
#[cfg_attr(test, derive(Debug))]
#[cfg_attr(not(test), expect(dead_code, reason = "describes the shape in the OpenAPI document"))]
pub(super) struct Usage {
    /// Tokens that the model read.
    pub(super) prompt_tokens: u64,
    /// The same: nothing is generated.
    pub(super) total_tokens: u64,
}
