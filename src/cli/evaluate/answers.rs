//! `likewise evaluate answers FILE`: what the cache of answers would save on a stream of questions that repeat.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use futures_util::future::join_all;
use likewise::app::{Engine, Environment};
use likewise::config::Config;
use likewise::dialects::Dialect as _;
use likewise::dialects::chat_completions::{ChatCompletions, request_in_words};
use likewise::domain::TokenUsage;
use likewise::error::{Error, Kind, Result};
use likewise::service::answers::{AnswerOutcome, AnswerRequest, MatchKind, SemanticOutcome};
use likewise::service::{Answers, Directives};
use likewise::upstream::{Headers, PriceOptions, Prices};
use serde::Deserialize;
use serde_json::json;

use super::draw::{Draw, Drawn, Wordings, drawn};
use super::simulated_upstream::{MODEL, SimulatedUpstream, number_of, usage_of};
use super::{Share, temporary_directory};
use crate::cli::json_lines::json_lines;
use crate::cli::sources::Sources;
use crate::cli::terminal;

/// What a stream of questions costs, with the cache and without. The upstream is simulated: it answers everything, after a
/// time. Questions are drawn by Zipf's law; one that was asked before may be asked in other words, if the file has some.
#[derive(Debug, Args)]
pub(super) struct EvaluateAnswers {
    #[command(flatten)]
    sources: Sources,
    /// Texts, one a line: plain, or JSON lines with `text` and, for wordings of one question, the same `answer`.
    file: PathBuf,
    /// How questions are found to be the same.
    #[arg(long, value_name = "MODE", default_value = "exact")]
    mode: Mode,
    /// Questions that are asked.
    #[arg(long, default_value_t = 50_000)]
    requests: usize,
    /// The exponent of Zipf's law.
    #[arg(long, default_value_t = 0.9)]
    zipf: f64,
    /// The share of repeated questions that take another wording than the first.
    #[arg(long, default_value_t = 0.5)]
    reword_share: f64,
    /// Another seed draws other questions.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also write the questions that got the answer to another one, as JSON lines with `asked` and, of the other, `answered`.
    #[arg(long, value_name = "FILE")]
    wrong: Option<PathBuf>,
    /// Questions under way at the same time.
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// Milliseconds that the upstream takes.
    #[arg(long, default_value_t = 500)]
    upstream_ms: u64,
    /// Tokens of each answer.
    #[arg(long, default_value_t = 150)]
    completion_tokens: u32,
    /// Dollars for a million tokens that the upstream reads.
    #[arg(long, default_value_t = 0.25)]
    prompt_usd: f64,
    /// Dollars for a million tokens that the upstream writes.
    #[arg(long, default_value_t = 2.0)]
    completion_usd: f64,
}

/// How questions are found to be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// By their words, with letters composed and without the space around them.
    Exact,
    /// Also by closed lists of words: but for a first capital and the final mark.
    Normalized,
    /// Also in other words.
    Semantic,
}

#[derive(Deserialize)]
struct QuestionLine {
    text: String,
    answer: Option<String>,
}

/// What became of the questions.
#[derive(Debug, Default)]
struct Tally {
    exact: usize,
    normalized: usize,
    semantic: usize,
    coalesced: usize,
    misses: usize,
    /// Texts that got the answer to another question, and the number of that.
    wrong: Vec<(String, Option<usize>)>,
    /// Questions that were searched for in the same words only, though other words were wanted.
    exact_only: usize,
    took: Vec<Duration>,
    /// Of answers from the cache.
    took_cached: Vec<Duration>,
    all: TokenUsage,
    asked: TokenUsage,
}

impl EvaluateAnswers {
    pub(super) async fn run(self) -> Result<()> {
        self.validate()?;
        let (questions, are_judged) = self.questions()?;
        let mut config: Config = self.sources.load().await?;
        // The measured server writes to a temporary directory, so that no cached answer outlives the run.
        let data = temporary_directory()?;
        config.data.dir = data.path().to_owned();
        config.answers.normalize_questions = self.mode == Mode::Normalized;
        config.cache.namespaces.entry("llm_responses".into()).or_default().ttl_seconds = Some(86_400);
        let numbered = questions.iter().enumerate();
        let origin = SimulatedUpstream {
            takes: Duration::from_millis(self.upstream_ms),
            completion_tokens: self.completion_tokens,
            numbers: numbered
                .flat_map(|(number, texts)| texts.iter().map(move |text| (text.clone(), number)))
                .collect(),
        };
        let environment = Environment::over(&config, Arc::new(origin));
        let engine = Engine::build_in(&config, environment).await?;
        let drawn = drawn(&questions, &self.draw());
        let outcome = self.ask_all(&engine.answers, &drawn).await;
        engine.close().await;
        let tally = outcome?;
        if let Some(path) = &self.wrong {
            write_wrong(path, &tally.wrong, &questions)?;
        }
        terminal::say(&self.report(&questions, are_judged, tally));
        Ok(())
    }

