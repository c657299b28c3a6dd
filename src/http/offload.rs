//! Work whose time grows with a body, kept off the asynchronous runtime: a connection that is served by the same thread
//! waits for it otherwise.

use std::sync::LazyLock;

use tokio::sync::Semaphore;

use crate::error::{Error, Kind, Result};

/// Work on at most so many bytes takes about a millisecond, and a change of threads would cost more than it saves.
pub(super) const INLINE_BYTES_MAX: usize = 256 * 1024;

/// Long work that runs at the same time: as much as there are cores. More would only take turns, and the runtime's own
/// threads would wait for theirs among them.
static RUNNING: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));

/// Runs work on `bytes` bytes: a little at once, more on a thread for blocking work, when one of few places is free.
///
/// # Errors
/// `Internal` if the work panics.
///
/// Cancel safety: work that has not started is dropped; what has started runs to its end, and its result is dropped.
pub(super) async fn offload<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    if bytes <= INLINE_BYTES_MAX {
        return Ok(work());
    }
    let place = RUNNING.acquire().await.expect("the places are never closed: this is a bug");
    let done = tokio::task::spawn_blocking(move || {
        // Held by the work, because a caller that leaves does not end it.
        let _place = place;
        work()
    });
    done.await.map_err(|died| Error::new(Kind::Internal, "work on a long body died").source(died))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_work_leaves_the_thread_of_the_runtime_and_short_work_stays() {
        let here = std::thread::current().id();
        let thread = || std::thread::current().id();
        assert_eq!(offload(INLINE_BYTES_MAX, thread).await.unwrap(), here);
        assert_ne!(offload(INLINE_BYTES_MAX + 1, thread).await.unwrap(), here);
    }

    #[tokio::test]
    async fn work_that_panics_is_an_error_and_gives_its_place_back() {
        for _ in 0..2 * RUNNING.available_permits() + 1 {
            let died = offload::<()>(usize::MAX, || panic!("on purpose")).await;
            assert_eq!(died.unwrap_err().kind(), Kind::Internal);
        }
        assert_eq!(offload(usize::MAX, || 1).await.unwrap(), 1);
    }
}
