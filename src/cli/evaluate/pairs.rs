//! `likewise evaluate pairs FILE`: which questions in other words would share an answer, on judged pairs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use likewise::app::Engine;
use likewise::error::{Error, Kind, Result};
use likewise::matching::guard::Guard;
use likewise::matching::guard::Language;
use likewise::service::answers::{Similarities, lexicon_with};

use super::decision::Decision;
use super::judged_file::TextPair;
use super::{JudgedFile, PairJudge, Share, shipped_or, temporary_directory};
use crate::cli::sources::Sources;
use crate::cli::terminal;

/// Thresholds of the first table.
const THRESHOLDS: [f32; 7] = [0.70, 0.75, 0.80, 0.85, 0.88, 0.90, 0.95];
/// Shares of pairs that may be served a wrong answer, of the third table.
const WRONG_SHARES: [f64; 4] = [0.005, 0.01, 0.02, 0.05];
/// Pairs that are less similar are never served, so the verifier does not read them.
const SIMILARITY_MIN: f32 = 0.6;

/// How often two questions in other words would share an answer, by similarity alone, with the rules, and with the verifier. JSON lines
/// with `a`, `b` and `label` (1: they ask the same, 0: they do not); `kind` and `lang` group the second table.
#[derive(Debug, Args)]
pub(super) struct EvaluatePairs {
    #[command(flatten)]
    sources: Sources,
    /// The judged pairs, JSON lines.
    file: PathBuf,
    /// The similarity of the table by kind; by default that of the model.
    #[arg(long, value_name = "COSINE")]
    similarity_min: Option<f32>,
}

/// A pair with what each decision says of it.
struct JudgedPair {
    kind: String,
    language: String,
    /// The languages by whose rules the two questions are read.
    read_as: (Language, Language),
    is_same: bool,
    similarity: f32,
    is_exact_only: bool,
    /// Whether it may share an answer, by the places of [`Decision::ALL`], apart from the similarity.
    allowed: [bool; Decision::ALL.len()],
}

impl EvaluatePairs {
    pub(super) async fn run(self) -> Result<()> {
        if self.similarity_min.is_some_and(|min| !(0.0..=1.0).contains(&min)) {
            return Err(Error::new(Kind::InvalidInput, "--similarity-min must be from 0 to 1"));
        }
        let file = JudgedFile::read(&self.file)?;
        if file.pairs.is_empty() {
            let message = "there are no pairs";
            return Err(Error::new(Kind::InvalidInput, message).with("file", self.file.display()));
        }
        let mut config = self.sources.load().await?;
        let data = temporary_directory()?;
        config.data.dir = data.path().to_owned();
        let guard = Guard::new(lexicon_with(config.answers.semantic.words_dir.as_deref())?);
        let engine = Engine::build(&config).await?;
        let outcome = judge_all(&engine, &guard, file).await;
        let name = engine.models.default_model().map(|model| model.card().name.clone());
        engine.close().await;
        let (pairs, name) = (outcome?, name?);
        terminal::say(&report(&name, &pairs, shipped_or(self.similarity_min, &name)));
        Ok(())
    }
}

/// Embeds all texts and asks each decision about each pair.
async fn judge_all(engine: &Engine, guard: &Guard, file: JudgedFile) -> Result<Vec<JudgedPair>> {
    let mut judge = PairJudge::new(engine, guard, &file.texts).await?;
    let progress = terminal::bar(file.pairs.len());
    tokio::task::block_in_place(|| {
        let judged = file.pairs.into_iter().map(|pair| {
            progress.inc(1);
            judged(&mut judge, pair)
        });
        judged.collect()
    })
}

