//! Ollama: `POST /api/embed`, and the lists of models and versions that its clients ask for. Its former `/api/embeddings` is not served: OpenAI's
//! clients with a slip in their address ask there.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiRequest, embed, route};
use crate::domain::Principal;
use crate::http::admission::ConcurrencyPermit;
use crate::http::embeddings::Endpoint;
use crate::http::embeddings::input::EmbeddingInput;
use crate::http::embeddings::response::{append_rows, append_value, bytes_max};
use crate::http::embeddings::vectors::ResponseVectors;
use crate::http::embeddings::wire::EncodingFormat;
use crate::http::error_response::Problem;
use crate::http::extract::body::Received;
use crate::http::routes::Routes;

/// The tag that clients add to names without one.
const TAG: &str = ":latest";

#[derive(Deserialize)]
struct OllamaRequest {
    model: String,
    input: EmbeddingInput,
    truncate: Option<bool>,
    dimensions: Option<u32>,
}

pub(super) fn routes() -> Routes<Arc<Endpoint>> {
    let routes = route(Routes::new(), "/api/embed", post(create));
    let routes = route(routes, "/api/tags", get(models));
    route(routes, "/api/version", get(version))
}

async fn create(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(permit): Extension<Arc<ConcurrencyPermit>>,
    Received { head, body }: Received,
) -> Result<Response, Problem> {
    let started = Instant::now();
    let asked: OllamaRequest = body.json().await?;
    let request = request(&asked.model, asked.input, asked.truncate, asked.dimensions);
    let vectors = embed(&endpoint, &head, principal, &permit, request).await?;
    let bytes = bytes_max(vectors.len(), vectors.dim(), EncodingFormat::Float);
    let write = move |vectors: &ResponseVectors| {
        let mut json = Vec::with_capacity(bytes);
        json.extend_from_slice(br#"{"model":"#);
        append_value(&mut json, &asked.model);
        json.extend_from_slice(br#","embeddings":"#);
        append_rows(&mut json, vectors.rows(), EncodingFormat::Float);
        json.extend_from_slice(br#","total_duration":"#);
        append_value(&mut json, &u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
        json.extend_from_slice(br#","load_duration":0,"prompt_eval_count":"#);
        append_value(&mut json, &vectors.tokens());
        json.push(b'}');
        json
    };
    Ok(vectors.respond(bytes, write).await?)
}

fn request(
    model: &str,
    input: EmbeddingInput,
    truncate: Option<bool>,
    dimensions: Option<u32>,
) -> ApiRequest {
    ApiRequest {
        model: Some(model.strip_suffix(TAG).unwrap_or(model).to_owned()),
        input,
        input_type: None,
        truncate: truncate.unwrap_or(true),
        dimensions,
        fields: Vec::new(),
    }
}

/// The models that embed here.
async fn models(State(endpoint): State<Arc<Endpoint>>) -> Json<Value> {
    let described = endpoint.models.list().map(|(name, embedder)| {
        let digest = embedder.card().fingerprint.to_string();
        json!({ "name": name, "model": name, "size": 0, "digest": digest,
            "details": { "format": "safetensors", "family": "embedding" } })
    });
    Json(json!({ "models": described.collect::<Vec<_>>() }))
}

async fn version() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION") }))
}
