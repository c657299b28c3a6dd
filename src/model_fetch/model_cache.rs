//! The directory of fetched models: which of them are complete, who may write one, and how one is installed.
//!
//! A model is in `models/NAME` of the cache. `.verified` in it has the size and the time of the weights that were verified, so that a
//! start needs to hash nothing. What arrives is in `models/.fetch-NAME@REVISION` until all of it is there, so that an attempt can
//! continue an earlier one.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::digest;
use super::progress::FetchProgress;
use crate::error::{Error, Kind, Result};

const MARK: &str = ".verified";
/// The mark of models that an earlier version fetched from the hub.
const EARLIER_MARK: &str = ".complete";
/// Left free on the disk beside the model.
const SPARE_BYTES: u64 = 64 << 20;

pub(super) struct ModelCache {
    models: PathBuf,
}

impl ModelCache {
    pub(super) fn new(cache_dir: &Path) -> ModelCache {
        ModelCache { models: cache_dir.join("models") }
    }

    pub(super) fn place(&self, name: &str) -> ModelPlace<'_> {
        ModelPlace { models: &self.models, name: name.to_owned() }
    }
}

/// Where one model is, or will be.
pub(super) struct ModelPlace<'a> {
    models: &'a Path,
    name: String,
}

impl ModelPlace<'_> {
    pub(super) fn dir(&self) -> PathBuf {
        self.models.join(&self.name)
    }

    /// Whether the model is there and its weights are those that were verified. Weights that only have another time, as after a copy,
    /// are hashed. Writes nothing.
    pub(super) fn is_complete(&self, weights_sha256: Option<&str>) -> bool {
        !matches!(self.verification(weights_sha256), Verification::Failed)
    }

    /// As [`is_complete`](Self::is_complete). Writes the new time into the mark, so that the next call hashes nothing.
    pub(super) fn is_complete_and_marked(&self, weights_sha256: Option<&str>) -> bool {
        match self.verification(weights_sha256) {
            Verification::Failed => false,
            Verification::AsMarked => true,
            Verification::Hashed { mark } => {
                // A directory that cannot be written to is hashed at each start.
                let _ = fs_err::write(self.dir().join(MARK), mark);
                true
            }
        }
    }

    fn verification(&self, weights_sha256: Option<&str>) -> Verification {
        let dir = self.dir();
        let Some(weights) = weights(&dir) else { return Verification::Failed };
        let Ok(mark) = fs_err::read_to_string(dir.join(MARK)) else {
            let has_mark = dir.join(EARLIER_MARK).exists();
            return if has_mark { Verification::AsMarked } else { Verification::Failed };
        };
        let fields: Vec<&str> = mark.split_whitespace().collect();
        let Ok((size, modified)) = size_and_time(&weights) else { return Verification::Failed };
        if fields.first() != Some(&size.to_string().as_str()) {
            return Verification::Failed;
        }
        if fields.get(1) == Some(&modified.to_string().as_str()) {
            return Verification::AsMarked;
        }
        match weights_sha256.or(fields.get(2).copied()) {
            Some(expected) if digest::sha256(&weights).is_ok_and(|found| found == expected) => {
                Verification::Hashed { mark: mark_text(size, modified, expected) }
            }
            _ => Verification::Failed,
        }
    }

    /// Makes this process the only one that writes the model. Blocks while another one does.
    pub(super) fn lock(&self, progress: &dyn FetchProgress) -> Result<ModelSlot> {
        let base = self.models.join(format!(".fetch-{}", self.name.replace('/', "--")));
        let parent = self.dir().parent().map_or_else(|| self.models.to_owned(), Path::to_owned);
        fs_err::create_dir_all(&parent).map_err(not_writable)?;
        let file = fs_err::File::create(base.with_added_extension("lock")).map_err(not_writable)?;
        if file.file().try_lock().is_err() {
            progress.waits_for_another_process();
            let wait = || file.file().lock();
            tokio::task::block_in_place(wait)
                .map_err(|error| Error::io("cannot lock the model cache", error))?;
        }
        Ok(ModelSlot { dir: self.dir(), base, _lock: file })
    }
}

