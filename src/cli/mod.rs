//! The command line: one file for each command.

mod batch;
mod bench;
mod build_index;
mod calibrate;
mod client;
mod doctor;
mod embed;
mod evaluate;
mod export;
mod fetch;
mod file_kind;
mod get;
mod guard;
mod health;
mod import;
mod invalidate;
mod jobs;
mod json_lines;
mod line_faults;
mod line_requests;
mod list;
mod model;
mod npy;
mod partial_file;
mod put;
mod reembed;
mod serve;
mod short_hash;
mod signals;
mod snapshot;
mod sources;
mod terminal;
mod verify;
mod warm;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use likewise::error::{Error, Kind, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// One server between an application and its models that never pays twice for the same work.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve HTTP until SIGTERM or SIGINT.
    Serve(serve::Serve),
    /// Embed the texts of a file through the cache; JSON lines or an array of vectors come out.
    ///
    /// Exit code: 0 all texts are embedded, 3 some are not.
    Embed(embed::Embed),
    Batch(batch::RunBatch),
    Bench(bench::Bench),
    Warm(warm::WarmFile),
    Fetch(fetch::Fetch),
    Doctor(doctor::Doctor),
    Verify(verify::Verify),
    Health(health::Health),
    Get(get::Get),
    Put(put::PutFile),
    Invalidate(invalidate::Invalidate),
    List(list::ListCached),
    Import(import::Import),
    Export(export::Export),
    Snapshot(snapshot::TakeSnapshot),
    Reembed(reembed::Reembed),
    Jobs(jobs::JobsCommand),
    Evaluate(evaluate::Evaluate),
    Calibrate(calibrate::Calibrate),
    Guard(guard::GuardPairs),
    /// Print the OpenAPI document of the HTTP interface.
    Openapi,
    #[command(hide = true)]
    BuildIndex(build_index::BuildIndex),
}

/// Runs the command and turns its error into one line and an exit code.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    // The report of the doctor says what a log would.
    let level = if matches!(cli.command, Command::Doctor(_)) { "off" } else { "info" };
    let filter = EnvFilter::try_from_env("LIKEWISE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // The line of a span has its outcome and its time.
        .with_span_events(FmtSpan::CLOSE)
        .init();
    let outcome = match cli.command {
        Command::Serve(serve) => on_runtime(serve.run()).map(|()| ExitCode::SUCCESS),
        Command::Embed(embed) => on_runtime(embed.run()),
        Command::Batch(batch) => on_runtime(batch.run()),
        Command::Bench(bench) => on_runtime(bench.run()).map(|()| ExitCode::SUCCESS),
        Command::Warm(warm) => on_runtime(warm.run()),
        Command::Doctor(doctor) => on_runtime(doctor.run()),
        Command::Fetch(fetch) => on_runtime(fetch.run()).map(|()| ExitCode::SUCCESS),
        Command::Verify(verify) => verify.run(),
        Command::Health(health) => on_runtime(health.run()).map(|()| ExitCode::SUCCESS),
        Command::Get(get) => on_runtime(get.run()).map(|()| ExitCode::SUCCESS),
        Command::Put(put) => on_runtime(put.run()).map(|()| ExitCode::SUCCESS),
        Command::Invalidate(invalidate) => on_runtime(invalidate.run()).map(|()| ExitCode::SUCCESS),
        Command::List(list) => on_runtime(list.run()).map(|()| ExitCode::SUCCESS),
        Command::Import(import) => on_runtime(import.run()).map(|()| ExitCode::SUCCESS),
        Command::Export(export) => on_runtime(export.run()).map(|()| ExitCode::SUCCESS),
        Command::Snapshot(snapshot) => on_runtime(snapshot.run()).map(|()| ExitCode::SUCCESS),
        Command::Reembed(reembed) => on_runtime(reembed.run()),
        Command::Jobs(jobs) => on_runtime(jobs.run()),
        Command::Calibrate(calibrate) => on_runtime(calibrate.run()).map(|()| ExitCode::SUCCESS),
        Command::Evaluate(evaluate) => on_runtime(evaluate.run()).map(|()| ExitCode::SUCCESS),
        Command::Guard(pairs) => pairs.run().map(|()| ExitCode::SUCCESS),
        Command::BuildIndex(build) => build.run().map(|()| ExitCode::SUCCESS),
        Command::Openapi => {
            terminal::say(&likewise::http::openapi());
            Ok(ExitCode::SUCCESS)
        }
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("likewise: {error}");
            ExitCode::from(exit_code(error.kind()))
        }
    }
}

fn on_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("runtime")
        .build()
        .map_err(|error| Error::io("cannot start the runtime", error))?
        .block_on(work)
}

/// 2 where the operator has to change something first, 3 for what is not cached, 1 for everything else.
fn exit_code(kind: Kind) -> u8 {
    match kind {
        Kind::Config | Kind::Model | Kind::Locked | Kind::Format | Kind::NotFound => 2,
        Kind::NotCached => 3,
        Kind::InvalidInput
        | Kind::TooLarge
        | Kind::UnsupportedCoding
        | Kind::Unauthorized
        | Kind::Forbidden
        | Kind::RequestTimeout
        | Kind::Loop
        | Kind::Unprocessable
        | Kind::MethodNotAllowed
        | Kind::UpgradeRequired
        | Kind::ModelNotFound
        | Kind::Conflict
        | Kind::OnOtherNode
        | Kind::PreconditionFailed
        | Kind::Overloaded
        | Kind::Timeout
        | Kind::Unavailable
        | Kind::Upstream
        | Kind::Corrupt
        | Kind::DiskFull
        | Kind::Io
        | Kind::Internal => 1,
    }
}
