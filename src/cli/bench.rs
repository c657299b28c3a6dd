//! `likewise bench embed`: how fast this machine embeds.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use likewise::app;
use likewise::embed::{EmbedJob, Embedder, Priority, instruction_set, product_rate};
use likewise::error::{Error, Kind, Result};
use tokio::sync::oneshot;

use super::evaluate::SplitMix;
use super::sources::Sources;
use super::terminal;

/// Words of the texts, most of them one token.
const WORDS: [&str; 16] = [
    "shirt", "blue", "cotton", "shoes", "with", "leather", "for", "running", "coffee", "machine", "price",
    "the", "order", "large", "red", "gift",
];
/// Texts of a round.
const SHORT_TEXTS: usize = 256;
const MIXED_TEXTS: usize = 48;
const LONG_TEXTS: usize = 16;
/// Words of a long text.
const LONG_WORDS: usize = 250;
/// The mixed texts are log-normal in their words, between these.
const MIXED_WORDS: (usize, usize) = (8, 500);
const MIXED_MEDIAN_WORDS: f64 = 50.0;
const MIXED_SPREAD: f64 = 1.0;
/// For how long the products are measured.
const PRODUCTS_FOR: Duration = Duration::from_secs(1);

const HEAD: &str = "\
| precision | texts | tokens each | texts/s | slowest-fastest round | tokens/s | share of the products |
|---|---|---|---|---|---|---|
";

/// Measure how fast this machine computes.
#[derive(Debug, Args)]
pub(super) struct Bench {
    #[command(subcommand)]
    what: BenchKind,
}

#[derive(Debug, Subcommand)]
enum BenchKind {
    Embed(BenchEmbed),
}

