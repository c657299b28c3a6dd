//! How two vectors are compared: the metrics, and what they refuse.

/// How two vectors are compared. A higher score is nearer, for every metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// The dot product of unit vectors; rows and queries have passed [`Metric::prepare`].
    Cosine,
    /// The dot product.
    InnerProduct,
    /// Minus the squared Euclidean distance.
    L2,
}

/// Why a vector cannot be searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The component at this place is infinite or not a number.
    NotFinite {
        /// Its place, from 0.
        at: usize,
    },
    /// All components are zero, so that it has no direction for the cosine.
    Zero,
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unfit::NotFinite { at } => write!(f, "component {at} is not a finite number"),
            Unfit::Zero => write!(f, "a zero vector has no cosine"),
        }
    }
}

impl std::error::Error for Unfit {}

impl Metric {
    /// Makes a row or a query ready for this metric: under `Cosine` it becomes a unit vector, else it stays as it is.
    ///
    /// # Errors
    /// A component that is not finite; under `Cosine` a zero vector. The vector is then unchanged.
    pub fn prepare(self, vector: &mut [f32]) -> Result<(), Unfit> {
        if let Some(at) = vector.iter().position(|x| !x.is_finite()) {
            return Err(Unfit::NotFinite { at });
        }
        match self {
            Metric::InnerProduct | Metric::L2 => Ok(()),
            Metric::Cosine => normalise(vector),
        }
    }
}

fn normalise(vector: &mut [f32]) -> Result<(), Unfit> {
    // In f64 the square of no f32 overflows or vanishes.
    let norm = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if norm == 0.0 {
        return Err(Unfit::Zero);
    }
    vector.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_makes_unit_vectors_of_any_size() {
        for scale in [1e-45_f32, 1e-30, 1.0, 1e30] {
            let mut vector = [3.0 * scale, 0.0, -4.0 * scale];
            Metric::Cosine.prepare(&mut vector).unwrap();
            let expected = [0.6, 0.0, -0.8];
            assert!(
                vector.iter().zip(expected).all(|(x, y): (&f32, f32)| (x - y).abs() < 1e-6),
                "{vector:?}"
            );
        }
    }

    #[test]
    fn unfit_vectors_are_refused_and_unchanged() {
        for metric in [Metric::Cosine, Metric::InnerProduct, Metric::L2] {
            assert_eq!(metric.prepare(&mut [1.0, f32::NAN]), Err(Unfit::NotFinite { at: 1 }));
            assert_eq!(metric.prepare(&mut [f32::INFINITY, 1.0]), Err(Unfit::NotFinite { at: 0 }));
        }
        assert_eq!(Metric::Cosine.prepare(&mut [0.0, -0.0]), Err(Unfit::Zero));
        assert_eq!(Metric::L2.prepare(&mut [0.0, 0.0]), Ok(()));
    }
}
