//! Signals: some stop the server, and none ends it without a flush.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use likewise::error::{Error, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Signals that stop the server, by their numbers on Linux (signal(7)): SIGINT, SIGQUIT, SIGTERM, SIGXCPU, SIGPWR.
const STOPS: [i32; 5] = [2, 3, 15, 24, 30];

/// Signals that would end the process and say nothing that concerns it: SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGSTKFLT,
/// SIGXFSZ, SIGVTALRM, SIGPROF, SIGIO. A write past the largest file allowed fails instead.
const IGNORED: [i32; 9] = [1, 10, 12, 14, 16, 25, 26, 27, 29];

/// The real-time signals that programs may use, of which each ends a process by default.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// How long flushing may take at the end, beyond the time of requests under way.
const FLUSH: Duration = Duration::from_secs(60);

/// Takes over all signals. A message comes for each one that asks the server to stop. Until `has_started` is set, such
/// a signal ends the process at once: nothing has been acknowledged yet, and what an earlier run left behind is as safe
/// as in a crash. Later, the process ends `drain` and a minute after the first one at the latest.
///
/// # Errors
/// `Io` if a signal cannot be listened for.
pub(super) fn listen(drain: Duration, has_started: &Arc<AtomicBool>) -> Result<mpsc::Receiver<()>> {
    // More than two would say nothing new.
    let (sender, stops) = mpsc::channel(2);
    let first = Arc::new(Once::new());
    for number in STOPS {
        let mut received = receive(number)?;
        let (sender, has_started, first) = (sender.clone(), Arc::clone(has_started), Arc::clone(&first));
        tokio::spawn(async move {
            while received.recv().await.is_some() {
                if !has_started.load(Ordering::Acquire) {
                    tracing::info!("stopped before the start was complete");
                    std::process::exit(0);
                }
                first.call_once(|| end_within(drain.saturating_add(FLUSH)));
                let _ = sender.try_send(());
            }
        });
    }
    for number in IGNORED.into_iter().chain(REAL_TIME) {
        let mut received = receive(number)?;
        tokio::spawn(async move {
            while received.recv().await.is_some() {
                tracing::info!(number, "a signal was ignored; SIGTERM stops the server");
            }
        });
    }
    Ok(stops)
}

/// Ends the process if it has not ended by itself: whatever hangs, a stop is a stop. On a thread of its own, which needs
/// nothing that could hang.
fn end_within(grace: Duration) {
    let watch = move || {
        std::thread::sleep(grace);
        tracing::error!(seconds = grace.as_secs(), "the server did not stop in time and is ended");
        std::process::exit(1);
    };
    let spawned = std::thread::Builder::new().name("stop".into()).spawn(watch);
    if let Err(error) = spawned {
        tracing::warn!(%error, "the stop is not watched");
    }
}

fn receive(number: i32) -> Result<tokio::signal::unix::Signal> {
    signal(SignalKind::from_raw(number))
        .map_err(|error| Error::io("cannot listen for a signal", error).with("number", number))
}
