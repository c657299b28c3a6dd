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

/// From so many on, factorials are those of Stirling's series, to 14 digits.
const LARGE: usize = 256;

/// The probability of `count` or fewer among `of`, each with probability `share`.
///
/// Cost: `count` steps, at most some hundreds or a few square roots of `of`.
fn at_most(count: usize, of: usize, share: f64) -> f64 {
    if share <= 0.0 {
        return 1.0;
    }
    if share >= 1.0 {
        return if count >= of { 1.0 } else { 0.0 };
    }
    if count >= LARGE && of.saturating_sub(count) > LARGE {
        return at_most_of_many(count, of, share);
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

/// As [`at_most`]: the shorter tail, from its largest term on.
fn at_most_of_many(count: usize, of: usize, share: f64) -> f64 {
    let odds = share / (1.0 - share);
    if count as f64 <= of as f64 * share {
        let ratio = |count: usize| count as f64 / (of - count + 1) as f64 / odds;
        let counts = (1..=count).rev();
        return tail(probability(count, of, share), counts.map(ratio));
    }
    let ratio = |count: usize| (of - count) as f64 / (count + 1) as f64 * odds;
    1.0 - tail(probability(count + 1, of, share), (count + 1..of).map(ratio))
}

/// The sum of terms that become smaller, of which the first and the ratios of each to the one before are given.
fn tail(first: f64, ratios: impl Iterator<Item = f64>) -> f64 {
    let (mut term, mut sum) = (first, first);
    for ratio in ratios {
        term *= ratio;
        if term <= sum * f64::EPSILON * 1e-3 {
            break;
        }
        sum += term;
    }
    sum.clamp(0.0, 1.0)
}

/// The probability of `count` among `of`, both large.
fn probability(count: usize, of: usize, share: f64) -> f64 {
    let [count, of] = [count, of].map(|number| number as f64);
    let ways = ln_factorial(of) - ln_factorial(count) - ln_factorial(of - count);
    (ways + count * share.ln() + (of - count) * (-share).ln_1p()).exp()
}

/// Stirling's series (Abramowitz and Stegun, "Handbook of Mathematical Functions", 6.1.41).
fn ln_factorial(number: f64) -> f64 {
    let series = 1.0 / (12.0 * number) - 1.0 / (360.0 * number.powi(3));
    number * number.ln() - number + 0.5 * (std::f64::consts::TAU * number).ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_counts_agree_with_the_sum_of_all_terms_and_take_few_steps() {
        let sum = |count: usize, of: usize, share: f64| {
            let odds = (share / (1.0 - share)).ln();
            let mut logarithm = of as f64 * (-share).ln_1p();
            let term = |place: usize| {
                logarithm += ((of - place) as f64 / (place + 1) as f64).ln() + odds;
                logarithm.exp()
            };
            (of as f64 * (-share).ln_1p()).exp() + (0..count).map(term).sum::<f64>()
        };
        for (count, of) in [(300, 3000), (1500, 3000), (2600, 3000), (300, 900)] {
            for offset in [-0.02, -0.005, 0.0, 0.005, 0.02] {
                let share = count as f64 / of as f64 + offset;
                let (fast, slow) = (at_most_of_many(count, of, share), sum(count, of, share));
                assert!((fast - slow).abs() < 1e-9, "{count} of {of} at {share}: {fast} {slow}");
            }
        }
        // Of a share of 10 % among ten million, the bounds are within 1.3 standard deviations.
        let (low, high) = (share_min(1_000_000, 10_000_000, 0.9), share_max(1_000_000, 10_000_000, 0.9));
        let deviation = (0.1_f64 * 0.9 / 1e7).sqrt();
        assert!(low < 0.1 && high > 0.1 && high - low < 2.0 * 1.3 * deviation, "{low} {high}");
    }

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
