//! Members of classes that exclude each other.

use super::comparison::QuestionComparison;
use crate::matching::guard::class_tags::ClassTag;
use crate::matching::guard::conflict::{ConflictKind, Strength};
use crate::matching::guard::features::QuestionFeatures;
use crate::matching::guard::folding::word_key;
use crate::matching::guard::mentions::{Mention, MentionValue};
use crate::matching::guard::request_shape::RequestShape;
use crate::matching::guard::tokens::Span;
use crate::matching::guard::word_list::WordList;

/// How members of a class conflict.
struct ClassRule {
    list: WordList,
    kind: ConflictKind,
    /// Each text has a member that the other has not.
    both: Option<Strength>,
    /// Only one text has a member.
    one: Option<Strength>,
}

const fn rule(
    list: WordList,
    kind: ConflictKind,
    both: Option<Strength>,
    one: Option<Strength>,
) -> ClassRule {
    ClassRule { list, kind, both, one }
}

const CERTAIN: Option<Strength> = Some(Strength::Certain);
const STRONG: Option<Strength> = Some(Strength::Strong);
const WEAK: Option<Strength> = Some(Strength::Weak);

/// The rules of the classes. Comparisons and quantifiers have opposites besides, which are certain.
const RULES: [ClassRule; 16] = [
    rule(WordList::Colours, ConflictKind::Variant, CERTAIN, STRONG),
    rule(WordList::Sizes, ConflictKind::Variant, CERTAIN, STRONG),
    rule(WordList::Plans, ConflictKind::Plan, CERTAIN, WEAK),
    rule(WordList::Languages, ConflictKind::AnswerLanguage, CERTAIN, STRONG),
    rule(WordList::Formats, ConflictKind::AnswerFormat, CERTAIN, WEAK),
    rule(WordList::Places, ConflictKind::Entity, CERTAIN, STRONG),
    rule(WordList::Brands, ConflictKind::Entity, CERTAIN, STRONG),
    rule(WordList::Persons, ConflictKind::Role, CERTAIN, WEAK),
    rule(WordList::Periods, ConflictKind::Date, CERTAIN, WEAK),
    rule(WordList::Weekdays, ConflictKind::Date, CERTAIN, STRONG),
    rule(WordList::RelativeDays, ConflictKind::Date, CERTAIN, STRONG),
    rule(WordList::DayParts, ConflictKind::Date, CERTAIN, WEAK),
    rule(WordList::QuestionWords, ConflictKind::QuestionWord, WEAK, WEAK),
    rule(WordList::Comparators, ConflictKind::Comparator, WEAK, WEAK),
    rule(WordList::Quantifiers, ConflictKind::Quantifier, STRONG, WEAK),
    rule(WordList::Modality, ConflictKind::Modality, STRONG, None),
];

/// The quantity of `only` and `solo`.
const ONLY: &str = "only";
/// Plans that after a number are part of a name.
const MODEL_SUFFIXES: [&str; 5] = ["pro", "plus", "ultra", "lite", "elite"];
/// The largest number that counts things; larger ones are years and amounts.
const COUNT_MAX: f64 = 20.0;

