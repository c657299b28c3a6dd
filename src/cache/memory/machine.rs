//! How much memory there is, and how much of it is free, as the kernel and the control group tell.

use std::path::{Path, PathBuf};

/// The memory of the machine, or of the control group that this process lives in, whichever is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Bytes in all.
    pub total: u64,
    /// Bytes that can be taken without pushing out anything that is in use.
    pub available: u64,
}

/// What is assumed where the system does not report it: enough to start with.
const UNKNOWN: Machine = Machine { total: 2 << 30, available: 1 << 30 };

impl Machine {
    /// Reads `/proc/meminfo` and the limits of every control group above this process, of version 2 and version 1
    /// (kernel documentation, `admin-guide/cgroup-v2.rst`, `cgroup-v1/memory.rst`).
    pub fn read() -> Machine {
        let read = |path: &Path| fs_err::read_to_string(path).ok();
        let machine = read(Path::new("/proc/meminfo")).and_then(|text| of_meminfo(&text)).unwrap_or(UNKNOWN);
        let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
        groups_above(&groups).iter().filter_map(|dir| of_group(dir, &read)).fold(machine, Machine::least)
    }

    fn least(self, other: Machine) -> Machine {
        Machine { total: self.total.min(other.total), available: self.available.min(other.available) }
    }
}

fn of_meminfo(text: &str) -> Option<Machine> {
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some(Machine {
        total: kib("MemTotal")?.checked_mul(1024)?,
        available: kib("MemAvailable")?.checked_mul(1024)?,
    })
}

/// The directories of the groups that limit memory, from `/proc/self/cgroup`: the process's own and all above it.
fn groups_above(text: &str) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let root = match controllers {
            "" => "/sys/fs/cgroup",
            v1 if v1.split(',').any(|controller| controller == "memory") => "/sys/fs/cgroup/memory",
            _ => continue,
        };
        let own = Path::new(root).join(path.trim_start_matches('/'));
        dirs.extend(own.ancestors().take_while(|dir| dir.starts_with(root)).map(Path::to_owned));
    }
    dirs
}

/// What a group leaves, if it limits anything.
fn of_group(dir: &Path, read: &dyn Fn(&Path) -> Option<String>) -> Option<Machine> {
    // A version 1 group without a limit says nearly 2^63.
    let number = |name: &str| read(&dir.join(name))?.trim().parse::<u64>().ok();
    let limits = ["memory.max", "memory.high", "memory.limit_in_bytes"];
    let total = limits.into_iter().filter_map(number).min().filter(|&limit| limit < 1 << 60)?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    let statistics = read(&dir.join("memory.stat")).unwrap_or_default();
    let cached = ["inactive_file ", "total_inactive_file "].into_iter().find_map(|name| {
        statistics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    });
    let in_use = used.saturating_sub(cached.unwrap_or(0));
    Some(Machine { total, available: total.saturating_sub(in_use) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_counts_in_kibibytes() {
        let text = "MemTotal:       24689764 kB\nMemFree:  1 kB\nMemAvailable:   23000000 kB\n";
        let machine = Machine { total: 24_689_764 << 10, available: 23_000_000 << 10 };
        assert_eq!(of_meminfo(text), Some(machine));
        for bad in ["", "MemTotal: 5 kB", "MemTotal: x kB\nMemAvailable: 1 kB"] {
            assert_eq!(of_meminfo(bad), None);
        }
    }

    #[test]
    fn every_group_above_the_process_counts() {
        let dirs = groups_above("0::/a/b\n5:cpu,memory:/c\n4:cpu:/d\nbroken\n");
        let expected = ["", "/a", "/a/b", "/memory", "/memory/c"]
            .map(|dir| PathBuf::from(format!("/sys/fs/cgroup{dir}")));
        assert_eq!(dirs.len(), expected.len());
        assert!(expected.iter().all(|dir| dirs.contains(dir)), "{dirs:?}");
    }

    #[test]
    fn what_a_group_can_give_back_is_available() {
        let files = |path: &Path| {
            let text = match path.to_str()? {
                "/g/memory.max" => "1000\n",
                "/g/memory.high" => "max\n",
                "/g/memory.current" => "700\n",
                "/g/memory.stat" => "anon 5\ninactive_file 100\n",
                "/v1/memory.limit_in_bytes" => "9223372036854771712",
                "/v1/memory.usage_in_bytes" => "7",
                _ => return None,
            };
            Some(text.to_owned())
        };
        assert_eq!(of_group(Path::new("/g"), &files), Some(Machine { total: 1000, available: 400 }));
        assert_eq!(of_group(Path::new("/v1"), &files), None, "it limits nothing");
        assert_eq!(of_group(Path::new("/none"), &files), None);
    }

    #[test]
    fn this_machine_has_memory() {
        let machine = Machine::read();
        assert!(machine.total > 1 << 26 && machine.available <= machine.total, "{machine:?}");
    }
}
