//! Headers that are part of what a request asks.

use std::borrow::Cow;

/// A header that a dialect forwards, and by whose value it distinguishes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentityHeader {
    /// Its name, in lower case.
    pub name: &'static str,
    /// Whether its value is a set of words, separated by commas, whose order, spacing and repetition mean nothing.
    pub is_set: bool,
}

/// The headers of a request as its identity has them: each set in one spelling, all others as they came. `headers` are names in
/// lower case with their values.
pub(super) fn canonical<'a>(
    known: &[IdentityHeader],
    headers: &'a [(String, String)],
) -> Cow<'a, [(String, String)]> {
    let is_set = |name: &str| known.iter().any(|header| header.is_set && header.name == name);
    if !headers.iter().any(|(name, _)| is_set(name)) {
        return Cow::Borrowed(headers);
    }
    let mut canonical: Vec<(String, String)> =
        headers.iter().filter(|(name, _)| !is_set(name)).cloned().collect();
    for IdentityHeader { name, .. } in known.iter().filter(|header| header.is_set) {
        let lines = headers.iter().filter(|(known, _)| known == name);
        let mut words: Vec<&str> = lines.flat_map(|(_, value)| value.split(',')).map(str::trim).collect();
        words.retain(|word| !word.is_empty());
        words.sort_unstable();
        words.dedup();
        // A set without words says what no header says.
        if !words.is_empty() {
            canonical.push(((*name).to_owned(), words.join(",")));
        }
    }
    Cow::Owned(canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [IdentityHeader; 2] =
        [IdentityHeader { name: "version", is_set: false }, IdentityHeader { name: "beta", is_set: true }];

    fn canonical_of(headers: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned: Vec<_> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        canonical(&KNOWN, &owned).into_owned()
    }

    #[test]
    fn a_set_has_one_spelling() {
        let one = canonical_of(&[("beta", "b-2,a-1"), ("version", "1")]);
        for same in [
            &[("version", "1"), ("beta", " a-1 ,b-2,, a-1")][..],
            &[("beta", "b-2"), ("version", "1"), ("beta", "a-1")],
        ] {
            assert_eq!(canonical_of(same), one);
        }
        for other in [
            &[("version", "1"), ("beta", "a-1")][..],
            &[("version", "2"), ("beta", "a-1,b-2")],
            &[("version", "1"), ("beta", "a-1 b-2")],
            &[("version", "1")],
        ] {
            assert_ne!(canonical_of(other), one, "{other:?}");
        }
        assert_eq!(canonical_of(&[("beta", " , ")]), canonical_of(&[]));
    }

    #[test]
    fn other_headers_stay_as_they_came() {
        let headers = [("version", "1"), ("openai-beta", "b, a")];
        let kept: Vec<_> = canonical_of(&headers);
        assert_eq!(kept.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>(), headers);
    }
}
