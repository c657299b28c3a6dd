//! The download of one file: continued where an earlier attempt ended, verified, then renamed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err::File;
use reqwest::header::{CONTENT_RANGE, HeaderMap};
use reqwest::{Response, StatusCode, Url};

use super::digest::FileDigest;
use super::model_cache::not_writable;
use super::progress::FetchProgress;
use super::remote_source::{RemoteSource, SourceReply};
use crate::error::{Error, Kind, Result};
use crate::pacing::{backoff, retry_after};

/// Attempts in a row that bring no byte.
const ATTEMPTS_MAX: u32 = 4;
/// The shortest and the longest wait before an attempt.
const WAITS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(8)];
/// The longest wait that a source may ask for.
const WAIT_ASKED_MAX: Duration = Duration::from_secs(60);

/// A file as its source announces it.
pub(super) struct RemoteFile {
    pub(super) url: Url,
    /// How messages name it.
    pub(super) name: String,
    pub(super) bytes: Option<u64>,
    /// A longer file is refused, whatever is announced.
    pub(super) bytes_max: u64,
    pub(super) digest: Option<FileDigest>,
}

/// Why an attempt failed.
enum AttemptFailure {
    /// A retry may succeed, after the wait that the source asks for.
    Transient(Error, Option<Duration>),
    Final(Error),
}

impl From<Error> for AttemptFailure {
    fn from(error: Error) -> AttemptFailure {
        if error.kind() == Kind::Unavailable {
            AttemptFailure::Transient(error, None)
        } else {
            AttemptFailure::Final(error)
        }
    }
}

/// Downloads `file` to `path`, unless it is there. `refusal` words a status that is no success.
pub(super) async fn download(
    source: &RemoteSource,
    file: &RemoteFile,
    path: &Path,
    progress: &dyn FetchProgress,
    refusal: &(dyn Fn(StatusCode, &HeaderMap) -> Error + Sync),
) -> Result<()> {
    if path.is_file() {
        progress.advanced(size(path));
        return Ok(());
    }
    let part = part_of(path);
    // Without a digest, nothing would show that the rest belongs to another version of the file.
    if file.digest.is_none() {
        remove(&part)?;
    }
    let mut attempt =
        Attempt { source, file, part: &part, progress, refusal, digest: file.digest.clone(), counted: 0 };
    let (mut failures, mut was_discarded) = (0, false);
    loop {
        let before = size(&part);
        let failure = match attempt.run().await {
            Ok(()) => {
                let Some(mismatch) = attempt.hash_mismatch()? else { return finish(&part, path) };
                remove(&part)?;
                // What an earlier attempt left may have been of another version.
                if before > 0 && !was_discarded {
                    was_discarded = true;
                    continue;
                }
                return Err(mismatch);
            }
            Err(AttemptFailure::Final(error)) => return Err(error),
            Err(AttemptFailure::Transient(error, wait)) => (error, wait),
        };
        failures = if size(&part) > before { 1 } else { failures + 1 };
        let (error, wait) = failure;
        if failures >= ATTEMPTS_MAX {
            return Err(error);
        }
        progress.retried(&error.to_string());
        let [first, longest] = WAITS;
        tokio::time::sleep(
            wait.unwrap_or_default().min(WAIT_ASKED_MAX).max(backoff(failures, first, longest)),
        )
        .await;
    }
}

struct Attempt<'a> {
    source: &'a RemoteSource,
    file: &'a RemoteFile,
    part: &'a Path,
    progress: &'a dyn FetchProgress,
    refusal: &'a (dyn Fn(StatusCode, &HeaderMap) -> Error + Sync),
    digest: Option<FileDigest>,
    /// Bytes that `progress` knows of.
    counted: u64,
}

