//! Parses replies of an embeddings endpoint. Every value is checked.

use std::fmt;

use base64_simd::STANDARD;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::domain::is_usable;
use crate::error::{Error, Kind, Result};

#[derive(Deserialize)]
struct EmbeddingsReply {
    data: Vec<Item>,
    #[serde(default)]
    usage: Option<ReplyUsage>,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Numbers,
}

/// Numbers of a vector that are kept while it is parsed: one more than the largest supported dimension, which shows that
/// there are too many.
const NUMBERS_MAX: usize = (1 << 16) + 1;

/// A vector as it was sent. Not an untagged enum: serde would buffer it as a tree of values of many times its size.
enum Numbers {
    Base64(String),
    Floats(Vec<f32>),
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Numbers, D::Error> {
        deserializer.deserialize_any(NumbersVisitor)
    }
}

struct NumbersVisitor;

impl<'de> Visitor<'de> for NumbersVisitor {
    type Value = Numbers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of numbers, or base64")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Numbers, E> {
        Ok(Numbers::Base64(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> std::result::Result<Numbers, E> {
        Ok(Numbers::Base64(text))
    }

    /// A null vector becomes an empty one: an error of its text only.
    fn visit_unit<E: de::Error>(self) -> std::result::Result<Numbers, E> {
        Ok(Numbers::Floats(Vec::new()))
    }

    /// Some servers write null for NaN.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Numbers, A::Error> {
        let mut numbers = Vec::new();
        // As f64: a number out of the range of f32 is an error of its text only.
        while let Some(number) = list.next_element::<Option<f64>>()? {
            if numbers.len() < NUMBERS_MAX {
                numbers.push(number.map_or(f32::NAN, |number| number as f32));
            }
        }
        Ok(Numbers::Floats(numbers))
    }
}

#[derive(Deserialize)]
struct ReplyUsage {
    /// Any JSON: an invalid count must not fail the vectors.
    #[serde(default)]
    prompt_tokens: serde_json::Value,
}

/// The vector of one text.
#[derive(Debug)]
pub struct RemoteVector {
    /// Its numbers.
    pub numbers: Vec<f32>,
    /// The share of its text in the tokens of the request, by its length: endpoints count per request only.
    pub tokens: u32,
}

/// Parses the body of a reply: the vectors of texts of these `lengths` in bytes, in the order of the texts.
///
/// A reply with a missing or repeated index is refused whole, since then no index can be trusted. A vector whose length is not
/// `dim`, or that is not finite or zero, is an error of its text only. Without a `dim` all have the length of the first that can be used.
///
/// # Errors
/// `Upstream`.
pub fn read_vectors(body: &[u8], lengths: &[usize], dim: Option<usize>) -> Result<Vec<Result<RemoteVector>>> {
    let reply: EmbeddingsReply = serde_json::from_slice(body)
        .map_err(|error| Error::new(Kind::Upstream, "cannot read the endpoint's reply").source(error))?;
    if reply.data.len() != lengths.len() {
        return Err(Error::new(
            Kind::Upstream,
            "cannot read the endpoint's reply: it has another number of vectors than texts",
        )
        .with("texts", lengths.len())
        .with("vectors", reply.data.len()));
    }
    let mut slots: Vec<Option<Numbers>> = lengths.iter().map(|_| None).collect();
    for item in reply.data {
        match slots.get_mut(item.index) {
            Some(slot @ None) => *slot = Some(item.embedding),
            Some(Some(_)) | None => {
                let message = "cannot read the endpoint's reply: an index is repeated or out of range";
                return Err(Error::new(Kind::Upstream, message).with("index", item.index));
            }
        }
    }
    let tokens = reply.usage.and_then(|usage| usage.prompt_tokens.as_u64()).unwrap_or(0);
    let shares = shares_of(tokens, lengths);
    // As many items as texts and no index twice: every slot is filled.
    let mut vectors: Vec<Result<Vec<f32>>> = slots.into_iter().flatten().map(numbers).collect();
    let usable = |vector: &&Vec<f32>| is_usable(vector);
    let dim = dim.or_else(|| vectors.iter().flatten().find(usable).map(Vec::len));
    for vector in &mut vectors {
        let fault = vector.as_ref().ok().and_then(|numbers| fault_of(numbers, dim.unwrap_or(numbers.len())));
        if let Some(fault) = fault {
            *vector = Err(fault);
        }
    }
    let with_tokens =
        |(vector, tokens): (Result<Vec<f32>>, u32)| vector.map(|numbers| RemoteVector { numbers, tokens });
    Ok(vectors.into_iter().zip(shares).map(with_tokens).collect())
}

/// The share of each text in the tokens of all, by the lengths. They add up to all tokens.
fn shares_of(tokens: u64, lengths: &[usize]) -> Vec<u32> {
    let total = lengths.iter().sum::<usize>().max(1) as u128;
    let mut read = 0;
    let share = |&length: &usize| {
        // In 128 bits: an endpoint may send any number.
        let before = u128::from(tokens) * read / total;
        read += length as u128;
        u32::try_from(u128::from(tokens) * read / total - before).unwrap_or(u32::MAX)
    };
    lengths.iter().map(share).collect()
}

fn numbers(sent: Numbers) -> Result<Vec<f32>> {
    match sent {
        Numbers::Floats(numbers) => Ok(numbers),
        Numbers::Base64(text) => decode(&text),
    }
}

/// Why a vector cannot be used.
fn fault_of(numbers: &[f32], dim: usize) -> Option<Error> {
    if numbers.len() != dim {
        let message = "cannot use the endpoint's vector: it has another length";
        return Some(Error::new(Kind::Upstream, message).with("expected", dim).with("got", numbers.len()));
    }
    let message = "cannot use the endpoint's vector: it is zero or not finite";
    (!is_usable(numbers)).then(|| Error::new(Kind::Upstream, message))
}

/// Little-endian single precision in base64.
fn decode(text: &str) -> Result<Vec<f32>> {
    let bytes = STANDARD
        .decode_to_vec(text)
        .map_err(|error| Error::new(Kind::Upstream, "cannot decode the endpoint's vector").source(error))?;
    let (numbers, rest) = bytes.as_chunks();
    if !rest.is_empty() {
        return Err(Error::new(
            Kind::Upstream,
            "cannot decode the endpoint's vector: it ends within a number",
        ));
    }
    Ok(numbers.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> Error {
        let error = read_vectors(body.as_bytes(), &[1, 1], Some(2)).unwrap_err();
        assert_eq!(error.kind(), Kind::Upstream);
        error
    }

    #[test]
    fn vectors_come_to_their_own_slots_in_either_form() {
        // 1.0 and -2.0 in little-endian bytes: 00 00 80 3f 00 00 00 c0.
        let body = r#"{"data": [{"index": 1, "embedding": [3, 4e0]}, {"index": 0, "embedding": "AACAPwAAAMA="}],
            "usage": {"prompt_tokens": 8, "total_tokens": 8}}"#;
        let vectors = read_vectors(body.as_bytes(), &[1, 3], Some(2)).unwrap();
        let vectors: Vec<(Vec<f32>, u32)> =
            vectors.into_iter().map(|vector| vector.unwrap()).map(|v| (v.numbers, v.tokens)).collect();
        assert_eq!(vectors, [(vec![1.0, -2.0], 2), (vec![3.0, 4.0], 6)]);
    }

    #[test]
    fn tokens_are_shared_by_length_and_none_is_lost() {
        assert_eq!(shares_of(8, &[1, 3]), [2, 6]);
        assert_eq!(shares_of(10, &[1, 1, 1]), [3, 3, 4]);
        assert_eq!(shares_of(1, &[5, 5]).iter().sum::<u32>(), 1);
        assert_eq!(shares_of(u64::MAX, &[1, 1]), [u32::MAX, u32::MAX]);
        assert_eq!(shares_of(7, &[]), Vec::<u32>::new());
    }

    #[test]
    fn without_a_dimension_the_first_vector_has_it() {
        let body = r#"{"data": [{"index": 0, "embedding": null}, {"index": 1, "embedding": [1, 2, 3]},
            {"index": 2, "embedding": [1, 2]}, {"index": 3, "embedding": [4, 5, 6]}]}"#;
        let vectors = read_vectors(body.as_bytes(), &[1; 4], None).unwrap();
        let usable: Vec<bool> = vectors.iter().map(Result::is_ok).collect();
        assert_eq!(usable, [false, true, false, true]);
    }

    #[test]
    fn a_count_of_tokens_that_cannot_be_is_not_used() {
        for (count, tokens) in
            [("18446744073709551615", u32::MAX), ("-1", 0), ("null", 0), ("1.5", 0), ("\"9\"", 0)]
        {
            let body = format!(
                r#"{{"data": [{{"index": 0, "embedding": [1, 2]}}], "usage": {{"prompt_tokens": {count}}}}}"#
            );
            let vectors = read_vectors(body.as_bytes(), &[5], Some(2)).unwrap();
            assert_eq!(vectors[0].as_ref().unwrap().tokens, tokens, "{count}");
        }
    }

    #[test]
    fn an_answer_whose_slots_cannot_be_trusted_is_refused() {
        refusal(r#"{"data": [{"index": 0, "embedding": [1, 2]}]}"#);
        refusal(r#"{"data": [{"index": 0, "embedding": [1, 2]}, {"index": 0, "embedding": [1, 2]}]}"#);
        refusal(r#"{"data": [{"index": 0, "embedding": [1, 2]}, {"index": 2, "embedding": [1, 2]}]}"#);
        refusal(r#"{"data": [{"embedding": [1, 2]}, {"embedding": [1, 2]}]}"#);
        refusal(r#"{"data": [{"index": -1, "embedding": [1, 2]}, {"index": 0, "embedding": [1, 2]}]}"#);
        refusal("<html>");
    }

    #[test]
    fn a_bad_vector_is_an_error_of_its_text_alone() {
        let nan = STANDARD.encode_to_string([f32::NAN.to_le_bytes(), 1f32.to_le_bytes()].concat());
        for bad in [
            "[1]",
            "[1, 2, 3]",
            "[0, 0]",
            "[1e39, 1]",
            "[null, 1]",
            "[]",
            "null",
            &format!("[{}]", vec!["1"; NUMBERS_MAX + 2].join(",")),
            &format!("\"{nan}\""),
            "\"AAA\"",
            "\"AACAPwAA\"",
            "\"?\"",
        ] {
            let body = format!(
                r#"{{"data": [{{"index": 0, "embedding": {bad}}}, {{"index": 1, "embedding": [1, 2]}}]}}"#
            );
            let vectors = read_vectors(body.as_bytes(), &[1, 1], Some(2)).unwrap();
            assert_eq!(vectors[0].as_ref().unwrap_err().kind(), Kind::Upstream, "{bad}");
            assert!(vectors[1].is_ok());
        }
    }
}
