//! `POST /rerank` of Text Embeddings Inference (`huggingface/text-embeddings-inference` 1.9), which names no model.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Response;
use axum::routing::post;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::{DOCUMENTS_MAX, Endpoint, json_response, ranked};
use crate::domain::Principal;
use crate::error::{Error, Kind, Result};
use crate::http::admission::ConcurrencyPermit;
use crate::http::error_response::Problem;
use crate::http::extract::body::Received;
use crate::http::extract::bounded_list::BoundedList;
use crate::http::extract::credential::credential;
use crate::http::extract::directives::CacheObject;
use crate::http::extract::forwarded_headers::forwarded_headers;
use crate::http::extract::trace_headers::trace_headers;
use crate::http::routes::{Access, Routes};
use crate::service::rerank::{RerankModel, RerankRequest};

/// A request; what it has besides is without effect, as there.
#[derive(Deserialize)]
struct TeiRerankRequest {
    query: String,
    texts: BoundedList<String, DOCUMENTS_MAX>,
    #[serde(default)]
    raw_scores: bool,
    #[serde(default)]
    return_text: bool,
    truncate: Option<bool>,
    truncation_direction: Option<String>,
}

#[derive(Serialize)]
struct RankedTeiText<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    score: f64,
}

pub(super) fn routes() -> Routes<Arc<Endpoint>> {
    Routes::new().add_undocumented(Access::Client, "/rerank", post(create))
}

/// Scores texts for a query by the model of the upstream.
async fn create(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(permit): Extension<Arc<ConcurrencyPermit>>,
    Received { head, body }: Received,
) -> Result<Response, Problem> {
    let asked: TeiRerankRequest = body.json().await?;
    let Some(rerank) = &endpoint.rerank else {
        let message = "there is no model that reranks: it is asked of an upstream, and none is configured";
        return Err(Error::new(Kind::NotFound, message).into());
    };
    let fields = fields_of_upstream(&asked)?;
    let texts = asked.texts.0;
    check(&texts)?;
    // A request that waits for an upstream must not delay others.
    permit.release();
    let returned = asked.return_text.then(|| texts.clone());
    let response = rerank
        .rerank(RerankRequest {
            model: RerankModel::OfUpstream,
            query: asked.query,
            documents: texts,
            fields,
            headers: forwarded_headers(&head.headers, &endpoint.forwarded_headers)?,
            traces: trace_headers(&head.headers),
            credential: credential(&head.headers),
            principal,
            directives: CacheObject::default().with_headers(&head.headers)?,
        })
        .await?;
    let text = |index: usize| returned.as_ref()?.get(index).map(String::as_str);
    let ranks = ranked(&response.scores).into_iter();
    let ranks: Vec<RankedTeiText<'_>> =
        ranks.map(|(index, score)| RankedTeiText { index, text: text(index), score }).collect();
    let json = serde_json::to_string(&ranks)
        .map_err(|error| Error::new(Kind::Internal, "cannot write scores").source(error))?;
    Ok(json_response(json, &response))
}

fn check(texts: &[String]) -> Result<()> {
    if texts.is_empty() {
        return Err(Error::invalid("texts", "texts must not be an empty list"));
    }
    match texts.iter().position(String::is_empty) {
        Some(at) => Err(Error::invalid("texts", format!("texts[{at}] must not be an empty string"))),
        None => Ok(()),
    }
}

/// What is sent along, because it may change scores.
fn fields_of_upstream(asked: &TeiRerankRequest) -> Result<BTreeMap<String, Box<RawValue>>> {
    let write = || {
        let mut fields = BTreeMap::from([("raw_scores".to_owned(), to_raw_value(&asked.raw_scores)?)]);
        if let Some(truncate) = asked.truncate {
            fields.insert("truncate".to_owned(), to_raw_value(&truncate)?);
        }
        if let Some(direction) = &asked.truncation_direction {
            fields.insert("truncation_direction".to_owned(), to_raw_value(direction)?);
        }
        Ok(fields)
    };
    write().map_err(|error: serde_json::Error| {
        Error::new(Kind::Internal, "cannot write a request for an upstream").source(error)
    })
}
