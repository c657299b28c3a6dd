//! Sketches of rows: bits that say which rows cannot be as near to a query as wanted, at an eighth of the bytes of their codes.
//!
//! A bit is the sign of a component of the vector after a random rotation. Two unit vectors at the angle `a` differ in each bit
//! with the probability `a / pi` (Goemans and Williamson, "Improved approximation algorithms for maximum cut", J. ACM 42, 1995,
//! lemma 3.2; Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002), so the bits that differ
//! are close to binomial; in few dimensions less so. A row is left out if more of them differ than do for all but some
//! millionth of the rows that are as near as wanted. The rotation is a product of random signs and Walsh-Hadamard transforms (Ailon and Chazelle, "The fast
//! Johnson-Lindenstrauss transform", SIAM J. Comput. 39, 2009), which costs `n log n`.

use crate::kernels::{self, HEAD_WORDS, REST_WORDS, SketchSearch};

const BITS: usize = (HEAD_WORDS + REST_WORDS) * 64;
/// How often random signs and a transform follow each other in a rotation.
const ROUNDS: usize = 2;
/// The share of rows, as near as wanted, that either part of the sketch leaves out at most.
const MISSED_MAX: f64 = 1e-6;

/// The sketch of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sketch {
    head: [u64; HEAD_WORDS],
    rest: [u64; REST_WORDS],
}

/// Makes the sketches of vectors of one dimension. All sketchers of a dimension make the same.
#[derive(Clone, Debug)]
pub struct Sketcher {
    dim: usize,
    /// The dimension of the rotation, a power of two.
    rotated: usize,
    /// Signs, `ROUNDS` times `rotated` for each rotation. There are as many rotations as the bits need.
    signs: Vec<f32>,
}

/// How many bits of two sketches may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SketchRadius {
    head: u32,
    all: u32,
}

/// The sketches of rows. 48 bytes for each.
#[derive(Clone, Debug, Default)]
pub struct Sketches {
    heads: Vec<[u64; HEAD_WORDS]>,
    rests: Vec<[u64; REST_WORDS]>,
}

impl Sketcher {
    /// For vectors of `dim` components.
    ///
    /// # Panics
    /// If `dim` is 0.
    pub fn new(dim: usize) -> Sketcher {
        assert!(dim > 0, "sketches of dimension 0");
        let rotated = dim.next_power_of_two();
        let signs = BITS.div_ceil(rotated) * ROUNDS * rotated;
        Sketcher { dim, rotated, signs: (0..signs as u64).map(sign).collect() }
    }

    /// The sketch of a vector.
    ///
    /// # Panics
    /// If the vector has another dimension.
    pub fn sketch(&self, vector: &[f32]) -> Sketch {
        assert_eq!(vector.len(), self.dim, "a vector of another dimension");
        let mut words = [0; HEAD_WORDS + REST_WORDS];
        let (mut bit, mut rotated) = (0, vec![0.0; self.rotated]);
        for signs in self.signs.chunks(ROUNDS * self.rotated) {
            rotated[..self.dim].copy_from_slice(vector);
            rotated[self.dim..].fill(0.0);
            for signs in signs.chunks(self.rotated) {
                rotated.iter_mut().zip(signs).for_each(|(x, sign)| *x *= sign);
                transform(&mut rotated);
            }
            for component in rotated.iter().take(BITS - bit) {
                words[bit / 64] |= u64::from(*component > 0.0) << (bit % 64);
                bit += 1;
            }
        }
        let (mut head, mut rest) = ([0; HEAD_WORDS], [0; REST_WORDS]);
        head.copy_from_slice(&words[..HEAD_WORDS]);
        rest.copy_from_slice(&words[HEAD_WORDS..]);
        Sketch { head, rest }
    }
}

