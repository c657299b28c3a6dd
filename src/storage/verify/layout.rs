//! Which names there must be in a data directory, and what has them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::report::{Report, State};
use crate::error::{Error, Result};
use crate::storage::directory::{COLLECTIONS, FORMAT_NAME, RECORDS, VECTORS, records_in, vectors_in};
use crate::storage::hot_keys_file::HOT_KEYS_NAME;
use crate::storage::records::RECORDS_NAME;

/// Reports folders in the place of files, and the other way round.
pub(super) fn check(root: &Path, report: &mut Report) -> Result<()> {
    for misplaced in misplaced(root)? {
        let what =
            if root.join(&misplaced).is_dir() { "is a directory, not a file" } else { "is no directory" };
        report.add(misplaced, State::Damaged, what);
    }
    if !vectors_in(root).exists() && records_in(root).join(RECORDS_NAME).exists() {
        // Made before the records at the first start.
        report.add(VECTORS, State::Damaged, "missing");
    }
    Ok(())
}

/// What has a name of ours and is of the other kind, relative to the data directory.
pub(super) fn misplaced(root: &Path) -> Result<Vec<PathBuf>> {
    let folders = [VECTORS, RECORDS, COLLECTIONS];
    let is_folder = |name: &str| folders.contains(&name);
    let mut misplaced = misplaced_in(root, |name, is_dir| {
        if is_folder(name) { !is_dir } else { is_dir && [FORMAT_NAME, HOT_KEYS_NAME].contains(&name) }
    })?;
    for folder in folders {
        if root.join(folder).is_dir() {
            // All files of ours in there have a suffix, but for the manifest of the vectors.
            let has_our_name = |name: &str| name.contains('.') || name == "MANIFEST";
            let found = misplaced_in(&root.join(folder), |name, is_dir| is_dir && has_our_name(name))?;
            misplaced.extend(found.into_iter().map(|name| Path::new(folder).join(name)));
        }
    }
    Ok(misplaced)
}

/// The names in `dir` of which `is_misplaced` says so, given whether they are something else than a file.
fn misplaced_in(dir: &Path, is_misplaced: impl Fn(&str, bool) -> bool) -> Result<Vec<PathBuf>> {
    let io = |error| Error::io("cannot list a directory", error).with("path", dir.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default();
        // A link counts as what it leads to.
        let is_file = path.is_file();
        if is_misplaced(&name.to_string_lossy(), !is_file && path.exists()) {
            names.push(PathBuf::from(name));
        }
    }
    names.sort();
    Ok(names)
}

/// Whether anything was ever stored beside the records: then there are all files that a start creates.
pub(super) fn is_used(root: &Path) -> bool {
    let is_stored = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        name != RECORDS_NAME && path.extension() != Some(OsStr::new("tmp"))
    };
    [VECTORS, RECORDS, COLLECTIONS].iter().any(|folder| {
        let listed = fs::read_dir(root.join(folder));
        listed.is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(|entry| is_stored(&entry.path()))))
    })
}

/// A name in `dir` that nothing has: `name` itself, or with a number behind it.
pub(super) fn unused(dir: &Path, name: &OsStr) -> PathBuf {
    let numbered = |n: u32| {
        let mut numbered = name.to_os_string();
        numbered.push(format!("-{n}"));
        dir.join(numbered)
    };
    let names = std::iter::once(dir.join(name)).chain((2..).map(numbered));
    names.into_iter().find(|path| fs::symlink_metadata(path).is_err()).unwrap_or_else(|| dir.join(name))
}
