//! `likewise evaluate answers FILE`: what the cache of answers would save on a stream of questions that repeat.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream;
use likewise::app::{Engine, Environment};
use likewise::config::Config;
use likewise::dialects::Dialect as _;
use likewise::dialects::chat_completions::{ChatCompletions, reply_in_words, request_in_words};
use likewise::domain::{Credential, TokenUsage};
use likewise::error::{Error, Kind, Result};
use likewise::service::answers::{AnswerOutcome, AnswerRequest, MatchKind};
use likewise::service::{Answers, Directives};
use likewise::upstream::{Headers, Origin, PriceOptions, Prices, Reply, UpstreamCall};
use serde::Deserialize;
use serde_json::value::RawValue;
use tempfile::TempDir;

use super::json_lines::json_lines;
use super::sources::Sources;
use super::terminal;

/// The model that the questions are put to.
const MODEL: &str = "simulated";
/// English has about four bytes to a token.
const BYTES_PER_TOKEN: usize = 4;

/// What a stream of questions costs, with the cache and without. The upstream is simulated: it answers everything, after a
/// time. Questions are drawn from a list of texts by Zipf's law, the first being asked most.
#[derive(Debug, Args)]
pub(super) struct EvaluateAnswers {
    #[command(flatten)]
    sources: Sources,
    /// Texts, one a line: plain, or JSON objects with `text`.
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
    /// Another seed draws other questions.
    #[arg(long, default_value_t = 1)]
    seed: u64,
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
}

#[derive(Deserialize)]
struct QuestionLine {
    text: String,
}

/// A directory for the data of an evaluation, which is removed with it.
pub(super) fn temporary_directory() -> Result<TempDir> {
    TempDir::new().map_err(|error| Error::io("cannot make a directory for the data of the evaluation", error))
}

/// An upstream that answers everything.
struct SimulatedUpstream {
    takes: Duration,
    completion_tokens: u32,
}

impl SimulatedUpstream {
    fn usage(&self, body: &[u8]) -> TokenUsage {
        TokenUsage {
            prompt_tokens: u32::try_from(body.len() / BYTES_PER_TOKEN).unwrap_or(u32::MAX),
            completion_tokens: self.completion_tokens,
        }
    }
}

impl Origin for SimulatedUpstream {
    fn name(&self, _: &str) -> Result<Arc<str>> {
        Ok(MODEL.into())
    }

    fn ask(&self, call: UpstreamCall) -> BoxFuture<'_, Result<Reply>> {
        Box::pin(async move {
            tokio::time::sleep(self.takes).await;
            let text = "word ".repeat(self.completion_tokens as usize);
            let answer = reply_in_words(MODEL, &text, self.usage(&call.body));
            let headers: Headers = vec![("content-type".into(), "application/json".into())];
            let body = stream::iter([Ok(answer.into())]);
            Ok(Reply::new(200, headers, Box::pin(body)))
        })
    }

    fn needs_clients_key(&self, _: &str, _: &str) -> Result<bool> {
        Ok(false)
    }

    fn models(&self, _: Option<Credential>, _: Headers) -> BoxFuture<'_, Result<Vec<Box<RawValue>>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn refuse_own(&self, _: &Headers) -> Result<()> {
        Ok(())
    }

    fn share_under_way(&self) -> f64 {
        0.0
    }
}

/// What became of the questions.
#[derive(Debug, Default)]
struct Tally {
    exact: usize,
    normalized: usize,
    coalesced: usize,
    misses: usize,
    took: Vec<Duration>,
    all: TokenUsage,
    asked: TokenUsage,
}

