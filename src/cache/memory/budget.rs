//! How much memory the memory tier may take.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::machine::Machine;

pub(super) const MIB: u64 = 1024 * 1024;
/// An automatic budget begins at this share of the machine's memory, and never takes more than the second.
const AUTO_SHARE: f64 = 0.25;
const AUTO_SHARE_MAX: f64 = 0.5;
/// Nor less than this.
const AUTO_BYTES_MIN: u64 = 64 * MIB;
/// Shares of the machine's memory: with less available an automatic budget shrinks, with more it grows.
const SCARCE: f64 = 0.1;
const PLENTY: f64 = 0.2;

/// Bytes (`"512MiB"`), a share of the machine's memory (`"25%"`), or `"auto"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub enum Budget {
    /// So many bytes.
    Bytes(u64),
    /// A share of the machine's memory, in percent.
    Percent(f64),
    /// What the pressure on the machine's memory leaves.
    Auto,
}

/// A budget as a configuration writes it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected bytes (\"512MiB\"), a share (\"25%\") or \"auto\"")]
enum Written {
    Bytes(u64),
    Text(String),
}

impl Default for Budget {
    fn default() -> Budget {
        Budget::Bytes(512 * MIB)
    }
}

impl Budget {
    /// The bytes that the budget is on a machine.
    pub fn bytes(&self, machine: &Machine) -> u64 {
        match self {
            Budget::Bytes(bytes) => *bytes,
            Budget::Percent(percent) => share(machine.total, percent / 100.0),
            Budget::Auto => share(machine.total, AUTO_SHARE).max(AUTO_BYTES_MIN),
        }
    }
}

/// The next budget of a tier that follows the pressure: a tenth less where memory is scarce, a tenth more where there is
/// plenty.
pub(super) fn follow(budget: u64, machine: &Machine) -> u64 {
    let most = share(machine.total, AUTO_SHARE_MAX).max(AUTO_BYTES_MIN);
    if machine.available < share(machine.total, SCARCE) {
        (budget - budget / 10).max(AUTO_BYTES_MIN)
    } else if machine.available > share(machine.total, PLENTY) {
        (budget + budget / 10).min(most)
    } else {
        budget
    }
}

fn share(bytes: u64, share: f64) -> u64 {
    (bytes as f64 * share) as u64
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Budget, String> {
        let fault = || {
            format!("cache.memory.budget is bytes (\"512MiB\"), a share (\"25%\") or \"auto\", got {text:?}")
        };
        let text = text.trim();
        if text == "auto" {
            return Ok(Budget::Auto);
        }
        if let Some(number) = text.strip_suffix('%') {
            let percent: f64 = number.trim().parse().map_err(|_| fault())?;
            return if (0.1..=90.0).contains(&percent) { Ok(Budget::Percent(percent)) } else { Err(fault()) };
        }
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit: u64 = match &text[digits.len()..] {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(fault()),
        };
        let number: u64 = digits.trim().parse().map_err(|_| fault())?;
        number.checked_mul(unit).map(Budget::Bytes).ok_or_else(fault)
    }
}

impl TryFrom<Written> for Budget {
    type Error = String;

    fn try_from(written: Written) -> Result<Budget, String> {
        match written {
            Written::Bytes(bytes) => Ok(Budget::Bytes(bytes)),
            Written::Text(text) => text.parse(),
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Budget::Bytes(bytes) if bytes.is_multiple_of(MIB) => write!(f, "{}MiB", bytes / MIB),
            Budget::Bytes(bytes) => write!(f, "{bytes}"),
            Budget::Percent(percent) => write!(f, "{percent}%"),
            Budget::Auto => f.write_str("auto"),
        }
    }
}

impl From<Budget> for String {
    fn from(budget: Budget) -> String {
        budget.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn budgets_are_read_and_written() {
        let read = |text: &str| text.parse::<Budget>();
        assert_eq!(read("512MiB"), Ok(Budget::default()));
        assert_eq!(read(" 2 GiB "), Ok(Budget::Bytes(2 * GIB)));
        assert_eq!(read("1000"), Ok(Budget::Bytes(1000)));
        assert_eq!(read("25%"), Ok(Budget::Percent(25.0)));
        assert_eq!(read("auto"), Ok(Budget::Auto));
        for text in ["512MiB", "1000", "12.5%", "auto"] {
            assert_eq!(read(text).unwrap().to_string(), text);
        }
        for bad in ["", "MiB", "5MB", "-1", "0%", "95%", "x%", "99999999999GiB", "half"] {
            assert!(read(bad).unwrap_err().contains("cache.memory.budget"), "{bad}");
        }
    }

    #[test]
    fn a_share_is_of_the_machine() {
        let machine = Machine { total: 8 * GIB, available: 4 * GIB };
        assert_eq!(Budget::Percent(25.0).bytes(&machine), 2 * GIB);
        assert_eq!(Budget::Auto.bytes(&machine), 2 * GIB);
        assert_eq!(Budget::Auto.bytes(&Machine { total: MIB, available: 0 }), AUTO_BYTES_MIN);
    }

    #[test]
    fn an_automatic_budget_gives_way_and_comes_back_within_its_bounds() {
        let machine = |available| Machine { total: 10 * GIB, available };
        assert_eq!(follow(1000 * MIB, &machine(GIB / 2)), 900 * MIB);
        assert_eq!(follow(1000 * MIB, &machine(GIB + GIB / 2)), 1000 * MIB, "neither scarce nor plenty");
        assert_eq!(follow(1000 * MIB, &machine(3 * GIB)), 1100 * MIB);
        assert_eq!(follow(AUTO_BYTES_MIN, &machine(0)), AUTO_BYTES_MIN);
        assert_eq!(follow(5 * GIB, &machine(9 * GIB)), 5 * GIB);
    }
}