/// Whether the weights of a model are those that were verified.
enum Verification {
    /// They are absent, or others.
    Failed,
    /// Size and time are those of the mark.
    AsMarked,
    /// The time is another one, the hash is the same.
    Hashed {
        /// The mark with the new time.
        mark: String,
    },
}

/// The right to write one model.
pub(super) struct ModelSlot {
    dir: PathBuf,
    base: PathBuf,
    _lock: fs_err::File,
}

impl ModelSlot {
    /// The directory for files of `revision`. It may have some already; files of other revisions are removed.
    pub(super) fn work_dir(&self, revision: &str) -> Result<PathBuf> {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let prefix = format!("{}@", name(&self.base));
        let work = self.base.with_file_name(format!("{prefix}{revision}"));
        let models = self.base.parent().unwrap_or(&self.base);
        for entry in fs_err::read_dir(models).map_err(not_writable)?.flatten() {
            let path = entry.path();
            if name(&path).starts_with(&prefix) && path != work {
                fs_err::remove_dir_all(&path).map_err(not_writable)?;
            }
        }
        fs_err::create_dir_all(&work).map_err(not_writable)?;
        Ok(work)
    }

    /// Refuses a model of `bytes` for which the disk has no room, beside what `work` has of it already.
    pub(super) fn require_room(&self, bytes: u64, work: &Path) -> Result<()> {
        let bytes = bytes.saturating_sub(bytes_below(work));
        let Ok(disk) = rustix::fs::statvfs(self.base.parent().unwrap_or(&self.base)) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if bytes.saturating_add(SPARE_BYTES) <= free {
            return Ok(());
        }
        let message = "the disk has no room for the model: make some, or set LIKEWISE_CACHE_DIR to a directory on \
                       another disk";
        Err(Error::new(Kind::DiskFull, message)
            .with("path", self.base.display())
            .with("needed_mib", bytes >> 20)
            .with("free_mib", free >> 20))
    }

    /// Puts the model that is complete in `model` into its place, in one step.
    pub(super) fn install(&self, model: &Path) -> Result<()> {
        let failed = |error| Error::io("cannot install the model", error);
        let weights = weights(model).ok_or_else(|| {
            Error::new(Kind::Model, "the model has no model.safetensors").with("path", model.display())
        })?;
        let (size, modified) = size_and_time(&weights).map_err(failed)?;
        let mark = mark_text(size, modified, &digest::sha256(&weights)?);
        fs_err::write(model.join(MARK), mark).map_err(failed)?;
        let earlier = self.base.with_added_extension("old");
        remove(&earlier).map_err(failed)?;
        if self.dir.exists() {
            fs_err::rename(&self.dir, &earlier).map_err(failed)?;
        }
        fs_err::rename(model, &self.dir).map_err(failed)?;
        remove(&earlier).map_err(failed)
    }
}

/// Bytes of the files in a directory and in the directories in it.
fn bytes_below(dir: &Path) -> u64 {
    let bytes = |path: &Path| match fs_err::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => bytes_below(path),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    fs_err::read_dir(dir).into_iter().flatten().flatten().map(|entry| bytes(&entry.path())).sum()
}

fn remove(dir: &Path) -> std::io::Result<()> {
    if dir.exists() { fs_err::remove_dir_all(dir) } else { Ok(()) }
}

pub(super) fn not_writable(error: std::io::Error) -> Error {
    let advice =
        "cannot write to the model cache; set LIKEWISE_CACHE_DIR to a directory that can be written to";
    Error::io(advice, error)
}

/// The weights of a model: beside its other files, or in the folder of its first module.
pub(super) fn weights(dir: &Path) -> Option<PathBuf> {
    let places = ["", "0_Transformer"].map(|folder| dir.join(folder).join("model.safetensors"));
    places.into_iter().find(|path| path.is_file())
}

fn size_and_time(path: &Path) -> std::io::Result<(u64, u64)> {
    let metadata = fs_err::metadata(path)?;
    let since = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((metadata.len(), since.as_secs()))
}

