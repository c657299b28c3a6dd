//! What a search is by, made ready: texts embedded by the collection's model, vectors checked and prepared.

use std::sync::Arc;

use super::{Collections, Input, Search};
use crate::domain::{Entry, InputType, Key, Principal};
use crate::embed::{Embedder, ModelCard};
use crate::error::{Error, FieldPath, Kind, Result};
use crate::search::{Collection, CollectionModel, Unfit};
use crate::service::{Directives, embeddings};

/// The longest vector: of two such, neither the product nor the distance overflows an f32.
const NORM_MAX: f64 = 1e18;

/// One query of a search.
pub(super) enum QueryInput {
    /// As it is: one text has one vector, so it is not embedded where its results are cached.
    Text(String),
    /// Prepared.
    Vector(Vec<f32>),
}

/// One query whose results are not cached.
pub(super) struct MissingQuery {
    /// Its place in the search.
    pub(super) place: usize,
    pub(super) key: Key,
    pub(super) vector: Vec<f32>,
}

impl Collections {
    /// What is asked for: texts as they are, vectors prepared.
    pub(super) fn query_inputs(&self, collection: &Collection, search: &Search) -> Result<Vec<QueryInput>> {
        match &search.input {
            Input::Texts(texts) => {
                if let Some(row) = texts.iter().position(String::is_empty) {
                    return Err(Error::invalid("texts", format!("text {row} must not be empty")));
                }
                self.model_of(collection, "texts")?;
                Ok(texts.iter().cloned().map(QueryInput::Text).collect())
            }
            Input::Vectors(vectors) => {
                let prepared = |(row, vector): (usize, &Vec<f32>)| {
                    let mut vector = vector.clone();
                    prepare(collection, &mut vector, FieldPath::from("vectors").element(row))
                        .map(|()| QueryInput::Vector(vector))
                };
                vectors.iter().enumerate().map(prepared).collect()
            }
        }
    }

    /// The missing queries with their vectors. Those of one search are all texts, or all vectors.
    pub(super) async fn with_vectors(
        &self,
        collection: &Collection,
        search: &Search,
        missing: Vec<(usize, Key, QueryInput)>,
    ) -> Result<Vec<MissingQuery>> {
        let (mut wanted, mut texts) = (Vec::with_capacity(missing.len()), Vec::new());
        for (place, key, asked) in missing {
            let vector = match asked {
                QueryInput::Vector(vector) => vector,
                QueryInput::Text(text) => {
                    texts.push(text);
                    Vec::new()
                }
            };
            wanted.push(MissingQuery { place, key, vector });
        }
        if !texts.is_empty() {
            let places: Vec<usize> = wanted.iter().map(|wanted| wanted.place).collect();
            let path = |text: usize| FieldPath::from("texts").element(places[text]);
            let model = self.model_of(collection, "texts")?;
            let embedded = self.embed(model, texts, InputType::Query, true, &search.principal, path).await?;
            for (wanted, mut vector) in wanted.iter_mut().zip(embedded) {
                prepare(collection, &mut vector, "texts")?;
                wanted.vector = vector;
            }
        }
        Ok(wanted)
    }

    /// The vectors of texts. `path` is that of the field that a text came in.
    pub(super) async fn embed(
        &self,
        model: &Arc<dyn Embedder>,
        texts: Vec<String>,
        input_type: InputType,
        truncate: bool,
        principal: &Arc<Principal>,
        path: impl Fn(usize) -> FieldPath,
    ) -> Result<Vec<Vec<f32>>> {
        let request = self.request_of(model, texts, input_type, truncate, principal);
        let embedded = self.embeddings.embed(&request).await.map_err(|error| {
            error.map_field(|field| match field.index_in("texts") {
                Some(text) => field.moved(2, path(text)),
                None => field,
            })
        })?;
        Ok(embedded.entries.iter().map(|entry| vector_of(entry)).collect())
    }

