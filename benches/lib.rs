//! What the benchmarks share: medians, a report with machine and commit, an HTTP/1.1 load that costs little, the
//! comparison with a bare handler, the servers of others, and real vectors.

pub mod beside;
pub mod load;
pub mod rival;
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
