//! Where collections lie: their names, their files, and how one of them goes.

use std::path::PathBuf;
use std::sync::Arc;

use super::manifest::{MANIFEST_BYTES_MAX, Manifest};
use crate::error::{Error, Result};
use crate::storage::files::ReadMode;
use crate::storage::files::{Files, Listed, publish, read_all, remove_if_present, stage};

pub(super) const MANIFEST: &str = "manifest";
/// A second copy of the manifest, from which a damaged one is restored.
pub(super) const MANIFEST_COPY: &str = "manifest-copy";
/// The name of a snapshot's manifest.
pub(super) const SNAPSHOT: &str = "snapshot";
/// The name of the record.
pub(super) const BUILD: &str = "build";
/// What the manifest of a collection that is being dropped is called.
pub(super) const DROPPED: &str = "dropped";

/// Where collections lie: all files of one are called `NAME.` and something, in one directory.
#[derive(Debug, Clone)]
pub struct Place {
    /// The files.
    pub files: Arc<dyn Files>,
    /// The directory.
    pub dir: PathBuf,
    /// How segments are read.
    pub read: ReadMode,
}

/// A manifest and its copy on their way, written and flushed under other names.
#[must_use]
pub(super) struct Staged {
    manifest: (PathBuf, PathBuf),
    copy: (Option<PathBuf>, PathBuf),
}

impl Place {
    /// The names of the collections that are there, sorted. What is left of dropped ones is removed.
    ///
    /// # Errors
    /// `Io`.
    pub fn names(&self) -> Result<Vec<String>> {
        let io = |error| Error::io("cannot list the collections", error).with("path", self.dir.display());
        self.files.create_dir(&self.dir).map_err(io)?;
        let listed = self.files.list(&self.dir).map_err(io)?;
        let dropped = listed.iter().filter_map(|file| file.name.split_once('.'));
        for (name, _) in dropped.filter(|(_, what)| *what == DROPPED) {
            // One that cannot be removed does not hide the other collections.
            if let Err(error) = self.remove_files(name) {
                tracing::error!(%error, "what is left of a dropped collection cannot be removed");
            }
        }
        Ok(names_in(&listed))
    }

