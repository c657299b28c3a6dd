//! Comparisons that a negation turns around: what does not cost more than 80 costs at most 80.

use super::class_tags::ClassTag;
use super::folding::word_key;
use super::word_list::WordList;
use super::words::TextWords;

/// How many tokens before a comparison its negation is looked for.
const NEGATION_TOKENS: usize = 5;
/// What a negated comparison says.
const TURNED: [(&str, &str); 4] = [("gt", "le"), ("lt", "ge"), ("ge", "lt"), ("le", "gt")];

/// The tags of a text, in which a comparison includes the negation that turns it around.
pub(super) fn turned_by_negations(words: &TextWords<'_>, mut tags: Vec<ClassTag>) -> Vec<ClassTag> {
    for tag in tags.iter_mut().filter(|tag| tag.list == WordList::Comparators) {
        let turned = TURNED.iter().find(|(plain, _)| word_key(plain) == tag.value);
        let Some((_, turned)) = turned else { continue };
        if let Some(at) = negation_before(words, tag.tokens.0) {
            tag.value = word_key(turned);
            tag.span = words.tokens[at].span.to(tag.span);
            tag.tokens.0 = at;
        }
    }
    tags
}

/// The place of the negation of what stands at a place, in the same clause.
fn negation_before(words: &TextWords<'_>, at: usize) -> Option<usize> {
    for back in (at.saturating_sub(NEGATION_TOKENS)..at).rev() {
        let is_other_clause =
            words.is_one_of(back, &["if", "when", "and", "but", "si", "cuando", "y", "pero"]);
        if is_other_clause || words.tokens[back + 1].is_after_break {
            return None;
        }
        if words.is_one_of(back, &["not", "no", "never", "nunca"]) {
            return Some(back);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::guard::class_tags::class_tags;
    use crate::matching::guard::lexicon::Lexicon;

    #[test]
    fn a_negation_turns_a_comparison_around() {
        let lexicon = Lexicon::builtin();
        for (text, expected) in [
            ("a hotel that does not cost more than 80 euros", "le"),
            ("a hotel that costs more than 80 euros", "gt"),
            ("un hotel que no cueste más de 80 euros", "le"),
            ("coches que no tengan menos de 5 plazas", "ge"),
            ("it is not open, more than 3 rooms", "gt"),
            ("no pago si gasto más de 80 euros", "gt"),
        ] {
            let words = TextWords::read(&lexicon, text);
            let tags = turned_by_negations(&words, class_tags(&words, &vec![false; words.len()]));
            let found = tags.iter().find(|tag| tag.list == WordList::Comparators).map(|tag| tag.value);
            assert_eq!(found, Some(word_key(expected)), "{text}");
        }
    }
}
