//! Models that only an upstream has: their texts are embedded by calls of it, and cached as those of any model.
//!
//! What such a model is called at which upstream, with the fields that its vectors depend on, is its identity. Nothing else is known of it
//! before it is asked: the length of its vectors is learnt from the first ones, and vectors of another length are refused.

mod embedder;
mod request;
mod widths;

use std::sync::Arc;

use self::embedder::{EmbedCall, UpstreamEmbedder};
pub use self::request::{InputForm, UpstreamRequest};
use self::widths::VectorWidths;
use super::{Embeddings, Request, Response};
use crate::cache::Namespace;
use crate::domain::{Fingerprint, Key, KeyHasher};
use crate::embed::EmbedMetrics;
use crate::error::{Error, Kind, Result};
use crate::service::upstream_calls::{ModelCall, hash_request, json_headers};
use crate::upstream::Origin;

/// Fields of a request that do not change a vector: they are sent along, and are no part of what is asked.
const WITHOUT_EFFECT: [&str; 3] = ["encoding_format", "model", "user"];

/// The use case for models of upstreams. Shared by `Arc`.
pub struct UpstreamEmbeddings {
    embeddings: Arc<Embeddings>,
    origin: Arc<dyn Origin>,
    /// Whether upstreams see the credentials of clients.
    forwards_client_keys: bool,
    widths: Arc<VectorWidths>,
    metrics: Arc<EmbedMetrics>,
}

impl UpstreamEmbeddings {
    /// The models of `origin`, cached by `embeddings`. `forwards_client_keys` says whether upstreams see credentials of clients.
    pub fn new(
        embeddings: Arc<Embeddings>,
        origin: Arc<dyn Origin>,
        forwards_client_keys: bool,
        metrics: Arc<EmbedMetrics>,
    ) -> UpstreamEmbeddings {
        UpstreamEmbeddings { embeddings, origin, forwards_client_keys, widths: Arc::default(), metrics }
    }

    /// Embeds texts: from the cache, by joining flights, or by one call of the upstream with those that are left.
    ///
    /// # Errors
    /// As [`Embeddings::embed`]; `ModelNotFound` if no upstream has the model; what the upstream refuses, with its words; `Upstream`
    /// for vectors of another length than those before.
    ///
    /// Cancel safety: a call that has begun is completed, and its vectors are stored.
    pub async fn embed(&self, request: UpstreamRequest) -> Result<Response> {
        self.origin.refuse_own(&request.traces)?;
        let fingerprint = self.fingerprint(&request)?;
        let namespace = self.namespace(&request)?;
        let key = width_key(&fingerprint, &request, &namespace);
        let stamp = self.embeddings.cache.freshness().tokens().stamp();
        let call = ModelCall {
            origin: Arc::clone(&self.origin),
            path: embedder::PATH,
            model: Some(request.model.clone()),
            fields: request.fields,
            headers: json_headers(request.headers, request.traces),
            credential: request.credential,
            needs_clients_key: self.origin.needs_clients_key("POST", embedder::PATH)?,
        };
        let call = EmbedCall { call, form: request.form, metrics: Arc::clone(&self.metrics) };
        let namespace_id = namespace.id;
        let learn = {
            let (widths, embeddings) = (Arc::clone(&self.widths), Arc::clone(&self.embeddings));
            move |dim: usize| {
                let tokens = embeddings.cache.freshness().tokens();
                let is_current = |since| tokens.admit(since, namespace_id, &[]).is_some();
                widths.expect(key, dim, stamp, is_current)
            }
        };
        let expect = {
            let (learn, model, namespace) = (learn.clone(), request.model.clone(), namespace.name.clone());
            move |dim: usize| {
                learn(dim).map_err(|known| another_width(&model, &namespace, "so far", known, dim))
            }
        };
        let dim = self.widths.get(&key).unwrap_or_default();
        let embedder = UpstreamEmbedder::new(call, fingerprint, dim, expect);
        let response = self
            .embeddings
            .embed(&Request {
                model: Arc::new(embedder),
                texts: request.inputs,
                input_type: None,
                truncate: true,
                principal: request.principal,
                directives: request.directives,
                is_background: false,
            })
            .await?;
        // Cached ones may be from before a restart.
        for entry in &response.entries {
            let cached = entry.value.len() / size_of::<f32>();
            learn(cached).map_err(|known| {
                another_width(&request.model, &namespace.name, "in the cache", cached, known)
            })?;
        }
        Ok(response)
    }

    /// Numbers in each vector that the request asks for, if that is known.
    ///
    /// # Errors
    /// As [`UpstreamEmbeddings::embed`].
    pub fn width(&self, request: &UpstreamRequest) -> Result<Option<usize>> {
        let namespace = self.namespace(request)?;
        Ok(self.widths.get(&width_key(&self.fingerprint(request)?, request, &namespace)))
    }

    fn namespace(&self, request: &UpstreamRequest) -> Result<Namespace> {
        let named = request.directives.namespace.as_deref();
        self.embeddings.namespaces.of_embeddings(&request.principal.tenant, named)
    }

    /// The identity of what is asked, which takes the place of a model's fingerprint.
    fn fingerprint(&self, request: &UpstreamRequest) -> Result<Fingerprint> {
        let upstream = self.origin.name(Some(&request.model))?;
        let mut hasher = KeyHasher::new("likewise/upstream-model/v1");
        hasher.field(upstream.as_bytes()).field(request.model.as_bytes());
        hasher.field(&[u8::from(request.form == InputForm::TokenIds)]);
        let fields = request.fields.iter().filter(|(name, _)| !WITHOUT_EFFECT.contains(&name.as_str()));
        let credential = request.credential.as_ref().filter(|_| self.forwards_client_keys);
        hash_request(&mut hasher, fields, &request.headers, credential);
        Ok(Fingerprint(hasher.finish().0))
    }
}

/// Names the vectors of a model in a namespace, whose invalidation forgets their length.
fn width_key(fingerprint: &Fingerprint, request: &UpstreamRequest, namespace: &Namespace) -> Key {
    KeyHasher::new("likewise/upstream-width/v1")
        .field(&fingerprint.0)
        .field(request.principal.tenant.as_str().as_bytes())
        .field(namespace.name.as_bytes())
        .finish()
}

/// `known` is the length of the vectors from `when`.
fn another_width(model: &str, namespace: &str, when: &str, known: usize, dim: usize) -> Error {
    let message = format!(
        "the vectors of `{model}` {when} have {known} numbers, and those that its upstream sends have {dim}: if it has another model of this \
         name, invalidate the namespace `{namespace}`"
    );
    Error::new(Kind::Upstream, message)
}
