//! The data directory. It is not opened, so a server that uses it is not disturbed.

use std::path::Path;

use likewise::config::CacheConfig;
use likewise::error::Kind;
use likewise::storage::directory::{DirectoryUse, inspect};
use rustix::fs::{Access, AtFlags, CWD, accessat, statfs, statvfs};

use super::Check;

/// File systems on which a flush or a map may not hold what it promises, or that do not last, by their numbers (statfs(2)).
const POOR_FILE_SYSTEMS: [(i64, &str); 7] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "FUSE"),
    (0x0102_1994, "tmpfs, which is empty after a restart"),
    (0x794c_7630, "overlayfs, which is empty in the next container"),
];

/// Bytes beside the tiers: records, logs, collections.
const BESIDE_BYTES: u64 = 256 << 20;

/// `listener` is the process that listens on the address of this configuration.
pub(super) fn checks(dir: &Path, cache: &CacheConfig, listener: Option<u32>) -> Vec<Check> {
    let mut checks = vec![state(dir, listener)];
    // What is not there yet will be on the disk of the nearest directory that is.
    let Some(existing) = dir.ancestors().map(as_current).find(|dir| dir.exists()) else { return checks };
    checks.push(access(dir, existing));
    checks.push(room(existing, cache));
    checks.push(file_system(existing));
    checks
}

/// The parent of a relative path of one name is the current directory.
fn as_current(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// The process that uses the directory.
pub(super) fn holder(dir: &Path) -> Option<u32> {
    match inspect(dir) {
        Ok(Some(DirectoryUse::Held { process })) => process,
        _ => None,
    }
}

fn state(dir: &Path, listener: Option<u32>) -> Check {
    let shown = dir.display();
    match inspect(dir) {
        Ok(None) => Check::ok("data", format!("{shown} does not exist yet, and will be made")),
        Ok(Some(found)) => match found {
            DirectoryUse::Free { format: None } => Check::ok("data", format!("{shown} is empty")),
            DirectoryUse::Free { format: Some(version) } => {
                Check::ok("data", format!("{shown}, of format {version}, is free"))
            }
            DirectoryUse::Held { process: Some(process) } if listener == Some(process) => {
                let detail =
                    format!("{shown} is in use by process {process}, the server of this configuration");
                Check::warn("data", detail, "nothing: it runs; a second server needs another --data-dir")
            }
            DirectoryUse::Held { process } => {
                let process =
                    process.map_or_else(|| "a process".into(), |process| format!("process {process}"));
                let advice = "stop that process, or give --data-dir another directory";
                Check::fail("data", format!("{shown} is in use by {process}"), advice)
            }
        },
        Err(error) => {
            let advice = if error.kind() == Kind::Corrupt {
                format!("type `likewise verify {shown}`, then `likewise verify {shown} --repair`")
            } else if error.kind() == Kind::Format {
                "start the version that wrote it, or give --data-dir another directory".into()
            } else {
                "give --data-dir a directory that this user can read and write".to_owned()
            };
            Check::fault("data", &error.advise(advice))
        }
    }
}

fn access(dir: &Path, existing: &Path) -> Check {
    if !existing.is_dir() {
        let detail = format!("{} is no directory", existing.display());
        return Check::fail("access", detail, "give --data-dir the name of a directory");
    }
    let wanted = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    match accessat(CWD, existing, wanted, AtFlags::EACCESS) {
        Ok(()) => Check::ok("access", format!("{} can be written to", existing.display())),
        Err(error) => {
            let detail = format!("{} cannot be written to: {error}", existing.display());
            let advice = format!(
                "type `sudo chown -R $USER {0}`, or give --data-dir another directory than {0}",
                dir.display()
            );
            Check::fail("access", detail, advice)
        }
    }
}

fn room(existing: &Path, cache: &CacheConfig) -> Check {
    let wanted = cache.disk.bytes_max.saturating_add(cache.objects.bytes_max).saturating_add(BESIDE_BYTES);
    match statvfs(existing) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let detail =
                format!("{} MiB free, {} MiB wanted once the tiers are full", free >> 20, wanted >> 20);
            if free < BESIDE_BYTES {
                return Check::fail(
                    "disk",
                    detail,
                    "make room, or give --data-dir a directory on another disk",
                );
            }
            if free < wanted {
                let advice = "lower cache.disk.bytes_max or cache.objects.bytes_max, or give --data-dir a larger disk; what is \
                              stored already counts as used here";
                return Check::warn("disk", detail, advice);
            }
            Check::ok("disk", detail)
        }
        Err(error) => {
            Check::warn("disk", format!("its room is unknown: {error}"), "type `df -h` and compare")
        }
    }
}

fn file_system(existing: &Path) -> Check {
    match statfs(existing) {
        Ok(disk) => {
            let kind = disk.f_type;
            match POOR_FILE_SYSTEMS.iter().find(|(number, _)| *number == kind) {
                Some((_, name)) => {
                    let advice =
                        "give --data-dir a directory on a local disk (ext4, xfs), in a container on a volume";
                    Check::warn("volume", (*name).to_owned(), advice)
                }
                None => Check::ok("volume", format!("a local file system (type {kind:#x})")),
            }
        }
        Err(error) => Check::warn("volume", format!("its type is unknown: {error}"), "use a local disk"),
    }
}
