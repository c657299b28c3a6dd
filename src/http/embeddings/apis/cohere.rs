//! Cohere: `POST /v2/embed`, for texts.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Response;
use axum::routing::post;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::{ApiRequest, embed, input_type_of, route};
use crate::domain::Principal;
use crate::error::{Error, Result};
use crate::http::admission::ConcurrencyPermit;
use crate::http::embeddings::Endpoint;
use crate::http::embeddings::input::EmbeddingInput;
use crate::http::embeddings::response::{append_rows, append_value, bytes_max};
use crate::http::embeddings::vectors::ResponseVectors;
use crate::http::embeddings::wire::EncodingFormat;
use crate::http::error_response::Problem;
use crate::http::extract::body::Received;
use crate::http::extract::bounded_list::BoundedList;
use crate::http::routes::Routes;

/// Names of types in a request: Cohere has six.
const TYPES_MAX: usize = 8;

#[derive(Deserialize)]
struct CohereRequest {
    model: String,
    texts: Option<EmbeddingInput>,
    images: Option<IgnoredAny>,
    inputs: Option<IgnoredAny>,
    input_type: Option<String>,
    embedding_types: Option<BoundedList<String, TYPES_MAX>>,
    output_dimension: Option<u32>,
    truncate: Option<String>,
}

pub(super) fn routes() -> Routes<Arc<Endpoint>> {
    route(Routes::new(), "/v2/embed", post(create))
}

async fn create(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(permit): Extension<Arc<ConcurrencyPermit>>,
    Received { head, body }: Received,
) -> Result<Response, Problem> {
    let asked: CohereRequest = body.json().await?;
    if asked.images.is_some() || asked.inputs.is_some() {
        return Err(Error::invalid("texts", "texts must be given: images are not embedded here").into());
    }
    let texts = match asked.texts {
        Some(EmbeddingInput::Texts(texts)) => texts,
        Some(EmbeddingInput::Tokens(_)) | None => {
            return Err(Error::invalid("texts", "texts must be a list of texts").into());
        }
    };
    let formats = formats(&asked.embedding_types.unwrap_or_default().0)?;
    let request = ApiRequest {
        model: Some(asked.model),
        input: EmbeddingInput::Texts(texts.clone()),
        input_type: asked.input_type.as_deref().map(|name| input_type_of("input_type", name)).transpose()?,
        truncate: truncates(asked.truncate.as_deref())?,
        dimensions: asked.output_dimension,
        fields: asked.input_type.map(|name| ("input_type", name)).into_iter().collect(),
    };
    let vectors = embed(&endpoint, &head, principal, &permit, request).await?;
    let of_texts: usize = texts.iter().map(String::len).sum();
    let bytes = of_texts + bytes_max(vectors.len(), vectors.dim(), EncodingFormat::Float) * formats.len();
    let write = move |vectors: &ResponseVectors| {
        let mut json = Vec::with_capacity(bytes);
        json.extend_from_slice(br#"{"id":"#);
        append_value(&mut json, &new_id());
        json.extend_from_slice(br#","embeddings":{"#);
        for (place, format) in formats.into_iter().enumerate() {
            json.extend_from_slice(if place > 0 { b"," } else { b"" });
            json.extend_from_slice(match format {
                EncodingFormat::Float => br#""float":"#,
                EncodingFormat::Base64 => br#""base64":"#,
            });
            append_rows(&mut json, vectors.rows(), format);
        }
        json.extend_from_slice(br#"},"texts":"#);
        append_value(&mut json, &texts);
        json.extend_from_slice(br#","meta":"#);
        let billed = json!({ "input_tokens": vectors.tokens() });
        append_value(&mut json, &json!({ "api_version": { "version": "2" }, "billed_units": billed }));
        json.extend_from_slice(br#","response_type":"embeddings_by_type"}"#);
        json
    };
    Ok(vectors.respond(bytes, write).await?)
}

/// The forms in which the vectors are asked for.
fn formats(types: &[String]) -> Result<Vec<EncodingFormat>> {
    let format = |name: &String| match name.as_str() {
        "float" => Ok(EncodingFormat::Float),
        "base64" => Ok(EncodingFormat::Base64),
        _ => Err(Error::invalid(
            "embedding_types",
            format!("embedding_types must be float or base64, got `{name}`"),
        )),
    };
    let asked: Vec<EncodingFormat> = types.iter().map(format).collect::<Result<_>>()?;
    let both = [EncodingFormat::Float, EncodingFormat::Base64];
    let formats: Vec<EncodingFormat> = both.into_iter().filter(|format| asked.contains(format)).collect();
    Ok(if formats.is_empty() { vec![EncodingFormat::Float] } else { formats })
}

/// Whether texts that are too long are truncated.
fn truncates(truncate: Option<&str>) -> Result<bool> {
    match truncate {
        None | Some("END") => Ok(true),
        Some("NONE") => Ok(false),
        Some(other) => {
            Err(Error::invalid("truncate", format!("truncate must be NONE or END, got `{other}`")))
        }
    }
}

/// An id that no other answer has, in the form of a UUID.
fn new_id() -> String {
    let [high, low] = [(); 2].map(|()| RandomState::new().hash_one("embedding"));
    let hex = format!("{high:016x}{low:016x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
