//! `likewise evaluate pairs FILE`: which questions in other words would share an answer, on judged pairs.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use likewise::app::Engine;
use likewise::domain::InputType;
use likewise::embed::Verifier;
use likewise::error::{Error, Kind, Result};
use likewise::matching::guard::{Guard, Strictness};
use likewise::service::Directives;
use likewise::service::answers::{lexicon_with, similarity_min_of};
use likewise::service::embeddings::Request;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::evaluate_answers::temporary_directory;
use super::json_lines::json_lines;
use super::sources::Sources;
use super::terminal;

/// Texts that are embedded at a time.
const CHUNK: usize = 256;
/// Thresholds of the first table.
const THRESHOLDS: [f32; 7] = [0.70, 0.75, 0.80, 0.85, 0.88, 0.90, 0.95];
/// Shares of pairs that may be served a wrong answer, of the third table.
const WRONG_SHARES: [f64; 4] = [0.005, 0.01, 0.02, 0.05];
/// Pairs that are less similar are never served, so the verifier does not read them.
const SIMILARITY_MIN: f32 = 0.6;
/// The quantile of the normal distribution for intervals of 95 %.
const Z: f64 = 1.959_964;

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

#[derive(Deserialize)]
struct LabelledPair {
    a: String,
    b: String,
    #[serde(deserialize_with = "is_same")]
    label: bool,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    lang: String,
}

/// Reads the label 1 of pairs that ask the same, or 0.
fn is_same<'de, D: Deserializer<'de>>(label: D) -> Result<bool, D::Error> {
    match u8::deserialize(label)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(D::Error::custom(format!("label must be 0 or 1, got {other}"))),
    }
}

/// A pair with what each part of the decision says.
struct JudgedPair {
    kind: String,
    language: String,
    is_same: bool,
    similarity: f32,
    is_exact_only: bool,
    allows_normal: bool,
    allows_strict: bool,
    /// The verifier agrees. Not known where the rules or the similarity refuse.
    is_verified: bool,
}

/// A way to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Cosine,
    Normal,
    Strict,
    NormalVerified,
    StrictVerified,
}

impl Decision {
    const ALL: [Decision; 5] = [
        Decision::Cosine,
        Decision::Normal,
        Decision::Strict,
        Decision::NormalVerified,
        Decision::StrictVerified,
    ];

    fn name(self) -> &'static str {
        match self {
            Decision::Cosine => "cosine",
            Decision::Normal => "normal rules",
            Decision::Strict => "strict rules",
            Decision::NormalVerified => "normal, verifier",
            Decision::StrictVerified => "strict, verifier",
        }
    }

    /// Whether it lets a pair share an answer, apart from the similarity.
    fn allows(self, pair: &JudgedPair) -> bool {
        match self {
            Decision::Cosine => true,
            Decision::Normal => !pair.is_exact_only && pair.allows_normal,
            Decision::Strict => !pair.is_exact_only && pair.allows_strict,
            Decision::NormalVerified => Decision::Normal.allows(pair) && pair.is_verified,
            Decision::StrictVerified => Decision::Strict.allows(pair) && pair.is_verified,
        }
    }
}

/// How many of some pairs are served.
#[derive(Debug, Clone, Copy, Default)]
struct Served {
    served: usize,
    of: usize,
}

impl EvaluatePairs {
    pub(super) async fn run(self) -> Result<()> {
        if self.similarity_min.is_some_and(|min| !(0.0..=1.0).contains(&min)) {
            return Err(Error::new(Kind::InvalidInput, "--similarity-min must be from 0 to 1"));
        }
        let lines: Vec<LabelledPair> = json_lines(&self.file)?.collect::<Result<_>>()?;
        if lines.is_empty() {
            return Err(
                Error::new(Kind::InvalidInput, "there are no pairs").with("file", self.file.display())
            );
        }
        let mut config = self.sources.load().await?;
        // Vectors of the evaluation are no part of the cache of a server.
        let data = temporary_directory()?;
        config.data.dir = data.path().to_owned();
        let guard = Guard::new(lexicon_with(config.answers.semantic.words_dir.as_deref())?);
        let engine = Engine::build(&config).await?;
        let outcome = judge_all(&engine, &guard, lines).await;
        let name = engine.models.default_model().card().name.clone();
        engine.close().await;
        let pairs = outcome?;
        let similarity_min = self.similarity_min.or_else(|| similarity_min_of(&name)).unwrap_or(0.85);
        terminal::say(&report(&name, &pairs, similarity_min));
        Ok(())
    }
}

