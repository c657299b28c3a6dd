//! The same words in other places: from A to B against from B to A, A pays B against B pays A.

use super::comparison::QuestionComparison;
use super::words::WordDifference;
use crate::matching::guard::class_tags::ClassTag;
use crate::matching::guard::conflict::{ConflictKind, Strength};
use crate::matching::guard::content_words::ContentWord;
use crate::matching::guard::features::QuestionFeatures;
use crate::matching::guard::features::SequenceWord;
use crate::matching::guard::folding::{WordKey, fold, word_key};
use crate::matching::guard::request_shape::RequestShape;
use crate::matching::guard::tokens::Span;
use crate::matching::guard::word_list::WordList;

/// How many words of content are compared pair by pair.
const ORDERED_WORDS_MAX: usize = 24;
/// How far apart two words may be of which only one has a preposition: `euros to dollars`.
const NEAR_TOKENS: usize = 6;

impl QuestionComparison<'_> {
    pub(super) fn order(&mut self, difference: &WordDifference) {
        let (first, second) = (self.first, self.second);
        if first.content.len() > ORDERED_WORDS_MAX || second.content.len() > ORDERED_WORDS_MAX {
            return;
        }
        let swapped = swapped_roles(first, second)
            .or_else(|| swapped_roles(second, first).map(|(two, one)| (one, two)));
        if let Some((one, two)) = swapped {
            self.add(ConflictKind::Direction, Strength::Certain, Some(one.span), Some(two.span));
        }
        let is_same_content = difference.first.is_empty()
            && difference.second.is_empty()
            && first.content.len() == second.content.len();
        let is_same_voice = first.speaker.is_passive == second.speaker.is_passive;
        if is_same_content
            && is_same_voice
            && let Some((one, two, strength)) = reversed(first, second)
                .or_else(|| reversed(second, first).map(|(two, one, strength)| (one, two, strength)))
        {
            self.add(ConflictKind::Role, strength, Some(one.span), Some(two.span));
        }
        if is_same_voice && let Some((one, two)) = exchanged(first, second) {
            self.add(ConflictKind::Direction, Strength::Strong, Some(one.span), Some(two.span));
        }
        if let Some((one, two)) = reordered_items(first, second) {
            self.add(ConflictKind::Direction, Strength::Certain, Some(one), Some(two));
        }
        self.speakers(difference);
    }

    /// `I send Ahmed money`, `Ahmed sends me money`.
    fn speakers(&mut self, difference: &WordDifference) {
        let (one, two) = (self.first.speaker, self.second.speaker);
        let is_same_content = difference.first.is_empty() && difference.second.is_empty();
        let has_swapped = one.is_subject != two.is_subject
            && one.is_object != two.is_object
            && one.is_subject != one.is_object;
        let has_name = self.first.content.iter().any(|word| word.is_name);
        let is_act =
            [self.first, self.second].iter().any(|question| matches!(question.shape, RequestShape::Act(_)));
        let has_other = has_name || one.has_addressee && two.has_addressee && !is_act;
        let has_addressee = one.has_addressee || two.has_addressee;
        let is_passive = one.is_passive || two.is_passive;
        let has_other_subject =
            one.has_other_subject != two.has_other_subject && one.is_subject != two.is_subject;
        if !is_same_content {
            return;
        }
        if has_swapped && has_other {
            self.add(ConflictKind::Role, Strength::Certain, None, None);
        } else if (has_swapped || has_other_subject) && !has_addressee && !is_passive {
            self.add(ConflictKind::Role, Strength::Strong, None, None);
        }
    }
}