fn mark_text(size: u64, modified: u64, sha256: &str) -> String {
    format!("{size} {modified} {sha256}\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Silent;

    impl FetchProgress for Silent {
        fn started(&self, _: &str, _: &str, _: Option<u64>) {}
        fn advanced(&self, _: u64) {}
        fn retried(&self, _: &str) {}
        fn waits_for_another_process(&self) {}
        fn finished(&self) {}
    }

    #[test]
    fn an_installed_model_is_complete_until_its_weights_change() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ModelCache::new(dir.path());
        let place = cache.place("owner/name");
        assert!(!place.is_complete(None));
        let slot = place.lock(&Silent).unwrap();
        let install = |text: &str| {
            let work = slot.work_dir("1").unwrap();
            fs_err::write(work.join("model.safetensors"), text).unwrap();
            slot.install(&work).unwrap();
        };
        install("abc");
        assert!(place.is_complete(None));
        install("abd");
        assert!(place.is_complete(None), "a second one replaces the first");

        let weights = place.dir().join("model.safetensors");
        let later = std::time::SystemTime::now() + Duration::from_secs(60);
        let touch = || fs_err::File::options().write(true).open(&weights).unwrap().file().set_modified(later);
        touch().unwrap();
        let mark = || fs_err::read_to_string(place.dir().join(MARK)).unwrap();
        let earlier = mark();
        assert!(place.is_complete(None), "another time, the same bytes");
        assert_eq!(mark(), earlier, "a look writes nothing");
        assert!(place.is_complete_and_marked(None) && mark() != earlier);
        fs_err::write(&weights, "abe").unwrap();
        assert!(!place.is_complete(None), "the same size, other bytes");
        fs_err::write(&weights, "abcd").unwrap();
        assert!(!place.is_complete(None));
        fs_err::remove_file(&weights).unwrap();
        assert!(!place.is_complete(None));
    }

    #[test]
    fn marks_of_earlier_versions_are_understood() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ModelCache::new(dir.path());
        let place = cache.place("m");
        fs_err::create_dir_all(place.dir()).unwrap();
        let weights = place.dir().join("model.safetensors");
        fs_err::write(&weights, "abc").unwrap();
        let (size, modified) = size_and_time(&weights).unwrap();
        fs_err::write(place.dir().join(MARK), format!("{size} {modified}\n")).unwrap();
        assert!(place.is_complete(None));
        fs_err::write(place.dir().join(MARK), format!("{size} 1\n")).unwrap();
        assert!(!place.is_complete(None));
        assert!(place.is_complete(Some(&digest::sha256(&weights).unwrap())));
        fs_err::remove_file(place.dir().join(MARK)).unwrap();
        assert!(!place.is_complete(None));
        fs_err::write(place.dir().join(EARLIER_MARK), "").unwrap();
        assert!(place.is_complete(None));
    }

    #[test]
    fn files_of_another_revision_are_removed_and_those_of_another_model_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ModelCache::new(dir.path());
        let other = cache.place("a/b-c").lock(&Silent).unwrap().work_dir("1").unwrap();
        let slot = cache.place("a/b").lock(&Silent).unwrap();
        let first = slot.work_dir("1").unwrap();
        assert_eq!(slot.work_dir("1").unwrap(), first);
        let second = slot.work_dir("2").unwrap();
        assert!(!first.exists() && second.exists() && other.exists());
        assert_eq!(slot.require_room(u64::MAX, &second).unwrap_err().kind(), Kind::DiskFull);
        slot.require_room(0, &second).unwrap();
        // Without data: only its length counts.
        let bytes = 1 << 42;
        fs_err::create_dir(second.join("0_Transformer")).unwrap();
        let part = fs_err::File::create(second.join("0_Transformer/model.safetensors.part")).unwrap();
        assert_eq!(slot.require_room(bytes, &second).unwrap_err().kind(), Kind::DiskFull);
        part.set_len(bytes).unwrap();
        slot.require_room(bytes, &second).unwrap();
    }
}
