//! What the benchmarks share: medians, a report with machine and commit, an HTTP/1.1 load that costs little, the
//! comparison with a bare handler, the servers of others, an upstream, and real vectors.

pub mod beside;
pub mod litellm;
pub mod load;
pub mod redis_server;
pub mod rival;
pub mod upstream;
pub mod vectors;

use std::process::Command;

/// Median, smallest and largest of several rounds.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

/// The spread of some rounds; at least one.
///
/// # Panics
/// Without any round.
pub fn spread(mut rounds: Vec<f64>) -> Spread {
    rounds.sort_by(f64::total_cmp);
    Spread { median: rounds[rounds.len() / 2], min: rounds[0], max: rounds[rounds.len() - 1] }
}

/// The value below which a share of the values lies.
///
/// # Panics
/// Without any value.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

/// A median, and the interval that holds 95 of 100 medians of samples drawn from the same values (bootstrap, percentile method).
#[derive(Debug, Clone, Copy)]
pub struct MedianInterval {
    /// The median of the values.
    pub median: f64,
    /// Where the interval begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
}

/// The interval of some values; at least one.
///
/// # Panics
/// Without any value.
pub fn median_interval(values: &[f64]) -> MedianInterval {
    const SAMPLES: usize = 4000;
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
    };
    // xorshift64*, with the same seed in each run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut drawn = |count: usize| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % count
    };
    let mut medians: Vec<f64> =
        (0..SAMPLES).map(|_| median(values.iter().map(|_| values[drawn(values.len())]).collect())).collect();
    medians.sort_by(f64::total_cmp);
    let (low, high) = (percentile(&medians, 0.025), percentile(&medians, 0.975));
    MedianInterval { median: median(values.to_vec()), low, high }
}

/// Prints what a figure needs to be believed: the machine, the commit, the command.
pub fn print_circumstances(bench: &str) {
    let output = |program: &str, arguments: &[&str]| {
        Command::new(program)
            .args(arguments)
            .output()
            .ok()
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
            .unwrap_or_default()
    };
    let processor = output("sh", &["-c", "grep -m1 'model name' /proc/cpuinfo | cut -d: -f2"]);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("machine: {processor}, {cores} cores, {}", output("uname", &["-sr"]));
    println!("commit: {}", output("git", &["describe", "--always", "--dirty"]));
    println!("command: make bench NAME={bench}\n");
}
