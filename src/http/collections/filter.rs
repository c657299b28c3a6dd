//! Filters as JSON: `{"brand": "acme", "price": {"$lt": 20}}`, in the notation that vector stores have taken over from
//! MongoDB.

use std::ops::Bound;

use serde_json::{Map, Value};

use serde_json::value::RawValue;

use crate::error::{Error, FieldPath, Result};
use crate::http::extract::json::shortened;
use crate::search::{FIELD_BYTES_MAX, Filter, Scalar, Test, number};

/// Bytes of a filter as JSON.
const BYTES_MAX: usize = 256 * 1024;
/// Filters inside one another.
const DEPTH_MAX: usize = 16;
/// Filters in all, those inside others included.
const FILTERS_MAX: usize = 256;
/// Values of all lists together.
const VALUES_MAX: usize = 4096;

/// The filter that a JSON object stands for. All its members must hold.
///
/// # Errors
/// `InvalidInput` naming the place, for an unknown operator, a value that cannot be compared, and too deep or long ones.
pub(in crate::http) fn read(raw: &RawValue) -> Result<Filter> {
    let json = raw.get();
    if json.len() > BYTES_MAX {
        return Err(fault(
            "filter",
            format!("a filter must have at most {BYTES_MAX} bytes, got {}", json.len()),
        ));
    }
    let value: Value = serde_json::from_str(json).map_err(|error| fault("filter", error.to_string()))?;
    FilterParser { filters: 0, values: 0 }.filter(&value, "filter", DEPTH_MAX)
}

fn fault(at: &str, message: impl Into<String>) -> Error {
    Error::invalid(FieldPath::parse(at), format!("{at}: {}", message.into()))
}

/// Counts what it reads.
struct FilterParser {
    filters: usize,
    values: usize,
}

impl FilterParser {
    fn filter(&mut self, value: &Value, at: &str, depth: usize) -> Result<Filter> {
        let Value::Object(members) = value else { return Err(fault(at, "a filter is an object")) };
        if depth == 0 {
            return Err(fault(at, format!("filters stand inside one another at most {DEPTH_MAX} times")));
        }
        let mut filters = Vec::new();
        for (name, value) in members {
            self.count_filter(at)?;
            let at = format!("{at}.{}", shortened(name));
            filters.push(match name.as_str() {
                "$and" => Filter::All(self.list(value, &at, depth)?),
                "$or" => Filter::Any(self.list(value, &at, depth)?),
                "$not" => Filter::Not(Box::new(self.filter(value, &at, depth - 1)?)),
                name if name.starts_with('$') => {
                    return Err(fault(&at, "unknown operator; between filters there are $and, $or and $not"));
                }
                name => self.field(name, value, &at)?,
            });
        }
        Ok(joined(filters))
    }

    fn count_filter(&mut self, at: &str) -> Result<()> {
        self.filters += 1;
        if self.filters <= FILTERS_MAX {
            return Ok(());
        }
        Err(fault(
            at,
            format!("at most {FILTERS_MAX} filters in all; for many values of a field there is $in"),
        ))
    }

    fn list(&mut self, value: &Value, at: &str, depth: usize) -> Result<Vec<Filter>> {
        let filters = value.as_array().filter(|filters| !filters.is_empty());
        let filters = filters.ok_or_else(|| fault(at, "a list of one filter or more"))?;
        if filters.len() > FILTERS_MAX {
            return Err(fault(at, format!("at most {FILTERS_MAX} filters in all, got {}", filters.len())));
        }
        let read = |(place, filter)| self.filter(filter, &format!("{at}[{place}]"), depth - 1);
        filters.iter().enumerate().map(read).collect()
    }

