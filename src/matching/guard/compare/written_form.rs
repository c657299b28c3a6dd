//! Signs, single letters, capital letters and accents.

use super::comparison::QuestionComparison;
use crate::matching::guard::conflict::{ConflictKind, Strength};
use crate::matching::guard::features::QuestionFeatures;
use crate::matching::guard::language::Language;
use crate::matching::guard::mentions::MentionValue;
use crate::matching::guard::signs::{SIGNS_MAX, Sign};
use crate::matching::guard::tokens::Span;
use crate::matching::guard::written_form::{SingleLetter, WrittenForm};

impl QuestionComparison<'_> {
    pub(super) fn written_forms(&mut self) {
        let (one, two) = (&self.first.written, &self.second.written);
        self.signs(&one.signs, &two.signs);
        self.single_letters(&one.letters, &two.letters);
        self.operands();
        if let Some((first, second)) = other_capitals(one, two) {
            self.add(ConflictKind::Spelling, Strength::Strong, Some(first), Some(second));
        }
        if let Some((first, second)) = other_case(one, two) {
            self.add(ConflictKind::Spelling, Strength::Strong, Some(first), Some(second));
        }
        let are_english =
            self.first.language == Language::English && self.second.language == Language::English;
        if let Some((first, second)) = other_separator(one, two).filter(|_| are_english) {
            self.add(ConflictKind::Number, Strength::Strong, Some(first), Some(second));
        }
        let accents =
            other_accents(one, two).or_else(|| other_accents(two, one).map(|(two, one)| (one, two)));
        if let Some((first, second)) = accents {
            self.add(ConflictKind::Spelling, Strength::Strong, Some(first), Some(second));
        }
    }

    /// Signs in another order or in the place of others; signs that one text has not.
    fn signs(&mut self, one: &[Sign], two: &[Sign]) {
        let is_same = |(x, y): &(&Sign, &Sign)| x.key == y.key;
        let before = one.iter().zip(two).take_while(is_same).count();
        let rest = one.len().min(two.len()) - before;
        let after = one.iter().rev().zip(two.iter().rev()).take(rest).take_while(is_same).count();
        let (one_left, two_left) = (&one[before..one.len() - after], &two[before..two.len() - after]);
        let is_cut = one.len().max(two.len()) == SIGNS_MAX && self.first.text != self.second.text;
        let strength = match (one_left, two_left) {
            _ if is_cut => Strength::Certain,
            ([], []) => return,
            ([], unmatched) | (unmatched, []) => {
                unmatched.iter().map(|sign| sign.strength_if_unmatched).max().unwrap_or(Strength::Weak)
            }
            _ => Strength::Certain,
        };
        let span = |signs: &[Sign]| signs.first().map(|sign| sign.span);
        self.add(ConflictKind::Sign, strength, span(one_left), span(two_left));
    }

    /// `10 - 3`, `3 - 10`: beside signs the order of numbers and letters counts.
    fn operands(&mut self) {
        let (first, second) = (self.first, self.second);
        if first.written.signs.is_empty() || second.written.signs.is_empty() {
            return;
        }
        let (one, two) = (operands(first), operands(second));
        let sorted = |operands: &[Operand]| {
            let mut values: Vec<u64> = operands.iter().map(|operand| operand.value).collect();
            values.sort_unstable();
            values
        };
        let other = one.iter().zip(&two).find(|(x, y)| x.value != y.value);
        if let Some((x, y)) = other.filter(|_| sorted(&one) == sorted(&two)) {
            self.add(ConflictKind::Direction, Strength::Certain, Some(x.span), Some(y.span));
        }
    }

    /// `gate A`, `gate B`.
    fn single_letters(&mut self, one: &[SingleLetter], two: &[SingleLetter]) {
        let (first, second) = (missing_letter(one, two), missing_letter(two, one));
        let strength = match (first, second) {
            (Some(x), Some(y)) if x.is_upper || y.is_upper => Strength::Certain,
            (Some(_), Some(_)) => Strength::Strong,
            (Some(alone), None) | (None, Some(alone)) if alone.is_upper => Strength::Strong,
            (Some(_), None) | (None, Some(_)) => Strength::Weak,
            (None, None) => return self.order_of_letters(one, two),
        };
        self.add(ConflictKind::Code, strength, first.map(|x| x.span), second.map(|y| y.span));
    }

    /// `from A to B`, `from B to A`.
    fn order_of_letters(&mut self, one: &[SingleLetter], two: &[SingleLetter]) {
        let is_designator = |letter: &&SingleLetter| letter.is_designator;
        let (ones, twos) = (one.iter().filter(is_designator), two.iter().filter(is_designator));
        if ones.clone().count() != twos.clone().count() {
            return;
        }
        if let Some((x, y)) = ones.zip(twos).find(|(x, y)| x.letter != y.letter) {
            self.add(ConflictKind::Direction, Strength::Strong, Some(x.span), Some(y.span));
        }
    }
}

