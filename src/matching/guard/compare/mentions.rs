//! Numbers, measures, dates, times, codes and quotations.

use super::comparison::Comparison;
use crate::matching::guard::conflict::{ConflictKind, Strength};
use crate::matching::guard::features::QuestionFeatures;
use crate::matching::guard::mentions::{MENTIONS_MAX, Mention, MentionValue};
use crate::matching::guard::tokens::Span;
use crate::matching::guard::units::is_same_value;

/// Which mentions of a text have no counterpart: one bit each.
type Unmatched = u64;

const _: () = assert!(MENTIONS_MAX < 64, "one bit a mention");

impl Comparison<'_> {
    pub(super) fn mentions(&mut self) {
        let (first, second) = (self.first, self.second);
        if first.mentions.is_empty() && second.mentions.is_empty() {
            return;
        }
        let first_left = unmatched(first, second);
        let second_left = unmatched(second, first);
        self.pairs(first_left, second_left);
        self.single(first, first_left, second_left, true);
        self.single(second, second_left, first_left, false);
    }

    /// Mentions without counterpart in both texts that are of one family are in conflict.
    fn pairs(&mut self, first_left: Unmatched, second_left: Unmatched) {
        for one in left(self.first, first_left) {
            for two in left(self.second, second_left) {
                if let Some((kind, strength)) = pair_conflict(one.value, two.value) {
                    self.add(kind, strength, Some(one.span), Some(two.span));
                }
            }
        }
    }

    /// Mentions that the other text has nothing in place of.
    fn single(&mut self, features: &QuestionFeatures, own: Unmatched, other: Unmatched, is_first: bool) {
        let is_replaced = |mention: &Mention, comparison: &Self| {
            let others = if is_first { comparison.second } else { comparison.first };
            left(others, other).any(|two| pair_conflict(mention.value, two.value).is_some())
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
        let is_missing = |features: &QuestionFeatures, key| features.quotations.iter().all(|other| other.key != key);
        let one = self.first.quotations.iter().find(|quotation| is_missing(self.second, quotation.key));
        let two = self.second.quotations.iter().find(|quotation| is_missing(self.first, quotation.key));
        if let (Some(one), Some(two)) = (one, two) {
            self.add(ConflictKind::Quotation, Strength::Certain, Some(one.span), Some(two.span));
        }
    }
}

fn left(features: &QuestionFeatures, bits: Unmatched) -> impl Iterator<Item = &Mention> {
    features.mentions.iter().enumerate().filter(move |(n, _)| bits >> n & 1 == 1).map(|(_, mention)| mention)
}

fn unmatched(features: &QuestionFeatures, other: &QuestionFeatures) -> Unmatched {
    let mut bits = 0;
    for (n, mention) in features.mentions.iter().enumerate() {
        if !other.mentions.iter().any(|two| agree(mention.value, two.value)) && !is_spelled_in(features, mention, other) {
            bits |= 1 << n;
        }
    }
    bits
}

/// Whether two mentions can be of the same value.
fn agree(one: MentionValue, two: MentionValue) -> bool {
    use MentionValue::{Code, Date, Measure, Number, Ordinal, Time, Unit};
    match (one, two) {
        (Number { value, digits, is_version, .. }, Number { value: other, digits: other_digits, is_version: also, .. }) => {
            let is_same_writing = digits != 0 && digits == other_digits;
            is_same_writing || is_same_value(value, other) && !((is_version || also) && digits != 0 && other_digits != 0)
        }
        (Measure { value, unit, .. }, Measure { value: other, unit: other_unit, .. }) => {
            unit.is_comparable(other_unit) && is_same_value(value, other)
        }
        // A unit that one text leaves out: `900 euros`, `900`.
        (Measure { value, unit, .. }, Number { value: number, .. })
        | (Number { value: number, .. }, Measure { value, unit, .. }) => is_same_value(value / unit.factor, number),
        (Time(time), Number { value, .. }) | (Number { value, .. }, Time(time)) => {
            let hour = f64::from(time.minutes) / 60.0;
            hour == value || hour == value + 12.0
        }
        (Date(date), Number { value, .. }) | (Number { value, .. }, Date(date)) => {
            date.year.is_some_and(|year| f64::from(year) == value) || date.day.is_some_and(|day| f64::from(day) == value)
        }
        (Unit(unit), Unit(other)) => unit.is_comparable(other) && unit.factor == other.factor,
        (Unit(unit), Measure { unit: other, .. }) | (Measure { unit: other, .. }, Unit(unit)) => unit.is_comparable(other),
        (Ordinal(place), Ordinal(other)) => place == other,
        (Time(time), Time(other)) => time.agrees(other),
        (Date(date), Date(other)) => date.agrees(other),
        (Code { key, .. }, Code { key: other, .. }) => key == other,
        _ => false,
    }
}

