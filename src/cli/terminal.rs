//! Output for people and pipes.

use std::io::Write as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Writes to standard output. A reader that has gone away is no reason to end.
pub(super) fn say(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// A progress bar on standard error.
pub(super) fn bar(texts: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len}, {per_sec}, {eta} left")
        .expect("the template is constant: this is a bug");
    let bar = ProgressBar::new(texts as u64).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A count on standard error, where it is not known how many there are.
pub(super) fn counter() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {pos}, {per_sec}")
        .expect("the template is constant: this is a bug");
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
