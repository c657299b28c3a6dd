//! The parameters behind the question mark of a request.

use axum::http::request::Parts;

use super::json::shortened;
use super::path::query;
use crate::error::{Error, FieldPath, Result};

/// Parameters of a query, by name. Those that no handler takes are refused.
pub(in crate::http) struct QueryFields {
    fields: Vec<(String, String)>,
    known: &'static [&'static str],
}

impl QueryFields {
    /// The parameters of a request, of which a handler takes those that are `known`.
    ///
    /// # Errors
    /// `InvalidInput` for a parameter that is not known, or is given twice.
    pub(in crate::http) fn read(head: &Parts, known: &'static [&'static str]) -> Result<QueryFields> {
        QueryFields::read_with_list(head, known, None)
    }

    /// As [`QueryFields::read`]; the parameter `list`, one of those that are known, may be given many times.
    pub(in crate::http) fn read_with_list(
        head: &Parts,
        known: &'static [&'static str],
        list: Option<&'static str>,
    ) -> Result<QueryFields> {
        let fields: Vec<(String, String)> = query(head, "query")?;
        for (place, (name, _)) in fields.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let name = shortened(name);
                let message = format!("unknown query parameter {name:?}; known: {}", known.join(", "));
                return Err(Error::invalid(FieldPath::parse(&name), message));
            }
            let is_list = list == Some(name.as_str());
            if !is_list && fields[..place].iter().any(|(other, _)| other == name) {
                let message = format!("the query parameter {name} must be given once");
                return Err(Error::invalid(FieldPath::parse(name), message));
            }
        }
        Ok(QueryFields { fields, known })
    }

    /// The text of a parameter.
    pub(in crate::http) fn text(&self, name: &'static str) -> Option<&str> {
        debug_assert!(self.known.contains(&name), "{name}");
        self.fields.iter().find(|(field, _)| field == name).map(|(_, text)| text.as_str())
    }

    /// The values of a parameter that may be given many times, in their order.
    pub(in crate::http) fn list(&self, name: &'static str) -> Vec<String> {
        debug_assert!(self.known.contains(&name), "{name}");
        self.fields.iter().filter(|(field, _)| field == name).map(|(_, text)| text.clone()).collect()
    }

    /// The number of a parameter: digits only.
    ///
    /// # Errors
    /// `InvalidInput` for anything else, and for a number that is too large.
    pub(in crate::http) fn number(&self, name: &'static str) -> Result<Option<usize>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if is_number { text.parse().ok() } else { None };
        let fault =
            || Error::invalid(name, format!("{name} must be a whole number, got {:?}", shortened(text)));
        number.map(Some).ok_or_else(fault)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn fields(query: &str) -> Result<QueryFields> {
        let request = Request::builder().uri(format!("/x{query}")).body(()).unwrap();
        QueryFields::read(&request.into_parts().0, &["prefix", "limit"])
    }

    #[test]
    fn a_parameter_is_taken_by_its_name_and_a_fault_names_it() {
        let read = fields("?prefix=a%2Fb+c&limit=7").unwrap();
        assert_eq!((read.text("prefix"), read.number("limit").unwrap()), (Some("a/b c"), Some(7)));
        assert_eq!(fields("").unwrap().number("limit").unwrap(), None);
        for (query, field) in [("?limits=1", "limits"), ("?limit=1&limit=2", "limit"), ("?x", "x")] {
            assert_eq!(fields(query).err().unwrap().param_name(), Some(field), "{query}");
        }
        for bad in ["", "-1", "+1", "1.5", "x", "99999999999999999999999"] {
            let error = fields(&format!("?limit={bad}")).unwrap().number("limit").unwrap_err();
            assert_eq!(error.param_name(), Some("limit"), "{bad}");
        }
    }

    #[test]
    fn only_a_list_may_be_given_many_times() {
        let read = |query: &str, list| {
            let request = Request::builder().uri(format!("/x?{query}")).body(()).unwrap();
            QueryFields::read_with_list(&request.into_parts().0, &["ids", "limit"], list)
        };
        let fields = read("ids=b&limit=1&ids=a&ids=b", Some("ids")).unwrap();
        assert_eq!(fields.list("ids"), ["b", "a", "b"]);
        assert_eq!(fields.number("limit").unwrap(), Some(1));
        assert_eq!(read("", Some("ids")).unwrap().list("ids"), [""; 0]);
        for (query, list, param) in [("ids=a&ids=b", None, "ids"), ("limit=1&limit=1", Some("ids"), "limit")]
        {
            assert_eq!(read(query, list).err().unwrap().param_name(), Some(param), "{query}");
        }
    }

    #[test]
    fn a_fault_repeats_the_beginning_of_a_long_text_only() {
        let long = "x".repeat(50_000);
        let unknown = fields(&format!("?{long}=1")).err().unwrap();
        let number = fields(&format!("?limit={long}")).unwrap().number("limit").unwrap_err();
        for error in [unknown, number] {
            assert!(error.to_string().len() < 1000 && error.param_name().unwrap().len() < 400);
        }
    }
}
