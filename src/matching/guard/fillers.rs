//! Greetings, thanks and politeness, which change nothing.

use super::word_list::WordList;
use super::words::TextWords;

/// Which tokens of a text are fillers.
pub(super) fn fillers(words: &TextWords<'_>) -> Vec<bool> {
    let mut is_filler = vec![false; words.len()];
    let mut at = 0;
    while at < words.len() {
        let len = words.phrase_in(at, WordList::Fillers).map_or(0, |(_, len)| len);
        is_filler[at..at + len].fill(true);
        at += len.max(1);
    }
    is_filler
}
