//! Numbers, measures, dates, times, codes and quotations.

use super::comparison::QuestionComparison;
use crate::matching::guard::conflict::{ConflictKind, Strength};
use crate::matching::guard::features::QuestionFeatures;
use crate::matching::guard::folding::fold;
use crate::matching::guard::mentions::{MENTIONS_MAX, Mention, MentionValue};
use crate::matching::guard::quotations::Quotation;
use crate::matching::guard::tokens::Span;
use crate::matching::guard::units::is_same_value;

/// Which mentions of a text have no counterpart: one bit each.
type UnmatchedMentions = u64;

/// How many mentions without counterpart of each text are compared pair by pair.
const PAIRED_MAX: usize = 8;
/// In texts with more mentions than this, codes are compared as they are written: each look for another spelling reads a whole text.
const SPELLED_MAX: usize = 8;

const _: () = assert!(MENTIONS_MAX < 64, "one bit a mention");

impl QuestionComparison<'_> {
    pub(super) fn mentions(&mut self) {
        let (first, second) = (self.first, self.second);
        if first.mentions.is_empty() && second.mentions.is_empty() {
            return;
        }
        if first.mentions.len().max(second.mentions.len()) >= MENTIONS_MAX && first.letters != second.letters
        {
            return self.add(ConflictKind::Number, Strength::Certain, None, None);
        }
        let (first_left, second_left) = unmatched(first, second);
        self.pairs(first_left, second_left);
        self.single(first, first_left, second_left, true);
        self.single(second, second_left, first_left, false);
    }

    /// Mentions without counterpart in both texts that are of one family are in conflict.
    fn pairs(&mut self, first_left: UnmatchedMentions, second_left: UnmatchedMentions) {
        for one in left(self.first, first_left).take(PAIRED_MAX) {
            for two in left(self.second, second_left).take(PAIRED_MAX) {
                if let Some((kind, strength)) = pair_conflict(one, two) {
                    self.add(kind, strength, Some(one.span), Some(two.span));
                }
            }
        }
    }

    /// Mentions that the other text has nothing in place of.
    fn single(
        &mut self,
        features: &QuestionFeatures,
        own: UnmatchedMentions,
        other: UnmatchedMentions,
        is_first: bool,
    ) {
        let is_replaced = |mention: &Mention, comparison: &Self| {
            let others = if is_first { comparison.second } else { comparison.first };
            left(others, other).any(|two| pair_conflict(mention, two).is_some())
        };
        for mention in left(features, own) {
            if !is_replaced(mention, self)
                && let Some((kind, strength)) = single_conflict(mention.value)
            {
                let span: Option<Span> = Some(mention.span);
                let (one, two) = if is_first { (span, None) } else { (None, span) };
                self.add(kind, strength, one, two);
            }
        }
    }

    pub(super) fn quotations(&mut self) {
        let one = missing_quotation(self.first, self.second);
        let two = missing_quotation(self.second, self.first);
        if let (Some(one), Some(two)) = (one, two) {
            self.add(ConflictKind::Quotation, Strength::Certain, Some(one.span), Some(two.span));
        }
    }
}

fn is_weak(value: MentionValue) -> bool {
    matches!(value, MentionValue::Number { is_weak: true, .. } | MentionValue::Measure { is_weak: true, .. })
}

/// The span of a quotation whose words the other text has nowhere.
fn missing_quotation<'f>(features: &'f QuestionFeatures, other: &QuestionFeatures) -> Option<&'f Quotation> {
    features.quotations.iter().find(|quotation| {
        let is_quoted = other.quotations.iter().any(|two| two.key == quotation.key);
        !is_quoted && !other.letters.contains(&letters(quotation.span.of(&features.text)))
    })
}

/// The folded letters and digits of a text.
fn letters(text: &str) -> String {
    fold(text).chars().filter(|c| c.is_alphanumeric()).collect()
}

