//! Text Embeddings Inference: `POST /embed` and `GET /info` of `huggingface/text-embeddings-inference` 1.9. `tei_tokenize` has its
//! `/tokenize`, and `http/rerank/tei` its `/rerank`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiRequest, embed, input_type_of, route, tei_tokenize};
use crate::domain::Principal;
use crate::error::Error;
use crate::http::admission::ConcurrencyPermit;
use crate::http::embeddings::Endpoint;
use crate::http::embeddings::input::{EmbeddingInput, INPUTS_MAX};
use crate::http::embeddings::response::{append_rows, bytes_max};
use crate::http::embeddings::vectors::ResponseVectors;
use crate::http::embeddings::wire::EncodingFormat;
use crate::http::error_response::Problem;
use crate::http::extract::body::Received;
use crate::http::routes::Routes;

#[derive(Deserialize)]
struct TeiRequest {
    inputs: EmbeddingInput,
    truncate: Option<bool>,
    truncation_direction: Option<String>,
    prompt_name: Option<String>,
    normalize: Option<bool>,
    dimensions: Option<u32>,
}

pub(super) fn routes() -> Routes<Arc<Endpoint>> {
    let routes = route(Routes::new(), "/embed", post(create));
    let routes = route(routes, "/tokenize", post(tei_tokenize::create));
    route(routes, "/info", get(info))
}

/// Embeds by the default model. A list for each input, also if there is only one.
async fn create(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(permit): Extension<Arc<ConcurrencyPermit>>,
    Received { head, body }: Received,
) -> Result<Response, Problem> {
    let asked: TeiRequest = body.json().await?;
    if asked.normalize == Some(false) {
        return Err(
            Error::invalid("normalize", "normalize must be true: vectors are those of the model").into()
        );
    }
    let is_left = |direction: &String| !direction.eq_ignore_ascii_case("right");
    if asked.truncation_direction.as_ref().is_some_and(is_left) {
        let message = "truncation_direction must be right: texts are truncated at their end";
        return Err(Error::invalid("truncation_direction", message).into());
    }
    let input_type =
        asked.prompt_name.as_deref().map(|name| input_type_of("prompt_name", name)).transpose()?;
    let request = ApiRequest {
        model: None,
        input: asked.inputs,
        input_type,
        truncate: asked.truncate.unwrap_or(true),
        dimensions: asked.dimensions,
        fields: Vec::new(),
    };
    let vectors = embed(&endpoint, &head, principal, &permit, request).await?;
    let bytes = bytes_max(vectors.len(), vectors.dim(), EncodingFormat::Float);
    let write = move |vectors: &ResponseVectors| {
        let mut json = Vec::with_capacity(bytes);
        append_rows(&mut json, vectors.rows(), EncodingFormat::Float);
        json
    };
    Ok(vectors.respond(bytes, write).await?)
}

/// What clients read of a server before they embed: the limits by which they cut their batches.
async fn info(State(endpoint): State<Arc<Endpoint>>) -> Result<Json<Value>, Problem> {
    let card = endpoint.models.default_model()?.card();
    Ok(Json(json!({
        "model_id": card.name,
        "model_sha": card.fingerprint.to_string(),
        "model_dtype": "float32",
        "served_model_name": card.name,
        "model_type": { "embedding": { "pooling": card.pooling } },
        "max_concurrent_requests": endpoint.requests_max,
        "max_input_length": card.tokens_max,
        "max_batch_tokens": endpoint.batch_tokens_max,
        "max_client_batch_size": INPUTS_MAX,
        "auto_truncate": true,
        "tokenization_workers": 1,
        "version": env!("CARGO_PKG_VERSION"),
    })))
}