impl SketchRadius {
    /// For rows whose cosine with a query is at least this: of those, some two in a million are beyond it, over all pairs of vectors of
    /// some hundred dimensions.
    pub fn of_cosine(cosine: f32) -> SketchRadius {
        let differs = f64::from(cosine.clamp(-1.0, 1.0)).acos() / std::f64::consts::PI;
        SketchRadius {
            head: quantile((HEAD_WORDS * 64) as u32, differs),
            all: quantile(BITS as u32, differs),
        }
    }
}

impl Sketches {
    /// Appends a row.
    pub fn push(&mut self, sketch: Sketch) {
        self.heads.push(sketch.head);
        self.rests.push(sketch.rest);
    }

    /// Removes a row; the last row takes its place.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn swap_remove(&mut self, row: usize) {
        self.heads.swap_remove(row);
        self.rests.swap_remove(row);
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Bytes of memory that the rows take, spare capacity included.
    pub fn memory_bytes(&self) -> usize {
        self.heads.capacity() * size_of::<[u64; HEAD_WORDS]>()
            + self.rests.capacity() * size_of::<[u64; REST_WORDS]>()
    }

    /// Appends to `found` the rows within a radius of a query, in their order.
    ///
    /// Cost: 16 bytes a row read, and 32 more for a row whose first bits are within the radius; on the calling thread.
    pub fn within(&self, query: &Sketch, radius: SketchRadius, found: &mut Vec<u32>) {
        let search = SketchSearch {
            query: (query.head, query.rest),
            heads: &self.heads,
            rests: &self.rests,
            head_differing_max: radius.head,
            differing_max: radius.all,
        };
        kernels::sketches_within(&search, found);
    }
}

/// 1 or -1, by the number of the sign: the first bit of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn sign(number: u64) -> f32 {
    let mut x = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    if (x ^ (x >> 31)) >> 63 == 0 { 1.0 } else { -1.0 }
}

/// The Walsh-Hadamard transform in place, without its factor, which changes no sign.
fn transform(values: &mut [f32]) {
    let mut half = 1;
    while half < values.len() {
        for pair in values.chunks_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (low, high) in low.iter_mut().zip(high) {
                (*low, *high) = (*low + *high, *low - *high);
            }
        }
        half *= 2;
    }
}