impl EvaluateAnswers {
    pub(super) async fn run(self) -> Result<()> {
        self.validate()?;
        let texts = self.texts()?;
        let mut config: Config = self.sources.load().await?;
        // The measured server writes to a temporary directory, so that no cached answer outlives the run.
        let data = temporary_directory()?;
        config.data.dir = data.path().to_owned();
        config.answers.normalize_questions = self.mode == Mode::Normalized;
        config.cache.namespaces.entry("llm_responses".into()).or_default().ttl_seconds = Some(86_400);
        let origin = SimulatedUpstream {
            takes: Duration::from_millis(self.upstream_ms),
            completion_tokens: self.completion_tokens,
        };
        let environment = Environment::over(&config, Arc::new(origin));
        let engine = Engine::build_in(&config, environment).await?;
        let questions = drawn(&texts, self.requests, self.zipf, self.seed);
        let outcome = self.ask_all(&engine.answers, &questions).await;
        engine.close().await;
        let tally = outcome?;
        terminal::say(&self.report(texts.len(), tally));
        Ok(())
    }

    fn validate(&self) -> Result<()> {
        let fault = |message: &str| Err(Error::new(Kind::InvalidInput, message));
        if self.requests == 0 || self.concurrency == 0 {
            return fault("--requests and --concurrency must be at least 1");
        }
        if !self.zipf.is_finite() || self.zipf < 0.0 {
            return fault("--zipf is 0 or more");
        }
        Ok(())
    }

    fn texts(&self) -> Result<Vec<String>> {
        let is_json = self.file.extension().is_some_and(|extension| extension == "jsonl");
        let mut texts: Vec<String> = if is_json {
            json_lines(&self.file)?
                .map(|line| line.map(|QuestionLine { text }| text))
                .collect::<Result<_>>()?
        } else {
            let unreadable = |error| Error::new(Kind::Config, "cannot read the questions").source(error);
            fs_err::read_to_string(&self.file).map_err(unreadable)?.lines().map(str::to_owned).collect()
        };
        texts.retain(|text| !text.trim().is_empty());
        texts.sort();
        texts.dedup();
        if texts.is_empty() {
            Err(Error::new(Kind::InvalidInput, "there are no questions"))
        } else {
            Ok(texts)
        }
    }

