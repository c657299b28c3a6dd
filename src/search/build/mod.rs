//! Builds of indexes, each in a process of its own with limits of memory and time.
//!
//! FAISS does not check what it computes with: a build may divide by zero, write anywhere, take all memory, or never end.
//! In a process of its own that costs one collection its index, and nothing else. The process is this program again
//! (`build-index`), which reads rows from its standard input and writes the file of the index. What it prints is read when
//! it has failed.

mod child;
mod failure;
mod task;

use std::ffi::OsString;
use std::io::{self, PipeReader, Read as _, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use likewise_index::{Cost, training};

pub use child::build_index;
pub(super) use failure::{BuildFailure, FailureCause};
pub(super) use task::BuildTask;

use self::task::PIECE_BYTES;

/// How often a build is asked whether it is still wanted.
const POLL: Duration = Duration::from_millis(50);
/// What is read of the end of what a build prints.
const OUTPUT_BYTES_MAX: usize = 2048;
/// Where the system looks for libraries first: ld.so(8).
const LIBRARIES: &str = "LD_LIBRARY_PATH";
/// The program that builds indexes: it takes these arguments, then `--parent PID --memory-bytes N`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// This program, as it was started: its file may have been replaced since (proc(5), `/proc/PID/exe`).
    pub fn this() -> Program {
        Program::at("/proc/self/exe")
    }

    /// The program at a path.
    pub fn at(path: impl Into<PathBuf>) -> Program {
        Program { path: path.into(), arguments: vec!["build-index".into()] }
    }
}

/// How a build ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BuildEnd {
    Built,
    /// It was ended, because its index is no longer wanted.
    Unwanted,
}

