//! The bodies of requests and answers, as OpenAI's clients write and read them.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::encoding;
pub(super) use super::input::Input;
use crate::error::{Error, Result};

/// Bytes of a model's name in a request. Published names stay below 100; a longer one would be repeated in answers and
/// errors.
pub(super) const MODEL_NAME_BYTES_MAX: usize = 256;

/// Parses a JSON body, naming the field at fault. A byte order mark before it is skipped.
///
/// A `charset` in the content type has no effect (RFC 8259, section 11): clients state one that is not that of their
/// bytes. Bytes that are not UTF-8 are refused.
///
/// # Errors
/// `InvalidInput` for malformed JSON, another encoding than UTF-8, a missing field or a wrong type.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    let body = body.strip_prefix(encoding::UTF8_MARK).unwrap_or(body);
    // serde would also read the fields from a list, in an order that is promised nowhere.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|&first| first == b'[') {
        return Err(Error::new(crate::error::Kind::InvalidInput, "the body is a JSON object, not a list"));
    }
    // The path of a fault costs time to track, so it is tracked only once there is a fault.
    serde_json::from_slice(body).map_err(|_| fault::<T>(body))
}

/// A member that is `null` is the default, as if it were left out: many clients write out every field of their types.
pub(super) fn null_is_default<'de, T, D>(deserializer: D) -> std::result::Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Refuses a model's name that no model has.
///
/// # Errors
/// `InvalidInput`.
pub(super) fn check_model_name(name: &str) -> Result<()> {
    if name.len() <= MODEL_NAME_BYTES_MAX {
        return Ok(());
    }
    let message = format!("a model's name has at most {MODEL_NAME_BYTES_MAX} bytes, got {}", name.len());
    Err(Error::invalid("model", message))
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
        let malformed =
            || Error::new(crate::error::Kind::InvalidInput, format!("the body is not valid JSON: {inner}"));
        return encoding::fault(body).unwrap_or_else(malformed);
    }
    let fault = inner.to_string();
    let named = shortened(&field_at_fault(path.trim_start_matches('.'), &fault));
    let error = Error::new(crate::error::Kind::InvalidInput, format!("wrong body: {}", shortened(&fault)));
    if named.is_empty() { error } else { error.param(named) }
}

/// The beginning of a text that repeats what the client sent: the client has all of it.
pub(super) fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 300;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
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
    #[serde(default, deserialize_with = "null_is_default")]
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
    /// Skip the read; make the value again and store it.
    #[serde(deserialize_with = "null_is_default")]
    pub(super) no_cache: bool,
    /// Skip the write.
    #[serde(deserialize_with = "null_is_default")]
    pub(super) no_store: bool,
    /// Answer from the cache, or with 504.
    #[serde(deserialize_with = "null_is_default")]
    pub(super) only_if_cached: bool,
    /// Entries of different namespaces are different entries.
    pub(super) namespace: Option<String>,
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
    fn a_null_is_the_default() {
        let body = r#"{"model":"m","input":"a","encoding_format":null,"dimensions":null,"input_type":null,
            "truncate":null,"user":null,"cache":{"ttl":null,"s-maxage":null,"no-cache":null,"no-store":null,
            "only-if-cached":null,"namespace":null}}"#;
        let read = parse::<EmbeddingsRequest>(body.as_bytes()).unwrap();
        assert_eq!(read.encoding_format, EncodingFormat::Float);
        assert!(read.dimensions.is_none() && read.input_type.is_none() && read.truncate.is_none());
        let cache = read.cache.unwrap();
        assert!(!cache.no_cache && !cache.no_store && !cache.only_if_cached && cache.ttl.is_none());
        let none = parse::<EmbeddingsRequest>(br#"{"model":"m","input":"a","cache":null}"#).unwrap();
        assert!(none.cache.is_none());
        assert_eq!(param(r#"{"model":"m","input":null}"#), "input");
        assert_eq!(param(r#"{"model":null,"input":"a"}"#), "model");
        assert_eq!(param(r#"{"model":"m","input":["a",null]}"#), "input[1]");
        assert_eq!(param(r#"{"model":"m","input":"a","cache":{"no-cache":1}}"#), "cache.no-cache");
    }

    #[test]
    fn a_byte_order_mark_is_skipped_and_another_encoding_named() {
        let body = r#"{"model":"m","input":"a"}"#;
        let marked = format!("\u{feff}{body}");
        assert!(parse::<EmbeddingsRequest>(marked.as_bytes()).is_ok());
        let twice = format!("\u{feff}{marked}");
        assert!(parse::<EmbeddingsRequest>(twice.as_bytes()).is_err());
        let listed = "\u{feff}[]";
        let said = parse::<EmbeddingsRequest>(listed.as_bytes()).unwrap_err().to_string();
        assert!(said.contains("not a list"), "{said}");
        let wide: Vec<u8> = body.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let said = parse::<EmbeddingsRequest>(&wide).unwrap_err().to_string();
        assert!(said.contains("UTF-16"), "{said}");
    }

    #[test]
    fn a_fault_repeats_only_the_beginning_of_what_was_sent() {
        let body = format!(r#"{{"model":"m","input":"a","cache":{{"{}":1}}}}"#, "x".repeat(100_000));
        let error = parse::<EmbeddingsRequest>(body.as_bytes()).unwrap_err();
        assert!(error.to_string().len() < 1000, "{}", error.to_string().len());
        assert!(error.param_name().is_some_and(|param| param.len() < 1000));
    }
}
