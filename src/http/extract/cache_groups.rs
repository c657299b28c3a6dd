//! `Cache-Groups` (RFC 9875): a spelling of tags that HTTP caches share.

use axum::http::{HeaderMap, HeaderValue};

use super::structured_strings::{strings, written};
use crate::domain::Tag;
use crate::error::{Error, Result};

const NAME: &str = "cache-groups";

/// The groups of a request, as tags of what it stores.
///
/// # Errors
/// `InvalidInput` for what is no list of strings, and for a group that cannot be a tag.
pub(super) fn tags(headers: &HeaderMap) -> Result<Vec<Tag>> {
    if !headers.contains_key(NAME) {
        return Ok(Vec::new());
    }
    let fault = |why: &str| Error::invalid(NAME, why);
    let groups = strings(headers.get_all(NAME).iter().map(HeaderValue::as_bytes))
        .ok_or_else(|| fault("the header cache-groups must be a list of strings, such as \"a\", \"b\""))?;
    groups.iter().map(|group| Tag::named(group).ok_or_else(|| fault(Tag::RULE))).collect()
}

/// The groups that an upstream invalidates (RFC 9875, section 3), as tags; those that cannot be tags are on nothing that is stored here.
/// `None` for what is no list of strings.
pub(in crate::http) fn invalidated<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<Tag>> {
    Some(strings(lines)?.iter().filter_map(|group| Tag::named(group)).collect())
}

/// The header of these tags. A tag with other characters than ASCII is left out: no group is called so. `None` without any.
pub(in crate::http) fn of_tags(tags: &[Tag]) -> Option<HeaderValue> {
    of_names(tags.iter().map(Tag::as_str))
}

/// The same for names of tags.
pub(in crate::http) fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<HeaderValue> {
    let list = written(names.into_iter().filter(|name| name.is_ascii()))?;
    HeaderValue::try_from(list).ok().filter(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn names(tags: &[Tag]) -> Vec<&str> {
        tags.iter().map(Tag::as_str).collect()
    }

    #[test]
    fn groups_are_tags() {
        let read = |value: &'static str| {
            tags(&HeaderMap::from_iter([(HeaderName::from_static(NAME), HeaderValue::from_static(value))]))
        };
        assert_eq!(names(&read(r#""product:42";x=1, "brand:7""#).unwrap()), ["product:42", "brand:7"]);
        assert_eq!(tags(&HeaderMap::new()).unwrap(), []);
        for bad in ["product:42", r#""a b""#, r#""a","#, r#""""#, r#""a,b""#] {
            assert_eq!(read(bad).unwrap_err().param_name(), Some("cache-groups"), "{bad}");
        }
    }

    #[test]
    fn groups_that_are_no_tags_are_invalidated_nowhere() {
        let read = |line: &str| invalidated([line.as_bytes()]);
        assert_eq!(names(&read(r#""a", "b c", "d""#).unwrap()), ["a", "d"]);
        assert_eq!(read("a"), None);
    }

    #[test]
    fn tags_are_written_as_groups_if_groups_can_be_called_so() {
        let tags = ["a\\b", "año", "c:1"].map(|name| Tag::named(name).unwrap());
        assert_eq!(of_tags(&tags).unwrap(), r#""a\\b", "c:1""#);
        assert_eq!(of_tags(&tags[1..2]), None);
        assert_eq!(of_tags(&[]), None);
    }
}