fn left(features: &QuestionFeatures, bits: UnmatchedMentions) -> impl Iterator<Item = &Mention> {
    features.mentions.iter().enumerate().filter(move |(n, _)| bits >> n & 1 == 1).map(|(_, mention)| mention)
}

/// The mentions of each text without counterpart in the other. First those of one family are matched, then what is left by looser
/// rules, so that the 8 of `for 8 at 8 pm` does not stand for both.
fn unmatched(first: &QuestionFeatures, second: &QuestionFeatures) -> (UnmatchedMentions, UnmatchedMentions) {
    let is_spelled = |own: &Mention, features, other| is_spelled_in(features, own, other);
    let first_left = without(first, |own| {
        second.mentions.iter().any(|two| agree(own.value, two.value)) || is_spelled(own, first, second)
    });
    let second_left = without(second, |own| {
        first.mentions.iter().any(|two| agree(own.value, two.value)) || is_spelled(own, second, first)
    });
    if first_left == 0 || second_left == 0 {
        return (first_left, second_left);
    }
    let loosely = |own: &Mention, others: &QuestionFeatures, bits| {
        left(others, bits).any(|two| agree_loosely(own.value, two.value))
    };
    (
        first_left & without(first, |own| loosely(own, second, second_left)),
        second_left & without(second, |own| loosely(own, first, first_left)),
    )
}

fn without(features: &QuestionFeatures, is_matched: impl Fn(&Mention) -> bool) -> UnmatchedMentions {
    let numbered = features.mentions.iter().enumerate();
    numbered.filter(|(_, mention)| !is_matched(mention)).fold(0, |bits, (n, _)| bits | 1 << n)
}

/// Whether two mentions of one family are of the same value. A unit alone is also in a measure.
fn agree(one: MentionValue, two: MentionValue) -> bool {
    use MentionValue::{Code, Date, Measure, Number, Ordinal, Time, Unit};
    match (one, two) {
        (
            Number { value, digits, is_version, .. },
            Number { value: other, digits: other_digits, is_version: also, .. },
        ) => {
            let is_same_writing = digits != 0 && digits == other_digits;
            is_same_writing
                || is_same_value(value, other) && !((is_version || also) && digits != 0 && other_digits != 0)
        }
        (Measure { value, unit, .. }, Measure { value: other, unit: other_unit, .. }) => {
            unit.is_comparable(other_unit) && is_same_value(value, other)
        }
        (Unit(unit), Unit(other)) => unit.is_comparable(other) && unit.factor == other.factor,
        (Unit(unit), Measure { unit: other, .. }) => unit.is_comparable(other),
        (Ordinal(place), Ordinal(other)) => place == other,
        (Time(time), Time(other)) => time.agrees(other),
        (Date(date), Date(other)) => date.agrees(other),
        (Code { key, .. }, Code { key: other, .. }) => key == other,
        _ => false,
    }
}

/// Whether two mentions can be of the same value, of which one leaves something out: `900 euros`, `900`.
fn agree_loosely(one: MentionValue, two: MentionValue) -> bool {
    use MentionValue::{Date, Measure, Number, Time};
    match (one, two) {
        (Measure { value, unit, .. }, Number { value: number, .. })
        | (Number { value: number, .. }, Measure { value, unit, .. }) => {
            is_same_value(value / unit.factor, number)
        }
        (Time(time), Number { value, .. }) | (Number { value, .. }, Time(time)) => {
            let hour = f64::from(time.minutes) / 60.0;
            hour == value || hour == value + 12.0
        }
        (Date(date), Number { value, .. }) | (Number { value, .. }, Date(date)) => {
            date.year.is_some_and(|year| f64::from(year) == value)
                || date.day.is_some_and(|day| f64::from(day) == value)
        }
        _ => false,
    }
}

