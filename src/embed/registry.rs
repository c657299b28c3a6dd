//! The registry of embedding models, by the names under which they are served.

use std::sync::Arc;

use super::Embedder;
use crate::error::{Error, Kind, Result};

/// What an operator reads where an embedding model is needed and none is served.
const NO_MODEL: &str = "this server has no embedding model; start it with --model MODEL";

/// Owners of models of the Hugging Face hub that many have in their code. A fine-tuned model of another owner may have the same name.
const OWNERS: [&str; 6] =
    ["BAAI", "intfloat", "mixedbread-ai", "nomic-ai", "sentence-transformers", "thenlper"];

/// An embedder with the names under which it is served.
struct Registered {
    embedder: Arc<dyn Embedder>,
    aliases: Vec<String>,
}

impl Registered {
    /// All names: the model's own, then its aliases.
    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.embedder.card().name).chain(self.aliases.iter().map(String::as_str))
    }
}

/// Hands out embedders by name. Without models at first. Shared by `Arc`.
#[derive(Default)]
pub struct ModelRegistry {
    /// The default model first.
    models: Vec<Registered>,
}

impl ModelRegistry {
    /// Serves a model under its own name and these, too. The first one is the default model.
    ///
    /// # Errors
    /// `Config` if another one has one of the names.
    pub fn add(&mut self, embedder: Arc<dyn Embedder>, aliases: Vec<String>) -> Result<()> {
        let added = Registered { embedder, aliases };
        let taken = added.names().find(|name| self.list().any(|(served, _)| served == *name));
        if let Some(name) = taken {
            return Err(Error::new(Kind::Config, format!("two models are called `{name}`")));
        }
        self.models.push(added);
        Ok(())
    }

    /// The embedder of the model called `name`.
    ///
    /// # Errors
    /// `ModelNotFound`, with the names that are served.
    pub fn get(&self, name: &str) -> Result<&Arc<dyn Embedder>> {
        self.find(name).ok_or_else(|| self.unknown(name))
    }

    /// The embedder of the model called `name`, if it is served: under this name, or as a model of the hub whose owner is well known.
    pub fn find(&self, name: &str) -> Option<&Arc<dyn Embedder>> {
        let named = |name: &str| self.list().find(|(served, _)| *served == name);
        let in_hub = || name.split_once('/').filter(|(owner, _)| OWNERS.contains(owner));
        named(name).or_else(|| named(in_hub()?.1)).map(|(_, embedder)| embedder)
    }

    /// The embedder of the model with this fingerprint, in hexadecimal digits, if it is served.
    pub fn with_fingerprint(&self, fingerprint: &str) -> Option<&Arc<dyn Embedder>> {
        self.embedders().find(|embedder| embedder.card().fingerprint.to_string() == fingerprint)
    }

    /// The error of a request for a model that is not served. It names the served ones.
    pub fn unknown(&self, name: &str) -> Error {
        let served = self.list().map(|(name, _)| name).collect::<Vec<_>>().join("`, `");
        let message = if served.is_empty() {
            format!("the model `{name}` is not served: {NO_MODEL}")
        } else {
            format!(
                "the model `{name}` is not served; available: `{served}`; model.aliases in the configuration adds names"
            )
        };
        Error::new(Kind::ModelNotFound, message).param("model")
    }

    /// The model of requests that name none.
    ///
    /// # Errors
    /// `ModelNotFound` if no model is served.
    pub fn default_model(&self) -> Result<&Arc<dyn Embedder>> {
        self.embedders().next().ok_or_else(|| Error::new(Kind::ModelNotFound, NO_MODEL))
    }

    /// Every name that is served, with its embedder; the default model's own name is the first.
    pub fn list(&self) -> impl Iterator<Item = (&str, &Arc<dyn Embedder>)> {
        self.models.iter().flat_map(|model| model.names().map(|name| (name, &model.embedder)))
    }

    /// Each embedder once.
    pub fn embedders(&self) -> impl Iterator<Item = &Arc<dyn Embedder>> {
        self.models.iter().map(|model| &model.embedder)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::domain::{Fingerprint, UnixSeconds};
    use crate::embed::{EmbedJob, Matryoshka, ModelCard, Prompts};

    struct Named(ModelCard);

    impl Embedder for Named {
        fn card(&self) -> &ModelCard {
            &self.0
        }
        fn submit(&self, _: Vec<EmbedJob>) -> Result<()> {
            Ok(())
        }
        fn count_tokens(&self, _: Vec<String>) -> BoxFuture<'_, Result<Option<Vec<usize>>>> {
            Box::pin(async { Ok(None) })
        }
        fn decode_tokens(&self, _: &[u32], _: usize) -> Result<String> {
            Ok(String::new())
        }
        fn queued(&self) -> usize {
            0
        }
        fn is_alive(&self) -> bool {
            true
        }
    }

    fn model(name: &str, fingerprint: u8) -> Arc<dyn Embedder> {
        Arc::new(Named(ModelCard {
            name: name.into(),
            fingerprint: Fingerprint([fingerprint; 32]),
            dim: 4,
            tokens_max: 8,
            prompts: Prompts::default(),
            matryoshka: Matryoshka::No,
            created: UnixSeconds(0),
        }))
    }

    fn registry() -> ModelRegistry {
        let mut registry = ModelRegistry::default();
        registry.add(model("small", 7), vec!["text-embedding-3-small".into()]).unwrap();
        registry
    }

    #[test]
    fn several_models_have_names_of_their_own() {
        let mut registry = registry();
        registry.add(model("multilingual", 8), vec!["spanish".into()]).unwrap();
        assert_eq!(registry.default_model().unwrap().card().name, "small");
        assert_eq!(registry.get("spanish").unwrap().card().name, "multilingual");
        assert!(registry.with_fingerprint(&Fingerprint([8; 32]).to_string()).is_some());
        let names: Vec<&str> = registry.list().map(|(name, _)| name).collect();
        assert_eq!(names, ["small", "text-embedding-3-small", "multilingual", "spanish"]);
        for (name, alias) in [("small", "other"), ("other", "spanish")] {
            let error = registry.add(model(name, 9), vec![alias.into()]).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
        }
        assert_eq!(registry.embedders().count(), 2);
    }

    #[test]
    fn a_model_is_found_by_its_name_its_aliases_and_its_fingerprint() {
        let registry = registry();
        for name in ["small", "text-embedding-3-small"] {
            assert_eq!(registry.get(name).unwrap().card().name, "small");
        }
        let fingerprint = registry.default_model().unwrap().card().fingerprint.to_string();
        assert!(registry.with_fingerprint(&fingerprint).is_some());
        assert!(registry.with_fingerprint("07").is_none());
        assert!(registry.find("sentence-transformers/small").is_some());
        assert!(registry.find("someone/small").is_none());
        assert_eq!(registry.embedders().count(), 1);
    }

    #[test]
    fn without_models_errors_say_so() {
        let registry = ModelRegistry::default();
        assert_eq!((registry.list().count(), registry.embedders().count()), (0, 0));
        for error in [registry.unknown("large"), registry.default_model().map(|_| ()).unwrap_err()] {
            assert_eq!(error.kind(), Kind::ModelNotFound);
            assert!(error.message().contains("no embedding model"), "{}", error.message());
        }
    }

    #[test]
    fn an_unknown_model_is_refused_with_the_names_that_are_served() {
        let error = registry().get("large").map(|_| ()).unwrap_err();
        assert_eq!((error.kind(), error.param_name()), (Kind::ModelNotFound, Some("model")));
        assert!(error.message().contains("`small`, `text-embedding-3-small`"), "{}", error.message());
    }
}