    /// The names of the collections that are there, sorted, also of those of whose manifest only the copy is left.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn all_names(&self) -> Result<Vec<String>> {
        let io = |error| Error::io("cannot list the collections", error).with("path", self.dir.display());
        Ok(names_in(&self.files.list(&self.dir).map_err(io)?))
    }

    /// Drops a collection, whatever state its files are in: when this returns it is gone for good. Files that cannot be removed
    /// are removed at the next start.
    ///
    /// # Errors
    /// `Io`: it may be there or gone at the next start.
    pub fn drop_collection(&self, name: &str) -> Result<()> {
        let io = |error| Error::io("cannot drop a collection", error).with("collection", name);
        let manifest = self.path(name, MANIFEST);
        let marked = if self.files.open(&manifest).is_ok() {
            let renamed = self.files.rename(&manifest, &self.path(name, DROPPED));
            renamed.and_then(|()| self.files.sync_dir(&self.dir))
        } else {
            // Missing, or no file at all.
            publish(&*self.files, &self.dir, &format!("{name}.{DROPPED}"), &[])
        };
        marked.map_err(io)?;
        if let Err(error) = self.remove_files(name) {
            tracing::warn!(%error, "the collection is dropped; the next start removes what is left of it");
        }
        Ok(())
    }

    /// Removes all files of a collection, the mark that it is dropped last.
    pub(super) fn remove_files(&self, name: &str) -> Result<()> {
        let io = |error| {
            Error::io("cannot remove the files of a dropped collection", error).with("collection", name)
        };
        for file in self.files.list(&self.dir).map_err(io)? {
            if file.name.split_once('.').is_some_and(|(of, rest)| of == name && rest != DROPPED) {
                remove_if_present(&*self.files, &self.dir.join(file.name)).map_err(io)?;
            }
        }
        for what in [MANIFEST, MANIFEST_COPY] {
            // A directory in the place of a file is in no listing.
            remove_if_present(&*self.files, &self.path(name, what)).map_err(io)?;
        }
        self.files.sync_dir(&self.dir).map_err(io)?;
        remove_if_present(&*self.files, &self.path(name, DROPPED)).map_err(io)
    }

    pub(super) fn path(&self, name: &str, what: &str) -> PathBuf {
        self.dir.join(format!("{name}.{what}"))
    }

    pub(super) fn log(&self, name: &str, number: u64) -> PathBuf {
        self.path(name, &format!("{number:010}.log"))
    }

    pub(super) fn segment(&self, name: &str, number: u64) -> PathBuf {
        self.path(name, &format!("{number:010}.rows"))
    }

    /// Reads the manifest, or its copy.
    ///
    /// # Errors
    /// `Corrupt`, `Format`, `Io`.
    pub(super) fn manifest(&self, name: &str, what: &str) -> Result<Manifest> {
        let at = |error: Error| error.with("collection", name);
        let bytes = read_all(&*self.files, &self.path(name, what), MANIFEST_BYTES_MAX)
            .map_err(|error| at(Error::io("cannot read the manifest of a collection", error)))?;
        Manifest::decode(&bytes).map_err(at)
    }

    /// Writes a manifest and its copy beside those that hold.
    ///
    /// # Errors
    /// `Io`, `DiskFull`: nothing has changed.
    pub(super) fn stage(&self, name: &str, manifest: &Manifest) -> Result<Staged> {
        let bytes = manifest.encode();
        let write = |what: &str| stage(&*self.files, &self.dir, &format!("{name}.{what}"), &bytes);
        let staged = write(MANIFEST).map_err(|error| {
            Error::io("cannot write the manifest of a collection", error).with("collection", name)
        })?;
        let copy = write(MANIFEST_COPY).inspect_err(|error| warn_of_copy(name, error)).ok();
        Ok(Staged {
            manifest: (staged, self.path(name, MANIFEST)),
            copy: (copy, self.path(name, MANIFEST_COPY)),
        })
    }

    /// Makes the copy equal to the manifest, if it is not: it is missing in directories of older versions.
    pub(super) fn renew_copy(&self, name: &str, manifest: &Manifest) {
        if self.manifest(name, MANIFEST_COPY).is_ok_and(|copy| copy == *manifest) {
            return;
        }
        let file = format!("{name}.{MANIFEST_COPY}");
        if let Err(error) = publish(&*self.files, &self.dir, &file, &manifest.encode()) {
            warn_of_copy(name, &error);
        }
    }
}

impl Staged {
    /// Puts manifest and copy in the place of those that held: durable when this returns.
    ///
    /// # Errors
    /// `Io`: nothing is known of which manifest holds.
    pub(super) fn publish(self, place: &Place) -> Result<()> {
        let files = &*place.files;
        let Staged { manifest: (staged, manifest), copy: (staged_copy, copy) } = self;
        let io =
            |error| Error::io("publish the manifest of a collection", error).with("path", manifest.display());
        files.rename(&staged, &manifest).map_err(io)?;
        let copied = match &staged_copy {
            Some(staged) => files.rename(staged, &copy),
            None => Err(std::io::ErrorKind::NotFound.into()),
        };
        if copied.is_err() {
            // No copy is better than one of another time: it would bring deleted documents back.
            match remove_if_present(files, &copy) {
                // A directory is no copy either.
                Err(error) if is_directory(&error) => {}
                removed => removed.map_err(io)?,
            }
        }
        files.sync_dir(&place.dir).map_err(io)
    }
}

fn names_in(listed: &[Listed]) -> Vec<String> {
    let (mut names, mut dropped) = (Vec::new(), Vec::new());
    for file in listed {
        match file.name.split_once('.') {
            Some((name, MANIFEST | MANIFEST_COPY)) => names.push(name.to_owned()),
            Some((name, DROPPED)) => dropped.push(name),
            _ => {}
        }
    }
    names.sort();
    names.dedup();
    names.retain(|name| !dropped.contains(&name.as_str()));
    names
}

/// Whether a name could not be removed because a directory has it.
fn is_directory(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::IsADirectory | std::io::ErrorKind::DirectoryNotEmpty)
}

fn warn_of_copy(collection: &str, error: &std::io::Error) {
    tracing::warn!(%error, collection, "the copy of a collection's manifest cannot be written");
}
