//! The threads of bulk passes, to which the operating system gives what all other threads leave.

use crate::error::{Error, Result};

/// What is added to the nice value of the process for the threads. Linux gives such a thread about a tenth of the time of another one that wants
/// the same processor, and all of it where none does (`sched_prio_to_weight` in `kernel/sched/core.c`: 110 against 1,024).
const NICE: i32 = 10;

/// Threads as many as processors, which compute one bulk pass at a time. An interactive pass, a search or a request that needs a processor gets it from
/// them at once, not at the end of the pass; and they are never starved.
pub(super) struct BulkThreads {
    pool: rayon::ThreadPool,
}

impl BulkThreads {
    /// # Errors
    /// `Io` if the operating system has no threads left.
    pub(super) fn start() -> Result<BulkThreads> {
        let pool = rayon::ThreadPoolBuilder::new()
            .thread_name(|number| format!("bulk-{number}"))
            .start_handler(|_| lower_priority())
            .build()
            .map_err(|error| {
                Error::io("cannot start the threads of bulk passes", std::io::Error::other(error))
            })?;
        Ok(BulkThreads { pool })
    }

    /// Runs a pass on the threads, and waits for it.
    ///
    /// # Panics
    /// If the pass does.
    pub(super) fn run<T: Send>(&self, pass: impl FnOnce() -> T + Send) -> T {
        self.pool.install(pass)
    }
}

/// Raises the nice value of the calling thread: on Linux each thread has its own.
fn lower_priority() {
    // A sandbox may forbid it; passes are then as urgent as all else.
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::warn!(%error, "cannot lower the priority of bulk passes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    #[test]
    fn passes_are_less_urgent_than_the_thread_that_waits_for_them() {
        let before = nice();
        let threads = BulkThreads::start().unwrap();
        let all = threads.pool.broadcast(|_| nice());
        assert!(all.iter().all(|&nice| nice == (before + NICE).min(19)), "{all:?} after {before}");
        assert_eq!(threads.run(rayon::current_num_threads), all.len());
        assert_eq!(nice(), before);
    }
}
