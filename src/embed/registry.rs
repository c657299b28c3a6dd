//! The registry of embedding models, by the names under which they are served.

use std::sync::Arc;

use super::Embedder;
use crate::error::{Error, Kind, Result};

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

/// Hands out embedders by name. Shared by `Arc`.
pub struct ModelRegistry {
    default: Registered,
}

impl ModelRegistry {
    /// A registry with its default model.
    pub fn new(default: Arc<dyn Embedder>, aliases: Vec<String>) -> ModelRegistry {
        ModelRegistry { default: Registered { embedder: default, aliases } }
    }

    /// The embedder of the model called `name`.
    ///
    /// # Errors
    /// `ModelNotFound`, with the names that are served.
    pub fn get(&self, name: &str) -> Result<&Arc<dyn Embedder>> {
        self.find(name).ok_or_else(|| self.unknown(name))
    }

    /// The embedder of the model called `name`, if it is served.
    pub fn find(&self, name: &str) -> Option<&Arc<dyn Embedder>> {
        self.list().find(|(served, _)| *served == name).map(|(_, embedder)| embedder)
    }

    /// The embedder of the model with this fingerprint, in hexadecimal digits, if it is served.
    pub fn with_fingerprint(&self, fingerprint: &str) -> Option<&Arc<dyn Embedder>> {
        self.embedders().find(|embedder| embedder.card().fingerprint.to_string() == fingerprint)
    }

    /// The error of a request for a model that is not served. It names the served ones.
    pub fn unknown(&self, name: &str) -> Error {
        let served = self.list().map(|(name, _)| name).collect::<Vec<_>>().join("`, `");
        let message = format!(
            "the model `{name}` is not served; available: `{served}`; model.aliases in the configuration adds names"
        );
        Error::new(Kind::ModelNotFound, message).param("model")
    }

    /// The model of requests that name none.
    pub fn default_model(&self) -> &Arc<dyn Embedder> {
        &self.default.embedder
    }

    /// Every name that is served, with its embedder; the default model's own name is the first.
    pub fn list(&self) -> impl Iterator<Item = (&str, &Arc<dyn Embedder>)> {
        self.models().flat_map(|model| model.names().map(|name| (name, &model.embedder)))
    }

    /// Each embedder once.
    pub fn embedders(&self) -> impl Iterator<Item = &Arc<dyn Embedder>> {
        self.models().map(|model| &model.embedder)
    }

    /// The default model first.
    fn models(&self) -> impl Iterator<Item = &Registered> {
        std::iter::once(&self.default)
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

    fn registry() -> ModelRegistry {
        let card = ModelCard {
            name: "small".into(),
            fingerprint: Fingerprint([7; 32]),
            dim: 4,
            tokens_max: 8,
            prompts: Prompts::default(),
            matryoshka: Matryoshka::No,
            created: UnixSeconds(0),
        };
        ModelRegistry::new(Arc::new(Named(card)), vec!["text-embedding-3-small".into()])
    }

    #[test]
    fn a_model_is_found_by_its_name_its_aliases_and_its_fingerprint() {
        let registry = registry();
        for name in ["small", "text-embedding-3-small"] {
            assert_eq!(registry.get(name).unwrap().card().name, "small");
        }
        let fingerprint = registry.default_model().card().fingerprint.to_string();
        assert!(registry.with_fingerprint(&fingerprint).is_some());
        assert!(registry.with_fingerprint("07").is_none());
        assert_eq!(registry.embedders().count(), 1);
    }

    #[test]
    fn an_unknown_model_is_refused_with_the_names_that_are_served() {
        let error = registry().get("large").map(|_| ()).unwrap_err();
        assert_eq!((error.kind(), error.param_name()), (Kind::ModelNotFound, Some("model")));
        assert!(error.message().contains("`small`, `text-embedding-3-small`"), "{}", error.message());
    }
}
