//! Lines of a file that a command leaves out: named by their numbers, while the others go on.

use std::process::ExitCode;

/// Faults that are shown; the others are counted.
const SHOWN_MAX: usize = 20;
/// The exit code of a command that has left lines out.
const INCOMPLETE: u8 = 3;

/// What is wrong with lines.
#[derive(Debug, Default)]
pub(super) struct LineFaults {
    count: usize,
    /// Of the first of them.
    shown: Vec<String>,
}

impl LineFaults {
    /// Counts a line, or what else `unit` names.
    pub(super) fn add(&mut self, unit: &str, number: usize, fault: &str) {
        self.count += 1;
        if self.shown.len() < SHOWN_MAX {
            self.shown.push(format!("{unit} {number}: {fault}"));
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// What is wrong, a line each.
    pub(super) fn report(&self) -> String {
        let mut report: String = self.shown.iter().map(|fault| format!("{fault}\n")).collect();
        if self.count > self.shown.len() {
            report += &format!("and {} more\n", self.count - self.shown.len());
        }
        report
    }

    /// The exit code: whether there are any.
    pub(super) fn exit_code(&self) -> ExitCode {
        if self.count == 0 { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_faults_are_shown_and_all_are_counted() {
        let mut faults = LineFaults::default();
        assert_eq!((faults.report(), faults.exit_code()), (String::new(), ExitCode::SUCCESS));
        (1..=SHOWN_MAX + 2).for_each(|number| faults.add("line", number, "why"));
        let report = faults.report();
        assert!(
            report.starts_with("line 1: why\nline 2: why\n") && report.ends_with("and 2 more\n"),
            "{report}"
        );
        assert_eq!((faults.count(), faults.exit_code()), (SHOWN_MAX + 2, ExitCode::from(INCOMPLETE)));
    }
}
