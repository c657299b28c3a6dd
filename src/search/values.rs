//! The values of a document's metadata that filters compare.

use serde_json::{Map, Value};

use super::scalar::{Scalar, number};

/// Bytes that the name of a field may have, those of the objects around it included: `outer.inner`.
pub const FIELD_BYTES_MAX: usize = 512;
/// Values that the metadata of one document may have; each member of a list is one.
const VALUES_MAX: usize = 1024;

/// The values of one document. A list has one for each of its members, and all share its name.
#[derive(Debug, Default)]
pub(super) struct Values {
    names: Vec<String>,
    /// The place of the name in `names`, and the value.
    values: Vec<(usize, Scalar)>,
    has_long_names: bool,
}

impl Values {
    /// Of metadata. A field whose name is too long is left out: no filter can name it.
    pub(super) fn of(metadata: &str) -> Values {
        // It was an object when it was stored; nothing else can be filtered by.
        serde_json::from_str(metadata).map(Values::of_fields).unwrap_or_default()
    }

    fn of_fields(fields: Map<String, Value>) -> Values {
        let (mut values, mut path) = (Values::default(), String::new());
        fields.into_iter().for_each(|(name, value)| values.field(&mut path, &name, value));
        values
    }

    /// Takes a field of the object at `path`.
    fn field(&mut self, path: &mut String, name: &str, value: Value) {
        let outer = path.len();
        if outer + name.len() >= FIELD_BYTES_MAX {
            self.has_long_names = true;
            return;
        }
        if outer > 0 {
            path.push('.');
        }
        path.push_str(name);
        self.take(path, &mut None, value);
        path.truncate(outer);
    }

    /// Takes a value of the field at `path`; `place` is that of the field's name, once it has one.
    fn take(&mut self, path: &mut String, place: &mut Option<usize>, value: Value) {
        let scalar = match value {
            Value::Null => return,
            Value::Bool(value) => Scalar::Bool(value),
            Value::String(value) => Scalar::Text(value),
            Value::Number(value) => match value.as_f64() {
                Some(value) => number(value),
                None => return,
            },
            Value::Array(members) => {
                return members.into_iter().for_each(|member| self.take(path, place, member));
            }
            Value::Object(fields) => {
                return fields.into_iter().for_each(|(name, value)| self.field(path, &name, value));
            }
        };
        let place = *place.get_or_insert_with(|| {
            self.names.push(path.clone());
            self.names.len() - 1
        });
        self.values.push((place, scalar));
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Those of a field.
    pub(super) fn of_field<'a>(&'a self, field: &'a str) -> impl Iterator<Item = &'a Scalar> {
        let is_meant =
            move |(place, value): &'a (usize, Scalar)| (self.names[*place] == field).then_some(value);
        self.values.iter().filter_map(is_meant)
    }

    /// All names, and all values with the places of their names.
    pub(super) fn into_parts(self) -> (Vec<String>, Vec<(usize, Scalar)>) {
        (self.names, self.values)
    }
}

/// Checks that metadata are an object whose values can be filtered by; what is wrong is said in words.
///
/// # Errors
/// As strictly as filters read it: what they could not read would be stored and never found.
pub fn check_metadata(metadata: &str) -> Result<(), String> {
    let fields =
        serde_json::from_str(metadata).map_err(|error| format!("metadata is a JSON object: {error}"))?;
    let values = Values::of_fields(fields);
    if values.has_long_names {
        return Err(format!(
            "the name of a field must have at most {FIELD_BYTES_MAX} bytes, those of the objects around it included"
        ));
    }
    if values.len() > VALUES_MAX {
        let count = values.len();
        return Err(format!(
            "metadata must have at most {VALUES_MAX} values, list members included, got {count}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(metadata: &str) -> Vec<String> {
        let (names, values) = Values::of(metadata).into_parts();
        values.into_iter().map(|(place, value)| format!("{} {value:?}", names[place])).collect()
    }

    #[test]
    fn values_have_the_names_of_their_fields_and_a_list_has_one_name() {
        let metadata = r#"{"a":[1,[true,null],{"b":"x"},2],"c":{"d":{"e":0.5}},"f":{}}"#;
        let values =
            ["a Number(1.0)", "a Bool(true)", "a.b Text(\"x\")", "a Number(2.0)", "c.d.e Number(0.5)"];
        assert_eq!(shown(metadata), values);
        let list = format!(r#"{{"n":{:?}}}"#, vec![0; 16_000]);
        assert_eq!(Values::of(&list).into_parts().0, ["n"]);
        assert!(
            check_metadata("[1]").is_err()
                && shown("").is_empty()
                && shown("[1]").is_empty()
                && shown("{").is_empty()
        );
    }

    #[test]
    fn metadata_of_long_names_and_many_values_are_refused() {
        let named = |name: &str| format!(r#"{{"{name}":1,"x":{{"{name}":1}}}}"#);
        assert_eq!(check_metadata(&named(&"n".repeat(FIELD_BYTES_MAX - 3))), Ok(()));
        assert!(check_metadata(&named(&"n".repeat(FIELD_BYTES_MAX - 1))).is_err(), "with the name around it");
        assert!(shown(&named(&"n".repeat(FIELD_BYTES_MAX))).is_empty());
        let list = |count: usize| format!(r#"{{"n":{:?}}}"#, vec![0; count]);
        assert_eq!(check_metadata(&list(VALUES_MAX)), Ok(()));
        assert!(check_metadata(&list(VALUES_MAX + 1)).is_err());
        let objects = format!(r#"{{"n":[{}]}}"#, vec![r#"{"a":1,"b":2}"#; VALUES_MAX].join(","));
        assert!(check_metadata(&objects).is_err());
    }
}
