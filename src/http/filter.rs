//! Filters as JSON: `{"brand": "acme", "price": {"$lt": 20}}`, in the notation that vector stores have taken over from
//! MongoDB.

use std::ops::Bound;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::search::{Filter, Scalar, Test, number};

/// Filters inside one another.
const DEPTH_MAX: usize = 16;
/// Filters in one list, and values of one `$in`.
const LIST_MAX: usize = 1024;

/// The filter that a JSON object stands for. All its members must hold.
///
/// # Errors
/// `InvalidInput` naming the place, for an unknown operator, a value that cannot be compared, and too deep or long ones.
pub(super) fn read(value: &Value) -> Result<Filter> {
    read_at(value, "filter", DEPTH_MAX)
}

fn fault(at: &str, message: impl Into<String>) -> Error {
    Error::invalid(at, format!("{at}: {}", message.into()))
}

fn read_at(value: &Value, at: &str, depth: usize) -> Result<Filter> {
    let Value::Object(members) = value else { return Err(fault(at, "a filter is an object")) };
    if depth == 0 {
        return Err(fault(at, format!("filters stand inside one another at most {DEPTH_MAX} times")));
    }
    let member = |(name, value): (&String, &Value)| {
        let at = format!("{at}.{name}");
        match name.as_str() {
            "$and" => list(value, &at, depth).map(Filter::All),
            "$or" => list(value, &at, depth).map(Filter::Any),
            "$not" => read_at(value, &at, depth - 1).map(|filter| Filter::Not(Box::new(filter))),
            name if name.starts_with('$') => {
                Err(fault(&at, "unknown operator; between filters there are $and, $or and $not"))
            }
            name => field(name, value, &at),
        }
    };
    let mut filters = members.iter().map(member).collect::<Result<Vec<_>>>()?;
    Ok(if filters.len() == 1 { filters.remove(0) } else { Filter::All(filters) })
}

fn list(value: &Value, at: &str, depth: usize) -> Result<Vec<Filter>> {
    let filters = value.as_array().filter(|filters| (1..=LIST_MAX).contains(&filters.len()));
    let filters = filters.ok_or_else(|| fault(at, format!("a list of 1 to {LIST_MAX} filters")))?;
    let read = |(place, filter)| read_at(filter, &format!("{at}[{place}]"), depth - 1);
    filters.iter().enumerate().map(read).collect()
}

/// A field and what it must be: a value, or operators that must all hold.
fn field(name: &str, value: &Value, at: &str) -> Result<Filter> {
    let test = |test| Filter::Field(name.to_owned(), test);
    let Value::Object(operators) = value else { return Ok(test(Test::In(vec![scalar(value, at)?]))) };
    if operators.is_empty() {
        return Err(fault(at, "no operator"));
    }
    let mut filters = Vec::new();
    for (operator, value) in operators {
        let at = format!("{at}.{operator}");
        filters.push(match operator.as_str() {
            "$eq" => test(Test::In(vec![scalar(value, &at)?])),
            "$ne" => Filter::Not(Box::new(test(Test::In(vec![scalar(value, &at)?])))),
            "$in" => test(Test::In(scalars(value, &at)?)),
            "$nin" => Filter::Not(Box::new(test(Test::In(scalars(value, &at)?)))),
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
    Ok(if filters.len() == 1 { filters.remove(0) } else { Filter::All(filters) })
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

fn scalars(value: &Value, at: &str) -> Result<Vec<Scalar>> {
    let values = value.as_array().filter(|values| values.len() <= LIST_MAX);
    let values = values.ok_or_else(|| fault(at, format!("a list of at most {LIST_MAX} values")))?;
    values.iter().enumerate().map(|(place, value)| scalar(value, &format!("{at}[{place}]"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn filters_are_read_and_faults_are_named() {
        let filter =
            json!({"brand": "acme", "price": {"$gte": 10, "$lt": 20.5}, "$not": {"tags": {"$in": ["x"]}}});
        let text = |text: &str| Scalar::Text(text.into());
        let field = |name: &str, test| Filter::Field(name.into(), test);
        assert_eq!(
            read(&filter).unwrap(),
            Filter::All(vec![
                Filter::Not(Box::new(field("tags", Test::In(vec![text("x")])))),
                field("brand", Test::In(vec![text("acme")])),
                field("price", Test::Range(Bound::Included(number(10.0)), Bound::Excluded(number(20.5)))),
            ])
        );
        assert_eq!(read(&json!({})).unwrap(), Filter::All(Vec::new()));
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
            assert_eq!(read(&bad).unwrap_err().param_name(), Some(at), "{bad}");
        }
        let deep = (0..20).fold(json!({"a": 1}), |inner, _| json!({"$not": inner}));
        assert!(read(&deep).unwrap_err().to_string().contains("16 times"));
    }
}
