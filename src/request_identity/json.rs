//! JSON as identity sees it: no spacing, no two spellings of one number or letter, and nothing lost.
//!
//! The order of members is kept: a model that is to fill a schema writes its properties in the order of the schema, and what is
//! a schema does not show. Only where members are read by their names is their order taken away, by [`Json::sort`].

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::error::{Error, Kind, Result};

/// Integers up to here are the same as doubles.
const DOUBLE_INTEGER_MAX: f64 = 9_007_199_254_740_992.0;
/// From here on a number that was written as an integer may have been rounded while it was read.
const ROUNDED_MIN: f64 = 9_223_372_036_854_775_808.0;

/// Values that a text may hold.
const VALUES_MAX: u32 = 1 << 17;

/// What a value takes in memory, and half as much again while its list grows.
const VALUE_BYTES: usize = 48;

/// Bytes that [`Json::parse`] takes for the values of a text, at most. Each value follows a bracket, a brace or a comma, also those in
/// strings are counted.
pub fn parsed_bytes_max(text: &[u8]) -> usize {
    let before_values = text.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    (before_values + 1).min(VALUES_MAX as usize) * VALUE_BYTES
}

/// Objects with more members are searched for a name that stands twice by sorting their names.
const PAIRS_MAX: usize = 8;

/// A JSON value whose objects have no name twice.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Json<'a> {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without a fraction, exact; `1.0` is one too.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// A string.
    Text(Cow<'a, str>),
    /// An array.
    List(Vec<Json<'a>>),
    /// Members, in their order.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl<'a> Json<'a> {
    /// Reads a whole text.
    ///
    /// # Errors
    /// `InvalidInput` for anything but one JSON value, for an object that has a name twice (readers differ in which one
    /// they take), past 128 levels and past a million values.
    pub fn parse(text: &'a [u8]) -> Result<Json<'a>> {
        let left = Cell::new(VALUES_MAX);
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let json = ValueReader { left: &left }.deserialize(&mut deserializer);
        let json = json.and_then(|json| deserializer.end().map(|()| json));
        json.map_err(|error| {
            Error::new(Kind::InvalidInput, format!("the body must be unambiguous JSON: {error}"))
        })
    }

    /// The member called `name`, of an object.
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        let Json::Object(members) = self else { return None };
        members.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Removes the member called `name`, of an object.
    pub fn take(&mut self, name: &str) -> Option<Json<'a>> {
        let Json::Object(members) = self else { return None };
        let place = members.iter().position(|(known, _)| known == name)?;
        Some(members.remove(place).1)
    }

    /// The member called `name`, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Json<'a>> {
        let Json::Object(members) = self else { return None };
        members.iter_mut().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Takes away the order of the members, of an object; what stands in them keeps its own.
    pub fn sort(&mut self) {
        if let Json::Object(members) = self {
            members.sort_unstable_by(|(one, _), (two, _)| one.cmp(two));
        }
    }

    /// Whether it is an object all of whose members are called as one of `names`.
    pub fn has_only(&self, names: &[&str]) -> bool {
        let Json::Object(members) = self else { return false };
        members.iter().all(|(name, _)| names.contains(&name.as_ref()))
    }

    /// The text, of a string.
    pub fn as_text(&self) -> Option<&str> {
        if let Json::Text(text) = self { Some(text) } else { None }
    }

    /// The elements, of an array.
    pub fn as_list(&self) -> Option<&[Json<'a>]> {
        if let Json::List(elements) = self { Some(elements) } else { None }
    }

    /// The number, as near as a double comes.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Json::Integer(number) => Some(*number as f64),
            Json::Float(number) => Some(*number),
            Json::Null | Json::Bool(_) | Json::Text(_) | Json::List(_) | Json::Object(_) => None,
        }
    }

    /// Whether `is_it` holds for any of its texts, names of members included.
    pub fn any_text(&self, is_it: &impl Fn(&str) -> bool) -> bool {
        match self {
            Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Float(_) => false,
            Json::Text(text) => is_it(text),
            Json::List(elements) => elements.iter().any(|element| element.any_text(is_it)),
            Json::Object(members) => members.iter().any(|(name, value)| is_it(name) || value.any_text(is_it)),
        }
    }

    /// Whether no integer was rounded while it was read. Other numbers are doubles, as RFC 8785 says.
    pub fn is_exact(&self) -> bool {
        match self {
            Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Text(_) => true,
            Json::Float(number) => number.abs() < ROUNDED_MIN,
            Json::List(elements) => elements.iter().all(Json::is_exact),
            Json::Object(members) => members.iter().all(|(_, value)| value.is_exact()),
        }
    }

    /// The same value, with texts of its own.
    pub fn into_owned(self) -> Json<'static> {
        match self {
            Json::Null => Json::Null,
            Json::Bool(value) => Json::Bool(value),
            Json::Integer(number) => Json::Integer(number),
            Json::Float(number) => Json::Float(number),
            Json::Text(text) => Json::Text(text.into_owned().into()),
            Json::List(elements) => Json::List(elements.into_iter().map(Json::into_owned).collect()),
            Json::Object(members) => {
                let owned =
                    |(name, value): (Cow<'a, str>, Json<'a>)| (name.into_owned().into(), value.into_owned());
                Json::Object(members.into_iter().map(owned).collect())
            }
        }
    }

    /// What a value with texts of its own takes in memory, in bytes, without what its allocations cost.
    pub fn owned_bytes(&self) -> usize {
        let held = match self {
            Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Float(_) => 0,
            Json::Text(text) => text.len(),
            Json::List(elements) => elements.iter().map(Json::owned_bytes).sum(),
            Json::Object(members) => {
                members.iter().map(|(name, value)| size_of_val(name) + name.len() + value.owned_bytes()).sum()
            }
        };
        size_of_val(self) + held
    }

    /// The form of RFC 8785, but that members keep their order, and integers all their digits: the RFC takes every number for a
    /// double, and would call two seeds past 2^53 one.
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Json::Null => out.extend_from_slice(b"null"),
            Json::Bool(true) => out.extend_from_slice(b"true"),
            Json::Bool(false) => out.extend_from_slice(b"false"),
            Json::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Json::Float(number) => {
                out.extend_from_slice(ryu_js::Buffer::new().format_finite(*number).as_bytes());
            }
            Json::Text(text) => write_text(text, out),
            Json::List(elements) => {
                out.push(b'[');
                for (place, element) in elements.iter().enumerate() {
                    if place > 0 {
                        out.push(b',');
                    }
                    element.write(out);
                }
                out.push(b']');
            }
            Json::Object(members) => {
                out.push(b'{');
                for (place, (name, value)) in members.iter().enumerate() {
                    if place > 0 {
                        out.push(b',');
                    }
                    write_text(name, out);
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }
}

