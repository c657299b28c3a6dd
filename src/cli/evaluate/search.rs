//! `likewise evaluate search DIR`: how good searches are, on judged data.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use fs_err::File;
use likewise::app::Engine;
use likewise::domain::Principal;
use likewise::error::{Error, Kind, Result};
use likewise::search::{Indexed, Metric};
use likewise::service::collections::{Input, NewDocument, Search, Spec};
use likewise::service::{Collections, Directives};
use serde::Deserialize;

use crate::cli::json_lines::json_lines;
use crate::cli::sources::Sources;
use crate::cli::terminal;

/// How deep results are judged.
const K: usize = 10;
/// Documents stored, and queries asked, at a time.
const CHUNK: usize = 256;

#[derive(Debug, Args)]
pub(super) struct EvaluateSearch {
    #[command(flatten)]
    sources: Sources,
    /// A directory with `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`) and the judgements.
    dir: PathBuf,
    /// The judgements: query, document and grade, with tabs between and a header; by default `qrels.tsv` of the directory,
    /// or else its `qrels/test.tsv`.
    #[arg(long, value_name = "FILE")]
    qrels: Option<PathBuf>,
}

#[derive(Deserialize)]
struct BeirText {
    #[serde(rename = "_id")]
    id: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    text: String,
}

/// Grades of documents by query.
type Judgements = HashMap<String, HashMap<String, f64>>;

/// Means over all judged queries.
#[derive(Debug, Default)]
struct Scores {
    ndcg: f64,
    recall: f64,
    reciprocal_rank: f64,
}

impl EvaluateSearch {
    pub(super) async fn run(self) -> Result<()> {
        let search = self;
        let (corpus, queries) =
            (texts(&search.dir.join("corpus.jsonl"))?, texts(&search.dir.join("queries.jsonl"))?);
        let judgements = judgements(&search.qrels())?;
        let judged: Vec<&BeirText> =
            queries.iter().filter(|query| judgements.contains_key(&query.id)).collect();
        if judged.is_empty() {
            return Err(
                Error::new(Kind::InvalidInput, "no query is judged").with("file", search.qrels().display())
            );
        }
        let engine = Engine::build(&search.sources.load().await?).await?;
        let name = format!("evaluate-{}", std::process::id());
        let outcome = evaluate(&engine.collections, &name, &corpus, &judged, &judgements).await;
        let dropped = engine.collections.drop_collection(&Principal::default(), &name).await;
        engine.close().await;
        let said = outcome?;
        dropped?;
        terminal::say(&said);
        Ok(())
    }

    /// Where the judgements are.
    fn qrels(&self) -> PathBuf {
        let of_ours = self.dir.join("qrels.tsv");
        let of_beir = self.dir.join("qrels/test.tsv");
        let default = if !of_ours.exists() && of_beir.exists() { of_beir } else { of_ours };
        self.qrels.clone().unwrap_or(default)
    }
}

fn texts(path: &Path) -> Result<Vec<BeirText>> {
    json_lines(path)?.collect()
}

fn judgements(path: &Path) -> Result<Judgements> {
    let mut judgements = Judgements::new();
    for (number, line) in open(path)?.lines().enumerate().skip(1) {
        let fault = || {
            Error::new(Kind::InvalidInput, "a line is not query, document and grade")
                .with("file", path.display())
                .with("line", number + 1)
        };
        let line = line.map_err(|error| fault().source(error))?;
        let mut parts = line.split('\t');
        let (Some(query), Some(document), Some(grade)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(fault());
        };
        let grade: f64 = grade.trim().parse().map_err(|_| fault())?;
        judgements.entry(query.to_owned()).or_default().insert(document.to_owned(), grade);
    }
    Ok(judgements)
}

fn open(path: &Path) -> Result<BufReader<File>> {
    let file = File::open(path)
        .map_err(|error| Error::new(Kind::Config, "cannot open the judged data").source(error))?;
    Ok(BufReader::new(file))
}

