//! Bodies of requests as JSON: parsing, with the field at fault named.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::text_encoding;
use crate::error::{Error, FieldPath, Kind, Result};

/// Parses a JSON body, naming the field at fault. A byte order mark before it is skipped.
///
/// A `charset` in the content type has no effect (RFC 8259, section 11): clients state one that is not that of their
/// bytes. Bytes that are not UTF-8 are refused.
///
/// # Errors
/// `InvalidInput` for malformed JSON, another encoding than UTF-8, a missing field or a wrong type.
pub(in crate::http) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    let body = body.strip_prefix(text_encoding::UTF8_MARK).unwrap_or(body);
    // serde would also read the fields from a list, in an order that is promised nowhere.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|&first| first == b'[') {
        return Err(Error::new(Kind::InvalidInput, "the body must be a JSON object, not a list"));
    }
    // The path of a fault costs time to track, so it is tracked only once there is a fault.
    serde_json::from_slice(body).map_err(|_| fault::<T>(body))
}

/// A member that is `null` is the default, as if it were left out: many clients write out every field of their types.
pub(in crate::http) fn null_is_default<'de, T, D>(deserializer: D) -> std::result::Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A lifetime in seconds, or `null`: a 32-bit integer, as the contract says, also where another limit of the request is the shorter one.
pub(in crate::http) fn lifetime_seconds<'de, D>(deserializer: D) -> std::result::Result<Option<u32>, D::Error>
where
    D: Deserializer<'de>,
{
    let seconds = Option::<i32>::deserialize(deserializer)?;
    let negative = |_| D::Error::custom("a lifetime must be at least 1 second");
    seconds.map(u32::try_from).transpose().map_err(negative)
}

/// An object within a body, or none: serde would read its fields from a list too.
pub(in crate::http) fn object<'de, T, D>(deserializer: D) -> std::result::Result<Option<T>, D::Error>
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
        return Error::new(Kind::InvalidInput, "the body must end after its JSON");
    };
    let path = error.path().to_string();
    let inner = error.into_inner();
    if inner.is_syntax() || inner.is_eof() {
        let malformed = || Error::new(Kind::InvalidInput, format!("the body is not valid JSON: {inner}"));
        return text_encoding::fault(body).unwrap_or_else(malformed);
    }
    let fault = inner.to_string();
    let named = shortened(&field_at_fault(path.trim_start_matches('.'), &fault));
    let error = Error::new(Kind::InvalidInput, format!("invalid body: {}", shortened(&fault)));
    if named.is_empty() { error } else { error.param(FieldPath::parse(&named)) }
}

/// The beginning of a text that repeats what the client sent: the client has all of it.
pub(in crate::http) fn shortened(text: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::embeddings::wire::{EmbeddingsRequest, EncodingFormat};

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