    fn draw(&self) -> Draw {
        Draw { count: self.requests, exponent: self.zipf, reword_share: self.reword_share, seed: self.seed }
    }

    fn validate(&self) -> Result<()> {
        let fault = |message: &str| Err(Error::new(Kind::InvalidInput, message));
        if self.requests == 0 || self.concurrency == 0 {
            return fault("--requests and --concurrency must be at least 1");
        }
        if !self.zipf.is_finite() || self.zipf < 0.0 {
            return fault("--zipf is 0 or more");
        }
        if !(0.0..=1.0).contains(&self.reword_share) {
            return fault("--reword-share must be from 0 to 1");
        }
        Ok(())
    }

    /// The different questions, each with its wordings; and whether each line says which question it is.
    fn questions(&self) -> Result<(Vec<Wordings>, bool)> {
        let is_json = self.file.extension().is_some_and(|extension| extension == "jsonl");
        let mut by_answer: BTreeMap<String, Wordings> = BTreeMap::new();
        let mut are_judged = true;
        let mut add = |text: String, answer: Option<String>| {
            are_judged &= answer.is_some();
            if !text.trim().is_empty() {
                by_answer.entry(answer.unwrap_or_else(|| text.clone())).or_default().push(text);
            }
        };
        if is_json {
            for line in json_lines(&self.file)? {
                let QuestionLine { text, answer } = line?;
                add(text, answer);
            }
        } else {
            let unreadable = |error| Error::new(Kind::Config, "cannot read the questions").source(error);
            let texts = fs_err::read_to_string(&self.file).map_err(unreadable)?;
            texts.lines().for_each(|text| add(text.to_owned(), None));
        }
        let mut questions: Vec<Wordings> = by_answer.into_values().collect();
        for texts in &mut questions {
            texts.sort();
            texts.dedup();
        }
        if questions.is_empty() {
            Err(Error::new(Kind::InvalidInput, "there are no questions"))
        } else {
            Ok((questions, are_judged))
        }
    }

    /// Asks all questions in their order, some at a time.
    async fn ask_all(&self, answers: &Arc<Answers>, questions: &[Drawn<'_>]) -> Result<Tally> {
        let next = AtomicUsize::new(0);
        let progress = terminal::bar(questions.len());
        let askers = (0..self.concurrency).map(|_| async {
            let mut tally = Tally::default();
            while let Some(question) = questions.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.ask(answers, question, &mut tally).await?;
                progress.inc(1);
            }
            Ok(tally)
        });
        let tallies: Vec<Result<Tally>> = join_all(askers).await;
        progress.finish_and_clear();
        tallies.into_iter().try_fold(Tally::default(), |sum, tally| Ok(sum.plus(tally?)))
    }

    async fn ask(&self, answers: &Arc<Answers>, question: &Drawn<'_>, tally: &mut Tally) -> Result<()> {
        let body = request_in_words(MODEL, question.text);
        let usage = usage_of(body.as_bytes(), self.completion_tokens);
        let ask = AnswerRequest {
            parsed: ChatCompletions.parse(body.as_bytes(), &answers.identity_rules())?.into(),
            body: body.clone().into(),
            query: None,
            principal: Arc::default(),
            credential: None,
            headers: Vec::new(),
            traces: Headers::new(),
            directives: Directives {
                semantic: (self.mode == Mode::Semantic).then_some(true),
                ..Directives::default()
            },
            tags: Vec::new(),
            default_ttl_seconds: None,
            cached_features: None,
        };
        let started = Instant::now();
        let served = answers.ask(ask).await?;
        let took = started.elapsed();
        tally.took.push(took);
        tally.all = sum(tally.all, usage);
        let is_exact_only =
            served.semantic.is_some_and(|report| report.outcome == SemanticOutcome::ExactOnly);
        tally.exact_only += usize::from(is_exact_only);
        let answered = number_of(&served.body);
        if answered != Some(question.number) {
            tally.wrong.push((question.text.to_owned(), answered));
        }
        if matches!(served.outcome, AnswerOutcome::Hit(_) | AnswerOutcome::StaleIfError(..)) {
            tally.took_cached.push(took);
        }
        match served.outcome {
            AnswerOutcome::Hit(hit) if hit.match_kind == MatchKind::Normalized => tally.normalized += 1,
            AnswerOutcome::Hit(hit) if hit.match_kind == MatchKind::Semantic => tally.semantic += 1,
            AnswerOutcome::Hit(_) | AnswerOutcome::StaleIfError(..) => tally.exact += 1,
            AnswerOutcome::Coalesced => tally.coalesced += 1,
            AnswerOutcome::Miss | AnswerOutcome::ForcedRefresh | AnswerOutcome::Bypass => {
                tally.misses += 1;
                tally.asked = sum(tally.asked, usage);
            }
        }
        Ok(())
    }