    /// Asks all questions in their order, some at a time.
    async fn ask_all(&self, answers: &Arc<Answers>, questions: &[&str]) -> Result<Tally> {
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

    async fn ask(&self, answers: &Arc<Answers>, question: &str, tally: &mut Tally) -> Result<()> {
        let body = request_in_words(MODEL, question);
        let usage = TokenUsage {
            prompt_tokens: u32::try_from(body.len() / BYTES_PER_TOKEN).unwrap_or(u32::MAX),
            completion_tokens: self.completion_tokens,
        };
        let ask = AnswerRequest {
            parsed: ChatCompletions.parse(body.as_bytes(), answers.normalization())?.into(),
            body: body.clone().into(),
            query: None,
            principal: Arc::default(),
            credential: None,
            headers: Vec::new(),
            traces: Headers::new(),
            directives: Directives::default(),
            tags: Vec::new(),
        };
        let started = Instant::now();
        let served = answers.ask(ask).await?;
        tally.took.push(started.elapsed());
        tally.all = sum(tally.all, usage);
        match served.outcome {
            AnswerOutcome::Hit(hit) if hit.match_kind == MatchKind::Normalized => tally.normalized += 1,
            AnswerOutcome::Hit(_) | AnswerOutcome::StaleIfError(..) => tally.exact += 1,
            AnswerOutcome::Coalesced => tally.coalesced += 1,
            AnswerOutcome::Miss | AnswerOutcome::ForcedRefresh | AnswerOutcome::Bypass => {
                tally.misses += 1;
                tally.asked = sum(tally.asked, usage);
            }
        }
        Ok(())
    }

    fn report(&self, texts: usize, mut tally: Tally) -> String {
        tally.took.sort();
        let count = tally.took.len();
        let millis = |share: f64| {
            let place = ((count as f64 * share).ceil() as usize).clamp(1, count) - 1;
            tally.took[place].as_secs_f64() * 1000.0
        };
        let prices = Prices::new(&[PriceOptions {
            models: vec![MODEL.into()],
            prompt_usd_per_million: self.prompt_usd,
            completion_usd_per_million: self.completion_usd,
        }]);
        let cost = |usage| prices.cost_usd(MODEL, usage).unwrap_or_default();
        let (without, with) = (cost(tally.all), cost(tally.asked));
        let share = |part: usize| 100.0 * part as f64 / count as f64;
        let saved = if without > 0.0 { 100.0 * (1.0 - with / without) } else { 0.0 };
        format!(
            "{count} questions, Zipf {}, over {texts} texts; upstream {} ms; {} at a time\n\
             hit rate {:.1} % (exact {:.1}, normalized {:.1}, coalesced {:.1})\n\
             upstream calls {}\n\
             upstream cost {with:.4} USD of {without:.4} without a cache: {saved:.1} % saved\n\
             latency p50 {:.3} ms, p95 {:.3} ms, p99 {:.3} ms\n",
            self.zipf,
            self.upstream_ms,
            self.concurrency,
            share(count - tally.misses),
            share(tally.exact),
            share(tally.normalized),
            share(tally.coalesced),
            tally.misses,
            millis(0.5),
            millis(0.95),
            millis(0.99),
        )
    }
}

impl Tally {
    fn plus(mut self, other: Tally) -> Tally {
        self.took.extend(other.took);
        Tally {
            exact: self.exact + other.exact,
            normalized: self.normalized + other.normalized,
            coalesced: self.coalesced + other.coalesced,
            misses: self.misses + other.misses,
            took: self.took,
            all: sum(self.all, other.all),
            asked: sum(self.asked, other.asked),
        }
    }
}

fn sum(one: TokenUsage, two: TokenUsage) -> TokenUsage {
    TokenUsage {
        prompt_tokens: one.prompt_tokens.saturating_add(two.prompt_tokens),
        completion_tokens: one.completion_tokens.saturating_add(two.completion_tokens),
    }
}

/// Texts drawn so that the one of rank k comes up in proportion to k to the power of minus `exponent`. Which text has
/// which rank is drawn too.
fn drawn(texts: &[String], count: usize, exponent: f64, seed: u64) -> Vec<&str> {
    let mut random = SplitMix(seed);
    let mut ranked: Vec<&str> = texts.iter().map(String::as_str).collect();
    for place in (1..ranked.len()).rev() {
        ranked.swap(place, random.below(place + 1));
    }
    let mut total = 0.0;
    let cumulative: Vec<f64> = (1..=ranked.len())
        .map(|rank| {
            total += (rank as f64).powf(-exponent);
            total
        })
        .collect();
    let draw = |_| {
        let at = random.unit() * total;
        ranked[cumulative.partition_point(|&sum| sum <= at).min(ranked.len() - 1)]
    };
    (0..count).map(draw).collect()
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, limit: usize) -> usize {
        ((self.unit() * limit as f64) as usize).min(limit - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_repeat_as_zipf_says() {
        let texts: Vec<String> = (0..100).map(|n| format!("question {n}")).collect();
        let questions = drawn(&texts, 10_000, 0.9, 1);
        assert_eq!(questions, drawn(&texts, 10_000, 0.9, 1), "one seed, one stream");
        let mut counts = std::collections::HashMap::new();
        questions.iter().for_each(|question| *counts.entry(*question).or_insert(0) += 1);
        let mut counts: Vec<i32> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        // Rank k has its share of the sum of all weights.
        let harmonic: f64 = (1..=100).map(|rank| f64::from(rank).powf(-0.9)).sum();
        let expected = |rank: f64| 10_000.0 * rank.powf(-0.9) / harmonic;
        assert!((f64::from(counts[0]) - expected(1.0)).abs() < 0.15 * expected(1.0), "{counts:?}");
        assert!((f64::from(counts[9]) - expected(10.0)).abs() < 0.25 * expected(10.0), "{counts:?}");
    }
}