fn judged(judge: &mut PairJudge<'_>, pair: TextPair) -> Result<JudgedPair> {
    let TextPair { first, second, is_same, kind, language } = pair;
    let similarity = judge.similarity(first, second);
    let mut allowed = [false; Decision::ALL.len()];
    for (place, decision) in Decision::ALL.into_iter().enumerate() {
        let is_read = similarity >= SIMILARITY_MIN || !decision.is_verified();
        allowed[place] = is_read && decision.allows(judge, first, second)?;
    }
    let is_exact_only = judge.is_exact_only(first) || judge.is_exact_only(second);
    let read_as = (judge.language(first), judge.language(second));
    Ok(JudgedPair { kind, language, read_as, is_same, similarity, is_exact_only, allowed })
}

fn report(model: &str, pairs: &[JudgedPair], shipped: Similarities) -> String {
    let same = pairs.iter().filter(|pair| pair.is_same).count();
    let exact_only = pairs.iter().filter(|pair| pair.is_exact_only).count();
    let mut said = format!(
        "{} pairs: {same} the same, {} others; {exact_only} with a question that is matched by its exact words only; model {model}\n\n",
        pairs.len(),
        pairs.len() - same,
    );
    by_threshold(&mut said, pairs, shipped);
    by_kind(&mut said, pairs, shipped);
    by_wrong_share(&mut said, pairs);
    said
}

/// What is served at some thresholds, and at the one of the model.
fn by_threshold(said: &mut String, pairs: &[JudgedPair], shipped: Similarities) {
    let mut thresholds: Vec<Similarities> = THRESHOLDS.map(Similarities::same).into();
    thresholds.push(shipped);
    thresholds.sort_by(|one, other| one.least().total_cmp(&other.least()));
    thresholds.dedup();
    said.push_str(
        "| cosine from | decision | others served | the same served | of those that cosine serves | precision |\n|---|---|---|---|---|---|\n",
    );
    for threshold in thresholds {
        let by_cosine = served(pairs, Decision::Cosine, threshold, |pair| pair.is_same).count;
        for decision in Decision::ALL {
            let others = served(pairs, decision, threshold, |pair| !pair.is_same);
            let same = served(pairs, decision, threshold, |pair| pair.is_same);
            let kept = Share { count: same.count, of: by_cosine };
            let right = Share { count: same.count, of: same.count + others.count };
            let name = decision.name();
            let _ = writeln!(said, "| {threshold} | {name} | {others} | {same} | {kept} | {right} |");
        }
    }
}

/// What is served at one threshold, by kind and language.
fn by_kind(said: &mut String, pairs: &[JudgedPair], threshold: Similarities) {
    let mut groups: BTreeMap<(bool, &str, &str), usize> = BTreeMap::new();
    pairs.iter().for_each(|pair| *groups.entry((pair.is_same, &pair.kind, &pair.language)).or_default() += 1);
    if groups.len() <= 2 {
        return;
    }
    let names: Vec<&str> = Decision::ALL.iter().map(|decision| decision.name()).collect();
    let _ = writeln!(
        said,
        "\nShare at a cosine from {threshold}:\n\n| | kind | language | pairs | {} |",
        names.join(" | ")
    );
    said.push_str("|---|---|---|---|---|---|---|---|---|\n");
    for ((is_same, kind, language), count) in groups {
        let is_of_group =
            |pair: &JudgedPair| (pair.is_same, &*pair.kind, &*pair.language) == (is_same, kind, language);
        let shares = Decision::ALL.map(|decision| {
            let share = served(pairs, decision, threshold, is_of_group);
            format!("{:.1} %", 100.0 * share.share())
        });
        let label = if is_same { "same" } else { "other" };
        let _ = writeln!(said, "| {label} | {kind} | {language} | {count} | {} |", shares.join(" | "));
    }
}

