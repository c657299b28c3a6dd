//! Processor, memory, open files, clock.

use std::time::{SystemTime, UNIX_EPOCH};

use likewise::cache::Machine;
use likewise::config::Config;
use rustix::process::{Resource, getrlimit};

use super::Check;

/// Seconds since 1970 before which no version of the program existed: 2026-01-01.
const CLOCK_MIN: u64 = 1_767_225_600;
/// Memory of the default model and of the program beside its caches.
const BESIDE_BYTES: u64 = 512 << 20;
/// Files beside those of connections: segments, logs, indexes.
const OTHER_FILES: u64 = 640;

/// What no configuration changes.
pub(super) fn checks() -> Vec<Check> {
    vec![processor(), cores(), clock()]
}

/// What depends on the configuration.
pub(super) fn checks_of(config: &Config) -> Vec<Check> {
    vec![memory(config), open_files(config.http.connections_max as u64)]
}

fn processor() -> Check {
    #[cfg(target_arch = "x86_64")]
    {
        let features = [
            ("AVX2", is_x86_feature_detected!("avx2")),
            ("FMA", is_x86_feature_detected!("fma")),
            ("BMI1", is_x86_feature_detected!("bmi1")),
            ("BMI2", is_x86_feature_detected!("bmi2")),
            ("LZCNT", is_x86_feature_detected!("lzcnt")),
            ("F16C", is_x86_feature_detected!("f16c")),
        ];
        let missing: Vec<&str> =
            features.iter().filter(|(_, is_there)| !is_there).map(|(name, _)| *name).collect();
        if !missing.is_empty() {
            let detail = format!("x86_64 without {}", missing.join(", "));
            let advice = "use a machine with AVX2 (Haswell or newer): here vectors are slow, and indexes cannot be built";
            return Check::warn("processor", detail, advice);
        }
        Check::ok("processor", "x86_64 with AVX2, FMA, BMI2 and F16C")
    }
    #[cfg(not(target_arch = "x86_64"))]
    Check::ok("processor", std::env::consts::ARCH)
}

fn cores() -> Check {
    match std::thread::available_parallelism().map_or(1, usize::from) {
        1 => Check::warn(
            "cores",
            "1",
            "give the process two cores or more: the model and the server share this one",
        ),
        cores => Check::ok("cores", cores.to_string()),
    }
}

fn clock() -> Check {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = httpdate::fmt_http_date(SystemTime::now());
    if now.as_secs() < CLOCK_MIN {
        return Check::fail("clock", date, "set the clock of the machine: entries expire by it");
    }
    Check::ok("clock", date)
}

fn memory(config: &Config) -> Check {
    let machine = Machine::read();
    let budget = config.cache.memory.budget.bytes(&machine);
    let inflight = config.http.inflight_bytes(machine.total) as u64;
    let wanted = budget.saturating_add(inflight).saturating_add(BESIDE_BYTES);
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let detail = format!(
        "{} of {} available, {} wanted at most",
        mib(machine.available),
        mib(machine.total),
        mib(wanted)
    );
    if wanted > machine.available {
        return Check::warn(
            "memory",
            detail,
            "lower cache.memory.budget or http.inflight_bytes_max, or give more memory",
        );
    }
    Check::ok("memory", detail)
}

fn open_files(connections: u64) -> Check {
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let wanted = connections.saturating_add(OTHER_FILES);
    if limit < wanted {
        let advice = format!(
            "type `ulimit -n {wanted}` before the server starts, or LimitNOFILE={wanted} in its systemd unit"
        );
        return Check::warn("files", format!("at most {limit} open files, {wanted} wanted"), advice);
    }
    Check::ok("files", format!("{wanted} open files wanted, more are allowed"))
}
