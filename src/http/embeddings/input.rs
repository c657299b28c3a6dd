//! The `input` of a request for embeddings, whose limits are checked while it is read.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::schema::{Array, ArrayBuilder, KnownFormat, Object, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

/// Texts or token lists in one request; OpenAI's limit.
pub(super) const INPUTS_MAX: usize = 2048;
/// Token ids in one request. OpenAI takes 300,000.
const TOKEN_IDS_MAX: usize = 4 << 20;

/// What to embed: a text, a list of texts, a list of token ids, or a list of such lists.
#[derive(Debug)]
pub(in crate::http) enum EmbeddingInput {
    Texts(Vec<String>),
    Tokens(Vec<Vec<u32>>),
}

impl<'de> Deserialize<'de> for EmbeddingInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<EmbeddingInput, D::Error> {
        deserializer.deserialize_any(InputVisitor)
    }
}

impl PartialSchema for EmbeddingInput {
    fn schema() -> RefOr<Schema> {
        let list = |items: RefOr<Schema>, max: usize| -> Array {
            ArrayBuilder::new().items(items).min_items(Some(1)).max_items(Some(max)).build()
        };
        let ids = || list(token_id().into(), TOKEN_IDS_MAX);
        let text = || ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).build();
        let shapes = OneOfBuilder::new()
            .item(text())
            .item(list(text().into(), INPUTS_MAX))
            .item(ids())
            .item(list(ids().into(), INPUTS_MAX));
        shapes
            .description(Some("A text, a list of texts, a list of token ids, or a list of such lists."))
            .into()
    }
}

impl ToSchema for EmbeddingInput {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Input")
    }
}

/// The schema of a token id.
fn token_id() -> Object {
    let id = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(u32::MAX));
    id.format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64))).build()
}

struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = EmbeddingInput;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a list of strings, a list of token ids, or a list of lists of token ids")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<EmbeddingInput, E> {
        Ok(EmbeddingInput::Texts(vec![text.to_owned()]))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<EmbeddingInput, E> {
        Ok(EmbeddingInput::Texts(vec![text]))
    }

    /// The first element says what the list is of; an element of another kind is an error.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<EmbeddingInput, A::Error> {
        let mut ids_left = TOKEN_IDS_MAX;
        match list.next_element_seed(First(&mut ids_left))? {
            None => Ok(EmbeddingInput::Texts(Vec::new())),
            Some(InputElement::Text(text)) => Ok(EmbeddingInput::Texts(texts(text, &mut list)?)),
            Some(InputElement::Id(id)) => {
                Ok(EmbeddingInput::Tokens(vec![rest_of_ids(vec![id], &mut list, &mut ids_left)?]))
            }
            Some(InputElement::Ids(ids)) => {
                Ok(EmbeddingInput::Tokens(id_lists(ids, &mut list, &mut ids_left)?))
            }
        }
    }
}

fn texts<'de, A: SeqAccess<'de>>(first: String, list: &mut A) -> Result<Vec<String>, A::Error> {
    let mut texts = vec![first];
    while let Some(text) = list.next_element()? {
        check_inputs::<A::Error>(texts.len())?;
        texts.push(text);
    }
    Ok(texts)
}

fn id_lists<'de, A: SeqAccess<'de>>(
    first: Vec<u32>,
    list: &mut A,
    ids_left: &mut usize,
) -> Result<Vec<Vec<u32>>, A::Error> {
    let mut lists = vec![first];
    while let Some(ids) = list.next_element_seed(IdList(ids_left))? {
        check_inputs::<A::Error>(lists.len())?;
        lists.push(ids);
    }
    Ok(lists)
}

fn check_inputs<E: de::Error>(inputs: usize) -> Result<(), E> {
    if inputs < INPUTS_MAX {
        return Ok(());
    }
    Err(E::custom(format_args!("more than {INPUTS_MAX} inputs in one request")))
}

fn rest_of_ids<'de, A: SeqAccess<'de>>(
    mut ids: Vec<u32>,
    list: &mut A,
    ids_left: &mut usize,
) -> Result<Vec<u32>, A::Error> {
    while let Some(id) = list.next_element()? {
        take_id::<A::Error>(ids_left)?;
        ids.push(id);
    }
    Ok(ids)
}