/// Embeds all texts and asks each part of the decision about each pair.
async fn judge_all(engine: &Engine, guard: &Guard, lines: Vec<LabelledPair>) -> Result<Vec<JudgedPair>> {
    let mut places: HashMap<String, usize> = HashMap::new();
    for text in lines.iter().flat_map(|line| [&line.a, &line.b]) {
        let next = places.len();
        places.entry(text.clone()).or_insert(next);
    }
    let mut texts: Vec<(usize, String)> = places.iter().map(|(text, place)| (*place, text.clone())).collect();
    texts.sort_unstable();
    let progress = terminal::bar(texts.len() + lines.len());
    let mut vectors: Vec<Vec<f32>> = Vec::with_capacity(texts.len());
    for chunk in texts.chunks(CHUNK) {
        let request = Request {
            model: Arc::clone(engine.models.default_model()),
            texts: chunk.iter().map(|(_, text)| text.clone()).collect(),
            input_type: Some(InputType::Query),
            truncate: true,
            principal: Arc::default(),
            directives: Directives::default(),
        };
        let response = engine.embeddings.embed(&request).await?;
        let numbers =
            |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|&four| f32::from_le_bytes(four)).collect();
        vectors.extend(response.entries.iter().map(|entry| -> Vec<f32> { numbers(&entry.value) }));
        progress.inc(chunk.len() as u64);
    }
    let model = engine.models.default_model();
    let judged = tokio::task::block_in_place(|| {
        let verifier = model.verifier();
        let judge = |line: LabelledPair| {
            let similarity = cosine(&vectors[places[&line.a]], &vectors[places[&line.b]]);
            progress.inc(1);
            judge(guard, verifier.map(Arc::as_ref), line, similarity)
        };
        lines.into_iter().map(judge).collect()
    });
    progress.finish_and_clear();
    judged
}

fn judge(
    guard: &Guard,
    verifier: Option<&Verifier>,
    line: LabelledPair,
    similarity: f32,
) -> Result<JudgedPair> {
    let [first, second] = [&line.a, &line.b].map(|question| guard.features(question));
    let allows = |strictness| guard.veto(strictness, &first, &second).is_none();
    let mut pair = JudgedPair {
        is_same: line.label,
        similarity,
        is_exact_only: [&line.a, &line.b].iter().any(|question| guard.exact_only(question).is_some()),
        allows_normal: allows(Strictness::Normal),
        allows_strict: allows(Strictness::Strict),
        is_verified: false,
        kind: line.kind,
        language: line.lang,
    };
    if let Some(verifier) =
        verifier.filter(|_| similarity >= SIMILARITY_MIN && Decision::Normal.allows(&pair))
    {
        let [stored, asked] = [&line.a, &line.b].map(|question| guard.canonical(question));
        let is_read = [&stored, &asked].iter().all(|question| verifier.reads(question.language.code()));
        pair.is_verified = is_read
            && (stored.text == asked.text
                || verifier.margin(&stored.text, &asked.text)?.is_some_and(|margin| margin >= 0.0));
    }
    Ok(pair)
}

fn cosine(one: &[f32], two: &[f32]) -> f32 {
    let dot = |x: &[f32], y: &[f32]| -> f64 { x.iter().zip(y).map(|(x, y)| f64::from(x * y)).sum() };
    (dot(one, two) / (dot(one, one) * dot(two, two)).sqrt()) as f32
}

