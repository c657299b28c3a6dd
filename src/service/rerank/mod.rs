//! Reranking: documents scored for a query by a model of an upstream, each pair once.
//!
//! A model that reads one query and one document at a time gives a pair the same score in any list. So the score of a pair is cached as the
//! vector of a text is, under a key of the model, the query and the document. Another list, order or limit pays only for the
//! documents that are new.

mod reranker;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use self::reranker::{RerankCall, Reranker, score_of};
use crate::domain::{Credential, Fingerprint, KeyHasher, Principal};
use crate::error::{Error, Kind, Result};
use crate::service::Directives;
use crate::service::embeddings::{Embeddings, LookupCounts, Request, UnstoredReason};
use crate::service::upstream_calls::{ModelCall, hash_request, json_headers};
use crate::upstream::{Headers, Origin};

/// The use case. Shared by `Arc`.
pub struct Rerank {
    embeddings: Arc<Embeddings>,
    origin: Arc<dyn Origin>,
    /// Whether upstreams see the credentials of clients.
    forwards_client_keys: bool,
}

/// A model that scores documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RerankModel {
    /// The model of this name. Its upstream is asked as Cohere and Jina are.
    Named(String),
    /// The one model of an upstream that requests do not name. It is asked as Text Embeddings Inference is.
    OfUpstream,
}

impl RerankModel {
    fn name(&self) -> Option<&str> {
        match self {
            RerankModel::Named(name) => Some(name),
            RerankModel::OfUpstream => None,
        }
    }
}

/// A request for the scores of documents.
pub struct RerankRequest {
    /// The model, and by that how the upstream is asked.
    pub model: RerankModel,
    /// What the documents are scored for.
    pub query: String,
    /// The documents, none of them empty.
    pub documents: Vec<String>,
    /// Further fields of the request, which may change scores. They are sent along as they came.
    pub fields: BTreeMap<String, Box<RawValue>>,
    /// Headers that are passed on. They are part of what is asked.
    pub headers: Vec<(String, String)>,
    /// Headers that identify the request on its way. They are passed on.
    pub traces: Headers,
    /// The credential of the client.
    pub credential: Option<Credential>,
    /// The sender, whose tenant's entries are used.
    pub principal: Arc<Principal>,
    /// Its cache directives.
    pub directives: Directives,
}

/// The scores of documents, in their order.
pub struct RerankResponse {
    /// One score for each document. Their range is the model's.
    pub scores: Vec<f64>,
    /// Tokens that the upstream has counted for all pairs.
    pub tokens: u64,
    /// How the scores were served.
    pub counts: LookupCounts,
    /// Why a score that was made for the request was not stored, if one was not.
    pub not_stored: Option<UnstoredReason>,
}

impl Rerank {
    /// The models of `origin`, cached by `embeddings`. `forwards_client_keys` says whether upstreams see credentials of clients.
    pub fn new(embeddings: Arc<Embeddings>, origin: Arc<dyn Origin>, forwards_client_keys: bool) -> Rerank {
        Rerank { embeddings, origin, forwards_client_keys }
    }

    /// Scores documents: from the cache, by joining flights, or by one call of the upstream with those that are left.
    ///
    /// # Errors
    /// As [`Embeddings::embed`]; `ModelNotFound` if no upstream has the model, `NotFound` if there is none; what the upstream refuses, with its words.
    pub async fn rerank(&self, request: RerankRequest) -> Result<RerankResponse> {
        self.origin.refuse_own(&request.traces)?;
        let fingerprint = self.fingerprint(&request)?;
        let call = ModelCall {
            origin: Arc::clone(&self.origin),
            path: reranker::PATH,
            model: request.model.name().map(str::to_owned),
            fields: request.fields,
            headers: json_headers(request.headers, request.traces),
            credential: request.credential,
            needs_clients_key: self.origin.needs_clients_key("POST", reranker::PATH)?,
        };
        let call = RerankCall { call, query: request.query };
        let served = self
            .embeddings
            .embed(&Request {
                model: Arc::new(Reranker::new(call, fingerprint)),
                texts: request.documents,
                input_type: None,
                truncate: true,
                principal: request.principal,
                directives: request.directives,
                is_background: false,
            })
            .await?;
        let scores: Option<Vec<f64>> = served.entries.iter().map(|entry| score_of(&entry.value)).collect();
        let scores = scores.ok_or_else(|| Error::new(Kind::Corrupt, "a cached score is not one number"))?;
        Ok(RerankResponse {
            scores,
            tokens: served.tokens,
            counts: served.counts,
            not_stored: served.not_stored,
        })
    }

    /// The identity of what is asked of each document.
    fn fingerprint(&self, request: &RerankRequest) -> Result<Fingerprint> {
        let upstream = self.origin.name(request.model.name())?;
        let mut hasher = match &request.model {
            RerankModel::Named(name) => {
                let mut hasher = KeyHasher::new("likewise/rerank/v1");
                hasher.field(upstream.as_bytes()).field(name.as_bytes());
                hasher
            }
            RerankModel::OfUpstream => {
                let mut hasher = KeyHasher::new("likewise/rerank-of-upstream/v1");
                hasher.field(upstream.as_bytes());
                hasher
            }
        };
        hasher.field(request.query.as_bytes());
        let credential = request.credential.as_ref().filter(|_| self.forwards_client_keys);
        hash_request(&mut hasher, request.fields.iter(), &request.headers, credential);
        Ok(Fingerprint(hasher.finish().0))
    }
}