impl Attempt<'_> {
    /// Makes the part the whole file, as far as its length shows.
    async fn run(&mut self) -> Result<(), AttemptFailure> {
        let mut have = size(self.part);
        if self.file.bytes.is_some_and(|bytes| have > bytes) {
            remove(self.part)?;
            have = 0;
        }
        if have > 0 && self.file.bytes == Some(have) {
            self.count(have);
            return Ok(());
        }
        let SourceReply { mut response, digest } = self.source.get(self.file.url.clone(), None, have).await?;
        self.digest = self.digest.take().or(digest);
        let mut part = self.open(&response, have)?;
        let mut written = size(self.part);
        self.count(written);
        while let Some(chunk) = self.source.chunk(&mut response).await? {
            written += chunk.len() as u64;
            if written > self.file.bytes.unwrap_or(self.file.bytes_max).min(self.file.bytes_max) {
                remove(self.part)?;
                return Err(AttemptFailure::Final(self.too_long()));
            }
            tokio::task::block_in_place(|| part.write_all(&chunk)).map_err(not_writable)?;
            self.count(written);
        }
        if self.file.bytes.is_some_and(|bytes| written < bytes) {
            let message = format!("{} ended after {written} bytes", self.file.name);
            return Err(AttemptFailure::Transient(Error::new(Kind::Unavailable, message), None));
        }
        // A mark must not outlive the bytes that it is about.
        Ok(tokio::task::block_in_place(|| part.sync_all()).map_err(not_writable)?)
    }

    /// The file to append to, according to the status: the whole file comes, or what follows byte `have`.
    fn open(&self, response: &Response, have: u64) -> Result<File, AttemptFailure> {
        let status = response.status();
        let continues = || {
            let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
            range.is_some_and(|range| range.starts_with(&format!("bytes {have}-")))
        };
        let mut options = File::options();
        match status {
            StatusCode::OK => options.create(true).write(true).truncate(true),
            StatusCode::PARTIAL_CONTENT if continues() => options.create(true).append(true),
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                remove(self.part)?;
                let error =
                    Error::new(Kind::Unavailable, format!("{} could not be continued", self.file.name));
                return Err(AttemptFailure::Transient(error, None));
            }
            _ => return Err(self.refused(status, response.headers())),
        };
        Ok(options.open(self.part).map_err(not_writable)?)
    }

    fn refused(&self, status: StatusCode, headers: &HeaderMap) -> AttemptFailure {
        let error = (self.refusal)(status, headers);
        match status.as_u16() {
            408 | 429 | 500..=599 => {
                let wait = retry_after(|name| headers.get(name)?.to_str().ok());
                AttemptFailure::Transient(error, wait)
            }
            _ => AttemptFailure::Final(error),
        }
    }

    fn count(&mut self, written: u64) {
        self.progress.advanced(written.saturating_sub(self.counted));
        self.counted = self.counted.max(written);
    }

    /// The error about a part whose hash is not the announced one.
    fn hash_mismatch(&self) -> Result<Option<Error>> {
        let Some(digest) = &self.digest else { return Ok(None) };
        let found = tokio::task::block_in_place(|| digest.mismatch(self.part))?;
        let Some(found) = found else { return Ok(None) };
        let message = format!(
            "{} of {} has another hash than announced; nothing was installed. Try again; if it happens again, a proxy \
             or mirror changes the file",
            self.file.name,
            self.source.name()
        );
        let error = Error::new(Kind::Corrupt, message);
        Ok(Some(error.with("expected", digest.digits()).with("got", found)))
    }

    fn too_long(&self) -> Error {
        let message = format!("{} of {} is longer than announced", self.file.name, self.source.name());
        Error::new(Kind::Corrupt, message)
    }
}

/// Where the bytes of `path` are until they are verified.
fn part_of(path: &Path) -> PathBuf {
    path.with_added_extension("part")
}

fn finish(part: &Path, path: &Path) -> Result<()> {
    fs_err::rename(part, path).map_err(not_writable)
}

fn size(path: &Path) -> u64 {
    fs_err::metadata(path).map_or(0, |metadata| metadata.len())
}

fn remove(part: &Path) -> Result<()> {
    match fs_err::remove_file(part) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(not_writable(error)),
        _ => Ok(()),
    }
}