impl QuestionComparison<'_> {
    pub(super) fn classes(&mut self) {
        if self.first.tags.is_empty() && self.second.tags.is_empty() {
            return;
        }
        for rule in &RULES {
            self.class(rule);
        }
        self.opposites();
        self.freshness();
    }

    fn class(&mut self, rule: &ClassRule) {
        let one = only_in(rule.list, self.first, self.second);
        let two = only_in(rule.list, self.second, self.first);
        let strength = match (one, two) {
            (Some(_), Some(_)) => rule.both,
            (None, None) => None,
            (Some(tag), None) | (None, Some(tag)) => {
                let is_form = matches!(rule.list, WordList::Formats | WordList::Languages);
                let features = if one.is_some() { self.first } else { self.second };
                if is_form && tag.is_asked {
                    CERTAIN
                } else if says_much_alone(features, tag) {
                    STRONG
                } else {
                    rule.one
                }
            }
        };
        if let Some(strength) = strength {
            self.add(rule.kind, strength, one.map(|tag| tag.span), two.map(|tag| tag.span));
        }
    }

    /// More against less, all against none, the first against the last.
    fn opposites(&mut self) {
        let lists = [
            (WordList::Comparators, ConflictKind::Comparator, Strength::Certain),
            (WordList::Quantifiers, ConflictKind::Quantifier, Strength::Certain),
            (WordList::Particles, ConflictKind::Antonym, Strength::Certain),
            (WordList::QuestionWords, ConflictKind::QuestionWord, Strength::Strong),
        ];
        for (list, kind, strength) in lists {
            for one in tags(list, self.first).filter(|tag| !has(self.second, tag)) {
                for two in tags(list, self.second).filter(|tag| !has(self.first, tag)) {
                    if self.lexicon.are_opposites(one.value, two.value) {
                        self.add(kind, strength, Some(one.span), Some(two.span));
                    }
                }
            }
        }
        self.counts();
    }

    /// A number or a place in an order against a quantity in words: `the second` and `the last`, `two` and `all`.
    fn counts(&mut self) {
        let (first, second) = (self.first, self.second);
        if let Some((one, two, strength)) = self.count_against_quantity(first, second) {
            self.add(ConflictKind::Quantifier, strength, Some(one), Some(two));
        }
        if let Some((two, one, strength)) = self.count_against_quantity(second, first) {
            self.add(ConflictKind::Quantifier, strength, Some(one), Some(two));
        }
    }

    /// A count that the other text replaces by an opposite quantity. Lists name them as opposites of `first` and `number`.
    fn count_against_quantity(
        &self,
        counted: &QuestionFeatures,
        other: &QuestionFeatures,
    ) -> Option<(Span, Span, Strength)> {
        if other.mentions.iter().any(|mention| count_name(mention.value).is_some()) {
            return None;
        }
        counted.mentions.iter().find_map(|mention| {
            let name = word_key(count_name(mention.value)?);
            let mut quantities = tags(WordList::Quantifiers, other).filter(|tag| !has(counted, tag));
            let opposite = quantities.find(|tag| self.lexicon.are_opposites(name, tag.value))?;
            let strength = if mention.is_one() { Strength::Strong } else { Strength::Certain };
            Some((mention.span, opposite.span, strength))
        })
    }

    /// Only one text is about the present moment.
    fn freshness(&mut self) {
        // `Cancel it now`: when something is done is no fact that changes.
        let is_act = |features: &QuestionFeatures| matches!(features.shape, RequestShape::Act(_));
        if is_act(self.first) || is_act(self.second) {
            return;
        }
        let now = |features| tags(WordList::Freshness, features).next().map(|tag| tag.span);
        let usually = |features| tags(WordList::Generality, features).next().map(|tag| tag.span);
        let (one, two) = (now(self.first), now(self.second));
        let strength = match (one, two) {
            (Some(_), None) | (None, Some(_)) => Strength::Certain,
            (Some(_), Some(_)) => return,
            (None, None) => {
                let (one, two) = (usually(self.first), usually(self.second));
                if one.is_some() != two.is_some() {
                    self.add(ConflictKind::Freshness, Strength::Weak, one, two);
                }
                return;
            }
        };
        self.add(ConflictKind::Freshness, strength, one, two);
    }
}

/// Whether a member says something else though the other text has none of its class: `only`, a plan in the name of a thing.
fn says_much_alone(features: &QuestionFeatures, tag: &ClassTag) -> bool {
    let is_only = tag.list == WordList::Quantifiers && tag.value == word_key(ONLY);
    is_only || tag.list == WordList::Plans && is_model_name(features, tag)
}

/// Whether a plan is part of the name of a thing: `iPhone 15 Pro`, `Galaxy S24 Ultra`.
fn is_model_name(features: &QuestionFeatures, plan: &ClassTag) -> bool {
    let is_suffix = MODEL_SUFFIXES.iter().any(|suffix| word_key(suffix) == plan.value);
    let is_model = |mention: &&Mention| match mention.value {
        MentionValue::Number { is_version, .. } => is_version || is_suffix,
        MentionValue::Code { .. } => true,
        MentionValue::Measure { .. }
        | MentionValue::Unit(_)
        | MentionValue::Ordinal(_)
        | MentionValue::Time(_)
        | MentionValue::Date(_) => false,
    };
    features.mentions.iter().filter(is_model).any(|mention| mention.tokens.1 == plan.tokens.0)
        || is_suffix && tags(WordList::Plans, features).any(|before| before.tokens.1 == plan.tokens.0)
}

/// What a mention counts as among quantifiers. Large numbers are years and amounts.
fn count_name(value: MentionValue) -> Option<&'static str> {
    if matches!(value, MentionValue::Ordinal(_)) {
        return Some("first");
    }
    let is_count =
        matches!(value, MentionValue::Number { value, is_version: false, .. } if value <= COUNT_MAX);
    is_count.then_some("number")
}

fn tags(list: WordList, features: &QuestionFeatures) -> impl Iterator<Item = &ClassTag> {
    features.tags.iter().filter(move |tag| tag.list == list)
}

fn has(features: &QuestionFeatures, tag: &ClassTag) -> bool {
    features.tags.iter().any(|other| other.list == tag.list && other.value == tag.value)
}

/// The first member of a class that the other text has not.
fn only_in<'f>(
    list: WordList,
    features: &'f QuestionFeatures,
    other: &QuestionFeatures,
) -> Option<&'f ClassTag> {
    tags(list, features).find(|tag| !has(other, tag))
}
