//! Answers with vectors, written straight into their buffers.
//!
//! A general serializer looks in every base64 vector for characters to escape and copies it twice, which is a large
//! part of what a hit costs. What is written here is what [`EmbeddingsAnswer`](crate::http::embeddings::wire::EmbeddingsAnswer)
//! describes: the tests read it back as that type.

use std::borrow::Cow;

use base64_simd::STANDARD;

use super::wire::EncodingFormat;

/// JSON around one vector: its object's name, place and braces.
const OBJECT_BYTES: usize = 64;
/// JSON around all vectors, the model's name included.
const FRAME_BYTES: usize = 256;
/// The longest f32 in decimal, with its comma, is shorter than this.
const FLOAT_BYTES: usize = 16;

/// Bytes of an answer with `count` vectors of `dim` numbers, at most.
pub(in crate::http) fn bytes_max(count: usize, dim: usize, format: EncodingFormat) -> usize {
    let vector_bytes = match format {
        EncodingFormat::Base64 => STANDARD.encoded_length(dim * size_of::<f32>()),
        EncodingFormat::Float => dim * FLOAT_BYTES,
    };
    FRAME_BYTES + count * (OBJECT_BYTES + vector_bytes)
}

/// ResponseVectors as JSON, in their order. Each is its numbers as little-endian f32.
pub(in crate::http) fn write<'a>(
    vectors: impl ExactSizeIterator<Item = Cow<'a, [u8]>>,
    dim: usize,
    format: EncodingFormat,
    model: &str,
    tokens: u64,
) -> Vec<u8> {
    let mut json = Vec::with_capacity(bytes_max(vectors.len(), dim, format));
    json.extend_from_slice(br#"{"object":"list","data":["#);
    for (index, vector) in vectors.enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(br#"{"object":"embedding","index":"#);
        append_value(&mut json, &index);
        json.extend_from_slice(br#","embedding":"#);
        match format {
            EncodingFormat::Base64 => base64(&mut json, &vector),
            EncodingFormat::Float => numbers(&mut json, &vector),
        }
        json.push(b'}');
    }
    json.extend_from_slice(br#"],"model":"#);
    append_value(&mut json, model);
    json.extend_from_slice(br#","usage":{"prompt_tokens":"#);
    append_value(&mut json, &tokens);
    json.extend_from_slice(br#","total_tokens":"#);
    append_value(&mut json, &tokens);
    json.extend_from_slice(b"}}");
    json
}

/// Appends vectors as a list of lists of numbers, or of texts in base64.
pub(super) fn append_rows<'a>(
    json: &mut Vec<u8>,
    vectors: impl Iterator<Item = Cow<'a, [u8]>>,
    format: EncodingFormat,
) {
    json.push(b'[');
    for (place, vector) in vectors.enumerate() {
        if place > 0 {
            json.push(b',');
        }
        match format {
            EncodingFormat::Base64 => base64(json, &vector),
            EncodingFormat::Float => numbers(json, &vector),
        }
    }
    json.push(b']');
}

fn base64(json: &mut Vec<u8>, vector: &[u8]) {
    json.push(b'"');
    STANDARD.encode_append(vector, json);
    json.push(b'"');
}

fn numbers(json: &mut Vec<u8>, vector: &[u8]) {
    json.push(b'[');
    for (place, bytes) in vector.as_chunks::<4>().0.iter().enumerate() {
        if place > 0 {
            json.push(b',');
        }
        append_value(json, &f32::from_le_bytes(*bytes));
    }
    json.push(b']');
}

/// Appends a value as JSON.
pub(super) fn append_value<T: serde::Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(json, value).expect("numbers and strings are valid JSON: this is a bug");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::embeddings::wire::{EmbeddingsAnswer, Vector};

    const NUMBERS: [[f32; 3]; 2] = [[1.0, -0.25, 1e-9], [f32::MIN_POSITIVE, 0.1, -3.402_823_5e38]];

    fn written(format: EncodingFormat) -> Vec<u8> {
        let vectors = NUMBERS.map(|vector| vector.map(f32::to_le_bytes).concat());
        write(vectors.iter().map(|bytes| Cow::Borrowed(&bytes[..])), 3, format, "a \"model\"", 7)
    }

    fn read(json: &[u8]) -> EmbeddingsAnswer {
        serde_json::from_slice(json).expect("it is what the contract describes")
    }

    #[test]
    fn what_is_written_is_what_the_contract_describes() {
        let answer = read(&written(EncodingFormat::Float));
        assert_eq!((&*answer.object, &*answer.model), ("list", "a \"model\""));
        assert_eq!((answer.usage.prompt_tokens, answer.usage.total_tokens), (7, 7));
        for (place, object) in answer.data.iter().enumerate() {
            assert_eq!((&*object.object, object.index), ("embedding", place));
            assert_eq!(object.embedding, Vector::Float(NUMBERS[place].to_vec()));
        }
        assert_eq!(answer.data.len(), NUMBERS.len());
    }

    #[test]
    fn base64_holds_the_same_bits() {
        let answer = read(&written(EncodingFormat::Base64));
        for (numbers, object) in NUMBERS.iter().zip(&answer.data) {
            let Vector::Base64(text) = &object.embedding else { panic!("not base64: {object:?}") };
            let bytes = STANDARD.decode_to_vec(text).expect("valid base64");
            assert_eq!(bytes, numbers.map(f32::to_le_bytes).concat());
        }
    }

    #[test]
    fn the_buffer_is_long_enough_from_the_start() {
        for format in [EncodingFormat::Float, EncodingFormat::Base64] {
            let json = written(format);
            assert!(json.len() <= FRAME_BYTES + 2 * (OBJECT_BYTES + 3 * FLOAT_BYTES), "{} bytes", json.len());
        }
    }
}