/// `iPhone14` and `iPhone 14`: the letters of a code are in the other text, with other spaces.
fn is_spelled_in(features: &QuestionFeatures, mention: &Mention, other: &QuestionFeatures) -> bool {
    if features.mentions.len().max(other.mentions.len()) > SPELLED_MAX {
        return false;
    }
    let is_plain = matches!(mention.value, MentionValue::Code { .. });
    let word = mention.span.of(&features.text);
    if is_plain {
        return other.letters.contains(&letters(word));
    }
    // The digits of the other text's code may be a number here.
    let is_number = matches!(mention.value, MentionValue::Number { .. } | MentionValue::Measure { .. });
    let digits = || word.bytes().filter(u8::is_ascii_digit).count();
    is_number && digits() > 0 && is_in_a_code(features, mention, other)
}

fn is_in_a_code(features: &QuestionFeatures, number: &Mention, other: &QuestionFeatures) -> bool {
    other.mentions.iter().filter(|mention| matches!(mention.value, MentionValue::Code { .. })).any(|code| {
        let folded = letters(code.span.of(&other.text));
        let digits = number.span.of(&features.text).trim_matches(|c: char| !c.is_ascii_digit());
        folded.contains(digits) && features.letters.contains(&folded)
    })
}

/// How two mentions without counterpart conflict, if they are of one family.
fn pair_conflict(one: &Mention, two: &Mention) -> Option<(ConflictKind, Strength)> {
    use MentionValue::{Code, Date, Measure, Number, Ordinal, Time, Unit};
    if (is_weak(one.value) || is_weak(two.value)) && one.noun != two.noun {
        return None;
    }
    let kind = match (one.value, two.value) {
        (Number { is_version, .. }, Number { is_version: also, .. }) => {
            if is_version || also {
                ConflictKind::Version
            } else {
                ConflictKind::Number
            }
        }
        (Measure { value, unit, .. }, Measure { value: other, unit: other_unit, .. }) => {
            let is_same_number = is_same_value(value / unit.factor, other / other_unit.factor);
            if !unit.is_comparable(other_unit) && is_same_number {
                ConflictKind::Unit
            } else {
                ConflictKind::Number
            }
        }
        (Measure { .. }, Number { .. }) | (Number { .. }, Measure { .. }) => {
            return Some((ConflictKind::Number, Strength::Strong));
        }
        (Unit(_), Unit(_)) => ConflictKind::Unit,
        (Unit(unit), Measure { unit: other, .. }) | (Measure { unit: other, .. }, Unit(unit))
            if unit != other =>
        {
            return Some((ConflictKind::Unit, Strength::Weak));
        }
        (Ordinal(_), Ordinal(_)) => ConflictKind::Quantifier,
        (Time(_), Time(_)) | (Date(_), Date(_)) => ConflictKind::Date,
        (Code { .. }, Code { .. }) => ConflictKind::Code,
        (Code { .. }, Number { .. } | Measure { .. }) | (Number { .. } | Measure { .. }, Code { .. }) => {
            ConflictKind::Version
        }
        (Time(_) | Date(_), Number { .. }) | (Number { .. }, Time(_) | Date(_)) => ConflictKind::Date,
        _ => return None,
    };
    Some((kind, Strength::Certain))
}

/// How strong a mention is that only one text has.
fn single_conflict(value: MentionValue) -> Option<(ConflictKind, Strength)> {
    let conflict = match value {
        value if is_weak(value) => return None,
        MentionValue::Number { is_version: true, .. } => (ConflictKind::Version, Strength::Strong),
        MentionValue::Number { .. } | MentionValue::Measure { .. } => {
            (ConflictKind::Number, Strength::Strong)
        }
        MentionValue::Unit(_) => (ConflictKind::Unit, Strength::Weak),
        MentionValue::Ordinal(1) => (ConflictKind::Quantifier, Strength::Weak),
        MentionValue::Ordinal(_) => (ConflictKind::Quantifier, Strength::Strong),
        MentionValue::Time(_) | MentionValue::Date(_) => (ConflictKind::Date, Strength::Strong),
        MentionValue::Code { is_short: true, .. } => (ConflictKind::Code, Strength::Strong),
        MentionValue::Code { is_short: false, .. } => (ConflictKind::Code, Strength::Certain),
    };
    Some(conflict)
}
