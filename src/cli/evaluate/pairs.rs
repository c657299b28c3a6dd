//! `likewise evaluate pairs FILE`: which questions in other words would share an answer, on judged pairs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use likewise::app::Engine;
use likewise::error::{Error, Kind, Result};
use likewise::matching::calibration::Calibration;
use likewise::matching::guard::{Guard, Language};
use likewise::service::answers::{Similarities, lexicon_with};

use super::decision::Decision;
use super::judged_file::TextPair;
use super::{JudgedFile, PairJudge, Share, shipped_or, temporary_directory};
use crate::cli::sources::Sources;
use crate::cli::terminal;

/// Thresholds of the first table.
const THRESHOLDS: [f32; 7] = [0.70, 0.75, 0.80, 0.85, 0.88, 0.90, 0.95];
/// Shares of pairs that may be served a wrong answer, of the third table, and budgets of the last one.
const WRONG_SHARES: [f64; 4] = [0.005, 0.01, 0.02, 0.05];
/// Pairs that are less similar are never served, so the verifier does not read them.
const SIMILARITY_MIN: f32 = 0.6;

/// How often two questions in other words would share an answer, by similarity alone, with the rules, and with the verifier. JSON lines
/// with `a`, `b` and `label` (1: they ask the same, 0: they do not); `kind` and `lang` group the second table. With a calibration, also what
/// its score would serve.
#[derive(Debug, Args)]
pub(super) struct EvaluatePairs {
    #[command(flatten)]
    sources: Sources,
    /// The judged pairs, JSON lines.
    file: PathBuf,
    /// The similarity of the table by kind; by default that of the model.
    #[arg(long, value_name = "COSINE")]
    similarity_min: Option<f32>,
    /// A file of `likewise calibrate`, made of other pairs.
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
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
    /// The score of the calibration. `None` if there is none, or it does not look at such a pair, or guard or verifier refuse it.
    score: Option<f64>,
}

/// The pairs that a decision allows, by what a threshold would be of: the highest first.
struct Ranking {
    name: &'static str,
    /// With whether both ask the same.
    pairs: Vec<(f64, bool)>,
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
        let calibration = self.calibration.as_deref().map(read_calibration).transpose()?;
        let engine = Engine::build(&config).await?;
        let outcome = judge_all(&engine, &guard, calibration.as_ref(), file).await;
        let name = engine.models.default_model().map(|model| model.card().name.clone());
        engine.close().await;
        let (pairs, name) = (outcome?, name?);
        if let Some(calibration) = calibration.as_ref().filter(|calibration| calibration.model != name) {
            let message = format!("the calibration is of the model `{}`, not of `{name}`", calibration.model);
            return Err(Error::new(Kind::Config, message));
        }
        let similarities = shipped_or(self.similarity_min, &name);
        terminal::say(&report(&name, &pairs, similarities, calibration.as_ref()));
        Ok(())
    }
}

fn read_calibration(path: &Path) -> Result<Calibration> {
    let unreadable = |error| Error::new(Kind::Config, "cannot read the calibration").source(error);
    let calibration = fs_err::read_to_string(path).map_err(unreadable);
    calibration.and_then(|json| Calibration::parse(&json)).map_err(|error| error.with("path", path.display()))
}

/// Embeds all texts and asks each decision about each pair.
async fn judge_all(
    engine: &Engine,
    guard: &Guard,
    calibration: Option<&Calibration>,
    file: JudgedFile,
) -> Result<Vec<JudgedPair>> {
    let mut judge = PairJudge::new(engine, guard, &file.texts).await?;
    let progress = terminal::bar(file.pairs.len());
    tokio::task::block_in_place(|| {
        let judged = file.pairs.into_iter().map(|pair| {
            progress.inc(1);
            judged(&mut judge, calibration, pair)
        });
        judged.collect()
    })
}

fn judged(
    judge: &mut PairJudge<'_>,
    calibration: Option<&Calibration>,
    pair: TextPair,
) -> Result<JudgedPair> {
    let TextPair { first, second, is_same, kind, language } = pair;
    let similarity = judge.similarity(first, second);
    let mut allowed = [false; Decision::ALL.len()];
    for (place, decision) in Decision::ALL.into_iter().enumerate() {
        let is_read = similarity >= SIMILARITY_MIN || !decision.is_verified();
        allowed[place] = is_read && decision.allows(judge, first, second)?;
    }
    let score = match calibration {
        Some(calibration) => score(judge, calibration, first, second)?,
        None => None,
    };
    let is_exact_only = judge.is_exact_only(first) || judge.is_exact_only(second);
    let read_as = (judge.language(first), judge.language(second));
    Ok(JudgedPair { kind, language, read_as, is_same, similarity, is_exact_only, allowed, score })
}

/// The score of a calibration for two texts, if it looks at them and guard and verifier let them pass.
fn score(
    judge: &mut PairJudge<'_>,
    calibration: &Calibration,
    first: usize,
    second: usize,
) -> Result<Option<f64>> {
    let similarity = judge.similarity(first, second);
    let decision = Decision::verified(calibration.guard);
    if similarity < calibration.similarity_min || !decision.allows(judge, first, second)? {
        return Ok(None);
    }
    let margin = judge.margin(first, second)?.unwrap_or_default();
    Ok(Some(calibration.weights.score(similarity, margin, || judge.pair_features(first, second))))
}

