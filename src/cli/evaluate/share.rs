//! A share that was counted, with its interval.

/// The quantile of the normal distribution for intervals of 95 %.
const Z: f64 = 1.959_964;

/// How many of some.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::cli) struct Share {
    pub(in crate::cli) count: usize,
    pub(in crate::cli) of: usize,
}

impl Share {
    /// From 0 to 1; 0 of none.
    pub(in crate::cli) fn share(self) -> f64 {
        if self.of == 0 { 0.0 } else { self.count as f64 / self.of as f64 }
    }

    /// The score interval of Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    fn interval(self) -> (f64, f64) {
        let (n, p) = (self.of.max(1) as f64, self.share());
        let center = p + Z * Z / (2.0 * n);
        let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        ((center - half).max(0.0) / scale, (center + half) / scale)
    }
}

/// Percent, with the interval of 95 %.
impl std::fmt::Display for Share {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (low, high) = self.interval();
        let [share, low, high] = [self.share(), low, high].map(|share| 100.0 * share);
        write!(formatter, "{share:.1} % ({low:.1}-{high:.1})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_wilson() {
        let (low, high) = Share { count: 5, of: 100 }.interval();
        assert!((low - 0.0215).abs() < 1e-3 && (high - 0.1118).abs() < 1e-3, "{low} {high}");
    }
}