/// serde_json escapes just what RFC 8785 section 3.2.2.2 asks for, and in its way.
fn write_text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string is valid JSON: this is a bug");
}

/// A name that stands twice.
fn twice<'m>(members: &'m [(Cow<'_, str>, Json<'_>)]) -> Option<&'m str> {
    let names = || members.iter().map(|(name, _)| name.as_ref());
    if members.len() <= PAIRS_MAX {
        return names()
            .enumerate()
            .find(|(at, name)| names().take(*at).any(|other| other == *name))
            .map(|(_, name)| name);
    }
    let mut sorted: Vec<&str> = names().collect();
    sorted.sort_unstable();
    sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// Reads one value, as long as fewer than so many have been read.
#[derive(Clone, Copy)]
struct ValueReader<'c> {
    left: &'c Cell<u32>,
}

impl<'de> DeserializeSeed<'de> for ValueReader<'_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        let left = self.left.get().checked_sub(1);
        let fault = || de::Error::custom(format!("it holds more than {VALUES_MAX} values"));
        self.left.set(left.ok_or_else(fault)?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueReader<'_> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json<'de>, E> {
        Ok(Json::Integer(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json<'de>, E> {
        Ok(Json::Integer(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json<'de>, E> {
        let is_integer = number.fract() == 0.0 && number.abs() <= DOUBLE_INTEGER_MAX;
        Ok(if is_integer { Json::Integer(number as i128) } else { Json::Float(number) })
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json<'de>, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element_seed(self)? {
            elements.push(element);
        }
        Ok(Json::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let mut members: Vec<(Cow<'de, str>, Json<'de>)> = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            members.push((name, map.next_value_seed(self)?));
        }
        match twice(&members) {
            Some(name) => Err(de::Error::custom(format!("an object has `{name}` twice"))),
            None => Ok(Json::Object(members)),
        }
    }
}

/// The name of a member, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name<'de>, D::Error> {
        struct NameReader;
        impl<'de> Visitor<'de> for NameReader {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(NameReader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        String::from_utf8(Json::parse(text.as_bytes()).unwrap().canonical()).unwrap()
    }

    #[test]
    fn the_example_of_the_rfc_comes_out_as_it_says_but_in_its_order() {
        // RFC 8785 section 3.2.2.
        let text = r#"{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"#;
        let expected = "{\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
            \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\",\"literals\":[null,true,false]}";
        assert_eq!(canonical(text), expected);
    }

    #[test]
    fn members_keep_their_order_unless_it_is_taken_away() {
        let text = r#"{"b":{"d":1,"c":2},"a":[{"f":1,"e":2}]}"#;
        assert_eq!(canonical(text), text);
        let mut json = Json::parse(text.as_bytes()).unwrap();
        json.sort();
        let sorted = String::from_utf8(json.canonical()).unwrap();
        assert_eq!(sorted, r#"{"a":[{"f":1,"e":2}],"b":{"d":1,"c":2}}"#);
        assert!(json.has_only(&["b", "a", "x"]) && !json.has_only(&["a"]) && !Json::Null.has_only(&[]));
        assert_eq!(json.take("a").unwrap().as_list().unwrap().len(), 1);
        assert!(json.get("a").is_none() && json.get_mut("b").is_some());
    }

    #[test]
    fn one_number_has_one_form_and_two_have_two() {
        assert_eq!(canonical("[1, 1.0, 10e-1, -0.0, 0]"), "[1,1,1,0,0]");
        assert_eq!(
            canonical("[9007199254740993, 18446744073709551615]"),
            "[9007199254740993,18446744073709551615]"
        );
        assert!(Json::parse(b"[1e3, 0.1, 18446744073709551615]").unwrap().is_exact());
        assert!(!Json::parse(b"{\"seed\": 18446744073709551617}").unwrap().is_exact(), "it was rounded");
    }

    #[test]
    fn a_name_that_stands_twice_is_refused_at_any_depth() {
        let many: String = ('b'..='z').map(|name| format!("\"{name}\":0,")).collect();
        let many = format!("{{\"a\":1,{many}\"a\":2}}");
        for text in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"c":2,"\u0061":3}}]"#, &many] {
            let error = Json::parse(text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("has `a` twice"), "{error}");
        }
    }

    #[test]
    fn what_a_text_is_parsed_to_is_within_its_bound() {
        assert!(std::mem::size_of::<Json<'_>>() * 3 / 2 <= VALUE_BYTES);
        for (text, values) in [("1", 1), ("[]", 2), ("[[],{}]", 4), (r#"{"a":1,"b":[2,3]}"#, 5)] {
            let bound = parsed_bytes_max(text.as_bytes());
            assert!(bound >= values * VALUE_BYTES && bound <= (values + 1) * VALUE_BYTES, "{text}: {bound}");
        }
        let most = parsed_bytes_max(",".repeat(1 << 20).as_bytes());
        assert_eq!(most, VALUES_MAX as usize * VALUE_BYTES);
    }

    #[test]
    fn an_owned_value_is_equal_and_takes_what_it_holds() {
        let text = r#"[null,true,1,0.5,"é\n",[],{"name":{"a":"word"}}]"#;
        let json = Json::parse(text.as_bytes()).unwrap();
        let owned = json.clone().into_owned();
        assert_eq!(owned, json);
        let (value, name) = (size_of::<Json<'_>>(), size_of::<Cow<'_, str>>());
        assert_eq!(owned.owned_bytes(), 10 * value + 2 * name + "é\n".len() + "nameaword".len());
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        let broad = format!("[{}0]", "0,".repeat(VALUES_MAX as usize - 2));
        assert!(Json::parse(broad.as_bytes()).is_ok(), "as many values as there may be");
        let broader = broad.replacen('0', "0,0", 1);
        for text in ["", "{", "{} x", "\"\\ud800\"", "NaN", deep.as_str(), broader.as_str()] {
            assert_eq!(Json::parse(text.as_bytes()).unwrap_err().kind(), Kind::InvalidInput, "{text:.40}");
        }
    }
}