/// Two words that both texts have, of which each plays in one text the role that the other one plays in the other.
fn swapped_roles<'f>(
    first: &'f QuestionFeatures,
    second: &'f QuestionFeatures,
) -> Option<(&'f ContentWord, &'f ContentWord)> {
    for (n, x) in first.content.iter().enumerate() {
        let Some(x_there) = single(second, x) else { continue };
        for y in &first.content[n + 1..] {
            let Some(y_there) = single(second, y) else { continue };
            let is_near = x.role != 0 && y.role != 0 || y.token - x.token <= NEAR_TOKENS;
            // `to Lima and Quito`, `to Quito and Lima`
            let are_listed = is_listed(first, x, y) && is_listed(second, x_there, y_there);
            let is_swapped = is_near
                && !are_listed
                && are_exchangeable(x, y)
                && is_same_role(x.role, y_there.role)
                && is_same_role(y.role, x_there.role);
            if is_swapped && single(first, x).is_some() && single(first, y).is_some() {
                return Some((x, x_there));
            }
        }
    }
    None
}

/// Two words with a third one between them, all in the opposite order in the other text: `A lends B`, `B lends A`. Certain if the third
/// one is a verb.
fn reversed<'f>(
    first: &'f QuestionFeatures,
    second: &'f QuestionFeatures,
) -> Option<(&'f ContentWord, &'f ContentWord, Strength)> {
    let words = &first.content;
    for (n, x) in words.iter().enumerate() {
        let Some(x_there) = single(second, x) else { continue };
        for (m, y) in words.iter().enumerate().skip(n + 2) {
            let Some(y_there) = single(second, y).filter(|there| there.token < x_there.token) else {
                continue;
            };
            let is_inside = |word: &&ContentWord| {
                single(second, word)
                    .is_some_and(|there| y_there.token < there.token && there.token < x_there.token)
            };
            let mut between = words[n + 1..m].iter().filter(is_inside).peekable();
            let can_act = x.role == 0 && y.role == 0 && !x.is_light && !y.is_light;
            if between.peek().is_some() && can_act && !is_listed(first, x, y) {
                let has_verb = between.any(|word| word.is_verb || word.is_light);
                let strength = if has_verb { Strength::Certain } else { Strength::Strong };
                return Some((x, x_there, strength));
            }
        }
    }
    None
}

/// Two words that have changed places while all others stand where they stood: `cards per account`, `accounts per card`.
fn exchanged<'f>(
    first: &'f QuestionFeatures,
    second: &'f QuestionFeatures,
) -> Option<(&'f ContentWord, &'f ContentWord)> {
    let (one, two) = (&first.content, &second.content);
    let mut others = one.iter().zip(two.iter()).filter(|(x, y)| x.stem != y.stem);
    let ((x, x_there), (y, y_there)) = (others.next()?, others.next()?);
    let are_exchanged = x.stem == y_there.stem && y.stem == x_there.stem;
    let is_all = others.next().is_none() && one.len() == two.len();
    // `from A to B`, `to B from A`: each plays the same part in both.
    let keeps_role =
        |word: &ContentWord, there: &ContentWord| word.role != 0 && is_same_role(word.role, there.role);
    let is_moved = keeps_role(x, y_there) && keeps_role(y, x_there);
    // `¿La chaqueta es impermeable?`, `¿Es impermeable la chaqueta?`: what is said of a thing may stand before it.
    let is_said_of =
        |thing: &ContentWord, there: &ContentWord, said: &ContentWord, said_there: &ContentWord| {
            let can_act =
                |word: &ContentWord| word.is_thing || word.is_name || word.is_actor || word.role != 0;
            thing.is_thing && there.is_thing && !can_act(said) && !can_act(said_there)
        };
    let is_moved = is_moved || is_said_of(x, y_there, y, x_there) || is_said_of(y, x_there, x, y_there);
    let are_things = [x, y].iter().all(|word| !word.is_verb && !word.is_light);
    let is_named_together = is_listed(first, x, y) || is_listed(second, x_there, y_there);
    let is_exchange = are_exchanged && is_all && are_things && !is_moved && !is_named_together;
    is_exchange.then_some((x, x_there))
}