/// A number or a single letter.
struct Operand {
    value: u64,
    span: Span,
}

/// The numbers and single letters of a text in their order.
fn operands(features: &QuestionFeatures) -> Vec<Operand> {
    let numbers = features.mentions.iter().filter_map(|mention| {
        let MentionValue::Number { value, .. } = mention.value else { return None };
        Some(Operand { value: value.to_bits(), span: mention.span })
    });
    let letters = features.written.letters.iter();
    let letters = letters.map(|letter| Operand { value: u64::from(letter.letter), span: letter.span });
    let mut operands: Vec<Operand> = numbers.chain(letters).collect();
    operands.sort_by_key(|operand| operand.span.start);
    operands
}

/// The first letter that names something in one text and not in the other. Where the other text has more articles `a`, one of them may
/// be the name.
fn missing_letter<'l>(letters: &'l [SingleLetter], other: &[SingleLetter]) -> Option<&'l SingleLetter> {
    letters.iter().find(|own| {
        let plain = |letters: &[SingleLetter]| {
            letters.iter().filter(|letter| letter.letter == own.letter && !letter.is_designator).count()
        };
        let is_named = other.iter().any(|two| two.letter == own.letter && two.is_designator);
        own.is_designator && !is_named && plain(other) <= plain(letters)
    })
}

/// A word that is a name in one text and another word in the other, whose writer uses capital letters.
fn other_capitals(one: &WrittenForm, two: &WrittenForm) -> Option<(Span, Span)> {
    one.homographs.iter().find_map(|x| {
        let is_always = |form: &WrittenForm, is_name: bool| {
            form.homographs.iter().filter(|y| y.word == x.word).all(|y| y.is_name == is_name)
        };
        let first = two.homographs.iter().find(|y| y.word == x.word)?;
        let plain = if x.is_name { two } else { one };
        let is_other = is_always(one, x.is_name) && is_always(two, !x.is_name);
        (is_other && plain.has_capitals).then_some((x.span, first.span))
    })
}

/// Two short words of the same letters, both with capital letters, but others: `CO`, `Co`.
fn other_case(one: &WrittenForm, two: &WrittenForm) -> Option<(Span, Span)> {
    // Words of the same letters stand together: the first stands for all.
    let groups = one.words.chunk_by(|x, y| x.folded == y.folded);
    groups.filter_map(|group| group.first()).find_map(|word| {
        let first = two.with_letters(word.folded).next()?;
        let is_cased = |form: &WrittenForm| form.with_letters(word.folded).all(|there| there.cased.is_some());
        let is_shared = one
            .with_letters(word.folded)
            .any(|own| two.with_letters(word.folded).any(|there| there.cased == own.cased));
        (is_cased(one) && is_cased(two) && !is_shared).then_some((word.span, first.span))
    })
}

/// The same digits with another separator before the last three: in English a dot there says 1.5, and a comma 1,500.
fn other_separator(one: &WrittenForm, two: &WrittenForm) -> Option<(Span, Span)> {
    one.separated.iter().find_map(|x| {
        let other = two.separated.iter().find(|y| x.digits == y.digits)?;
        (x.separator != other.separator).then_some((x.span, other.span))
    })
}

/// A word with an accent, and the same letters with other accents in a text that has accents.
fn other_accents(accented: &WrittenForm, other: &WrittenForm) -> Option<(Span, Span)> {
    if !other.has_accents {
        return None;
    }
    accented.words.iter().filter(|word| word.has_accent() && word.is_compared).find_map(|word| {
        let first = other.with_letters(word.folded).next()?;
        let is_other = other.with_letters(word.folded).all(|two| two.exact != word.exact);
        is_other.then_some((word.span, first.span))
    })
}