async fn evaluate(
    collections: &Arc<Collections>,
    name: &str,
    corpus: &[BeirText],
    judged: &[&BeirText],
    judgements: &Judgements,
) -> Result<String> {
    let spec = Spec { metric: Metric::Cosine, model: None, dim: None, index: Indexed::Exact };
    collections.create(&Principal::default(), name, spec).await?;
    let principal = Arc::new(Principal::default());
    let progress = terminal::bar(corpus.len());
    for chunk in corpus.chunks(CHUNK) {
        let draft = |text: &BeirText| NewDocument {
            id: Some(text.id.clone()),
            text: Some(format!("{} {}", text.title, text.text).trim().to_owned()),
            ..NewDocument::default()
        };
        // A text without a word has nothing to embed.
        let drafts: Vec<NewDocument> =
            chunk.iter().map(draft).filter(|draft| draft.text.as_deref() != Some("")).collect();
        collections.upsert(&principal, name, drafts, true).await?;
        progress.inc(chunk.len() as u64);
    }
    progress.finish_and_clear();
    let (mut sums, started) = (Scores::default(), Instant::now());
    // One without a word finds nothing, which counts.
    let asked: Vec<&&BeirText> = judged.iter().filter(|query| !query.text.is_empty()).collect();
    for chunk in asked.chunks(CHUNK) {
        let search = Search {
            input: Input::Texts(chunk.iter().map(|query| query.text.clone()).collect()),
            k: K,
            filter: None,
            score_min: None,
            has_vectors: false,
            is_exact: true,
            ef: None,
            principal: Arc::clone(&principal),
            directives: Directives::default(),
        };
        let found = collections.search(name, search).await?;
        for (query, results) in chunk.iter().zip(&found.results) {
            let ids: Vec<&str> = results.iter().map(|hit| hit.document.id).collect();
            sums.add(&ids, &judgements[&query.id]);
        }
    }
    let (n, seconds) = (judged.len() as f64, started.elapsed().as_secs_f64());
    Ok(format!(
        "{} documents, {} judged queries, {seconds:.1} s for these\nnDCG@{K} {:.4}\nrecall@{K} {:.4}\nMRR@{K} {:.4}\n",
        corpus.len(),
        judged.len(),
        sums.ndcg / n,
        sums.recall / n,
        sums.reciprocal_rank / n
    ))
}

impl Scores {
    /// Adds what one query's results are worth. Gains are the grades themselves, as trec_eval takes them (Järvelin and
    /// Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002).
    fn add(&mut self, found: &[&str], grades: &HashMap<String, f64>) {
        let gain = |id: &&str| grades.get(*id).copied().unwrap_or(0.0).max(0.0);
        let discounted = |gains: &[f64]| -> f64 {
            gains.iter().zip(2_u32..).map(|(gain, rank)| gain / f64::from(rank).log2()).sum()
        };
        let gains: Vec<f64> = found.iter().map(gain).collect();
        let mut ideal: Vec<f64> = grades.values().copied().filter(|&grade| grade > 0.0).collect();
        ideal.sort_by(|a, b| b.total_cmp(a));
        let relevant = ideal.len();
        ideal.truncate(K);
        let best = discounted(&ideal);
        if best > 0.0 {
            self.ndcg += discounted(&gains) / best;
            self.recall += gains.iter().filter(|&&gain| gain > 0.0).count() as f64 / relevant as f64;
        }
        if let Some(first) = gains.iter().position(|&gain| gain > 0.0) {
            self.reciprocal_rank += 1.0 / (first + 1) as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_worth_what_the_definition_says() {
        let grades = HashMap::from([("a".to_owned(), 3.0), ("b".to_owned(), 1.0), ("c".to_owned(), 0.0)]);
        let mut scores = Scores::default();
        scores.add(&["c", "a", "x"], &grades);
        let ideal = 3.0 + 1.0 / 3_f64.log2();
        assert!((scores.ndcg - 3.0 / 3_f64.log2() / ideal).abs() < 1e-12);
        assert_eq!((scores.recall, scores.reciprocal_rank), (0.5, 0.5));
    }
}
