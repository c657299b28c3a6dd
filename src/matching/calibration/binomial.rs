//! Bounds of a share that was counted on a sample (Clopper and Pearson, 1934).

/// The largest share of which `count` or fewer of `of` are seen with a probability of at least 1 - `confidence`.
pub fn share_max(count: usize, of: usize, confidence: f64) -> f64 {
    if count >= of {
        return 1.0;
    }
    solve(|share| at_most(count, of, share) >= 1.0 - confidence)
}

/// The smallest share of which `count` or more of `of` are seen with a probability of at least 1 - `confidence`.
pub fn share_min(count: usize, of: usize, confidence: f64) -> f64 {
    if count == 0 || of == 0 {
        return 0.0;
    }
    solve(|share| 1.0 - at_most(count - 1, of, share) < 1.0 - confidence)
}

/// The end of the shares from 0 on for which `holds` is true.
fn solve(holds: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if holds(middle) { low = middle } else { high = middle }
    }
    high
}

/// The probability of `count` or fewer among `of`, each with probability `share`.
///
/// Cost: `count` steps.
fn at_most(count: usize, of: usize, share: f64) -> f64 {
    if share <= 0.0 {
        return 1.0;
    }
    if share >= 1.0 {
        return if count >= of { 1.0 } else { 0.0 };
    }
    let odds = (share / (1.0 - share)).ln();
    let mut logarithm = of as f64 * (-share).ln_1p();
    let mut sum = logarithm.exp();
    for place in 0..count.min(of) {
        logarithm += ((of - place) as f64 / (place + 1) as f64).ln() + odds;
        sum += logarithm.exp();
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_those_of_tables() {
        // One-sided bounds of 95 %: 1 - 0.05^(1/n) for none, and the ends of the two-sided intervals of 90 %.
        for (count, of, low, high) in [
            (0, 10, 0.0, 0.258_866),
            (0, 230, 0.0, 0.012_940_5),
            (1, 10, 0.005_116_2, 0.394_163),
            (5, 10, 0.222_441, 0.777_559),
            (10, 100, 0.055_257, 0.163_699),
            (10, 10, 0.741_134, 1.0),
        ] {
            assert!((share_min(count, of, 0.95) - low).abs() < 2e-5, "{count} of {of}");
            assert!((share_max(count, of, 0.95) - high).abs() < 2e-5, "{count} of {of}");
        }
        assert_eq!((share_min(0, 0, 0.9), share_max(0, 0, 0.9)), (0.0, 1.0));
    }

    #[test]
    fn large_counts_stay_exact() {
        let (low, high) = (share_min(5000, 100_000, 0.95), share_max(5000, 100_000, 0.95));
        assert!((low - 0.048_87).abs() < 1e-4 && (high - 0.051_15).abs() < 1e-4, "{low} {high}");
    }
}