/// Builds an index of rows and waits for it. Blocks.
pub(super) fn run(
    program: &Program,
    task: &BuildTask,
    rows: &[&[f32]],
    limits: Cost,
    is_wanted: impl Fn() -> bool,
) -> Result<BuildEnd, BuildFailure> {
    let start = Instant::now();
    let (mut child, output) = spawn(program, limits).map_err(|error| {
        BuildFailure::new(FailureCause::World, "the process that builds could not be started").source(error)
    })?;
    let stdin = child.stdin.take();
    std::thread::scope(|scope| {
        // It ends when the process does: the pipe breaks then.
        let feeder = scope.spawn(move || stdin.map_or(Ok(()), |mut stdin| feed(&mut stdin, task, rows)));
        let (done, ended) = mpsc::sync_channel(1);
        scope.spawn(move || done.send(last_of(output)));
        let printed = loop {
            match ended.recv_timeout(POLL) {
                Ok(printed) => break printed,
                Err(RecvTimeoutError::Disconnected) => break String::new(),
                Err(RecvTimeoutError::Timeout) if !is_wanted() => {
                    end(&mut child);
                    return Ok(BuildEnd::Unwanted);
                }
                Err(RecvTimeoutError::Timeout) if start.elapsed().as_secs() >= limits.seconds => {
                    end(&mut child);
                    return Err(took_too_long(limits));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        let Some(status) = wait(&mut child, start, limits, is_wanted)? else { return Ok(BuildEnd::Unwanted) };
        let fed = feeder.join().unwrap_or(Ok(()));
        judge(status, &printed, fed, limits)
    })
}

fn spawn(program: &Program, limits: Cost) -> io::Result<(Child, PipeReader)> {
    let (output, input) = io::pipe()?;
    let mut command = Command::new(&program.path);
    command
        .args(&program.arguments)
        .args(["--parent", &std::process::id().to_string()])
        .args(["--memory-bytes", &limits.memory_bytes.to_string()])
        // It needs no keys of models, but the libraries that this program was started with.
        .env_clear()
        .envs(std::env::var_os(LIBRARIES).map(|path| (LIBRARIES, path)))
        .stdin(Stdio::piped())
        .stdout(input.try_clone()?)
        .stderr(input);
    // The other end of its output is closed with the command, so that the output ends with the process.
    Ok((command.spawn()?, output))
}

fn feed(to: &mut impl Write, task: &BuildTask, rows: &[&[f32]]) -> io::Result<()> {
    let head = serde_json::to_vec(task)?;
    to.write_all(&(head.len() as u32).to_le_bytes())?;
    to.write_all(&head)?;
    let mut piece = Vec::with_capacity(PIECE_BYTES + 4 * task.dim);
    let trained_on = training(rows.iter().copied(), task.training_rows);
    for row in trained_on.chain(rows.iter().copied()) {
        piece.extend(row.iter().flat_map(|component| component.to_le_bytes()));
        if piece.len() >= PIECE_BYTES {
            to.write_all(&piece)?;
            piece.clear();
        }
    }
    to.write_all(&piece)
}

/// The end of what a process prints, once it has closed its output.
fn last_of(mut output: PipeReader) -> String {
    let (mut last, mut piece) = (Vec::new(), [0; OUTPUT_BYTES_MAX]);
    while let Ok(count @ 1..) = output.read(&mut piece) {
        last.extend_from_slice(&piece[..count]);
        let surplus = last.len().saturating_sub(OUTPUT_BYTES_MAX);
        last.drain(..surplus);
    }
    String::from_utf8_lossy(&last).trim().to_owned()
}

/// Waits for a process that has closed its output, which need not be its end. `None` if it is no longer wanted.
fn wait(
    child: &mut Child,
    start: Instant,
    limits: Cost,
    is_wanted: impl Fn() -> bool,
) -> Result<Option<ExitStatus>, BuildFailure> {
    let mut pause = Duration::from_millis(1);
    loop {
        let ended = child.try_wait().map_err(|error| {
            BuildFailure::new(FailureCause::World, "the process that builds could not be waited for")
                .source(error)
        });
        match ended? {
            Some(status) => return Ok(Some(status)),
            None if !is_wanted() => {
                end(child);
                return Ok(None);
            }
            None if start.elapsed().as_secs() >= limits.seconds => {
                end(child);
                return Err(took_too_long(limits));
            }
            None => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(POLL);
    }
}

fn took_too_long(limits: Cost) -> BuildFailure {
    BuildFailure::new(FailureCause::Time, format!("it took longer than {} s", limits.seconds))
}

fn end(child: &mut Child) {
    // It may have ended by itself; either way it is waited for.
    let _ = child.kill();
    let _ = child.wait();
}

/// What the end of a process says of the build.
fn judge(
    status: ExitStatus,
    printed: &str,
    fed: io::Result<()>,
    limits: Cost,
) -> Result<BuildEnd, BuildFailure> {
    if status.success() {
        let failed =
            |error| BuildFailure::new(FailureCause::World, "its rows could not be handed over").source(error);
        return fed.map(|()| BuildEnd::Built).map_err(failed);
    }
    let mib = limits.memory_bytes >> 20;
    // FAISS's C interface names no other exception than its own; what the library throws is for want of memory.
    let is_out_of_memory = [
        "bad_alloc",
        "FAISS: std::exception",
        "memory allocation of",
        "Thread creation failed",
        "Cannot allocate memory",
    ]
    .iter()
    .any(|sign| printed.contains(sign));
    let failure = match status.signal() {
        _ if is_out_of_memory => {
            BuildFailure::new(FailureCause::Memory, format!("it needed more than {mib} MiB of memory"))
        }
        _ if printed.contains(child::UNWRITTEN) => {
            BuildFailure::new(FailureCause::World, "its file could not be written")
        }
        Some(9) => BuildFailure::new(
            FailureCause::Memory,
            "it was ended by signal 9, as the system does when memory runs out",
        ),
        Some(signal) => BuildFailure::new(FailureCause::Crash, format!("it was ended by signal {signal}")),
        None if status.code() == Some(1) => {
            let said = printed.lines().next_back().unwrap_or_default();
            let said = said.strip_prefix("likewise: ").unwrap_or(said);
            BuildFailure::new(FailureCause::SpecError, said.chars().take(300).collect::<String>())
        }
        None => BuildFailure::new(FailureCause::Crash, format!("it ended with {status}")),
    };
    Err(failure.printed(printed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_goes_on_without_its_output_is_ended_at_its_limit() {
        let limits = Cost { memory_bytes: 1 << 30, seconds: 0 };
        let start = || Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn().unwrap();
        let mut child = start();
        let failure = wait(&mut child, Instant::now(), limits, || true).unwrap_err();
        assert_eq!(failure.cause, FailureCause::Time);
        assert_eq!(child.try_wait().unwrap().and_then(|status| status.signal()), Some(9));
        let mut child = start();
        let limits = Cost { seconds: 1000, ..limits };
        assert!(wait(&mut child, Instant::now(), limits, || false).unwrap().is_none());
        assert_eq!(child.try_wait().unwrap().and_then(|status| status.signal()), Some(9));
    }
}
