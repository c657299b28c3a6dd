//! Words of the contract in JSON and in the OpenAPI document.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::cache::{BreakerState, Mode, Propagation};
use crate::dialects::ErrorType;
use crate::domain::TierName;
use crate::error::Kind;
use crate::labels::Label;
use crate::service::answers::{MatchKind, Reason};
use crate::service::listing::EntryKind;

/// A word of a closed list, as a member of a JSON object. In types that derive `ToSchema`, such a member has an alias
/// without arguments for its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LabelValue<L>(pub(super) L);

/// The code of an error.
pub(super) type ErrorCode = LabelValue<Kind>;
/// How a stored question matches.
pub(super) type MatchLayer = LabelValue<MatchKind>;
/// How an invalidation hides entries.
pub(super) type InvalidationMode = LabelValue<Mode>;
/// What an entry is.
pub(super) type EntryKindLabel = LabelValue<EntryKind>;
/// How far a change has come.
pub(super) type PropagationLabel = LabelValue<Propagation>;
/// Whether calls are made to Redis.
pub(super) type BreakerLabel = LabelValue<BreakerState>;
/// The name of a tier.
pub(super) type TierLabel = LabelValue<TierName>;
/// Why the cache was bypassed, or why a reply was not stored.
pub(super) type ReasonLabel = LabelValue<Reason>;

/// The class of an error.
pub(super) type ErrorTypeLabel = LabelValue<ErrorType>;

/// A closed list that the OpenAPI document has as a schema of its own.
pub(super) trait NamedLabel: Label {
    /// The name of the schema.
    const SCHEMA: &'static str;
}

impl NamedLabel for Kind {
    const SCHEMA: &'static str = "ErrorCode";
}

impl NamedLabel for ErrorType {
    const SCHEMA: &'static str = "ErrorType";
}

impl NamedLabel for Reason {
    const SCHEMA: &'static str = "Reason";
}

impl NamedLabel for MatchKind {
    const SCHEMA: &'static str = "MatchKind";
}

impl NamedLabel for Mode {
    const SCHEMA: &'static str = "InvalidationMode";
}

impl NamedLabel for BreakerState {
    const SCHEMA: &'static str = "BreakerState";
}

impl NamedLabel for Propagation {
    const SCHEMA: &'static str = "Propagation";
}

impl NamedLabel for EntryKind {
    const SCHEMA: &'static str = "EntryKind";
}

impl NamedLabel for TierName {
    const SCHEMA: &'static str = "Tier";
}

impl<L: Label> Serialize for LabelValue<L> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl<'de, L: Label> Deserialize<'de> for LabelValue<L> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LabelValue<L>, D::Error> {
        deserializer.deserialize_str(LabelVisitor(PhantomData))
    }
}

struct LabelVisitor<L>(PhantomData<L>);

impl<L: Label> Visitor<'_> for LabelVisitor<L> {
    type Value = LabelValue<L>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one of {}", L::WORDS.join(", "))
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<LabelValue<L>, E> {
        let label = L::ALL.iter().find(|label| label.as_str() == word);
        label.map(|label| LabelValue(*label)).ok_or_else(|| E::unknown_variant(word, L::WORDS))
    }
}

impl<L: Label> PartialSchema for LabelValue<L> {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(L::WORDS.iter().copied())).into()
    }
}

impl<L: NamedLabel> ToSchema for LabelValue<L> {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed(L::SCHEMA)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use axum::http::HeaderValue;
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::LookupOutcome;
    use crate::metrics::{ByLabel, Counter, Registry};

    /// Each word is the same in metrics, headers, JSON and the OpenAPI document, and stands for one variant.
    fn check<L: Label + PartialEq + fmt::Debug>() {
        assert_eq!(L::WORDS.iter().collect::<HashSet<_>>().len(), L::ALL.len(), "{:?}", L::WORDS);
        let schema = serde_json::to_value(LabelValue::<L>::schema()).unwrap();
        assert_eq!(schema, json!({ "type": "string", "enum": L::WORDS }));
        let mut registry = Registry::new();
        let counters: ByLabel<L, Counter> = registry.by_label("words", "Words", "word");
        L::ALL.iter().for_each(|label| _ = counters.with(*label).inc());
        let exported = registry.render();
        for (label, word) in L::ALL.iter().zip(L::WORDS) {
            assert_eq!(label.as_str(), *word);
            assert_eq!(HeaderValue::from_static(label.as_str()), *word);
            assert_eq!(serde_json::to_value(LabelValue(*label)).unwrap(), Value::from(*word));
            assert_eq!(serde_json::from_value::<LabelValue<L>>(json!(word)).unwrap().0, *label);
            assert!(exported.contains(&format!("likewise_words_total{{word=\"{word}\"}} 1\n")), "{exported}");
        }
    }

    #[test]
    fn metrics_headers_json_and_the_contract_have_the_same_words() {
        check::<LookupOutcome>();
        check::<TierName>();
        check::<Mode>();
        check::<Kind>();
        check::<MatchKind>();
        check::<Reason>();
        check::<ErrorType>();
        check::<EntryKind>();
        check::<Propagation>();
        check::<BreakerState>();
    }

    #[test]
    fn an_unknown_word_is_refused_with_the_known_ones() {
        let error = serde_json::from_str::<LabelValue<Mode>>("\"harder\"").unwrap_err().to_string();
        assert!(error.starts_with("unknown variant `harder`, expected `hard` or `soft`"), "{error}");
    }
}
