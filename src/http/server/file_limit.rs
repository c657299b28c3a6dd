//! File descriptors: every connection needs one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::http::connections::RESERVE;

/// What the process opens beside its connections: segments, logs, indexes, and connections to upstreams.
const OTHER_FILES: u64 = 512;

/// Lifts the process's limit as far as it may, and returns how many connections that allows, at most `wanted`.
pub(in crate::http) fn connections_max(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let lifted = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
        if let Err(error) = lifted {
            tracing::warn!(%error, "the limit of open files could not be lifted");
        }
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let allowed = allowed(files);
    if allowed < wanted {
        tracing::warn!(
            files,
            wanted,
            allowed,
            "http.connections_max is lowered: the limit of open files (ulimit -n) allows no more"
        );
    }
    wanted.min(allowed)
}

/// How many connections leave enough of so many files to the rest of the process.
fn allowed(files: u64) -> usize {
    let beside = OTHER_FILES.min(files / 4) + 2 * RESERVE as u64;
    usize::try_from(files.saturating_sub(beside).max(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_files_are_left_to_the_rest() {
        assert_eq!(allowed(u64::MAX), usize::try_from(u64::MAX - 640).unwrap());
        assert_eq!(allowed(1_048_576), 1_047_936);
        assert_eq!(allowed(1024), 640);
        assert_eq!(allowed(16), 1);
    }
}
