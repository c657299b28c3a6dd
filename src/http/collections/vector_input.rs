//! Vectors in bodies.

use std::fmt;

use base64_simd::STANDARD;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

/// Numbers of one vector that are read at all.
const NUMBERS_MAX: usize = 65_536;

/// A vector: a list of numbers, or base64 of little-endian f32.
#[derive(Debug)]
pub(super) struct VectorInput(pub(super) Vec<f32>);

impl PartialSchema for VectorInput {
    fn schema() -> RefOr<Schema> {
        let float = SchemaFormat::KnownFormat(KnownFormat::Float);
        let number = ObjectBuilder::new().schema_type(Type::Number).format(Some(float));
        let numbers = ArrayBuilder::new().items(number).min_items(Some(1)).max_items(Some(NUMBERS_MAX));
        let base64 = ObjectBuilder::new().schema_type(Type::String).content_encoding("base64");
        let shapes = OneOfBuilder::new().item(numbers).item(base64);
        shapes.description(Some("A vector: a list of numbers, or base64 of little-endian f32.")).into()
    }
}

impl ToSchema for VectorInput {}

impl<'de> Deserialize<'de> for VectorInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<VectorInput, D::Error> {
        struct Numbers;
        impl<'de> Visitor<'de> for Numbers {
            type Value = VectorInput;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of numbers, or base64 of little-endian f32")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<VectorInput, E> {
                let bytes =
                    STANDARD.decode_to_vec(text).map_err(|_| E::custom("the vector is not base64"))?;
                let (numbers, rest) = bytes.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(E::custom("the vector's bytes are not a multiple of four"));
                }
                Ok(VectorInput(numbers.iter().map(|&number| f32::from_le_bytes(number)).collect()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<VectorInput, A::Error> {
                let mut numbers = Vec::new();
                // By way of doubles: a number that only an f32 cannot hold is found where its place can be named.
                while let Some(number) = list.next_element::<f64>()? {
                    if numbers.len() == NUMBERS_MAX {
                        return Err(de::Error::custom(format!(
                            "a vector must have at most {NUMBERS_MAX} numbers"
                        )));
                    }
                    numbers.push(number as f32);
                }
                Ok(VectorInput(numbers))
            }
        }
        deserializer.deserialize_any(Numbers)
    }
}
