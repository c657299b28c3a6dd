//! Goal: a disk that is really full turns the store off and harms nothing. Method: a small tmpfs, where the test may
//! mount one; where it may not, it says so and passes.

use std::path::Path;
use std::process::Command;

use likewise::error::Kind;
use likewise::storage::{Options, OsFiles};

use super::{Fixture, TempDir, entry, key, small_options, version_of, wait};

pub(super) struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

/// A tmpfs of `size` on `dir`, if this process may mount one; otherwise it says so.
pub(super) fn tmpfs<'a>(dir: &'a Path, size: &str) -> Option<Mounted<'a>> {
    let options = format!("size={size}");
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir).output();
    if mount.is_ok_and(|output| output.status.success()) {
        return Some(Mounted(dir));
    }
    eprintln!(
        "SKIPPED: a tmpfs cannot be mounted here, so the disk is only full in tests/it/storage/faults.rs"
    );
    None
}

#[test]
fn a_full_disk_turns_the_store_off_and_loses_nothing() {
    let dir = TempDir::new("full-disk");
    let Some(_mounted) = tmpfs(dir.path(), "2m") else { return };
    let fixture = Fixture::new(OsFiles, Options { bytes_max: 1 << 30, ..small_options(100, 1600) });
    let (store, _) = fixture.open(dir.path()).unwrap();
    let mut acknowledged = 0;
    let error = loop {
        match wait(store.put_many(vec![(key(acknowledged), entry(acknowledged, 1536, 5000))], None)) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::DiskFull);
    assert!(acknowledged >= 1000, "{acknowledged}");
    assert!(!store.stats().is_on);
    drop(store);
    let (store, report) = fixture.open(dir.path()).unwrap();
    assert_eq!(report.entries, acknowledged);
    for n in 0..acknowledged {
        assert_eq!(version_of(&store.get(&key(n)).unwrap().unwrap()), n);
    }
}
