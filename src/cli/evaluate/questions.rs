//! `likewise evaluate questions FILE`: what a cache of answers would do with a stream of judged questions, and how often wrongly.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use likewise::app::Engine;
use likewise::domain::{Key, TenantId};
use likewise::error::{Error, Kind, Result};
use likewise::matching::guard::Guard;
use likewise::request_identity::{Json, Normalization, Partition, of_text};
use likewise::service::answers::{Similarities, lexicon_with};

use super::chart::{ChartLine, svg};
use super::decision::Decision;
use super::stream::{InsertPolicy, Stream, StreamSearch, StreamTally};
use super::{JudgedFile, PairJudge, Share, SplitMix, shipped_or, temporary_directory};
use crate::cli::sources::Sources;
use crate::cli::terminal;

/// Thresholds of cosine alone in the first table.
const COSINES: [f32; 5] = [0.75, 0.80, 0.85, 0.90, 0.95];
/// Shares of requests that may get a wrong answer, of the second table.
const WRONG_SHARES: [f64; 4] = [0.005, 0.01, 0.02, 0.05];
/// Thresholds that the second table and the chart try: from this one on, and the number of steps to 1.
const SIMILARITY_MIN: f32 = 0.70;
const STEPS: usize = 30;
/// Decisions of the second table and the chart.
const COMPARED: [Decision; 4] =
    [Decision::Cosine, Decision::Strict, Decision::NormalVerified, Decision::StrictVerified];

/// What a cache of answers does with a stream of questions: how many it answers in the same words and in other words, and how many of them
/// wrongly. JSON lines with `text` and `answer` (anything that names the right answer, such as an intent; without it only hits are
/// counted), or the judged pairs of `evaluate pairs`, of which both questions are asked.
#[derive(Debug, Args)]
pub(super) struct EvaluateQuestions {
    #[command(flatten)]
    sources: Sources,
    /// The questions, JSON lines.
    file: PathBuf,
    /// Ask in the order of the file, as for a log. Otherwise in an order that the seed draws.
    #[arg(long)]
    in_order: bool,
    /// Another seed draws another order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The smallest similarity of the rows with rules; by default that of the model.
    #[arg(long, value_name = "COSINE")]
    similarity_min: Option<f32>,
    /// Also draw precision against the hit rate, as SVG.
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
}

impl EvaluateQuestions {
    pub(super) async fn run(self) -> Result<()> {
        if self.similarity_min.is_some_and(|min| !(SIMILARITY_MIN..=1.0).contains(&min)) {
            let message = format!("--similarity-min must be from {SIMILARITY_MIN} to 1");
            return Err(Error::new(Kind::InvalidInput, message));
        }
        let mut file = JudgedFile::read(&self.file)?;
        if !self.in_order {
            SplitMix(self.seed).shuffle(&mut file.requests);
        }
        let mut config = self.sources.load().await?;
        let data = temporary_directory()?;
        config.data.dir = data.path().to_owned();
        let guard = Guard::new(lexicon_with(config.answers.semantic.words_dir.as_deref())?);
        let engine = Engine::build(&config).await?;
        let outcome = self.evaluate(&engine, &guard, &file).await;
        engine.close().await;
        let (said, chart) = outcome?;
        if let Some(path) = &self.chart {
            let unwritten = |error| Error::io("cannot write the chart", error);
            fs_err::write(path, chart).map_err(unwritten)?;
        }
        terminal::say(&said);
        Ok(())
    }

    /// The tables and the chart.
    async fn evaluate(&self, engine: &Engine, guard: &Guard, file: &JudgedFile) -> Result<(String, String)> {
        let name = engine.models.default_model()?.card().name.clone();
        let similarities = shipped_or(self.similarity_min, &name);
        let mut judge = PairJudge::new(engine, guard, &file.texts).await?;
        tokio::task::block_in_place(|| {
            let neighbours = judge.neighbours(SIMILARITY_MIN);
            let exact: Vec<usize> = (0..file.texts.len()).collect();
            let normalized = normalized(&file.texts);
            let stream_of = |words| Stream { requests: &file.requests, words, neighbours: &neighbours };
            let mut report =
                StreamReport { stream: stream_of(&exact), judge: &mut judge, said: String::new() };
            let known = file.requests.iter().filter(|request| request.answer.is_some()).count();
            let _ = writeln!(
                report.said,
                "{} questions, {} different; the right answer of {known} is known; model {name}\n",
                file.requests.len(),
                file.texts.len(),
            );
            report.hits(&stream_of(&normalized), similarities)?;
            let lines = report.by_wrong_share()?;
            let chart = svg("Precision of answers from the cache", "hit rate", "precision", &lines);
            Ok((report.said, chart))
        })
    }
}

