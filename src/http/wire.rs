//! The bodies of requests and answers, as OpenAI's clients write and read them.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::error::{Error, Result};

/// Texts or token lists in one request; OpenAI's limit.
pub(super) const INPUTS_MAX: usize = 2048;

/// Parses a JSON body, naming the field at fault.
///
/// # Errors
/// `InvalidInput` for malformed JSON, invalid UTF-8, a missing field or a wrong type.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    // serde would also read the fields from a list, in an order that nobody has promised.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|&first| first == b'[') {
        return Err(Error::new(crate::error::Kind::InvalidInput, "the body is a JSON object, not a list"));
    }
    // The path of a fault costs time to track, so it is tracked only once there is a fault.
    serde_json::from_slice(body).map_err(|_| fault::<T>(body))
}

/// An object within a body, or none: serde would read its fields from a list too.
pub(super) fn object<'de, T, D>(deserializer: D) -> std::result::Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Reader<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_unit<E>(self) -> std::result::Result<Option<T>, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Option<T>, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }
    deserializer.deserialize_any(Reader(PhantomData))
}

fn fault<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Error {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let Err(error) = serde_path_to_error::deserialize::<_, T>(&mut deserializer) else {
        return Error::new(crate::error::Kind::InvalidInput, "the body has text after its JSON");
    };
    let path = error.path().to_string();
    let inner = error.into_inner();
    if inner.is_syntax() || inner.is_eof() {
        return Error::new(crate::error::Kind::InvalidInput, format!("the body is not valid JSON: {inner}"));
    }
    let named = field_at_fault(path.trim_start_matches('.'), &inner.to_string());
    let error = Error::new(crate::error::Kind::InvalidInput, format!("wrong body: {inner}"));
    if named.is_empty() { error } else { error.param(named) }
}

/// The whole path of the field, rows with it: `documents[1].id`. serde names the parent of a missing field, and the field
/// in the message only.
fn field_at_fault(path: &str, message: &str) -> String {
    let quoted = |start| message.strip_prefix(start).and_then(|rest: &str| rest.split('`').next());
    let Some(field) = quoted("missing field `").or_else(|| quoted("unknown field `")) else {
        return path.to_owned();
    };
    match path.rsplit('.').next() {
        Some("") => field.to_owned(),
        Some(last) if last == field => path.to_owned(),
        _ => format!("{path}.{field}"),
    }
}

/// A request for embeddings. Fields that are not listed are ignored.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct EmbeddingsRequest {
    /// Name of the model, as `/v1/models` lists it.
    pub(super) model: String,
    /// What to embed.
    #[schema(value_type = InputSchema)]
    pub(super) input: Input,
    /// How vectors are written: `float` (default) or `base64` (little-endian f32).
    #[serde(default)]
    pub(super) encoding_format: EncodingFormat,
    /// Length of the vectors; other than the model's own only if the model was trained for it (Matryoshka).
    #[schema(minimum = 1)]
    pub(super) dimensions: Option<u32>,
    /// What the texts are for; chooses the model's prompt.
    pub(super) input_type: Option<InputTypeName>,
    /// Whether a text longer than the model reads is cut (default) or refused.
    pub(super) truncate: Option<bool>,
    /// What the request says about the cache.
    #[serde(default, deserialize_with = "object")]
    pub(super) cache: Option<CacheObject>,
}

/// What to embed: a text, a list of texts, a list of token ids, or a list of such lists.
#[derive(Debug)]
pub(super) enum Input {
    Texts(Vec<String>),
    Tokens(Vec<Vec<u32>>),
}

/// The four shapes of `input`, for the contract only.
#[derive(ToSchema)]
#[schema(as = Input)]
#[expect(dead_code, reason = "describes the shape in the OpenAPI document")]
enum InputSchema {
    #[schema(title = "text")]
    Text(String),
    #[schema(title = "texts, at most 2048")]
    Texts(Vec<String>),
    #[schema(title = "token ids")]
    Tokens(Vec<u32>),
    #[schema(title = "lists of token ids, at most 2048")]
    TokenLists(Vec<Vec<u32>>),
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum EncodingFormat {
    #[default]
    Float,
    Base64,
}

/// What a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum InputTypeName {
    #[serde(alias = "search_query")]
    Query,
    #[serde(alias = "search_document", alias = "passage")]
    Document,
}

