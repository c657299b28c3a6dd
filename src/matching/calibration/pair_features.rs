//! What two questions look like beside each other, in numbers between 0 and 1.

use std::collections::HashSet;

use crate::labels::Label as _;
use crate::matching::guard::{CanonicalQuestion, Conflict, ConflictKind, Strength};

/// Features that are read from the words; behind them comes one for each kind of conflict.
const OF_WORDS: [&str; 3] = ["trigrams", "words", "length"];
const CONFLICT_PREFIX: &str = "conflict_";

/// The number of features.
pub(super) const FEATURES: usize = OF_WORDS.len() + ConflictKind::ALL.len();

/// What two questions look like beside each other, each feature between 0 and 1, the same in both orders:
///
/// - `trigrams` and `words`: how many character trigrams and words they share (Dice's coefficient; L. R. Dice, "Measures of the amount of
///   ecologic association between species", 1945),
/// - `length`: the words of the shorter one for each of the longer one,
/// - `conflict_KIND`: 1/2 for a weak conflict of that kind, 1 for a stronger one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairFeatures([f32; FEATURES]);

impl PairFeatures {
    /// The features of two questions with the conflicts that the guard finds. Cost: some tens of microseconds for two sentences.
    pub fn of(
        first: &CanonicalQuestion,
        second: &CanonicalQuestion,
        conflicts: &[Conflict<'_>],
    ) -> PairFeatures {
        let mut features = [0.0; FEATURES];
        let texts = [&*first.text, &*second.text];
        let counts = texts.map(|text| text.split_whitespace().count());
        features[0] = shared(texts.map(trigrams));
        features[1] = shared(texts.map(|text| text.split_whitespace().collect()));
        features[2] = counts[0].min(counts[1]) as f32 / counts[0].max(counts[1]).max(1) as f32;
        for conflict in conflicts {
            let strength = if conflict.strength == Strength::Weak { 0.5 } else { 1.0 };
            features[OF_WORDS.len() + conflict.kind as usize] = strength;
        }
        PairFeatures(features)
    }

    /// The features in the order of [`name_of`].
    pub(super) fn values(&self) -> &[f32; FEATURES] {
        &self.0
    }
}

/// The name of a feature in the file of a calibration.
pub(super) fn name_of(feature: usize) -> String {
    match OF_WORDS.get(feature) {
        Some(name) => (*name).to_owned(),
        None => format!("{CONFLICT_PREFIX}{}", ConflictKind::ALL[feature - OF_WORDS.len()].as_str()),
    }
}

/// Weights of features as a map by their names.
pub(super) mod by_name {
    use std::collections::BTreeMap;

    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::Serializer;

    use super::{FEATURES, name_of};

    pub(in crate::matching::calibration) fn serialize<S: Serializer>(
        weights: &[(usize, f64)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(weights.iter().map(|(feature, weight)| (name_of(*feature), weight)))
    }

    pub(in crate::matching::calibration) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(usize, f64)>, D::Error> {
        let named = BTreeMap::<String, f64>::deserialize(deserializer)?;
        let weight = |(name, weight): (String, f64)| {
            let feature = (0..FEATURES).find(|feature| name_of(*feature) == name);
            Ok((feature.ok_or_else(|| D::Error::custom(format!("there is no feature {name:?}")))?, weight))
        };
        let mut weights = named.into_iter().map(weight).collect::<Result<Vec<_>, _>>()?;
        weights.sort_unstable_by_key(|(feature, _)| *feature);
        Ok(weights)
    }
}

/// Dice's coefficient. Two empty sets are alike.
fn shared<T: Eq + std::hash::Hash>([first, second]: [HashSet<T>; 2]) -> f32 {
    let all = first.len() + second.len();
    if all == 0 { 1.0 } else { 2.0 * first.intersection(&second).count() as f32 / all as f32 }
}

fn trigrams(text: &str) -> HashSet<[char; 3]> {
    let letters: Vec<char> = text.chars().collect();
    letters.windows(3).map(|three| [three[0], three[1], three[2]]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::guard::{Guard, Lexicon};

    fn features(first: &str, second: &str) -> [f32; FEATURES] {
        let guard = Guard::new(Lexicon::builtin());
        let [of_first, of_second] = [first, second].map(|question| guard.features(question));
        let [first, second] = [first, second].map(|question| guard.canonical(question));
        *PairFeatures::of(&first, &second, &guard.conflicts(&of_first, &of_second)).values()
    }

    #[test]
    fn features_are_shares_and_the_same_in_both_orders() {
        for (first, second) in [
            ("is the blue kettle in stock", "is the blue kettle in stock"),
            ("is the blue kettle in stock", "do you have the red kettle"),
            ("ship it to Lima", "ship it to Quito by the end of next week please"),
            ("", "a"),
        ] {
            let both = features(first, second);
            assert!(both.iter().all(|feature| (0.0..=1.0).contains(feature)), "{both:?}");
            assert_eq!(both, features(second, first), "{first} / {second}");
        }
        assert_eq!(features("is it blue", "is it blue")[..3], [1.0; 3]);
    }

    #[test]
    fn a_conflict_has_its_feature() {
        let named: Vec<String> = (0..FEATURES).map(name_of).collect();
        let place = named.iter().position(|name| name == "conflict_number").unwrap();
        assert_eq!(features("a pack of 2 cups", "a pack of 3 cups")[place], 1.0);
        assert_eq!(features("a pack of 2 cups", "a pack of 2 cups")[place], 0.0);
        let different: HashSet<&String> = named.iter().collect();
        assert_eq!(different.len(), FEATURES);
    }
}