    /// The request for the vectors of texts of a collection.
    pub(super) fn request_of(
        &self,
        model: &Arc<dyn Embedder>,
        texts: Vec<String>,
        input_type: InputType,
        truncate: bool,
        principal: &Arc<Principal>,
    ) -> embeddings::Request {
        embeddings::Request {
            model: Arc::clone(model),
            texts,
            input_type: Some(input_type),
            truncate,
            principal: Arc::clone(principal),
            directives: Directives::default(),
            is_background: false,
        }
    }

    /// The model whose vectors a collection holds.
    ///
    /// # Errors
    /// `Conflict` at `field` if this server does not run the model, or if clients bring the vectors.
    pub(super) fn model_of(
        &self,
        collection: &Collection,
        field: impl Into<FieldPath>,
    ) -> Result<&Arc<dyn Embedder>> {
        let message = match &collection.settings().model {
            Some(model) => match self.models.with_fingerprint(&model.name, &model.fingerprint) {
                Some(embedder) => return Ok(embedder),
                None => self.fault_of_model(&model.name),
            },
            None => "the collection has no model: it takes vectors only".to_owned(),
        };
        Err(Error::new(Kind::Conflict, message).param(field))
    }

    /// The model that is to embed the texts of a collection.
    ///
    /// # Errors
    /// `ModelNotFound`, with how a model of an upstream is made one of a collection.
    pub(super) fn model_for_collection(&self, name: &str) -> Result<&Arc<dyn Embedder>> {
        self.models.get(name).map_err(|error| {
            let message = format!(
                "{}. The texts of a collection are embedded without a client's request too, so a model that only an upstream has must be \
                 in the configuration: [[models]] with name = {name:?} and remote = {{ base_url = \"https://...\", model = {name:?}, dim = \
                 ..., api_key_env = \"...\" }}",
                error.message()
            );
            Error::new(Kind::ModelNotFound, message).param("model")
        })
    }

    /// Why texts of a collection of this model cannot be embedded.
    fn fault_of_model(&self, name: &str) -> String {
        if self.models.find(name).is_some() {
            return format!(
                "the collection holds vectors of the model {name}, with another fingerprint than that of the model of this name that \
                 this server runs"
            );
        }
        let served: Vec<&str> = self.models.embedders().map(|embedder| &*embedder.card().name).collect();
        let served = if served.is_empty() { "none".to_owned() } else { served.join(", ") };
        format!(
            "the collection holds vectors of the model {name}, which this server does not run; it runs: {served}"
        )
    }
}

/// A model as a collection of its vectors remembers it.
pub(super) fn collection_model(card: &ModelCard) -> CollectionModel {
    CollectionModel {
        name: card.name.clone(),
        fingerprint: card.fingerprint.to_string(),
        document_prompt: Some(card.prompts.for_input(Some(InputType::Document)).to_owned()),
    }
}

/// The vector of an entry.
pub(super) fn vector_of(entry: &Entry) -> Vec<f32> {
    entry.value.as_chunks::<4>().0.iter().map(|&number| f32::from_le_bytes(number)).collect()
}

/// Prepares the vector of a field for a collection: of its length, finite, and for the cosine of unit length.
///
/// # Errors
/// `InvalidInput` naming the field.
pub(super) fn prepare(
    collection: &Collection,
    vector: &mut [f32],
    field: impl Into<FieldPath>,
) -> Result<()> {
    let settings = collection.settings();
    let fault = |before: &str, after: String| Error::naming(Kind::InvalidInput, field, before, &after);
    if vector.len() != settings.dim {
        let (got, dim) = (vector.len(), settings.dim);
        return Err(fault("", format!(" has {got} numbers, the collection's vectors have {dim}")));
    }
    match settings.metric.prepare(vector) {
        Ok(()) => {}
        Err(Unfit::NotFinite { at }) => {
            return Err(fault(&format!("number {at} of "), " is not a finite number".into()));
        }
        Err(Unfit::Zero) => {
            return Err(fault("", " is zero: it has no direction, which the cosine needs".into()));
        }
    }
    let square: f64 = vector.iter().map(|&number| f64::from(number) * f64::from(number)).sum();
    if square > NORM_MAX * NORM_MAX {
        return Err(fault("", format!(" is longer than {NORM_MAX:e}, and its scores would overflow")));
    }
    Ok(())
}
