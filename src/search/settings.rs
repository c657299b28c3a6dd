//! What a collection is of: its metric, the length of its vectors, its model.

use likewise_index::Metric;
use serde::{Deserialize, Serialize};

/// What a collection is of; fixed when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How vectors are compared.
    #[serde(with = "metric_name")]
    pub metric: Metric,
    /// Length of its vectors.
    pub dim: usize,
    /// The model whose vectors it holds; none if clients bring vectors of their own.
    pub model: Option<CollectionModel>,
    /// Which index it has.
    #[serde(default, skip_serializing_if = "Indexed::is_auto")]
    pub index: Indexed,
}

impl Settings {
    /// Whether vectors of the one fit in the other: of one model, as [`CollectionModel::is_of_same_vectors`] says, the same metric and length.
    pub fn is_of_same_vectors(&self, other: &Settings) -> bool {
        let is_of_one_model = match (&self.model, &other.model) {
            (Some(one), Some(other)) => one.is_of_same_vectors(other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        self.metric == other.metric && self.dim == other.dim && is_of_one_model
    }

    /// Whether a collection of these settings is the one that is asked for. The prompt of its model may have been changed since.
    pub fn is_as_asked(&self, asked: &Settings) -> bool {
        let without_prompt = |settings: &Settings| {
            let model = settings.model.clone();
            Settings {
                model: model.map(|model| CollectionModel { document_prompt: None, ..model }),
                ..settings.clone()
            }
        };
        without_prompt(self) == without_prompt(asked)
    }
}

/// Which index a collection has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Indexed {
    /// None while it is small, then the server's.
    #[default]
    Auto,
    /// None: every search is exact.
    Exact,
    /// What FAISS makes of a factory string.
    Factory(String),
}

impl Indexed {
    fn is_auto(&self) -> bool {
        *self == Indexed::Auto
    }
}

impl From<String> for Indexed {
    fn from(name: String) -> Indexed {
        match &*name {
            "auto" => Indexed::Auto,
            "exact" => Indexed::Exact,
            _ => Indexed::Factory(name),
        }
    }
}

impl From<Indexed> for String {
    fn from(index: Indexed) -> String {
        match index {
            Indexed::Auto => "auto".into(),
            Indexed::Exact => "exact".into(),
            Indexed::Factory(factory) => factory,
        }
    }
}

/// A model as a collection remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionModel {
    /// Its name when the collection was made.
    pub name: String,
    /// Its fingerprint, in hexadecimal digits.
    pub fingerprint: String,
    /// What was put before the texts of documents. `None` in collections of versions that did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_prompt: Option<String>,
}

impl CollectionModel {
    /// Whether a text has one vector by both: they have the same fingerprint, and the same prompt where both are known.
    pub fn is_of_same_vectors(&self, other: &CollectionModel) -> bool {
        let is_of_one_prompt = match (&self.document_prompt, &other.document_prompt) {
            (Some(one), Some(other)) => one == other,
            (None, _) | (_, None) => true,
        };
        self.fingerprint == other.fingerprint && is_of_one_prompt
    }
}

/// The names of metrics in files and interfaces.
pub mod metric_name {
    use super::{Deserialize, Metric};

    /// All metrics with their names.
    pub const NAMES: [(Metric, &str); 3] =
        [(Metric::Cosine, "cosine"), (Metric::InnerProduct, "inner_product"), (Metric::L2, "l2")];

    /// The name of a metric.
    pub fn of(metric: Metric) -> &'static str {
        NAMES.iter().find(|(known, _)| *known == metric).map_or("", |(_, name)| name)
    }

    /// The metric of a name.
    pub fn read(name: &str) -> Option<Metric> {
        NAMES.iter().find(|(_, known)| *known == name).map(|(metric, _)| *metric)
    }

    pub(in crate::search) fn serialize<S: serde::Serializer>(
        metric: &Metric,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(of(*metric))
    }

    pub(in crate::search) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<Metric, D::Error> {
        let name = String::deserialize(from)?;
        read(&name).ok_or_else(|| serde::de::Error::custom(format!("there is no metric {name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_prompt(document_prompt: Option<&str>) -> Settings {
        let model = CollectionModel {
            name: "e5".into(),
            fingerprint: "07".into(),
            document_prompt: document_prompt.map(str::to_owned),
        };
        Settings { metric: Metric::Cosine, dim: 3, model: Some(model), index: Indexed::Auto }
    }

    #[test]
    fn another_prompt_makes_other_vectors_and_the_same_collection() {
        let [passage, none, unknown] = [Some("passage: "), Some(""), None].map(of_prompt);
        assert!(!passage.is_of_same_vectors(&none));
        assert!(passage.is_of_same_vectors(&passage.clone()));
        assert!(unknown.is_of_same_vectors(&passage) && none.is_of_same_vectors(&unknown));
        assert!(passage.is_as_asked(&none));
        assert!(!passage.is_as_asked(&Settings { dim: 4, ..none.clone() }));
        assert!(!passage.is_of_same_vectors(&Settings { model: None, ..passage.clone() }));
    }

    #[test]
    fn settings_without_a_prompt_are_read_and_written_as_before() {
        let unknown = of_prompt(None);
        let json = serde_json::to_string(&unknown).unwrap();
        assert!(!json.contains("prompt"), "{json}");
        for settings in [unknown, of_prompt(Some("passage: "))] {
            let json = serde_json::to_string(&settings).unwrap();
            assert_eq!(serde_json::from_str::<Settings>(&json).unwrap(), settings);
        }
    }
}