/// What a request says about the cache.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct CacheObject {
    /// Lifetime of what is stored, in seconds.
    pub(super) ttl: Option<u32>,
    /// Oldest acceptable age of a cached value, in seconds.
    pub(super) s_maxage: Option<u32>,
    /// Skip the read; make the value anew and store it.
    pub(super) no_cache: bool,
    /// Skip the write.
    pub(super) no_store: bool,
    /// Answer from the cache, or with 504.
    pub(super) only_if_cached: bool,
    /// Entries of different namespaces are different entries.
    pub(super) namespace: Option<String>,
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Input, D::Error> {
        deserializer.deserialize_any(InputVisitor)
    }
}

struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = Input;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a list of strings, a list of token ids, or a list of lists of token ids")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Input, E> {
        Ok(Input::Texts(vec![text.to_owned()]))
    }

    fn visit_string<E: de::Error>(self, text: String) -> std::result::Result<Input, E> {
        Ok(Input::Texts(vec![text]))
    }

    /// The first element says what the list is of; an element of another kind is an error.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Input, A::Error> {
        match list.next_element()? {
            None => Ok(Input::Texts(Vec::new())),
            Some(First::Text(text)) => Ok(Input::Texts(rest(vec![text], &mut list, INPUTS_MAX)?)),
            Some(First::Tokens(ids)) => Ok(Input::Tokens(rest(vec![ids], &mut list, INPUTS_MAX)?)),
            Some(First::Token(id)) => Ok(Input::Tokens(vec![rest(vec![id], &mut list, usize::MAX)?])),
        }
    }
}

/// The rest of a list of at most `max` elements.
fn rest<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
    mut elements: Vec<T>,
    list: &mut A,
    max: usize,
) -> std::result::Result<Vec<T>, A::Error> {
    while let Some(element) = list.next_element()? {
        if elements.len() == max {
            return Err(de::Error::custom(format!("more than {max} inputs in one request")));
        }
        elements.push(element);
    }
    Ok(elements)
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string, a token id, or a list of token ids")]
enum First {
    Text(String),
    Token(u32),
    Tokens(Vec<u32>),
}

// `answer.rs` writes answers; from here to `Usage` is their shape, for the contract and for the tests that read them.

/// The answer to a request for embeddings.
#[derive(Deserialize, ToSchema)]
#[cfg_attr(test, derive(Debug))]
#[cfg_attr(not(test), expect(dead_code, reason = "describes the shape in the OpenAPI document"))]
pub(super) struct EmbeddingsAnswer {
    /// `list`.
    pub(super) object: String,
    /// One element for each input, in the order of the inputs.
    pub(super) data: Vec<EmbeddingObject>,
    /// The model that embedded.
    pub(super) model: String,
    /// Tokens of the inputs, cached ones included.
    pub(super) usage: Usage,
}

/// One vector.
#[derive(Deserialize, ToSchema)]
#[cfg_attr(test, derive(Debug))]
#[cfg_attr(not(test), expect(dead_code, reason = "describes the shape in the OpenAPI document"))]
pub(super) struct EmbeddingObject {
    /// `embedding`.
    pub(super) object: String,
    /// The place of the input in the request.
    pub(super) index: usize,
    /// The vector.
    pub(super) embedding: Vector,
}

/// A vector as the request asked for it.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[cfg_attr(test, derive(Debug, PartialEq))]
#[cfg_attr(not(test), expect(dead_code, reason = "describes the shape in the OpenAPI document"))]
pub(super) enum Vector {
    /// Numbers.
    Float(Vec<f32>),
    /// Little-endian f32 in base64.
    Base64(String),
}

/// Tokens of a request.
#[derive(Deserialize, ToSchema)]
#[cfg_attr(test, derive(Debug))]
#[cfg_attr(not(test), expect(dead_code, reason = "describes the shape in the OpenAPI document"))]
pub(super) struct Usage {
    /// Tokens that the model read.
    pub(super) prompt_tokens: u64,
    /// The same: nothing is generated.
    pub(super) total_tokens: u64,
}

/// A model that can be asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelObject {
    /// The name to ask for.
    pub(super) id: String,
    /// `model`.
    pub(super) object: &'static str,
    /// When its weights were written, in seconds since 1970.
    pub(super) created: u32,
    /// `likewise`.
    pub(super) owned_by: &'static str,
    /// Length of its vectors.
    pub(super) dimensions: usize,
    /// Tokens that it reads; the rest of a longer text is cut.
    pub(super) max_input_tokens: usize,
    /// Hash of everything that can change a vector.
    pub(super) fingerprint: String,
}