/// Texts and tokens a second that the local model embeds, of short, mixed and long texts, and the time of one short query. The share of the
/// products is that of the operations a second which the encoder's products of matrices reach alone, on the same threads. No cache is used; the
/// texts are always the same.
#[derive(Debug, Args)]
struct BenchEmbed {
    #[command(flatten)]
    sources: Sources,
    /// How long each row is measured.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

impl Bench {
    pub(super) async fn run(self) -> Result<()> {
        match self.what {
            BenchKind::Embed(embed) => embed.run().await,
        }
    }
}

impl BenchEmbed {
    async fn run(self) -> Result<()> {
        let time = Duration::try_from_secs_f64(self.seconds).ok().filter(|time| !time.is_zero());
        let time = time
            .ok_or_else(|| Error::new(Kind::InvalidInput, "--seconds must be a number of seconds above 0"))?;
        let config = self.sources.load().await?;
        if !config.has_default_model() || config.embed.remote.base_url.is_some() {
            let message = "no local model to measure: give --model a DIRECTORY or OWNER/NAME";
            return Err(Error::new(Kind::InvalidInput, message));
        }
        let embedder = app::load_embedder(&config)?;
        let peak = tokio::task::spawn_blocking(|| product_rate(PRODUCTS_FOR)).await;
        let peak =
            peak.map_err(|error| Error::new(Kind::Internal, "cannot measure products").source(error))?;
        terminal::say(&format!(
            "{}: products of matrices reach {:.0} GFLOP/s (instruction set: {})\n{HEAD}",
            embedder.card().name,
            peak / 1e9,
            instruction_set()
        ));
        for (name, texts) in [("short", short()), ("mixed", mixed()), ("long", long())] {
            let rounds = measure_rounds(&*embedder, &texts, time).await?;
            terminal::say(&rounds.line(name, texts.len(), peak));
        }
        let (median, slow) = measure_queries(&*embedder, &short(), time).await?;
        terminal::say(&format!(
            "one short query at a time: {:.2} ms (median), {:.2} ms (95 %)\n",
            median * 1e3,
            slow * 1e3
        ));
        Ok(())
    }
}

/// Rounds over the same texts.
struct MeasuredRounds {
    /// Seconds of each round, the shortest first.
    seconds: Vec<f64>,
    tokens: usize,
    operations: u64,
}

impl MeasuredRounds {
    fn line(&self, name: &str, texts: usize, peak: f64) -> String {
        let texts_a_second = |seconds: f64| texts as f64 / seconds;
        let median = self.seconds[self.seconds.len() / 2];
        let (fastest, slowest) = (self.seconds[0], self.seconds[self.seconds.len() - 1]);
        format!(
            "| f32 | {name} | {:.0} | {:.0} | {:.0}-{:.0} | {:.0} | {:.0} % |\n",
            self.tokens as f64 / texts as f64,
            texts_a_second(median),
            texts_a_second(slowest),
            texts_a_second(fastest),
            self.tokens as f64 / median,
            self.operations as f64 / median / peak * 100.0
        )
    }
}

/// Embeds the texts again and again, together, for this long and at least twice.
async fn measure_rounds(embedder: &dyn Embedder, texts: &[String], time: Duration) -> Result<MeasuredRounds> {
    let lengths = embedder.count_tokens(texts.to_vec()).await?.unwrap_or_default();
    let lengths: Vec<usize> =
        lengths.into_iter().map(|length| length.min(embedder.card().tokens_max)).collect();
    // The first pass also wakes the threads.
    embed(embedder, texts).await?;
    let (began, mut seconds) = (Instant::now(), Vec::new());
    while seconds.len() < 2 || began.elapsed() < time {
        let started = Instant::now();
        embed(embedder, texts).await?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let operations = embedder.operations(&lengths);
    let operations =
        operations.ok_or_else(|| Error::new(Kind::Internal, "the model does not say what a pass costs"))?;
    Ok(MeasuredRounds { seconds, tokens: lengths.iter().sum(), operations })
}

/// Embeds one text after the other; the median and the 95th percentile of the seconds of one.
async fn measure_queries(embedder: &dyn Embedder, texts: &[String], time: Duration) -> Result<(f64, f64)> {
    let (began, mut seconds) = (Instant::now(), Vec::new());
    for text in texts.iter().cycle() {
        if !seconds.is_empty() && began.elapsed() >= time {
            break;
        }
        let started = Instant::now();
        embed(embedder, std::slice::from_ref(text)).await?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok((seconds[seconds.len() / 2], seconds[seconds.len() * 95 / 100]))
}

async fn embed(embedder: &dyn Embedder, texts: &[String]) -> Result<()> {
    let job = |text: &String| {
        let (reply, vector) = oneshot::channel();
        let is_abandoned = Arc::new(AtomicBool::new(false));
        (
            EmbedJob {
                text: text.clone(),
                priority: Priority::Interactive,
                reply,
                is_abandoned,
                since: Instant::now(),
                place: None,
            },
            vector,
        )
    };
    let (jobs, vectors): (Vec<_>, Vec<_>) = texts.iter().map(job).unzip();
    embedder.submit(jobs)?;
    for vector in vectors {
        vector.await.map_err(|_| Error::new(Kind::Internal, "the model sent no vector"))??;
    }
    Ok(())
}

fn short() -> Vec<String> {
    let mut random = SplitMix(1);
    (0..SHORT_TEXTS)
        .map(|_| {
            let words = 12 + random.below(4);
            text(&mut random, words)
        })
        .collect()
}

fn mixed() -> Vec<String> {
    let mut random = SplitMix(2);
    (0..MIXED_TEXTS)
        .map(|_| {
            let words = (MIXED_MEDIAN_WORDS * (MIXED_SPREAD * normal(&mut random)).exp()) as usize;
            text(&mut random, words.clamp(MIXED_WORDS.0, MIXED_WORDS.1))
        })
        .collect()
}

fn long() -> Vec<String> {
    let mut random = SplitMix(3);
    (0..LONG_TEXTS).map(|_| text(&mut random, LONG_WORDS)).collect()
}

fn text(random: &mut SplitMix, words: usize) -> String {
    (0..words).map(|_| WORDS[random.below(WORDS.len())]).collect::<Vec<_>>().join(" ")
}

/// A number of the standard normal distribution (Box and Muller, 1958).
fn normal(random: &mut SplitMix) -> f64 {
    let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.unit()).cos()
}
