//! What clients call a kept answer: its key in hexadecimal digits.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::domain::Key;
use crate::error::{Error, Result};
use crate::http::error_response::Problem;
use crate::http::extract::path::path;

/// What every answer's name begins with.
const NAME: &str = "ans_";

/// The key of the answer that the path of a request names.
pub(super) struct AnswerId(pub(super) Key);

impl<S: Sync> FromRequestParts<S> for AnswerId {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<AnswerId, Problem> {
        let id: String = path(head, "id").await?;
        Ok(AnswerId(parse_id(&id)?))
    }
}

/// The name of a key.
pub(in crate::http) fn format_id(id: Key) -> String {
    let mut name = String::with_capacity(NAME.len() + 64);
    name.push_str(NAME);
    for byte in id.0 {
        for digit in [byte >> 4, byte & 15] {
            name.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    name
}

/// The key of a name.
///
/// # Errors
/// `InvalidInput` for what is no name.
pub(super) fn parse_id(name: &str) -> Result<Key> {
    let fault = || Error::invalid("id", "id must be `ans_` and 64 hexadecimal digits");
    let digits = name
        .strip_prefix(NAME)
        .filter(|digits| digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .ok_or_else(fault)?;
    let mut key = [0; 32];
    for (place, byte) in key.iter_mut().enumerate() {
        let pair = &digits[2 * place..2 * place + 2];
        *byte = u8::from_str_radix(pair, 16).map_err(|_| fault())?;
    }
    Ok(Key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_one_key() {
        let key = Key(std::array::from_fn(|at| at as u8 * 7));
        assert_eq!(parse_id(&format_id(key)).unwrap(), key);
        for bad in [
            "",
            "ans_",
            "x",
            &"a".repeat(68),
            &format!("ans_{}", "+1".repeat(32)),
            &format!("ans_{}", "é".repeat(32)),
        ] {
            let result = parse_id(bad);
            assert!(result.is_err_and(|error| error.param_name() == Some("id")), "{bad}");
        }
    }
}
