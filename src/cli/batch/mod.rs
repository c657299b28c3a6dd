//! `likewise batch FILE`: OpenAI's batch lines through a running server, so that lines that it knows are not paid again.
//!
//! What was answered is in the output, line by line. A run that was ended goes on where it was: the custom ids in the output say what is
//! done.

mod answer_file;
mod batch_line;
mod custom_ids;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use likewise::error::{Error, Kind, Result};
use likewise::service::warming::LineRequest;

use self::answer_file::{AnswerFile, AnsweredLine, LineRefusal, LineResponse};
use self::batch_line::BatchLine;
use self::custom_ids::CustomIds;
use super::line_requests::{LineAnswer, LineArgs, LineJob};

/// Answer a file of OpenAI's batch lines by a running server. What its caches have is not paid again.
///
/// A run that was ended goes on with the same `--output`. Exit code: 0 all lines are answered, 3 some are not.
#[derive(Debug, Args)]
pub(super) struct RunBatch {
    #[command(flatten)]
    lines: LineArgs,
    /// Lines with `custom_id`, `method`, `url` and `body`; `-` reads standard input.
    file: PathBuf,
    /// Where the answers go, in the order in which they come; standard output by default. Lines whose answer is there already are left out.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Where lines go that are wrong, or that the server refuses; without it they are only reported.
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,
}

/// The lines of a batch, and where their answers go.
struct BatchJob {
    ids: CustomIds,
    /// Ids that the output had at the beginning.
    answered: CustomIds,
    output: Option<AnswerFile>,
    errors: Option<AnswerFile>,
}

impl RunBatch {
    pub(super) async fn run(self) -> Result<ExitCode> {
        self.refuse_same_files()?;
        if self.lines.is_dry_run() {
            let answered = self.output.as_deref().map(answer_file::answered).transpose()?.unwrap_or_default();
            let mut job = BatchJob { ids: CustomIds::default(), answered, output: None, errors: None };
            let report = self.lines.describe(&self.file, &mut job).await?;
            eprint!("{}", report.faults());
            if report.skipped() > 0 {
                eprintln!("{} lines are in the output already", report.skipped());
            }
            return Ok(report.exit_code());
        }
        let (output, answered) = AnswerFile::resume(self.output.as_deref())?;
        let errors = self.errors.as_deref().map(AnswerFile::create).transpose()?;
        let mut job = BatchJob { ids: CustomIds::default(), answered, output: Some(output), errors };
        let report = self.lines.send(&self.file, &mut job).await?;
        job.output.iter().chain(&job.errors).try_for_each(AnswerFile::sync)?;
        eprint!("{}", report.faults());
        let skipped = match report.skipped() {
            0 => String::new(),
            skipped => format!("; {skipped} were in the output already"),
        };
        eprintln!("{}{skipped}", report.summary("by the model"));
        Ok(report.exit_code())
    }

    /// Refuses files of which one would overwrite another.
    fn refuse_same_files(&self) -> Result<()> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let paths = [Some(&self.file), self.output.as_ref(), self.errors.as_ref()];
        let files: Vec<PathBuf> = paths
            .into_iter()
            .flatten()
            .filter(|path| !path.exists() || path.is_file())
            .map(|path| real(path))
            .collect();
        let repeated = (1..files.len()).find(|&place| files[..place].contains(&files[place]));
        match repeated {
            None => Ok(()),
            Some(place) => {
                let message = "the lines, --output and --errors must be different files";
                Err(Error::new(Kind::InvalidInput, message).with("file", files[place].display()))
            }
        }
    }
}

impl LineJob for BatchJob {
    type Ticket = String;

    fn read(&mut self, number: usize, line: &str) -> Result<Option<(String, LineRequest)>> {
        let line = BatchLine::read(line)?;
        let id = line.custom_id()?;
        if let Some(first) = self.ids.insert(&id, number) {
            let message = format!("the custom_id {id:?} is that of line {first} already");
            return Err(Error::new(Kind::InvalidInput, message));
        }
        let request = line.request()?;
        Ok((!self.answered.contains(&id)).then_some((id, request)))
    }

    fn answered(&mut self, number: usize, id: String, answer: &LineAnswer) -> Result<()> {
        let file = if answer.is_success() { &mut self.output } else { &mut self.errors };
        let Some(file) = file else { return Ok(()) };
        file.write(&AnsweredLine::new(number, Some(&id), Some(LineResponse::of(answer)?), None))
    }

    fn refused(&mut self, number: usize, line: &str, fault: &Error) -> Result<()> {
        let Some(errors) = &mut self.errors else { return Ok(()) };
        let id = BatchLine::read(line).and_then(|line| line.custom_id()).ok();
        errors.write(&AnsweredLine::new(number, id.as_deref(), None, Some(LineRefusal::of(number, fault))))
    }
}