/// Texts that are one question once they are normalized have the same number.
fn normalized(texts: &[String]) -> Vec<usize> {
    let tenant = TenantId::default();
    let partition = Partition {
        tenant: &tenant,
        namespace: "evaluation",
        credential: None,
        upstream: "",
        query: None,
        headers: &[],
    };
    let mut numbers: std::collections::HashMap<Key, usize> = std::collections::HashMap::new();
    let number_of = |(place, text): (usize, &String)| {
        let identity = of_text(&partition, &Json::Null, text, Normalization::WordLists);
        *numbers.entry(identity.key).or_insert(place)
    };
    texts.iter().enumerate().map(number_of).collect()
}

struct StreamReport<'a, 'b> {
    stream: Stream<'a>,
    judge: &'a mut PairJudge<'b>,
    said: String,
}

impl StreamReport<'_, '_> {
    /// What each way to decide answers.
    fn hits(&mut self, normalized: &Stream<'_>, similarities: Similarities) -> Result<()> {
        self.said.push_str(
            "| decision | cosine from | stored | hits | in other words | precision of hits | wrong of all | recall |\n|---|---|---|---|---|---|---|---|\n",
        );
        let same_words = StreamSearch {
            decision: None,
            similarities: Similarities::same(1.0),
            policy: InsertPolicy::OnMiss,
        };
        let exact = self.stream.run(same_words, self.judge)?;
        self.row("exact", None, InsertPolicy::OnMiss, exact);
        let tally = normalized.run(same_words, self.judge)?;
        self.row("normalized", None, InsertPolicy::OnMiss, tally);
        let cosines = COSINES.map(|similarity| (Decision::Cosine, Similarities::same(similarity)));
        let others = Decision::ALL.into_iter().filter(|decision| *decision != Decision::Cosine);
        let others = others.map(|decision| (decision, similarities));
        for (decision, similarities) in cosines.into_iter().chain(others) {
            for policy in InsertPolicy::ALL {
                let search = StreamSearch { decision: Some(decision), similarities, policy };
                let tally = self.stream.run(search, self.judge)?;
                self.row(decision.name(), Some(similarities), policy, tally);
            }
        }
        Ok(())
    }

    fn row(
        &mut self,
        name: &str,
        similarities: Option<Similarities>,
        policy: InsertPolicy,
        tally: StreamTally,
    ) {
        let similarity = similarities.map_or("-".to_owned(), |similarities| similarities.to_string());
        let _ = writeln!(
            self.said,
            "| {name} | {similarity} | {} | {} | {} | {} | {} | {} |",
            policy.name(),
            tally.hits(),
            Share { count: tally.semantic, of: tally.requests },
            tally.precision(),
            Share { count: tally.wrong, of: tally.requests },
            Share { count: tally.answered_right, of: tally.answerable },
        );
    }

    /// The most that is answered in other words while few of all requests get a wrong answer; and the lines of the chart.
    fn by_wrong_share(&mut self) -> Result<Vec<ChartLine>> {
        let _ = writeln!(
            self.said,
            "\n| decision | {} |\n|---|---|---|---|---|",
            WRONG_SHARES.map(|share| format!("in other words at wrong <= {} %", 100.0 * share)).join(" | ")
        );
        let mut lines = Vec::new();
        for decision in COMPARED {
            let (mut points, mut most) = (Vec::new(), [0.0_f64; WRONG_SHARES.len()]);
            for step in 0..STEPS {
                let similarity_min = SIMILARITY_MIN + (1.0 - SIMILARITY_MIN) * step as f32 / STEPS as f32;
                let search = StreamSearch {
                    decision: Some(decision),
                    similarities: Similarities::same(similarity_min),
                    policy: InsertPolicy::OnMiss,
                };
                let tally = self.stream.run(search, self.judge)?;
                points.push((tally.hits().share(), tally.precision().share()));
                for (most, share) in most.iter_mut().zip(WRONG_SHARES) {
                    if tally.wrong as f64 <= share * tally.requests as f64 {
                        *most = most.max(tally.semantic as f64 / tally.requests as f64);
                    }
                }
            }
            let most = most.map(|share| format!("{:.1} %", 100.0 * share)).join(" | ");
            let _ = writeln!(self.said, "| {} | {most} |", decision.name());
            lines.push(ChartLine { name: decision.name().into(), points });
        }
        Ok(lines)
    }
}

impl StreamTally {
    /// Questions that were answered from the cache.
    fn hits(&self) -> Share {
        Share { count: self.exact + self.semantic, of: self.requests }
    }

    /// Those of them that got the right answer, or of which that is not known.
    fn precision(&self) -> Share {
        let hits = self.exact + self.semantic;
        Share { count: hits - self.wrong, of: hits }
    }
}
