//! A stream of questions that repeat by Zipf's law, partly in other words.

use super::SplitMix;

/// The wordings of one question.
pub(super) type Wordings = Vec<String>;

/// How questions are drawn.
pub(super) struct Draw {
    pub(super) count: usize,
    /// That of Zipf's law.
    pub(super) exponent: f64,
    /// The share of repeated questions that take another wording than the first.
    pub(super) reword_share: f64,
    pub(super) seed: u64,
}

/// A question as it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Drawn<'a> {
    /// Its place among the questions.
    pub(super) number: usize,
    pub(super) text: &'a str,
}

/// Questions drawn so that the one of rank k comes up in proportion to k to the power of minus `exponent`. Which question has which rank
/// is drawn too. One that comes up again takes another wording than the first with the chance of `reword_share`.
pub(super) fn drawn<'a>(questions: &'a [Wordings], draw: &Draw) -> Vec<Drawn<'a>> {
    let mut random = SplitMix(draw.seed);
    let mut ranked: Vec<usize> = (0..questions.len()).collect();
    random.shuffle(&mut ranked);
    let mut total = 0.0;
    let cumulative: Vec<f64> = (1..=ranked.len())
        .map(|rank| {
            total += (rank as f64).powf(-draw.exponent);
            total
        })
        .collect();
    let mut first_wordings: Vec<Option<usize>> = vec![None; questions.len()];
    let one = |_| {
        let at = random.unit() * total;
        let number = ranked[cumulative.partition_point(|&sum| sum <= at).min(ranked.len() - 1)];
        let texts = &questions[number];
        let wording = match first_wordings[number] {
            None => *first_wordings[number].insert(random.below(texts.len())),
            // Its neighbours in the circle of all wordings.
            Some(first) if texts.len() > 1 && random.unit() < draw.reword_share => {
                (first + 1 + random.below(texts.len() - 1)) % texts.len()
            }
            Some(first) => first,
        };
        Drawn { number, text: &texts[wording] }
    };
    (0..draw.count).map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const DRAW: Draw = Draw { count: 10_000, exponent: 0.9, reword_share: 0.5, seed: 1 };

    #[test]
    fn questions_repeat_as_zipf_says() {
        let questions: Vec<Wordings> = (0..100).map(|n| vec![format!("question {n}")]).collect();
        let asked = drawn(&questions, &DRAW);
        assert_eq!(asked, drawn(&questions, &DRAW), "one seed, one stream");
        let mut counts = HashMap::new();
        asked.iter().for_each(|question| *counts.entry(question.number).or_insert(0) += 1);
        let mut counts: Vec<i32> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        // Rank k has its share of the sum of all weights.
        let harmonic: f64 = (1..=100).map(|rank| f64::from(rank).powf(-0.9)).sum();
        let expected = |rank: f64| 10_000.0 * rank.powf(-0.9) / harmonic;
        assert!((f64::from(counts[0]) - expected(1.0)).abs() < 0.15 * expected(1.0), "{counts:?}");
        assert!((f64::from(counts[9]) - expected(10.0)).abs() < 0.25 * expected(10.0), "{counts:?}");
    }

    #[test]
    fn half_of_the_repeats_take_another_wording() {
        let wordings = |n: usize| (0..4).map(|wording| format!("{n} {wording}")).collect();
        let questions: Vec<Wordings> = (0..50).map(wordings).collect();
        let (mut firsts, mut repeats, mut reworded) = (HashMap::new(), 0, 0);
        for question in drawn(&questions, &DRAW) {
            match firsts.get(&question.number) {
                None => _ = firsts.insert(question.number, question.text),
                Some(first) => {
                    repeats += 1;
                    reworded += i32::from(*first != question.text);
                }
            }
        }
        assert!((f64::from(reworded) / f64::from(repeats) - 0.5).abs() < 0.03, "{reworded} of {repeats}");
    }
}