fn report(model: &str, pairs: &[JudgedPair], similarity_min: f32) -> String {
    let same = pairs.iter().filter(|pair| pair.is_same).count();
    let exact_only = pairs.iter().filter(|pair| pair.is_exact_only).count();
    let mut said = format!(
        "{} pairs: {same} the same, {} others; {exact_only} with a question that is matched by its exact words only; model {model}\n\n",
        pairs.len(),
        pairs.len() - same,
    );
    by_threshold(&mut said, pairs, similarity_min);
    by_kind(&mut said, pairs, similarity_min);
    by_wrong_share(&mut said, pairs);
    said
}

/// What is served at some thresholds, and at the one of the model.
fn by_threshold(said: &mut String, pairs: &[JudgedPair], similarity_min: f32) {
    let mut thresholds = THRESHOLDS.to_vec();
    thresholds.push(similarity_min);
    thresholds.sort_by(f32::total_cmp);
    thresholds.dedup();
    said.push_str(
        "| cosine from | decision | others served | the same served | of those that cosine serves | precision |\n|---|---|---|---|---|---|\n",
    );
    for threshold in thresholds {
        let by_cosine = served(pairs, Decision::Cosine, threshold, |pair| pair.is_same).served;
        for decision in Decision::ALL {
            let others = served(pairs, decision, threshold, |pair| !pair.is_same);
            let same = served(pairs, decision, threshold, |pair| pair.is_same);
            let kept = Served { served: same.served, of: by_cosine };
            let right = Served { served: same.served, of: same.served + others.served };
            let name = decision.name();
            let _ = writeln!(said, "| {threshold:.2} | {name} | {others} | {same} | {kept} | {right} |");
        }
    }
}

/// What is served at one threshold, by kind and language.
fn by_kind(said: &mut String, pairs: &[JudgedPair], threshold: f32) {
    let mut groups: BTreeMap<(bool, &str, &str), usize> = BTreeMap::new();
    pairs.iter().for_each(|pair| *groups.entry((pair.is_same, &pair.kind, &pair.language)).or_default() += 1);
    if groups.len() <= 2 {
        return;
    }
    let names: Vec<&str> = Decision::ALL.iter().map(|decision| decision.name()).collect();
    let _ = writeln!(
        said,
        "\nServed at a cosine from {threshold}:\n\n| | kind | language | pairs | {} |",
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
        let mut allowed: Vec<&JudgedPair> = pairs.iter().filter(|pair| decision.allows(pair)).collect();
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
    threshold: f32,
    of: impl Fn(&JudgedPair) -> bool,
) -> Served {
    let is_served = |pair: &&JudgedPair| pair.similarity >= threshold && decision.allows(pair);
    let group = || pairs.iter().filter(|pair| of(pair));
    Served { served: group().filter(is_served).count(), of: group().count() }
}

impl Served {
    fn share(self) -> f64 {
        if self.of == 0 { 0.0 } else { self.served as f64 / self.of as f64 }
    }

    /// The score interval of Wilson, 1927.
    fn interval(self) -> (f64, f64) {
        let (n, p) = (self.of.max(1) as f64, self.share());
        let center = p + Z * Z / (2.0 * n);
        let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        ((center - half).max(0.0) / scale, (center + half) / scale)
    }
}

impl std::fmt::Display for Served {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (low, high) = self.interval();
        let [share, low, high] = [self.share(), low, high].map(|share| 100.0 * share);
        write!(formatter, "{share:.1} % ({low:.1}-{high:.1})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(similarity: f32, is_same: bool) -> JudgedPair {
        JudgedPair {
            kind: String::new(),
            language: String::new(),
            is_same,
            similarity,
            is_exact_only: false,
            allows_normal: true,
            allows_strict: false,
            is_verified: false,
        }
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
        let counts = Decision::ALL.map(|decision| served(&pairs, decision, 0.8, |pair| pair.is_same).served);
        assert_eq!(counts, [1, 1, 0, 0, 0]);
    }

    #[test]
    fn intervals_are_those_of_wilson() {
        let (low, high) = Served { served: 5, of: 100 }.interval();
        assert!((low - 0.0215).abs() < 1e-3 && (high - 0.1118).abs() < 1e-3, "{low} {high}");
    }
}
