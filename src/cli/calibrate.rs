//! `likewise calibrate FILE`: from judged questions to a file by which a server keeps a budget of wrong answers.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use likewise::app::Engine;
use likewise::error::{Error, Kind, Result};
use likewise::matching::calibration::{Calibration, JudgedCandidate, Sample};
use likewise::matching::guard::{Guard, Strictness};
use likewise::service::answers::lexicon_with;

use super::evaluate::{JudgedFile, PairJudge, Share, SplitMix, temporary_directory, warm_candidates};
use super::sources::Sources;
use super::terminal;

/// Budgets of the report.
const BUDGETS: [f64; 4] = [0.005, 0.01, 0.02, 0.05];
/// Times that the file is divided into halves, of which one is calibrated and the other one measured.
const SPLITS: usize = 200;

/// Find the threshold that keeps a budget of wrong answers, from judged questions: the files of `evaluate questions` and `evaluate pairs`,
/// of which each different question or pair counts as a search. The file that is written is `answers.semantic.calibration_file`, and
/// `answers.semantic.wrong_share_max` the budget.
#[derive(Debug, Args)]
pub(super) struct Calibrate {
    #[command(flatten)]
    sources: Sources,
    /// The judged questions or pairs, JSON lines.
    file: PathBuf,
    /// Where the calibration is written.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Candidates that are less similar are never served.
    #[arg(long, value_name = "COSINE", default_value_t = 0.75)]
    similarity_min: f32,
    /// Another seed asks in another order, and divides the file otherwise.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What each request is offered.
type Candidates = Vec<Option<JudgedCandidate>>;

impl Calibrate {
    pub(super) async fn run(self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.similarity_min) {
            return Err(Error::new(Kind::InvalidInput, "--similarity-min must be from 0 to 1"));
        }
        let mut file = JudgedFile::read(&self.file)?;
        // Files are often sorted by answer: then no question would be asked before one that shares its answer.
        SplitMix(self.seed).shuffle(&mut file.requests);
        if file.requests.iter().any(|request| request.answer.is_none()) {
            let message = "each question must have its answer";
            return Err(Error::new(Kind::InvalidInput, message).with("file", self.file.display()));
        }
        let mut config = self.sources.load().await?;
        let data = temporary_directory()?;
        config.data.dir = data.path().to_owned();
        let strictness = config.answers.semantic.guard;
        let guard = Guard::new(lexicon_with(config.answers.semantic.words_dir.as_deref())?);
        let engine = Engine::build(&config).await?;
        let outcome = self.candidates(&engine, &guard, strictness, &file).await;
        let model = engine.models.default_model().map(|model| model.card().name.clone());
        engine.close().await;
        let (candidates, model) = (outcome?, model?);
        let calibrate =
            |candidates: &[Option<JudgedCandidate>]| self.calibrated(&model, strictness, candidates);
        let calibration = calibrate(&candidates);
        if let Some(path) = &self.out {
            let unwritten = |error| Error::io("cannot write the calibration", error);
            fs_err::write(path, calibration.to_json()).map_err(unwritten)?;
        }
        terminal::say(&report(&calibration, candidates, self.seed, calibrate));
        Ok(())
    }

    fn calibrated(
        &self,
        model: &str,
        guard: Strictness,
        candidates: &[Option<JudgedCandidate>],
    ) -> Calibration {
        let known: Vec<JudgedCandidate> = candidates.iter().flatten().copied().collect();
        Calibration::of(&Sample {
            model,
            guard,
            similarity_min: self.similarity_min,
            searches: candidates.len(),
            candidates: &known,
        })
    }

    /// What each request is offered that neither the rules nor the verifier refuse.
    async fn candidates(
        &self,
        engine: &Engine,
        guard: &Guard,
        strictness: Strictness,
        file: &JudgedFile,
    ) -> Result<Candidates> {
        let mut judge = PairJudge::new(engine, guard, &file.texts).await?;
        if !judge.has_verifier() {
            return Err(Error::new(Kind::Config, "there is no verifier for the embedding model"));
        }
        tokio::task::block_in_place(|| {
            if file.pairs.is_empty() {
                return warm_candidates(&mut judge, strictness, self.similarity_min, file);
            }
            let mut of_pair = |first, second, is_right| {
                let similarity = judge.similarity(first, second);
                if similarity < self.similarity_min || !judge.allows(strictness, first, second) {
                    return Ok(None);
                }
                let margin = judge.margin(first, second)?.filter(|margin| *margin >= 0.0);
                let features = judge.pair_features(first, second);
                Ok(margin.map(|margin| JudgedCandidate { similarity, margin, features, is_right }))
            };
            file.pairs.iter().map(|pair| of_pair(pair.first, pair.second, pair.is_same)).collect()
        })
    }
}