fn take_id<E: de::Error>(ids_left: &mut usize) -> Result<(), E> {
    let limit = || E::custom(format_args!("more than {TOKEN_IDS_MAX} token ids in one request"));
    *ids_left = ids_left.checked_sub(1).ok_or_else(limit)?;
    Ok(())
}

/// An element of `input`.
enum InputElement {
    Text(String),
    Id(u32),
    Ids(Vec<u32>),
}

/// Reads the first element, which may be of any kind. An enum without tags would be read into a tree of values first.
struct First<'a>(&'a mut usize);

impl<'de> DeserializeSeed<'de> for First<'_> {
    type Value = InputElement;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<InputElement, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for First<'_> {
    type Value = InputElement;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a token id, or a list of token ids")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<InputElement, E> {
        Ok(InputElement::Text(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<InputElement, E> {
        Ok(InputElement::Text(text))
    }

    fn visit_u64<E: de::Error>(self, id: u64) -> Result<InputElement, E> {
        take_id::<E>(self.0)?;
        let id = u32::try_from(id).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(id), &self))?;
        Ok(InputElement::Id(id))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<InputElement, A::Error> {
        rest_of_ids(Vec::new(), &mut list, self.0).map(InputElement::Ids)
    }
}

/// Reads a list of token ids.
struct IdList<'a>(&'a mut usize);

impl<'de> DeserializeSeed<'de> for IdList<'_> {
    type Value = Vec<u32>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u32>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for IdList<'_> {
    type Value = Vec<u32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of token ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<u32>, A::Error> {
        rest_of_ids(Vec::new(), &mut list, self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &str) -> Result<EmbeddingInput, String> {
        serde_json::from_str(input).map_err(|error| error.to_string())
    }

    #[test]
    fn the_four_shapes_of_input_are_read() {
        assert!(matches!(read(r#""a""#).unwrap(), EmbeddingInput::Texts(texts) if texts == ["a"]));
        assert!(matches!(read(r#""\u00e9""#).unwrap(), EmbeddingInput::Texts(texts) if texts == ["é"]));
        assert!(
            matches!(read(r#"["a","\u00e9"]"#).unwrap(), EmbeddingInput::Texts(texts) if texts == ["a", "é"])
        );
        assert!(matches!(read("[1,2]").unwrap(), EmbeddingInput::Tokens(ids) if ids == [vec![1, 2]]));
        assert!(
            matches!(read("[[1],[2,3],[]]").unwrap(), EmbeddingInput::Tokens(ids) if ids == [vec![1], vec![2, 3], vec![]])
        );
        assert!(matches!(read("[]").unwrap(), EmbeddingInput::Texts(texts) if texts.is_empty()));
    }

    #[test]
    fn elements_of_another_kind_are_refused() {
        for input in [
            "7",
            "null",
            "{}",
            "[null]",
            "[{}]",
            "[1.5]",
            "[-1]",
            "[4294967296]",
            "[true]",
            r#"["a",1]"#,
            r#"[1,"a"]"#,
            "[[1],2]",
            r#"[[1],"a"]"#,
            "[[[1]]]",
            "[1,[2]]",
            r#"[["a"]]"#,
        ] {
            assert!(read(input).is_err(), "{input}");
        }
    }

    #[test]
    fn a_list_past_its_limit_is_refused_while_it_is_read() {
        let list = |element: &str, count: usize| format!("[{}", vec![element; count].join(","));
        // None of these ends, so that whatever reads them to their end fails otherwise.
        for element in [r#""a""#, "[1]"] {
            let said = read(&list(element, INPUTS_MAX + 1)).unwrap_err();
            assert!(said.contains("more than 2048 inputs"), "{said}");
        }
        for start in ["", "[[1],"] {
            let said = read(&format!("{start}{}", list("1", TOKEN_IDS_MAX + 1))).unwrap_err();
            assert!(said.contains("more than 4194304 token ids"), "{said}");
        }
        let lists = list(&format!("{}]", list("1", 1 << 21)), 3);
        assert!(read(&lists).unwrap_err().contains("more than 4194304 token ids"));
    }
}
