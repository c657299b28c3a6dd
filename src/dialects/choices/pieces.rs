//! A text of an answer, cut into the pieces that its chunks carry.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::raw_object::write_string;

/// Where a text has no space for so many pieces, it is cut between two letters.
const PIECES_WITHOUT_SPACE: usize = 8;

/// A text that goes out piece by piece, each in an entry of `choices`.
#[derive(Debug)]
pub struct Text {
    /// What each entry begins with, up to the text's piece.
    before: Vec<u8>,
    /// What follows the piece, up to the end of the entry.
    after: Vec<u8>,
    text: String,
    at: usize,
    tokens: Option<Tokens>,
    /// The entry that was written last.
    entry: Vec<u8>,
}

/// The probabilities of a text, which go out with the words that they are of.
#[derive(Debug)]
pub(in crate::dialects) struct Tokens {
    /// For each token where it ends in the text, and its JSON.
    list: Vec<(usize, Box<RawValue>)>,
    next: usize,
    /// Around the list of each piece.
    around: [&'static str; 2],
}

impl Text {
    /// A text between `before` and `after` of each entry.
    pub(in crate::dialects) fn new(
        before: Vec<u8>,
        after: Vec<u8>,
        text: String,
        tokens: Option<Tokens>,
    ) -> Text {
        Text { before, after, text, at: 0, tokens, entry: Vec::new() }
    }

    /// Bytes that are cut into pieces.
    pub(in crate::dialects) fn bytes(&self) -> usize {
        let tokens = self.tokens.iter().flat_map(|tokens| &tokens.list);
        self.text.len() + tokens.map(|(_, json)| json.get().len()).sum::<usize>()
    }

    /// The next entry, with a piece of at least `piece_bytes` unless it is the last; none at the end.
    pub(in crate::dialects) fn next_entry(&mut self, piece_bytes: usize) -> Option<&[u8]> {
        let first = self.tokens.as_ref().map(|tokens| tokens.next);
        let is_over = match &self.tokens {
            Some(tokens) => tokens.next == tokens.list.len(),
            None => self.at == self.text.len(),
        };
        if is_over {
            return None;
        }
        let begin = self.at;
        self.at = match &mut self.tokens {
            Some(tokens) => tokens.take(begin, piece_bytes),
            None => cut(&self.text, begin, piece_bytes),
        };
        self.entry.clear();
        self.entry.extend_from_slice(&self.before);
        write_string(&mut self.entry, &self.text[begin..self.at]);
        if let (Some(tokens), Some(first)) = (&self.tokens, first) {
            // Before the reason's place, which `after` holds; it begins with the brace of the delta.
            self.entry.push(b'}');
            tokens.write(first, &mut self.entry);
            self.entry.extend_from_slice(&self.after[1..]);
        } else {
            self.entry.extend_from_slice(&self.after);
        }
        Some(&self.entry)
    }
}

impl Tokens {
    /// The tokens of a text; none if they do not spell it, as where one holds half a letter.
    pub(in crate::dialects) fn read(
        text: &str,
        list: &RawValue,
        around: [&'static str; 2],
    ) -> Option<Tokens> {
        #[derive(Deserialize)]
        struct Token<'a> {
            #[serde(borrow)]
            token: Cow<'a, str>,
        }
        let list: Vec<Box<RawValue>> = serde_json::from_str(list.get()).ok()?;
        let mut end = 0;
        let mut place = |json: Box<RawValue>| {
            let token: Token<'_> = serde_json::from_str(json.get()).ok()?;
            text.get(end..)?.starts_with(&*token.token).then_some(())?;
            end += token.token.len();
            Some((end, json))
        };
        let list = list.into_iter().map(&mut place).collect::<Option<Vec<_>>>()?;
        (end == text.len() && !list.is_empty()).then_some(Tokens { list, next: 0, around })
    }

    /// Goes on by a piece, and returns where it ends.
    fn take(&mut self, begin: usize, piece_bytes: usize) -> usize {
        let (mut end, mut bytes) = (begin, 0);
        while let Some((own_end, json)) = self.list.get(self.next) {
            if bytes >= piece_bytes {
                break;
            }
            bytes += own_end - end + json.get().len();
            end = *own_end;
            self.next += 1;
        }
        end
    }

    /// Writes the tokens since `first`.
    fn write(&self, first: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(self.around[0].as_bytes());
        for (place, (_, json)) in self.list[first..self.next].iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(json.get().as_bytes());
        }
        out.extend_from_slice(self.around[1].as_bytes());
    }
}

/// Where the piece of a text ends that begins at `begin`: behind the first space past `bytes`.
pub(in crate::dialects) fn cut(text: &str, begin: usize, bytes: usize) -> usize {
    let floor = |at: usize| (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let ceil = |at: usize| (at..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let enough = begin.saturating_add(bytes);
    if enough >= text.len() {
        return text.len();
    }
    let limit = ceil(begin.saturating_add(bytes.saturating_mul(PIECES_WITHOUT_SPACE)));
    let from = floor(enough - 1);
    let space = text[from..limit].char_indices().find(|(_, letter)| letter.is_whitespace());
    space.map_or(limit, |(at, letter)| from + at + letter.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str, bytes: usize) -> Vec<&str> {
        let (mut pieces, mut at) = (Vec::new(), 0);
        while at < text.len() {
            let end = cut(text, at, bytes);
            pieces.push(&text[at..end]);
            at = end;
        }
        pieces
    }

    #[test]
    fn a_text_is_cut_behind_spaces() {
        assert_eq!(pieces("ab cd efgh i", 2), ["ab ", "cd ", "efgh ", "i"]);
        assert_eq!(pieces("ab cd efgh i", 4), ["ab cd ", "efgh ", "i"]);
        assert_eq!(pieces("a\u{2003}b", 1), ["a\u{2003}", "b"]);
    }

    #[test]
    fn a_text_without_spaces_is_cut_between_letters() {
        let text = "ñandú汉字".repeat(10);
        let cut = pieces(&text, 2);
        assert!(cut.len() > 5 && cut.concat() == text, "{cut:?}");
    }
}