    /// A field and what it must be: a value, or operators that must all hold.
    fn field(&mut self, name: &str, value: &Value, at: &str) -> Result<Filter> {
        if name.len() >= FIELD_BYTES_MAX {
            return Err(fault(at, format!("the name of a field has less than {FIELD_BYTES_MAX} bytes")));
        }
        let test = |test| Filter::Field(name.to_owned(), test);
        let Value::Object(operators) = value else { return Ok(test(Test::In(vec![scalar(value, at)?]))) };
        if operators.is_empty() {
            return Err(fault(at, "no operator"));
        }
        let mut filters = Vec::new();
        for (operator, value) in operators {
            let at = format!("{at}.{}", shortened(operator));
            filters.push(match operator.as_str() {
                "$eq" => test(Test::In(vec![scalar(value, &at)?])),
                "$ne" => Filter::Not(Box::new(test(Test::In(vec![scalar(value, &at)?])))),
                "$in" => test(Test::In(self.scalars(value, &at)?)),
                "$nin" => Filter::Not(Box::new(test(Test::In(self.scalars(value, &at)?)))),
                "$exists" => match value.as_bool() {
                    Some(true) => test(Test::Exists),
                    Some(false) => Filter::Not(Box::new(test(Test::Exists))),
                    None => return Err(fault(&at, "true or false")),
                },
                "$gt" | "$gte" | "$lt" | "$lte" => continue,
                _ => {
                    let known = "$eq, $ne, $in, $nin, $gt, $gte, $lt, $lte and $exists";
                    return Err(fault(&at, format!("unknown operator; of a field there are {known}")));
                }
            });
        }
        filters.extend(range(operators, at)?.map(test));
        Ok(joined(filters))
    }

    fn scalars(&mut self, value: &Value, at: &str) -> Result<Vec<Scalar>> {
        let values = value.as_array().ok_or_else(|| fault(at, "a list of values"))?;
        self.values += values.len();
        if self.values > VALUES_MAX {
            return Err(fault(at, format!("at most {VALUES_MAX} values in all lists together")));
        }
        values.iter().enumerate().map(|(place, value)| scalar(value, &format!("{at}[{place}]"))).collect()
    }
}

/// A filter that means what all of these mean.
fn joined(mut filters: Vec<Filter>) -> Filter {
    if filters.len() == 1 { filters.remove(0) } else { Filter::All(filters) }
}

/// The range that the operators of a field describe, if any do.
fn range(operators: &Map<String, Value>, at: &str) -> Result<Option<Test>> {
    let bound = |inclusive: &str, exclusive: &str| {
        let limit = |operator: &str| {
            let at = format!("{at}.{operator}");
            let value = operators.get(operator).map(|value| ordered(value, &at));
            value.transpose()
        };
        match (limit(inclusive)?, limit(exclusive)?) {
            (Some(limit), None) => Ok(Bound::Included(limit)),
            (None, Some(limit)) => Ok(Bound::Excluded(limit)),
            (None, None) => Ok(Bound::Unbounded),
            (Some(_), Some(_)) => Err(fault(at, format!("{inclusive} or {exclusive}, not both"))),
        }
    };
    match (bound("$gte", "$gt")?, bound("$lte", "$lt")?) {
        (Bound::Unbounded, Bound::Unbounded) => Ok(None),
        (from, to) => {
            let limit = |bound: &Bound<Scalar>| match bound {
                Bound::Included(limit) | Bound::Excluded(limit) => Some(limit.clone()),
                Bound::Unbounded => None,
            };
            if let (Some(from), Some(to)) = (limit(&from), limit(&to))
                && !from.is_like(&to)
            {
                return Err(fault(at, "both ends of a range are numbers, or both are texts"));
            }
            Ok(Some(Test::Range(from, to)))
        }
    }
}

fn scalar(value: &Value, at: &str) -> Result<Scalar> {
    match value {
        Value::Bool(value) => Ok(Scalar::Bool(*value)),
        Value::String(value) => Ok(Scalar::Text(value.clone())),
        Value::Number(value) => {
            value.as_f64().map(number).ok_or_else(|| fault(at, "the number cannot be compared"))
        }
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Err(fault(at, "a value is a text, a number, true or false; for what is missing there is $exists"))
        }
    }
}

