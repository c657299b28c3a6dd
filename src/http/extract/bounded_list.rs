//! Lists in bodies, refused at their limit while they are read.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A list of at most `MAX` elements. A longer one is refused while it is read, before its elements cost anything.
#[derive(Debug)]
pub(in crate::http) struct BoundedList<T, const MAX: usize>(pub(in crate::http) Vec<T>);

impl<T, const MAX: usize> Default for BoundedList<T, MAX> {
    fn default() -> Self {
        BoundedList(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for BoundedList<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_seq(BoundedListVisitor::<T, MAX>(PhantomData)).map(BoundedList)
    }
}

struct BoundedListVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for BoundedListVisitor<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Vec<T>, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            if elements.len() == MAX {
                return Err(de::Error::custom(format!(
                    "a list of at most {MAX} elements is expected, got more"
                )));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::extract::json::parse;

    #[test]
    fn a_bounded_list_is_refused_at_its_limit_and_its_rest_is_not_read() {
        #[derive(Debug, Deserialize)]
        struct Lists {
            #[serde(default)]
            names: Option<BoundedList<String, 2>>,
        }
        let read = |body: &str| parse::<Lists>(body.as_bytes());
        assert_eq!(read(r#"{"names":["a","b"]}"#).unwrap().names.unwrap().0, ["a", "b"]);
        assert!(read(r#"{"names":null}"#).unwrap().names.is_none() && read("{}").unwrap().names.is_none());
        let error = read(r#"{"names":["a","b","c", what follows is not even JSON"#).unwrap_err();
        assert_eq!(error.param_name(), Some("names"));
        assert!(error.to_string().contains("at most 2 elements"), "{error}");
        assert_eq!(read(r#"{"names":[1]}"#).unwrap_err().param_name(), Some("names[0]"));
    }
}
