//! One form of letters: case and accents are folded, and typographic apostrophes are plain ones. Words are compared by the hash of
//! their folded form.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// The hash of a folded word or phrase. Equal words have equal keys in every lexicon.
pub(super) type WordKey = u64;

/// A map by keys, which are hashes already. Only lists insert, never texts, so that no text can make keys collide.
pub(super) type KeyMap<V> = HashMap<WordKey, V, BuildHasherDefault<WordKeyHasher>>;

/// Takes a key as its own hash.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WordKeyHasher(u64);

impl Hasher for WordKeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// Appends the folded form of a character.
pub(super) fn fold_into(c: char, folded: &mut String) {
    match c {
        'A'..='Z' => folded.push(c.to_ascii_lowercase()),
        '\0'..='\x7f' => folded.push(c),
        '\u{2019}' | '\u{2018}' | '\u{b4}' => folded.push('\''),
        'º' | 'ª' => folded.push(c),
        _ => {
            let letters = std::iter::once(c).nfkd().filter(|&letter| !is_combining_mark(letter));
            folded.extend(letters.flat_map(char::to_lowercase).filter(|&letter| !is_combining_mark(letter)));
        }
    }
}

/// The folded form of a text.
pub(super) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    text.chars().for_each(|c| fold_into(c, &mut folded));
    folded
}

/// The key of a folded word: FNV-1a, 64 bits. Words are short, and a collision costs one wrong finding.
pub(super) fn word_key(folded: &str) -> WordKey {
    folded
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Whether two folded words differ by at most one letter: one more, one less, another one, or two neighbours swapped.
pub(super) fn differ_by_one_letter(one: &str, two: &str) -> bool {
    let (one, two) = (one.as_bytes(), two.as_bytes());
    let (short, long) = if one.len() <= two.len() { (one, two) } else { (two, one) };
    if long.len() - short.len() > 1 {
        return false;
    }
    let same = short.iter().zip(long).take_while(|(x, y)| x == y).count();
    let (short, long_rest) = (&short[same..], &long[same..]);
    if short.len() < long_rest.len() {
        return short == &long_rest[1..];
    }
    if short.len() < 2 {
        return true;
    }
    short[1..] == long_rest[1..]
        || (short[0] == long_rest[1] && short[1] == long_rest[0] && short[2..] == long_rest[2..])
}

/// The number of bytes that two folded words share at their start.
pub(super) fn shared_start(one: &str, two: &str) -> usize {
    one.bytes().zip(two.bytes()).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_accents_fold() {
        assert_eq!(fold("¿Cuánto CUESTA el Año’s?"), "¿cuanto cuesta el ano's?");
        assert_eq!(fold("İstanbul ﬁn"), "istanbul fin");
    }

    #[test]
    fn one_letter_apart() {
        for (one, two) in
            [("delivery", "delivry"), ("card", "cardd"), ("form", "from"), ("a", "b"), ("", "a")]
        {
            assert!(differ_by_one_letter(one, two), "{one} {two}");
            assert!(differ_by_one_letter(two, one), "{two} {one}");
        }
        for (one, two) in [("card", "cadet"), ("abc", "cba"), ("send", "lend away")] {
            assert!(!differ_by_one_letter(one, two), "{one} {two}");
        }
    }
}
