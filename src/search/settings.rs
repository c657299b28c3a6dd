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
    /// Whether vectors of the one fit in the other: the same model by its fingerprint, the same metric and length.
    pub fn is_of_same_vectors(&self, other: &Settings) -> bool {
        let fingerprint =
            |settings: &Settings| settings.model.as_ref().map(|model| model.fingerprint.clone());
        self.metric == other.metric && self.dim == other.dim && fingerprint(self) == fingerprint(other)
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