    fn report(&self, questions: &[Wordings], are_judged: bool, mut tally: Tally) -> String {
        let count = tally.took.len();
        let (all, cached) = (percentiles(&mut tally.took), percentiles(&mut tally.took_cached));
        let prices = Prices::new(&[PriceOptions {
            models: vec![MODEL.into()],
            prompt_usd_per_million: self.prompt_usd,
            completion_usd_per_million: self.completion_usd,
            ..PriceOptions::default()
        }]);
        let cost = |usage| prices.cost_usd(MODEL, usage).unwrap_or_default();
        let (without, with) = (cost(tally.all), cost(tally.asked));
        let share = |part: usize| 100.0 * part as f64 / count as f64;
        let saved = if without > 0.0 { 100.0 * (1.0 - with / without) } else { 0.0 };
        let texts: usize = questions.iter().map(Vec::len).sum();
        let wrong = if are_judged {
            Share { count: tally.wrong.len(), of: count }.to_string()
        } else {
            "not known".to_owned()
        };
        format!(
            "{count} requests, Zipf {}, over {} questions in {texts} wordings, {} of the repeats in another; upstream {} ms; {} at a time\n\
             hit rate {:.1} % (exact {:.1}, normalized {:.1}, other words {:.1}, coalesced {:.1})\n\
             wrong answers {wrong} of all requests; searched for in the same words only {:.1} %\n\
             upstream calls {}\n\
             upstream cost {with:.4} USD of {without:.4} without a cache: {saved:.1} % saved\n\
             latency of all: {all}\n\
             latency of answers from the cache: {cached}\n",
            self.zipf,
            questions.len(),
            self.reword_share,
            self.upstream_ms,
            self.concurrency,
            share(count - tally.misses),
            share(tally.exact),
            share(tally.normalized),
            share(tally.semantic),
            share(tally.coalesced),
            share(tally.exact_only),
            tally.misses,
        )
    }
}

/// Writes the questions that got the answer to another one.
fn write_wrong(path: &Path, wrong: &[(String, Option<usize>)], questions: &[Wordings]) -> Result<()> {
    let line = |(asked, number): &(String, Option<usize>)| {
        let answered = number.and_then(|number| questions.get(number)?.first());
        json!({ "asked": asked, "answered": answered }).to_string() + "\n"
    };
    let lines: String = wrong.iter().map(line).collect();
    fs_err::write(path, lines).map_err(|error| Error::io("cannot write the wrong answers", error))
}

/// Percentiles of times, in words.
fn percentiles(took: &mut [Duration]) -> String {
    took.sort();
    let Some(last) = took.len().checked_sub(1) else { return "none".into() };
    let millis = |share: f64| {
        let place = ((took.len() as f64 * share).ceil() as usize).clamp(1, last + 1) - 1;
        took[place].as_secs_f64() * 1000.0
    };
    format!("p50 {:.3} ms, p95 {:.3} ms, p99 {:.3} ms", millis(0.5), millis(0.95), millis(0.99))
}

impl Tally {
    fn plus(mut self, other: Tally) -> Tally {
        self.took.extend(other.took);
        self.took_cached.extend(other.took_cached);
        self.wrong.extend(other.wrong);
        Tally {
            exact: self.exact + other.exact,
            normalized: self.normalized + other.normalized,
            semantic: self.semantic + other.semantic,
            wrong: self.wrong,
            exact_only: self.exact_only + other.exact_only,
            took_cached: self.took_cached,
            coalesced: self.coalesced + other.coalesced,
            misses: self.misses + other.misses,
            took: self.took,
            all: sum(self.all, other.all),
            asked: sum(self.asked, other.asked),
        }
    }
}

fn sum(one: TokenUsage, two: TokenUsage) -> TokenUsage {
    TokenUsage::new(
        one.prompt_tokens.saturating_add(two.prompt_tokens),
        one.completion_tokens.saturating_add(two.completion_tokens),
    )
}
