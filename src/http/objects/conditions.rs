//! The conditions of a request (RFC 9110 section 13.1). Those on dates are ignored: objects have no date of modification
//! that a client could know (sections 13.1.3 and 13.1.4).

use axum::http::{HeaderMap, HeaderName, header};

use crate::error::{Error, Result};
use crate::service::objects::{Condition, Validators};

/// How entity tags are compared (RFC 9110 section 8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// A weak tag equals none.
    Strong,
    /// A weak tag equals the strong one of the same text: equal validators are equal bytes.
    Weak,
}

/// Reads `If-Match` and `If-None-Match`.
///
/// # Errors
/// `InvalidInput` for what is neither `*` nor a list of entity tags.
pub(in crate::http) fn read(headers: &HeaderMap) -> Result<Condition> {
    Ok(Condition {
        matches: validators(headers, &header::IF_MATCH, Comparison::Strong)?,
        matches_none: validators(headers, &header::IF_NONE_MATCH, Comparison::Weak)?,
    })
}

fn validators(headers: &HeaderMap, name: &HeaderName, comparison: Comparison) -> Result<Option<Validators>> {
    let mut lines = headers.get_all(name).iter().peekable();
    if lines.peek().is_none() {
        return Ok(None);
    }
    let fault = || {
        let message = format!("the header {name} is `*` or a list of entity tags in double quotes");
        Error::invalid(name.to_string(), message)
    };
    let (mut is_any, mut tags, mut known) = (false, 0, Vec::new());
    for line in lines {
        let mut rest = line.as_bytes();
        while let Some(element) = next_element(&mut rest).ok_or_else(fault)? {
            match element {
                EntityTag::Any if is_any => return Err(fault()),
                EntityTag::Any => is_any = true,
                EntityTag::Tag { is_weak, text } => {
                    tags += 1;
                    let is_comparable = !is_weak || comparison == Comparison::Weak;
                    known.extend(own(text).filter(|_| is_comparable));
                }
            }
        }
    }
    match (is_any, tags) {
        (true, 0) => Ok(Some(Validators::Any)),
        (true, _) => Err(fault()),
        (false, _) => Ok(Some(Validators::OneOf(known))),
    }
}

/// An element of a list of entity tags.
#[derive(Debug, PartialEq, Eq)]
enum EntityTag<'a> {
    Any,
    Tag { is_weak: bool, text: &'a [u8] },
}

/// Takes the next element off a header line, and the comma behind it. The inner none is the end of the line, the outer
/// one a fault. Empty elements are passed over (RFC 9110 section 5.6.1.2), and commas within quotes are part of a tag.
fn next_element<'a>(rest: &mut &'a [u8]) -> Option<Option<EntityTag<'a>>> {
    let is_between = |byte: &u8| matches!(byte, b' ' | b'\t' | b',');
    let start = rest.iter().position(|byte| !is_between(byte));
    let Some(text) = start.map(|start| &rest[start..]) else {
        *rest = &[];
        return Some(None);
    };
    let (element, behind) = if let Some(behind) = text.strip_prefix(b"*") {
        (EntityTag::Any, behind)
    } else {
        let (is_weak, quoted) = match text.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, text),
        };
        let opened = quoted.strip_prefix(b"\"")?;
        let end = opened.iter().position(|&byte| byte == b'"')?;
        (EntityTag::Tag { is_weak, text: &opened[..end] }, &opened[end + 1..])
    };
    let comma = behind.iter().position(|byte| !matches!(byte, b' ' | b'\t'));
    match comma.map(|at| behind[at]) {
        None | Some(b',') => {
            *rest = behind;
            Some(Some(element))
        }
        Some(_) => None,
    }
}

/// The validator in a tag as this server writes it; none for every other text.
fn own(tag: &[u8]) -> Option<u128> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let text = std::str::from_utf8(tag).ok().filter(|_| tag.len() == 32 && tag.iter().all(is_digit))?;
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const ONE: &str = "\"00000000000000000000000000000001\"";

    fn both(lines: &[&[u8]]) -> Result<Condition> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::IF_MATCH, HeaderValue::from_bytes(line).unwrap());
            headers.append(header::IF_NONE_MATCH, HeaderValue::from_bytes(line).unwrap());
        }
        read(&headers)
    }

    fn weak(lines: &[&str]) -> Vec<u128> {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        match both(&lines).unwrap().matches_none {
            Some(Validators::OneOf(known)) => known,
            other => panic!("{lines:?}: {other:?}"),
        }
    }

    #[test]
    fn lists_of_tags_are_read_whatever_stands_in_the_tags_and_between_them() {
        assert_eq!(both(&[]).unwrap(), Condition::default());
        assert_eq!(weak(&[ONE]), [1]);
        for line in
            ["\"a,b\", TAG", "\"\",TAG", ",, ,TAG , ,", "\t TAG\t", "\"W/\",TAG,\"*\"", "W/\"x\" , TAG"]
        {
            assert_eq!(weak(&[&line.replace("TAG", ONE)]), [1], "{line}");
        }
        assert_eq!(weak(&["\"x\"", "", ONE, ","]), [1], "over several lines");
        assert_eq!(weak(&["", " , "]), [0; 0], "an empty list");
        let latin = [b"\"caf\xe9\", ".as_slice(), ONE.as_bytes()].concat();
        assert_eq!(both(&[&latin]).unwrap().matches_none, Some(Validators::OneOf(vec![1])));
    }

    #[test]
    fn weak_tags_match_where_nothing_is_replaced() {
        let line = format!("W/{ONE}");
        let condition = both(&[line.as_bytes()]).unwrap();
        assert_eq!(condition.matches, Some(Validators::OneOf(vec![])));
        assert_eq!(condition.matches_none, Some(Validators::OneOf(vec![1])));
    }

    #[test]
    fn only_the_very_text_of_a_tag_is_ours() {
        let others =
            ["\"1\"", "\"+0000000000000000000000000000001\"", "\"0000000000000000000000000000000A\""];
        for other in others.iter().copied().chain(["\" 0000000000000000000000000000001\"", "\"\""]) {
            assert_eq!(weak(&[other]), [0; 0], "{other}");
        }
    }

    #[test]
    fn a_star_stands_alone_and_what_is_no_tag_is_refused() {
        for star in ["*", " * ", ",*,"] {
            assert_eq!(both(&[star.as_bytes()]).unwrap().matches, Some(Validators::Any));
        }
        for bad in [
            "one",
            "\"",
            "\"a",
            "a\"b\"",
            "\"a\"b",
            "\"a\" \"b\"",
            "w/\"a\"",
            "W/",
            "W/a",
            "*, \"a\"",
            "**",
            "*, *",
            "*a",
        ] {
            assert_eq!(both(&[bad.as_bytes()]).unwrap_err().param_name(), Some("if-match"), "{bad}");
        }
        assert!(both(&[b"*", b"\"a\""]).is_err() && both(&[b"*", b"*"]).is_err(), "on two lines");
    }
}
