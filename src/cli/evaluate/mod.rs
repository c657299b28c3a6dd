//! `likewise evaluate`: quality on judged data, and what is saved on repeated questions.

mod answers;
mod chart;
mod decision;
mod draw;
mod judged_file;
mod pair_judge;
mod pairs;
mod questions;
mod random;
mod search;
mod share;
mod simulated_upstream;
mod stream;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use clap::{Args, Subcommand};
use likewise::error::{Error, Result};
use likewise::service::answers::Similarities;
use tempfile::TempDir;

pub(super) use self::judged_file::JudgedFile;
pub(super) use self::pair_judge::PairJudge;
pub(super) use self::random::SplitMix;
pub(super) use self::share::Share;
pub(super) use self::stream::warm_candidates;

/// Measure quality on judged data, and what is saved on repeated questions.
#[derive(Debug, Args)]
pub(super) struct Evaluate {
    #[command(subcommand)]
    what: Evaluation,
}

#[derive(Debug, Subcommand)]
enum Evaluation {
    /// Search: nDCG, recall and reciprocal rank of the first ten results, over a corpus in the layout of BEIR.
    Search(search::EvaluateSearch),
    Answers(answers::EvaluateAnswers),
    Pairs(pairs::EvaluatePairs),
    Questions(questions::EvaluateQuestions),
}

impl Evaluate {
    pub(super) async fn run(self) -> Result<()> {
        match self.what {
            Evaluation::Search(search) => search.run().await,
            Evaluation::Answers(answers) => answers.run().await,
            Evaluation::Pairs(pairs) => pairs.run().await,
            Evaluation::Questions(questions) => questions.run().await,
        }
    }
}

/// The smallest similarities of an option, or else those of the model, or else what is usual.
fn shipped_or(similarity_min: Option<f32>, model: &str) -> Similarities {
    let usual = Similarities::same(0.85);
    similarity_min.map(Similarities::same).or_else(|| Similarities::shipped(model)).unwrap_or(usual)
}

/// A directory for the data of an evaluation, which is removed with it: nothing of an evaluation is a part of the cache of a server.
pub(super) fn temporary_directory() -> Result<TempDir> {
    // As private as the data directory of a server.
    let private = Permissions::from_mode(0o700);
    tempfile::Builder::new()
        .permissions(private)
        .tempdir()
        .map_err(|error| Error::io("cannot make a directory for the data of the evaluation", error))
}