fn report(
    model: &str,
    pairs: &[JudgedPair],
    shipped: Similarities,
    calibration: Option<&Calibration>,
) -> String {
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
    calibration.into_iter().for_each(|calibration| by_budget(&mut said, pairs, calibration));
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
    let same = pairs.iter().filter(|pair| pair.is_same).count();
    let of_decision = |decision: Decision| {
        let allowed = pairs.iter().filter(move |pair| pair.allowed[decision as usize]);
        Ranking::new(decision.name(), allowed.map(|pair| (pair.similarity.into(), pair.is_same)))
    };
    let scored = pairs.iter().filter_map(|pair| Some((pair.score?, pair.is_same)));
    let calibrated = Some(Ranking::new("calibration", scored)).filter(|ranking| !ranking.pairs.is_empty());
    for ranking in Decision::ALL.into_iter().map(of_decision).chain(calibrated) {
        let coverages =
            WRONG_SHARES.map(|share| format!("{:.1} %", 100.0 * ranking.coverage(pairs.len(), share)));
        let precisions = [0.20, 0.35, 0.50].map(|recall| {
            let precision = ranking.precision_at(recall * same as f64);
            precision.map_or("-".to_owned(), |precision| format!("{precision:.3}"))
        });
        let _ =
            writeln!(said, "| {} | {} | {} |", ranking.name, coverages.join(" | "), precisions.join(" | "));
    }
}

/// What a calibration serves at some budgets of wrong answers.
fn by_budget(said: &mut String, pairs: &[JudgedPair], calibration: &Calibration) {
    said.push_str(
        "\n| budget of the calibration | score from | served | wrong of all |\n|---|---|---|---|\n",
    );
    for budget in WRONG_SHARES {
        let Some(score_min) = calibration.score_min(budget) else {
            let _ = writeln!(said, "| {} % | too few searches | - | - |", 100.0 * budget);
            continue;
        };
        let served = || pairs.iter().filter(|pair| pair.score.is_some_and(|score| score >= score_min));
        let share = |count| Share { count, of: pairs.len() };
        let (all, wrong) = (share(served().count()), share(served().filter(|pair| !pair.is_same).count()));
        let _ = writeln!(said, "| {} % | {score_min:.3} | {all} | {wrong} |", 100.0 * budget);
    }
}

impl Ranking {
    fn new(name: &'static str, pairs: impl Iterator<Item = (f64, bool)>) -> Ranking {
        let mut pairs: Vec<(f64, bool)> = pairs.collect();
        pairs.sort_by(|(one, _), (two, _)| two.total_cmp(one));
        Ranking { name, pairs }
    }

    /// The largest share of `all` pairs that a threshold serves with at most `wrong_share` of them wrong.
    fn coverage(&self, all: usize, wrong_share: f64) -> f64 {
        let wrong_max = wrong_share * all as f64;
        let fitting = self.thresholds().filter(|(served, right)| (served - right) as f64 <= wrong_max);
        fitting.map(|(served, _)| served).max().unwrap_or_default() as f64 / all as f64
    }

    /// The share of right pairs among those served at the highest threshold that serves so many right ones.
    fn precision_at(&self, right_min: f64) -> Option<f64> {
        let (served, right) = self.thresholds().find(|(_, right)| *right as f64 >= right_min)?;
        Some(right as f64 / served as f64)
    }

    /// How many pairs each threshold serves, and how many of them are right. Pairs of one score are served together.
    fn thresholds(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut right = 0;
        self.pairs.iter().enumerate().filter_map(move |(place, (score, is_same))| {
            right += usize::from(*is_same);
            let is_end = self.pairs.get(place + 1).is_none_or(|(next, _)| next < score);
            is_end.then_some((place + 1, right))
        })
    }
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
        JudgedPair {
            kind,
            language,
            read_as,
            is_same,
            similarity,
            is_exact_only: false,
            allowed,
            score: None,
        }
    }

    #[test]
    fn coverage_and_precision_count_pairs_of_equal_similarity_together() {
        let pairs = [(0.6, false), (0.8, true), (0.8, false), (0.7, true), (0.9, true)];
        let ranking = Ranking::new("any", pairs.into_iter());
        assert_eq!(ranking.coverage(5, 0.0), 0.2);
        assert_eq!(ranking.coverage(5, 0.2), 0.8);
        assert_eq!(ranking.coverage(5, 1.0), 1.0);
        assert_eq!(ranking.precision_at(1.5), Some(2.0 / 3.0));
        assert_eq!(ranking.precision_at(3.0), Some(0.75));
        assert_eq!(ranking.precision_at(4.0), None);
    }

    #[test]
    fn decisions_only_refuse() {
        let pairs = [pair(0.9, true), pair(0.5, true)];
        let counts = Decision::ALL
            .map(|decision| served(&pairs, decision, Similarities::same(0.8), |pair| pair.is_same).count);
        assert_eq!(counts, [1, 1, 0, 0, 0]);
    }
}
