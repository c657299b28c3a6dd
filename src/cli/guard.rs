//! `likewise guard FILE`: what the rules say of pairs of questions.

use std::io::{self, BufRead, BufReader, BufWriter, Write as _};
use std::path::PathBuf;

use clap::Args;
use likewise::error::{Error, Kind, Result};
use likewise::matching::guard::{Guard, Strictness};
use likewise::service::answers::lexicon_with;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::json_lines::lines_of;

/// Say of pairs of questions why they may not share an answer. JSON lines with `a` and `b` come in; the same come out with the conflicts,
/// whether `normal` and `strict` find no conflict that forbids to share one, why each may be matched by its exact words only, and the canonical form
/// that the verifier reads. No model is loaded.
#[derive(Debug, Args)]
pub(super) struct GuardPairs {
    /// Pairs as JSON lines; `-` reads standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Words that are added to the lists of the guard, as in `answers.semantic.words_dir`.
    #[arg(long, value_name = "DIR")]
    words_dir: Option<PathBuf>,
}

/// What is written for each pair. Members of this name that come in are replaced.
const WRITTEN_MEMBERS: [&str; 6] =
    ["canonical_a", "canonical_b", "allowed", "conflicts", "exact_only_a", "exact_only_b"];

#[derive(Deserialize)]
struct PairLine {
    a: String,
    b: String,
    /// Kept as they are.
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Serialize)]
struct CheckedPair<'a> {
    a: &'a str,
    b: &'a str,
    canonical_a: String,
    canonical_b: String,
    allowed: Allowed,
    conflicts: Vec<ConflictLine>,
    exact_only_a: Option<&'static str>,
    exact_only_b: Option<&'static str>,
    #[serde(flatten)]
    others: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct Allowed {
    normal: bool,
    strict: bool,
}

#[derive(Serialize)]
struct ConflictLine {
    kind: &'static str,
    strength: &'static str,
    a: String,
    b: String,
}

impl GuardPairs {
    pub(super) fn run(self) -> Result<()> {
        let reader: Box<dyn BufRead> = if self.file.as_os_str() == "-" {
            Box::new(io::stdin().lock())
        } else {
            let file = fs_err::File::open(&self.file)
                .map_err(|error| Error::new(Kind::Config, "cannot open the pairs").source(error))?;
            Box::new(BufReader::new(file))
        };
        let guard = Guard::new(lexicon_with(self.words_dir.as_deref())?);
        let mut output = BufWriter::new(io::stdout().lock());
        let unwritten = |error| Error::io("cannot write the checked pairs", error);
        for (number, line) in lines_of(reader) {
            let fault = |message: String| Error::new(Kind::InvalidInput, message).with("line", number);
            let line = line.map_err(|error| error.with("line", number))?;
            let mut pair: PairLine = serde_json::from_str(&line)
                .map_err(|error| fault(format!("a line must be an object with a and b: {error}")))?;
            pair.others.retain(|name, _| !WRITTEN_MEMBERS.contains(&name.as_str()));
            let checked = serde_json::to_string(&checked(&guard, &pair))
                .map_err(|error| fault(format!("cannot write a line: {error}")))?;
            match writeln!(output, "{checked}") {
                // A reader that has gone away is no reason to fail.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.map_err(unwritten)?,
            }
        }
        match output.flush() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            flushed => flushed.map_err(unwritten),
        }
    }
}

fn checked<'a>(guard: &Guard, pair: &'a PairLine) -> CheckedPair<'a> {
    let [first, second] = [&pair.a, &pair.b].map(|question| guard.features(question));
    let allows = |strictness| guard.veto(strictness, &first, &second).is_none();
    CheckedPair {
        a: &pair.a,
        b: &pair.b,
        canonical_a: guard.canonical(&pair.a).text,
        canonical_b: guard.canonical(&pair.b).text,
        allowed: Allowed { normal: allows(Strictness::Normal), strict: allows(Strictness::Strict) },
        conflicts: guard
            .conflicts(&first, &second)
            .into_iter()
            .map(|conflict| ConflictLine {
                kind: conflict.kind.as_str(),
                strength: conflict.strength.as_str(),
                a: conflict.first.to_owned(),
                b: conflict.second.to_owned(),
            })
            .collect(),
        exact_only_a: guard.exact_only(&pair.a).map(|reason| reason.as_str()),
        exact_only_b: guard.exact_only(&pair.b).map(|reason| reason.as_str()),
        others: &pair.others,
    }
}