/// `iPhone14` and `iPhone 14`: the letters of a code are in the other text, with other spaces.
fn is_spelled_in(features: &QuestionFeatures, mention: &Mention, other: &QuestionFeatures) -> bool {
    let is_plain = matches!(mention.value, MentionValue::Code { .. });
    let word = mention.span.of(&features.text);
    if is_plain {
        let folded: String = word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        return other.letters.contains(&folded);
    }
    // The digits of the other text's code may be a number here.
    let is_number = matches!(mention.value, MentionValue::Number { .. } | MentionValue::Measure { .. });
    let digits = || word.bytes().filter(u8::is_ascii_digit).count();
    is_number && digits() > 0 && is_in_a_code(features, mention, other)
}

fn is_in_a_code(features: &QuestionFeatures, number: &Mention, other: &QuestionFeatures) -> bool {
    other.mentions.iter().filter(|mention| matches!(mention.value, MentionValue::Code { .. })).any(|code| {
        let folded: String =
            code.span.of(&other.text).chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        let digits = number.span.of(&features.text).trim_matches(|c: char| !c.is_ascii_digit());
        folded.contains(digits) && features.letters.contains(&folded)
    })
}

/// How two mentions without counterpart conflict, if they are of one family.
fn pair_conflict(one: MentionValue, two: MentionValue) -> Option<(ConflictKind, Strength)> {
    use MentionValue::{Code, Date, Measure, Number, Ordinal, Time, Unit};
    let kind = match (one, two) {
        (Number { is_version, .. }, Number { is_version: also, .. }) => {
            if is_version || also { ConflictKind::Version } else { ConflictKind::Number }
        }
        (Measure { value, unit, .. }, Measure { value: other, unit: other_unit, .. }) => {
            let is_same_number = is_same_value(value / unit.factor, other / other_unit.factor);
            if !unit.is_comparable(other_unit) && is_same_number { ConflictKind::Unit } else { ConflictKind::Number }
        }
        (Measure { .. }, Number { .. }) | (Number { .. }, Measure { .. }) => ConflictKind::Number,
        (Unit(_), Unit(_)) => ConflictKind::Unit,
        (Unit(unit), Measure { unit: other, .. }) | (Measure { unit: other, .. }, Unit(unit)) if unit != other => {
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
        MentionValue::Number { is_weak: true, .. } | MentionValue::Measure { is_weak: true, .. } => return None,
        MentionValue::Number { is_version: true, .. } => (ConflictKind::Version, Strength::Strong),
        MentionValue::Number { .. } | MentionValue::Measure { .. } => (ConflictKind::Number, Strength::Strong),
        MentionValue::Unit(_) => (ConflictKind::Unit, Strength::Weak),
        MentionValue::Ordinal(1) => (ConflictKind::Quantifier, Strength::Weak),
        MentionValue::Ordinal(_) => (ConflictKind::Quantifier, Strength::Strong),
        MentionValue::Time(_) | MentionValue::Date(_) => (ConflictKind::Date, Strength::Strong),
        MentionValue::Code { is_short: true, .. } => (ConflictKind::Code, Strength::Strong),
        MentionValue::Code { is_short: false, .. } => (ConflictKind::Code, Strength::Certain),
    };
    Some(conflict)
}
