//! Takes a key out of a text, and what services show of a key: its ends around a mask, or one of them.

use bytes::Bytes;

/// Stands in the place of a key.
const STARS: &str = "***";
/// What stands in the place of the middle of a key.
const MASKS: [&str; 6] = ["*", "…", "•", "..", "xxx", "XXX"];

/// So many characters of an end of a key beside a mask show it; without a mask so many of its beginning, which keys of one service
/// have in common, and of its end.
const MASKED_CHARS_MIN: usize = 2;
const BEGINNING_CHARS_MIN: usize = 8;
const END_CHARS_MIN: usize = 4;
/// The ends of shorter keys may be words.
const KEY_CHARS_MIN: usize = 12;

/// Takes a key out of a body that comes in pieces, in whatever pieces the key does.
pub(super) struct Redaction {
    key: String,
    /// The end of what has come, where it may be the beginning of the key.
    held: Vec<u8>,
}

impl Redaction {
    pub(super) fn new(key: &str) -> Redaction {
        Redaction { key: key.to_owned(), held: Vec::new() }
    }

    /// The next piece without the key. What may be the beginning of the key is held for the next piece. Short keys stay: local servers
    /// take words such as `none` and `ollama`, which answers contain too.
    pub(super) fn push(&mut self, piece: Bytes) -> Bytes {
        if self.key.len() < KEY_CHARS_MIN {
            return piece;
        }
        let key = self.key.as_bytes();
        let held_len =
            |bytes: &[u8]| (1..key.len()).rev().find(|len| bytes.ends_with(&key[..*len])).unwrap_or(0);
        if self.held.is_empty() && held_len(&piece) == 0 && find(&piece, key).is_none() {
            return piece;
        }
        let mut whole = std::mem::take(&mut self.held);
        whole.extend_from_slice(&piece);
        while let Some(at) = find(&whole, key) {
            whole.splice(at..at + key.len(), STARS.bytes());
        }
        self.held = whole.split_off(whole.len() - held_len(&whole));
        whole.into()
    }

    /// What was held when the body has ended.
    pub(super) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.held).into()
    }
}

/// Where a part begins.
pub(super) fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    let (first, rest) = part.split_first()?;
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| byte == first) {
        from += at + 1;
        if bytes[from..].starts_with(rest) {
            return Some(from - 1);
        }
    }
    None
}

/// The text without the key and without what shows an end of it. None if there is nothing of it.
pub(super) fn redacted(text: &str, key: &str) -> Option<String> {
    if key.is_empty() {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut is_changed = false;
    for (place, between) in text.split(key).enumerate() {
        if place > 0 {
            out.push_str(STARS);
            is_changed = true;
        }
        is_changed |= copy(between, key, &mut out);
    }
    is_changed.then_some(out)
}

/// Copies a text without what shows an end of the key, and returns whether it did.
fn copy(text: &str, key: &str, out: &mut String) -> bool {
    let mut is_changed = false;
    let is_of_key = |c: char| c.is_ascii_alphanumeric() || "-_*.…•".contains(c);
    let mut rest = text;
    while let Some(start) = rest.find(is_of_key) {
        let word = &rest[start..];
        let word = &word[..word.find(|c| !is_of_key(c)).unwrap_or(word.len())];
        let shows = shows_key(word, key);
        out.push_str(&rest[..start]);
        out.push_str(if shows { STARS } else { word });
        is_changed |= shows;
        rest = &rest[start + word.len()..];
    }
    out.push_str(rest);
    is_changed
}

fn shows_key(word: &str, key: &str) -> bool {
    // The full stop of a sentence is not of it.
    let word = word.trim_end_matches('.');
    let begins = |part: &str, min: usize| part.len() >= min && key.starts_with(part);
    let ends = |part: &str, min: usize| part.len() >= min && key.ends_with(part);
    let first = MASKS.iter().filter_map(|mask| word.find(mask)).min();
    let last = MASKS.iter().filter_map(|mask| Some(word.rfind(mask)? + mask.len())).max();
    if let (Some(first), Some(last)) = (first, last) {
        return begins(&word[..first], MASKED_CHARS_MIN) || ends(&word[last..], MASKED_CHARS_MIN);
    }
    key.len() >= KEY_CHARS_MIN && (begins(word, BEGINNING_CHARS_MIN) || ends(word, END_CHARS_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-proj-AbCdEfGh1234567890wxYZ";

    #[test]
    fn a_placeholder_for_a_key_is_no_secret_of_an_answer() {
        for word in ["ollama", "none", "*", "null"] {
            let answer =
                Bytes::from(format!("{{\"model\":\"{word}\",\"content\":\"say {word} twice: {word}\"}}"));
            let mut redaction = Redaction::new(word);
            assert_eq!(redaction.push(answer.clone()), answer, "{word}");
            assert!(redaction.rest().is_empty());
        }
    }

    #[test]
    fn a_key_and_its_ends_are_taken_out() {
        for (shown, rest) in [
            (
                "Incorrect API key provided: sk-proj-AbCdEfGh1234567890wxYZ.",
                "Incorrect API key provided: ***.",
            ),
            ("key \"sk-proj-****************wxYZ\" is bad", "key \"***\" is bad"),
            ("sk-pr***YZ", "***"),
            ("provided: sk-...wxYZ. You", "provided: *** You"),
            ("sk-proj-…wxYZ", "***"),
            ("sk-proj-xxxxxxwxYZ", "***"),
            ("sk-proj-AbC...", "***"),
            ("•••••wxYZ", "***"),
            ("the key that ends in wxYZ", "the key that ends in ***"),
            ("Bearer=sk-proj-AbCdEfGh", "Bearer=***"),
            ("sk-proj-AbCdEfGh1234567890wxYZsk-proj-AbCdEfGh1234567890wxYZ", "******"),
        ] {
            assert_eq!(redacted(shown, KEY).as_deref(), Some(rest), "{shown}");
        }
    }

    #[test]
    fn a_key_is_taken_out_in_whatever_pieces_it_comes() {
        let text = format!("data: sk-pr{KEY}{KEY}x sk-proj-{{}} sk-***YZ sk");
        let expected = "data: sk-pr******x sk-proj-{} sk-***YZ sk";
        for size in 1..text.len() {
            let mut redaction = Redaction::new(KEY);
            let pieces = text.as_bytes().chunks(size).map(Bytes::copy_from_slice);
            let mut out: Vec<u8> = pieces.flat_map(|piece| redaction.push(piece)).collect();
            out.extend(redaction.rest());
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{size}");
        }
        let event = Bytes::from_static(b"data: {\"delta\":[]}\n\n");
        let same = Redaction::new(KEY).push(event.clone());
        assert_eq!((same.as_ptr(), same.len()), (event.as_ptr(), event.len()), "nothing is held or copied");
    }

    #[test]
    fn other_texts_are_left_as_they_are() {
        for text in [
            "",
            "Rate limit reached for gpt-4.1-mini on tokens per min: Limit 30000, Used 29000. Try again in 1.2s.",
            "{\"error\":{\"message\":\"**bold** and ... so on\",\"code\":null}}",
            "sk",
            "see https://api.example.com/v1/..",
            "sí, 😀…",
        ] {
            assert_eq!(redacted(text, KEY), None, "{text}");
        }
        assert_eq!(redacted("this is ours", "sk-ours"), None, "of a short key");
        assert_eq!(redacted("sk-***rs", "sk-ours").as_deref(), Some("***"));
        assert_eq!(redacted("a", ""), None);
    }
}
