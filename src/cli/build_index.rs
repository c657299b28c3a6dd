//! `likewise build-index`: the process of the server in which one index is built.

use clap::Args;
use likewise::error::{Error, Kind, Result};
use rustix::process::{Pid, Resource, Rlimit, Signal};

/// What mappings may take beside memory: the file that is written, and what allocators reserve.
const RESERVED_BYTES: u64 = 2 << 30;
/// Lower than all that serves.
const NICENESS: i32 = 10;

/// Build an index of the rows on standard input. The server runs this itself.
#[derive(Debug, Args)]
pub(super) struct BuildIndex {
    /// The server's process: this one ends with it.
    #[arg(long)]
    parent: i32,
    /// Bytes of memory that the build may take.
    #[arg(long)]
    memory_bytes: u64,
}

impl BuildIndex {
    pub(super) fn run(self) -> Result<()> {
        let os = |error: rustix::io::Errno| Error::io("cannot limit the process that builds", error.into());
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(os)?;
        if rustix::process::getppid() != Pid::from_raw(self.parent) {
            // It has ended before it was listened for.
            return Err(Error::new(Kind::Unavailable, "the server that began this build has ended"));
        }
        self.limit().map_err(os)?;
        likewise::search::build_index(&mut std::io::stdin().lock())
    }

    fn limit(&self) -> rustix::io::Result<()> {
        let limit = |resource, bytes: u64| {
            // A limit that is lower already stays.
            let current = rustix::process::getrlimit(resource).current.unwrap_or(u64::MAX);
            let bytes = Some(bytes.min(current));
            rustix::process::setrlimit(resource, Rlimit { current: bytes, maximum: bytes })
        };
        let (all, data) = mapped_bytes();
        limit(Resource::Data, data.saturating_add(self.memory_bytes))?;
        limit(Resource::As, all.saturating_add(self.memory_bytes).saturating_add(RESERVED_BYTES))?;
        limit(Resource::Core, 0)?;
        rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
        // Neither is needed: a build that is not polite is still a build.
        let _ = rustix::process::nice(NICENESS);
        let _ = fs_err::write("/proc/self/oom_score_adj", "1000");
        Ok(())
    }
}

/// Bytes of address space that this process has already, and of data: proc(5), `statm`.
fn mapped_bytes() -> (u64, u64) {
    let statm = fs_err::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = |place: usize| statm.split(' ').nth(place).and_then(|pages| pages.parse::<u64>().ok());
    let bytes = |place| pages(place).unwrap_or(0) * rustix::param::page_size() as u64;
    (bytes(0), bytes(5))
}
