//! The registry of embedding models, by the names under which they are served.

use std::sync::Arc;

use super::Embedder;
use crate::error::{Error, Kind, Result};

/// What an operator reads where an embedding model is needed and none is served.
const NO_MODEL: &str = "this server has no embedding model; start it with --model MODEL, or with --upstream URL for the models of an upstream";

/// How the names of models begin that many have in their code, by their owner in the Hugging Face hub. A model of another owner may have
/// the same name.
const FAMILIES_OF_OWNERS: [(&str, &[&str]); 6] = [
    ("BAAI", &["bge-"]),
    ("intfloat", &["e5-", "multilingual-e5-"]),
    ("mixedbread-ai", &["mxbai-embed-"]),
    ("nomic-ai", &["nomic-embed-"]),
    ("sentence-transformers", &["all-", "multi-qa-", "paraphrase-"]),
    ("thenlper", &["gte-"]),
];

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
    /// `Config` if another one has one of the names, and for an empty one.
    pub fn add(&mut self, embedder: Arc<dyn Embedder>, aliases: Vec<String>) -> Result<()> {
        let mut added = Registered { embedder, aliases: Vec::with_capacity(aliases.len()) };
        for alias in aliases {
            // A name that is given twice is listed once.
            if !added.names().any(|name| name == alias) {
                added.aliases.push(alias);
            }
        }
        for name in added.names() {
            if name.is_empty() {
                return Err(Error::new(Kind::Config, "the name of a model must not be empty"));
            }
            if self.list().any(|(served, _)| served == name) {
                return Err(Error::new(Kind::Config, format!("two models are called `{name}`")));
            }
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
        let named = self.list().find(|(served, _)| *served == name).map(|(_, embedder)| embedder);
        named.or_else(|| {
            let (owner, name) = name.split_once('/')?;
            let is_known = FAMILIES_OF_OWNERS.iter().any(|(known, families)| {
                *known == owner && families.iter().any(|family| name.starts_with(family))
            });
            self.embedders().find(|embedder| is_known && embedder.card().name == name)
        })
    }

    /// The embedder of the model that was called `name` and has this fingerprint, in hexadecimal digits, if it is served: under another
    /// name only if it is the only one, since models of one fingerprint may have other prompts.
    pub fn with_fingerprint(&self, name: &str, fingerprint: &str) -> Option<&Arc<dyn Embedder>> {
        let is_it = |embedder: &&Arc<dyn Embedder>| embedder.card().fingerprint.to_string() == fingerprint;
        let mut all = self.embedders().filter(is_it);
        if let Some(named) = all.clone().find(|embedder| embedder.card().name == name) {
            return Some(named);
        }
        all.next().filter(|_| all.next().is_none())
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
    pub fn embedders(&self) -> impl Iterator<Item = &Arc<dyn Embedder>> + Clone {
        self.models.iter().map(|model| &model.embedder)
    }
}

#[cfg(test)]
mod tests {
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
    }

    fn model(name: &str, fingerprint: u8) -> Arc<dyn Embedder> {
        Arc::new(Named(ModelCard {
            name: name.into(),
            fingerprint: Fingerprint([fingerprint; 32]),
            dim: 4,
            tokens_max: 8,
            prompts: Prompts::default(),
            pooling: None,
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
        registry.add(model("prompted", 8), Vec::new()).unwrap();
        let fingerprint = Fingerprint([8; 32]).to_string();
        for name in ["multilingual", "prompted"] {
            assert_eq!(registry.with_fingerprint(name, &fingerprint).unwrap().card().name, name);
        }
        assert!(registry.with_fingerprint("other", &fingerprint).is_none(), "it may be either");
        let names: Vec<&str> = registry.list().map(|(name, _)| name).collect();
        assert_eq!(names, ["small", "text-embedding-3-small", "multilingual", "spanish", "prompted"]);
        for (name, alias) in [("small", "other"), ("other", "spanish")] {
            let error = registry.add(model(name, 9), vec![alias.into()]).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
        }
        assert_eq!(registry.add(model("third", 9), vec![String::new()]).unwrap_err().kind(), Kind::Config);
        registry.add(model("third", 9), vec!["third".into(), "twice".into(), "twice".into()]).unwrap();
        assert_eq!(registry.list().skip(5).map(|(name, _)| name).collect::<Vec<_>>(), ["third", "twice"]);
        assert_eq!(registry.embedders().count(), 4);
    }

    #[test]
    fn a_model_is_found_by_its_name_its_aliases_and_its_fingerprint() {
        let registry = registry();
        for name in ["small", "text-embedding-3-small"] {
            assert_eq!(registry.get(name).unwrap().card().name, "small");
        }
        let fingerprint = registry.default_model().unwrap().card().fingerprint.to_string();
        assert!(registry.with_fingerprint("former-name", &fingerprint).is_some());
        assert!(registry.with_fingerprint("small", "07").is_none());
        for name in ["sentence-transformers/small", "BAAI/small", "someone/small"] {
            assert!(registry.find(name).is_none(), "{name}");
        }
        let mut registry = ModelRegistry::default();
        registry.add(model("bge-small-en-v1.5", 7), vec!["all-small".into()]).unwrap();
        assert!(registry.find("BAAI/bge-small-en-v1.5").is_some());
        for name in ["intfloat/bge-small-en-v1.5", "BAAI/all-small", "sentence-transformers/all-small"] {
            assert!(registry.find(name).is_none(), "{name}");
        }
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
