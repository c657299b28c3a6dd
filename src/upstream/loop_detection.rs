//! What marks calls from here, so that one that comes back is known (RFC 9110, section 7.6.3).

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use bytes::Bytes;

use super::reply::Headers;
use crate::error::{Error, Kind, Result};

/// The header.
const VIA: &str = "via";

/// The name of this process among those that pass requests on.
#[derive(Debug)]
pub(super) struct LoopMark(String);

impl LoopMark {
    /// A name that no other process has.
    pub(super) fn new() -> LoopMark {
        LoopMark(format!("1.1 likewise-{:016x}", RandomState::new().build_hasher().finish()))
    }

    /// Refuses a request that has come from here: answering it would ask here again.
    ///
    /// # Errors
    /// `Loop`.
    pub(super) fn refuse_own(&self, headers: &Headers) -> Result<()> {
        let is_own = |(name, value): &(String, Bytes)| {
            name == VIA
                && value.split(|byte| *byte == b',').any(|part| part.trim_ascii() == self.0.as_bytes())
        };
        if headers.iter().any(is_own) {
            let message =
                "an upstream asks this server, which is the upstream's own: look at upstream.base_url";
            return Err(Error::new(Kind::Loop, message));
        }
        Ok(())
    }

    /// The header that marks a call from here; those of a client stay beside it.
    pub(super) fn mark(&self) -> (&'static str, &str) {
        (VIA, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_is_known_also_by_way_of_others() {
        let (one, other) = (LoopMark::new(), LoopMark::new());
        let marked = |values: &[&str]| -> Headers {
            values.iter().map(|value| (VIA.to_owned(), Bytes::from(value.to_string()))).collect()
        };
        let (_, mark) = one.mark();
        for headers in
            [marked(&[mark]), marked(&["1.0 proxy", mark]), marked(&[&format!("1.0 a, {mark} ,1.1 b")])]
        {
            assert_eq!(one.refuse_own(&headers).unwrap_err().kind(), Kind::Loop);
            assert!(other.refuse_own(&headers).is_ok());
        }
    }
}