/// The smallest number that a binomial variable of `n` trials passes with a probability of [`MISSED_MAX`] at most.
fn quantile(n: u32, p: f64) -> u32 {
    if p >= 0.5 {
        return n;
    }
    let (mut term, mut below) = ((1.0 - p).powi(n as i32), 0.0);
    for k in 0..n {
        below += term;
        if 1.0 - below <= MISSED_MAX {
            return k;
        }
        term *= f64::from(n - k) / f64::from(k + 1) * (p / (1.0 - p));
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metric;

    /// Numbers from -1 to 1 of a linear congruential generator (Knuth, MMIX).
    struct Noise(u64);

    impl Noise {
        fn unit(&mut self, dim: usize) -> Vec<f32> {
            let mut number = || {
                self.0 =
                    self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
            };
            // Sums of four are close enough to normal.
            let mut vector: Vec<f32> = (0..dim).map(|_| (0..4).map(|_| number()).sum()).collect();
            Metric::Cosine.prepare(&mut vector).unwrap();
            vector
        }

        /// A unit vector at this cosine to another one.
        fn near(&mut self, to: &[f32], cosine: f32) -> Vec<f32> {
            let mut other = self.unit(to.len());
            let along: f32 = other.iter().zip(to).map(|(x, y)| x * y).sum();
            other.iter_mut().zip(to).for_each(|(x, y)| *x -= along * y);
            Metric::Cosine.prepare(&mut other).unwrap();
            let across = (1.0 - cosine * cosine).sqrt();
            to.iter().zip(other).map(|(x, y)| cosine * x + across * y).collect()
        }
    }

    #[test]
    fn rows_as_near_as_wanted_are_kept_and_most_others_are_not() {
        for (dim, cosine, far) in [(384, 0.85, 0.3), (384, 0.96, 0.8), (768, 0.9, 0.5), (100, 0.85, 0.2)] {
            let (sketcher, mut noise) = (Sketcher::new(dim), Noise(dim as u64));
            let radius = SketchRadius::of_cosine(cosine);
            let (mut missed, mut kept) = (0, 0);
            for _ in 0..40 {
                let query = noise.unit(dim);
                let of_query = sketcher.sketch(&query);
                let rows = |noise: &mut Noise, cosine| {
                    let mut sketches = Sketches::default();
                    (0..500).for_each(|_| sketches.push(sketcher.sketch(&noise.near(&query, cosine))));
                    let mut found = Vec::new();
                    sketches.within(&of_query, radius, &mut found);
                    found.len()
                };
                missed += 500 - rows(&mut noise, cosine);
                kept += rows(&mut noise, far);
            }
            assert!(missed <= 1, "{dim} {cosine}: {missed} of 20,000");
            assert!(kept < 20_000 / 10, "{dim} {cosine}: {kept} of 20,000 at {far}");
        }
    }

    /// The bits of sparse vectors are no worse than those of others: the rotation mixes their components.
    #[test]
    fn two_vectors_differ_in_the_share_of_bits_that_their_angle_is_of_a_half_turn() {
        for dim in [2, 32, 384, 1000] {
            let sketcher = Sketcher::new(dim);
            for degrees in [0.0_f32, 10.0, 45.0, 90.0, 135.0, 180.0] {
                let at = |angle: f32| {
                    let mut vector = vec![0.0; dim];
                    (vector[0], vector[1]) = (angle.to_radians().cos(), angle.to_radians().sin());
                    sketcher.sketch(&vector)
                };
                let pairs = (0..20).map(|turn| (at(turn as f32 * 7.0), at(turn as f32 * 7.0 + degrees)));
                let words = |sketch: Sketch| sketch.head.into_iter().chain(sketch.rest);
                let differing = |(one, other)| -> u32 {
                    words(one).zip(words(other)).map(|(one, other)| (one ^ other).count_ones()).sum()
                };
                let bits: u32 = pairs.map(differing).sum();
                let share = bits as f32 / (20 * BITS) as f32;
                // In two dimensions the rotations of one sketch are 192, of a few directions each.
                let slack = if dim == 2 { 0.1 } else { 0.03 };
                assert!((share - degrees / 180.0).abs() < slack, "{dim} {degrees}: {share}");
            }
        }
    }

    #[test]
    fn the_radius_is_the_quantile_of_a_binomial_distribution() {
        // By sums in 60 decimal digits.
        assert_eq!((quantile(128, 0.1767), quantile(384, 0.1767)), (45, 105));
        assert_eq!((quantile(128, 0.0), quantile(128, 0.5), quantile(128, 0.9)), (0, 128, 128));
        assert_eq!(SketchRadius::of_cosine(1.0), SketchRadius { head: 0, all: 0 });
        assert_eq!(SketchRadius::of_cosine(-1.0), SketchRadius { head: 128, all: 384 });
    }

    #[test]
    fn a_row_that_is_removed_makes_room_for_the_last_one() {
        let (sketcher, mut noise) = (Sketcher::new(64), Noise(3));
        let vectors: Vec<Vec<f32>> = (0..5).map(|_| noise.unit(64)).collect();
        let mut sketches = Sketches::default();
        vectors.iter().for_each(|vector| sketches.push(sketcher.sketch(vector)));
        sketches.swap_remove(1);
        let found = |number: usize| {
            let mut found = vec![77];
            sketches.within(&sketcher.sketch(&vectors[number]), SketchRadius::of_cosine(0.99), &mut found);
            found
        };
        assert_eq!((sketches.len(), found(4), found(1), found(0)), (4, vec![77, 1], vec![77], vec![77, 0]));
        assert!(!sketches.is_empty() && sketches.memory_bytes() >= 4 * 48);
    }
}