/// What is seen of a calibration on the file itself, and on halves of it that it has not seen.
fn report(
    calibration: &Calibration,
    mut candidates: Candidates,
    seed: u64,
    calibrate: impl Fn(&[Option<JudgedCandidate>]) -> Calibration,
) -> String {
    let known: Vec<&JudgedCandidate> = candidates.iter().flatten().collect();
    let right = known.iter().filter(|candidate| candidate.is_right).count();
    let features: Vec<String> = calibration.weights.feature_names().collect();
    let score = if features.is_empty() {
        String::new()
    } else {
        format!("; the score reads {}", features.join(", "))
    };
    let mut said = format!(
        "{} searches; {} have a candidate that rules and verifier let pass, {right} of them right; model {}, guard {}, cosine from {}{score}\n\n\
         | budget: wrong of all | score from | served | wrong of all | in halves not calibrated on: served | wrong | halves within the budget |\n|---|---|---|---|---|---|---|\n",
        candidates.len(),
        known.len(),
        calibration.model,
        calibration.guard.as_str(),
        calibration.similarity_min,
    );
    let mut splits: Vec<[Option<BudgetOutcome>; BUDGETS.len()]> = Vec::new();
    let all = candidates.clone();
    let mut random = SplitMix(seed);
    for _ in 0..SPLITS {
        random.shuffle(&mut candidates);
        let (calibrated, measured) = candidates.split_at(candidates.len() / 2);
        let half = calibrate(calibrated);
        let of_budget = |budget| Some(outcome(&half, half.score_min(budget)?, measured));
        splits.push(BUDGETS.map(of_budget));
    }
    for (place, budget) in BUDGETS.into_iter().enumerate() {
        let Some(score_min) = calibration.score_min(budget) else {
            let _ = writeln!(said, "| {} % | too few searches | - | - | - | - | - |", 100.0 * budget);
            continue;
        };
        let BudgetOutcome { served, wrong } = outcome(calibration, score_min, &all);
        let halves: Vec<BudgetOutcome> = splits.iter().filter_map(|split| split[place]).collect();
        let in_halves = if halves.is_empty() {
            "too few searches | - | -".to_owned()
        } else {
            let mean = |of: fn(&BudgetOutcome) -> Share| {
                100.0 * halves.iter().map(|half| of(half).share()).sum::<f64>() / halves.len() as f64
            };
            let within = halves.iter().filter(|half| half.wrong.share() <= budget).count();
            format!(
                "{:.1} % | {:.2} % | {:.1} %",
                mean(|half| half.served),
                mean(|half| half.wrong),
                100.0 * within as f64 / halves.len() as f64,
            )
        };
        let _ =
            writeln!(said, "| {} % | {score_min:.3} | {served} | {wrong} | {in_halves} |", 100.0 * budget,);
    }
    said
}

/// What is served of some searches, and how much of it wrongly.
#[derive(Debug, Clone, Copy)]
struct BudgetOutcome {
    served: Share,
    wrong: Share,
}

/// What a threshold serves.
fn outcome(
    calibration: &Calibration,
    score_min: f64,
    candidates: &[Option<JudgedCandidate>],
) -> BudgetOutcome {
    let is_served = |candidate: &&JudgedCandidate| calibration.weights.score_of(candidate) >= score_min;
    let served: Vec<&JudgedCandidate> = candidates.iter().flatten().filter(is_served).collect();
    let wrong = served.iter().filter(|candidate| !candidate.is_right).count();
    let share = |count| Share { count, of: candidates.len() };
    BudgetOutcome { served: share(served.len()), wrong: share(wrong) }
}