/// All models.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelList {
    /// `list`.
    pub(super) object: &'static str,
    /// The models that embed here, then those of the upstreams as these describe them.
    #[schema(value_type = Vec<ModelObject>)]
    pub(super) data: Vec<Box<RawValue>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(body: &str) -> String {
        let error = parse::<EmbeddingsRequest>(body.as_bytes()).unwrap_err();
        error.param_name().unwrap_or("none").to_owned()
    }

    #[test]
    fn the_four_shapes_of_input_are_read() {
        let read = |input: &str| {
            let body = format!(r#"{{"model":"m","input":{input}}}"#);
            parse::<EmbeddingsRequest>(body.as_bytes()).unwrap().input
        };
        assert!(matches!(read(r#""a""#), Input::Texts(texts) if texts == ["a"]));
        assert!(matches!(read(r#"["a","b"]"#), Input::Texts(texts) if texts == ["a", "b"]));
        assert!(matches!(read("[1,2]"), Input::Tokens(ids) if ids == [vec![1, 2]]));
        assert!(matches!(read("[[1],[2,3]]"), Input::Tokens(ids) if ids == [vec![1], vec![2, 3]]));
        assert!(matches!(read("[]"), Input::Texts(texts) if texts.is_empty()));
    }

    #[test]
    fn a_fault_names_its_field() {
        assert_eq!(param(r#"{"input":"a"}"#), "model");
        assert_eq!(param(r#"{"model":"m"}"#), "input");
        assert_eq!(param(r#"{"model":"m","input":{"a":1}}"#), "input");
        assert_eq!(param(r#"{"model":"m","input":["a",1]}"#), "input[1]");
        assert_eq!(param(r#"{"model":"m","input":[1,"a"]}"#), "input[1]");
        assert_eq!(param(r#"{"model":"m","input":[-1]}"#), "input[0]");
        assert_eq!(param(r#"{"model":"m","input":"a","dimensions":"x"}"#), "dimensions");
        assert_eq!(param(r#"{"model":"m","input":"a","encoding_format":"hex"}"#), "encoding_format");
        assert_eq!(param(r#"{"model":"m","input":"a","cache":{"ttl":-1}}"#), "cache.ttl");
        assert_eq!(param(r#"{"model":"m","input":"a","cache":{"tll":1}}"#), "cache.tll");
        assert_eq!(field_at_fault("documents[1]", "missing field `id` at line 1"), "documents[1].id");
        assert_eq!(field_at_fault("id.id", "unknown field `id`"), "id.id");
        assert_eq!(param("{"), "none");
    }

    #[test]
    fn a_list_past_the_limit_is_refused_while_it_is_read() {
        let body = format!(r#"{{"model":"m","input":[{}]}}"#, vec![r#""a""#; INPUTS_MAX + 1].join(","));
        let error = parse::<EmbeddingsRequest>(body.as_bytes()).unwrap_err();
        assert_eq!(error.param_name(), Some("input"));
        assert!(error.to_string().contains("2048"), "{error}");
    }
}