fn ordered(value: &Value, at: &str) -> Result<Scalar> {
    match scalar(value, at)? {
        Scalar::Bool(_) => Err(fault(at, "a range is of numbers or texts")),
        scalar @ (Scalar::Number(_) | Scalar::Text(_)) => Ok(scalar),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_json(filter: &Value) -> Result<Filter> {
        read(&RawValue::from_string(filter.to_string()).unwrap())
    }

    #[test]
    fn filters_are_read_and_faults_are_named() {
        let filter =
            json!({"brand": "acme", "price": {"$gte": 10, "$lt": 20.5}, "$not": {"tags": {"$in": ["x"]}}});
        let text = |text: &str| Scalar::Text(text.into());
        let field = |name: &str, test| Filter::Field(name.into(), test);
        assert_eq!(
            read_json(&filter).unwrap(),
            Filter::All(vec![
                Filter::Not(Box::new(field("tags", Test::In(vec![text("x")])))),
                field("brand", Test::In(vec![text("acme")])),
                field("price", Test::Range(Bound::Included(number(10.0)), Bound::Excluded(number(20.5)))),
            ])
        );
        assert_eq!(read_json(&json!({})).unwrap(), Filter::All(Vec::new()));
        for (bad, at) in [
            (json!([]), "filter"),
            (json!({"a": null}), "filter.a"),
            (json!({"a": {}}), "filter.a"),
            (json!({"a": {"$like": "x"}}), "filter.a.$like"),
            (json!({"$xor": []}), "filter.$xor"),
            (json!({"$and": []}), "filter.$and"),
            (json!({"$or": [{"a": 1}, {"b": [1]}]}), "filter.$or[1].b"),
            (json!({"a": {"$in": [1, {}]}}), "filter.a.$in[1]"),
            (json!({"a": {"$gt": 1, "$gte": 1}}), "filter.a"),
            (json!({"a": {"$gt": 1, "$lt": "x"}}), "filter.a"),
            (json!({"a": {"$gt": true}}), "filter.a.$gt"),
            (json!({"a": {"$exists": 1}}), "filter.a.$exists"),
        ] {
            assert_eq!(read_json(&bad).unwrap_err().param_name(), Some(at), "{bad}");
        }
        let deep = (0..20).fold(json!({"a": 1}), |inner, _| json!({"$not": inner}));
        assert!(read_json(&deep).unwrap_err().to_string().contains("16 times"));
    }

    #[test]
    fn filters_are_bounded_in_depth_number_and_bytes_before_they_are_read() {
        let fault = |filter: &str| {
            let raw: Box<RawValue> = serde_json::from_str(filter).unwrap();
            let error = read(&raw).unwrap_err();
            assert!(error.to_string().len() < 2000, "{}", error.to_string().len());
            error
        };
        let nested =
            |open: &str, close: &str, times| format!("{}1{}", open.repeat(times), close.repeat(times));
        for deep in [
            nested(r#"{"$not":"#, "}", 10_000),
            nested(r#"{"$and":["#, "]}", 100),
            nested(r#"{"a":"#, "}", 10_000),
            nested("[", "]", 10_000),
        ] {
            assert!(fault(&deep).param_name().is_some_and(|at| at.starts_with("filter")), "{deep:.40}");
        }
        let or = |count| json!({ "$or": vec![json!({ "a": 1 }); count] });
        assert!(read_json(&or(FILTERS_MAX - 1)).is_ok());
        assert!(read_json(&or(FILTERS_MAX)).is_err());
        let ands: Vec<Value> = (0..20).map(|_| or(20)).collect();
        assert!(read_json(&json!({ "$and": ands })).is_err(), "lists are counted together");
        let fields: Map<String, Value> = (0..=FILTERS_MAX).map(|n| (n.to_string(), json!(1))).collect();
        assert!(read_json(&json!(fields)).is_err());
        let values = vec![1; VALUES_MAX / 2];
        assert!(read_json(&json!({ "a": { "$in": values }, "b": { "$nin": values } })).is_ok());
        assert!(
            read_json(&json!({ "a": { "$in": values }, "b": { "$in": values }, "c": { "$in": [1] } }))
                .is_err()
        );
        let long = "n".repeat(BYTES_MAX / 2);
        fault(&json!({ &long: 1 }).to_string());
        fault(&json!({ format!("${long}"): 1 }).to_string());
        fault(&json!({ "a": { format!("${long}"): 1 } }).to_string());
        fault(&json!({ "a": "x".repeat(BYTES_MAX) }).to_string());
        fault(r#"{"a":1e400}"#);
        fault(r#"{"a":"\ud800"}"#);
    }
}