/// Numbers, codes, names, plans and sizes in another order among the same words: `Does the iPhone 15 case fit the iPhone 15 Pro?` and
/// `Does the iPhone 15 Pro case fit the iPhone 15?`. Lists are left out, because their order does not count.
fn reordered_items(first: &QuestionFeatures, second: &QuestionFeatures) -> Option<(Span, Span)> {
    let (one, two) = (items(first), items(second));
    if is_list(first, &one) || is_list(second, &two) {
        return None;
    }
    let other = one.iter().zip(&two).find(|(x, y)| x.key != y.key)?;
    let sorted = |items: &[NamedItem]| {
        let mut keys: Vec<WordKey> = items.iter().map(|item| item.key).collect();
        keys.sort_unstable();
        keys
    };
    let rest = |features: &QuestionFeatures, items: &[NamedItem]| {
        let is_item = |word: &&SequenceWord| items.iter().any(|item| item.token == word.token);
        features.sequence.iter().filter(|word| !is_item(word)).map(|word| word.stem).collect::<Vec<_>>()
    };
    let are_same = sorted(&one) == sorted(&two) && rest(first, &one) == rest(second, &two);
    are_same.then_some((other.0.span, other.1.span))
}

/// Whether `and`, `or` or a comma stands among items.
fn is_list(features: &QuestionFeatures, items: &[NamedItem]) -> bool {
    let ends = items.first().zip(items.last()).map(|(first, last)| first.token..=last.token);
    ends.is_some_and(|among| features.coordinators.iter().any(|token| among.contains(token)))
}

/// What a text names rather than says.
struct NamedItem {
    token: usize,
    key: WordKey,
    span: Span,
}

/// The items of a text in their order.
fn items(features: &QuestionFeatures) -> Vec<NamedItem> {
    let of_text =
        |token: usize, span: Span| NamedItem { token, key: word_key(&fold(span.of(&features.text))), span };
    let mentions = features.mentions.iter().map(|mention| of_text(mention.tokens.0, mention.span));
    let is_named = |tag: &&ClassTag| matches!(tag.list, WordList::Plans | WordList::Sizes);
    let tags = features.tags.iter().filter(is_named).map(|tag| of_text(tag.tokens.0, tag.span));
    let is_name = |word: &&ContentWord| word.is_name || !word.is_known;
    let names = features.content.iter().filter(is_name).map(|word| of_text(word.token, word.span));
    let mut items: Vec<NamedItem> = mentions.chain(tags).chain(names).collect();
    items.sort_by_key(|item| item.token);
    items.dedup_by_key(|item| item.token);
    items
}

/// Whether `and` or `or` stands between two words: their order does not count.
fn is_listed(features: &QuestionFeatures, x: &ContentWord, y: &ContentWord) -> bool {
    let (start, end) = (x.token.min(y.token), x.token.max(y.token));
    features.coordinators.iter().any(|&token| start < token && token < end)
}

/// The role of `de`, which is a source beside a target, and else says what belongs to what.
const GENITIVE: &str = "genitive";
const SOURCE: &str = "source";
/// What something is exchanged for is what it becomes: `change euros for yen`, `change euros to yen`.
const EXCHANGE: &str = "exchange";
const TARGET: &str = "target";

fn is_same_role(one: WordKey, two: WordKey) -> bool {
    let plain = |role| match role {
        _ if role == word_key(GENITIVE) => word_key(SOURCE),
        _ if role == word_key(EXCHANGE) => word_key(TARGET),
        role => role,
    };
    plain(one) == plain(two)
}

/// Whether two words that exchange these roles change what is asked.
fn are_exchangeable(one: &ContentWord, two: &ContentWord) -> bool {
    let is_genitive = one.role == word_key(GENITIVE) || two.role == word_key(GENITIVE);
    let are_actors = one.is_actor && two.is_actor;
    !is_same_role(one.role, two.role) && (are_actors || !is_genitive || one.role != 0 && two.role != 0)
}

/// The word of a text with the stem of another one, if it is there once.
fn single<'f>(features: &'f QuestionFeatures, word: &ContentWord) -> Option<&'f ContentWord> {
    let mut same = features.content.iter().filter(|other| other.stem == word.stem);
    let found = same.next()?;
    same.next().is_none().then_some(found)
}