/// The largest share of pairs that can be served while few of all pairs are served a wrong answer, and the precision at some recalls.
fn by_wrong_share(said: &mut String, pairs: &[JudgedPair]) {
    let _ = writeln!(
        said,
        "\n| decision | {} | precision at recall .20 | .35 | .50 |\n|---|---|---|---|---|---|---|---|",
        WRONG_SHARES.map(|share| format!("served at wrong <= {} %", 100.0 * share)).join(" | ")
    );
    for decision in Decision::ALL {
        let mut allowed: Vec<&JudgedPair> =
            pairs.iter().filter(|pair| pair.allowed[decision as usize]).collect();
        allowed.sort_by(|one, two| two.similarity.total_cmp(&one.similarity));
        let coverages =
            WRONG_SHARES.map(|share| format!("{:.1} %", 100.0 * coverage(&allowed, pairs.len(), share)));
        let precisions = [0.20, 0.35, 0.50].map(|recall| {
            precision_at(&allowed, pairs, recall)
                .map_or("-".to_owned(), |precision| format!("{precision:.3}"))
        });
        let _ = writeln!(
            said,
            "| {} | {} | {} |",
            decision.name(),
            coverages.join(" | "),
            precisions.join(" | ")
        );
    }
}

/// The largest share of `all` pairs that a threshold serves with at most `wrong_share` of them wrong. Pairs of equal similarity are served
/// together.
fn coverage(allowed: &[&JudgedPair], all: usize, wrong_share: f64) -> f64 {
    let (mut wrong, mut best) = (0, 0);
    for (place, pair) in allowed.iter().enumerate() {
        wrong += usize::from(!pair.is_same);
        let is_end = allowed.get(place + 1).is_none_or(|next| next.similarity < pair.similarity);
        if is_end && wrong as f64 <= wrong_share * all as f64 {
            best = place + 1;
        }
    }
    best as f64 / all as f64
}

/// The share of right pairs among those served at the highest threshold that serves this share of all that ask the same.
fn precision_at(allowed: &[&JudgedPair], pairs: &[JudgedPair], recall: f64) -> Option<f64> {
    let wanted = recall * pairs.iter().filter(|pair| pair.is_same).count() as f64;
    let mut right = 0;
    for (place, pair) in allowed.iter().enumerate() {
        right += usize::from(pair.is_same);
        let is_end = allowed.get(place + 1).is_none_or(|next| next.similarity < pair.similarity);
        if is_end && right as f64 >= wanted {
            return Some(right as f64 / (place + 1) as f64);
        }
    }
    None
}

fn served(
    pairs: &[JudgedPair],
    decision: Decision,
    threshold: Similarities,
    of: impl Fn(&JudgedPair) -> bool,
) -> Share {
    let is_served = |pair: &&JudgedPair| {
        pair.similarity >= threshold.of_pair(pair.read_as.0, pair.read_as.1)
            && pair.allowed[decision as usize]
    };
    let group = || pairs.iter().filter(|pair| of(pair));
    Share { count: group().filter(is_served).count(), of: group().count() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(similarity: f32, is_same: bool) -> JudgedPair {
        let allowed = [true, true, false, false, false];
        let (kind, language) = (String::new(), String::new());
        let read_as = (Language::English, Language::English);
        JudgedPair { kind, language, read_as, is_same, similarity, is_exact_only: false, allowed }
    }

    #[test]
    fn coverage_and_precision_count_pairs_of_equal_similarity_together() {
        let pairs = [pair(0.9, true), pair(0.8, true), pair(0.8, false), pair(0.7, true), pair(0.6, false)];
        let sorted: Vec<&JudgedPair> = pairs.iter().collect();
        assert_eq!(coverage(&sorted, 5, 0.0), 0.2);
        assert_eq!(coverage(&sorted, 5, 0.2), 0.8);
        assert_eq!(coverage(&sorted, 5, 1.0), 1.0);
        assert_eq!(precision_at(&sorted, &pairs, 0.5), Some(2.0 / 3.0));
        assert_eq!(precision_at(&sorted, &pairs, 1.0), Some(0.75));
        assert_eq!(precision_at(&sorted[..1], &pairs, 1.0), None);
    }

    #[test]
    fn decisions_only_refuse() {
        let pairs = [pair(0.9, true), pair(0.5, true)];
        let counts = Decision::ALL
            .map(|decision| served(&pairs, decision, Similarities::same(0.8), |pair| pair.is_same).count);
        assert_eq!(counts, [1, 1, 0, 0, 0]);
    }
}
