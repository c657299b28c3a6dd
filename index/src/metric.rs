//! How two vectors are compared.

use crate::kernels;

/// How two vectors are compared. Under every metric a higher score is nearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// The inner product of unit vectors. Rows and queries have to be prepared ([`Metric::prepare`]).
    Cosine,
    /// The inner product.
    InnerProduct,
    /// Minus the squared Euclidean distance.
    L2,
}

/// The longest vector, so that no score overflows.
pub const NORM_MAX: f64 = 1e18;

/// Why a vector cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// The number at this place is not a number, or infinite.
    NotFinite(usize),
    /// All numbers are zero, or so small that the vector has no direction.
    NoDirection,
    /// It is longer than [`NORM_MAX`].
    TooLong,
}

impl Metric {
    /// Makes a vector fit for this metric: under [`Metric::Cosine`] a unit vector.
    ///
    /// The norm is taken in f64, so that neither large nor small numbers overflow it.
    ///
    /// # Errors
    /// [`Unfit`]; then the vector is as it was.
    pub fn prepare(self, vector: &mut [f32]) -> Result<(), Unfit> {
        if let Some(place) = vector.iter().position(|number| !number.is_finite()) {
            return Err(Unfit::NotFinite(place));
        }
        let norm = norm(vector);
        if self != Metric::Cosine && norm > NORM_MAX {
            return Err(Unfit::TooLong);
        }
        if self == Metric::Cosine {
            if norm < f64::from(f32::MIN_POSITIVE) {
                return Err(Unfit::NoDirection);
            }
            vector.iter_mut().for_each(|number| *number = (f64::from(*number) / norm) as f32);
        }
        Ok(())
    }
}

/// The Euclidean norm.
pub(crate) fn norm(vector: &[f32]) -> f64 {
    vector.iter().map(|&number| f64::from(number) * f64::from(number)).sum::<f64>().sqrt()
}

/// The score of one pair: the same bits as every search of this crate gives for it on this machine.
///
/// # Panics
/// If the vectors differ in length.
pub fn score(metric: Metric, query: &[f32], row: &[f32]) -> f32 {
    assert_eq!(query.len(), row.len(), "query and row have one length");
    let mut out = [0.0];
    kernels::get().scores(metric, query, row, &mut out);
    out[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_made_fit_or_refused_with_a_reason() {
        let mut vector = [3.0e-30, 4.0e-30];
        Metric::Cosine.prepare(&mut vector).unwrap();
        assert_eq!(vector, [0.6, 0.8]);
        let mut huge = [f32::MAX, f32::MAX];
        Metric::Cosine.prepare(&mut huge).unwrap();
        assert!((norm(&huge) - 1.0).abs() < 1e-6);
        assert_eq!(Metric::L2.prepare(&mut [1.0, f32::NAN]), Err(Unfit::NotFinite(1)));
        assert_eq!(Metric::Cosine.prepare(&mut [0.0; 4]), Err(Unfit::NoDirection));
        assert_eq!(Metric::L2.prepare(&mut [0.0; 4]), Ok(()));
        assert_eq!(Metric::InnerProduct.prepare(&mut [1e18; 4]), Err(Unfit::TooLong));
    }
}
