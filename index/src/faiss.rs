//! FAISS: it builds indexes, writes their files, and searches those of kinds that are not searched in place.

use std::fmt;
use std::path::Path;

use ::faiss::index::autotune::ParameterSpace;
use ::faiss::index::io::{self, IoFlags};
use ::faiss::index::{Index as _, IndexImpl};
use ::faiss::{MetricType, index_factory};

use crate::{Metric, ffi};

/// Rows that ranges and centroids are learned from at most.
const TRAINING_ROWS_MAX: usize = 1 << 18;
/// Rows that FAISS is given at a time: between, a build can be stopped.
const CHUNK_ROWS: usize = 4096;
/// The longest factory string.
const FACTORY_BYTES_MAX: usize = 64;
/// The largest number in a factory string: FAISS reserves memory for what it names.
const FACTORY_NUMBER_MAX: u64 = 1 << 16;
/// `faiss::IO_FLAG_MMAP_IFC`; the crate's own constant for mapping is not FAISS's.
const MAPPED: i32 = 512;

/// Why FAISS did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FAISS: {}", self.0)
    }
}

impl std::error::Error for Failed {}

impl From<::faiss::error::Error> for Failed {
    fn from(error: ::faiss::error::Error) -> Failed {
        Failed(error.to_string())
    }
}

/// What is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// FAISS's factory string: `HNSW32,SQ8`, `IVF1024,SQ8`.
    pub factory: String,
    /// How vectors are compared.
    pub metric: Metric,
    /// Length of the vectors.
    pub dim: usize,
    /// For graphs: nodes looked at for each row that is added. More make a better graph, and take as much longer.
    pub ef_construction: usize,
    /// Threads that build.
    pub threads: usize,
}

impl Recipe {
    /// Whether FAISS knows how to make it.
    ///
    /// # Errors
    /// What is wrong with the factory string, or does not go with dimension or metric.
    pub fn check(&self) -> Result<(), Failed> {
        self.empty().map(drop)
    }

    fn empty(&self) -> Result<IndexImpl, Failed> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ',' | '_' | '(' | ')' | '-');
        let numbers = self.factory.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
        let is_small = |digits: &str| digits.parse::<u64>().is_ok_and(|number| number <= FACTORY_NUMBER_MAX);
        if self.factory.is_empty()
            || self.factory.len() > FACTORY_BYTES_MAX
            || !self.factory.chars().all(is_plain)
        {
            return Err(Failed(format!("{:?} is not a factory string", self.factory)));
        }
        if !numbers.clone().all(is_small) {
            return Err(Failed(format!("a number in {:?} is above {FACTORY_NUMBER_MAX}", self.factory)));
        }
        let metric = match self.metric {
            Metric::Cosine | Metric::InnerProduct => MetricType::InnerProduct,
            Metric::L2 => MetricType::L2,
        };
        let dim = u32::try_from(self.dim).map_err(|_| Failed(format!("dimension {}", self.dim)))?;
        Ok(index_factory(dim, &self.factory, metric)?)
    }

    /// Builds an index of rows and writes its file. None if `is_wanted` said no meanwhile.
    ///
    /// Shapes: row `i` of the index is the `i`th of `rows`, each of `dim` components, prepared. Cost: minutes for a
    /// million; memory for all that the index holds. Blocks, and uses the recipe's threads.
    ///
    /// # Errors
    /// What FAISS says: too few rows to learn from, no memory, a file that cannot be written.
    pub fn build<'a>(
        &self,
        rows: impl ExactSizeIterator<Item = &'a [f32]> + Clone,
        file: &Path,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Option<()>, Failed> {
        ffi::set_threads(self.threads);
        let mut index = self.empty()?;
        if self.factory.contains("HNSW") {
            ParameterSpace::new()?.set_index_parameter(
                &index,
                "efConstruction",
                self.ef_construction as f64,
            )?;
        }
        if !index.is_trained() {
            let step = rows.len().div_ceil(TRAINING_ROWS_MAX).max(1);
            index.train(&joined(rows.clone().step_by(step)))?;
        }
        let mut rows = rows;
        loop {
            let chunk = joined(rows.by_ref().take(CHUNK_ROWS));
            if chunk.is_empty() {
                break;
            }
            if !is_wanted() {
                return Ok(None);
            }
            index.add(&chunk)?;
        }
        io::write_index(&index, name(file)?)?;
        Ok(Some(()))
    }
}

/// An index that FAISS searches in its mapped file. Nothing in it can be changed.
pub struct Resident {
    index: ffi::Unchanged,
    dim: usize,
    rows: usize,
}

impl fmt::Debug for Resident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resident").field("dim", &self.dim).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Resident {
    /// Opens a file that [`Recipe::build`] wrote; FAISS trusts what it reads, so no other. The file is mapped, and must not
    /// be written to any more. `nprobe` is how many lists a search of an inverted file visits.
    ///
    /// # Errors
    /// What FAISS says.
    pub fn open(file: &Path, nprobe: usize) -> Result<Resident, Failed> {
        ffi::set_threads(1);
        let index = io::read_index_with_flags(name(file)?, IoFlags::from(MAPPED))?;
        // Of an index without lists FAISS refuses it, and there is nothing to set.
        let _ = ParameterSpace::new()?.set_index_parameter(&index, "nprobe", nprobe as f64);
        let (dim, rows) = (index.d() as usize, usize::try_from(index.ntotal()).unwrap_or(0));
        Ok(Resident { index: ffi::Unchanged::new(index), dim, rows })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Components of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// At most `k` rows that are near a query, nearest first. On the calling thread.
    ///
    /// # Errors
    /// What FAISS says.
    ///
    /// # Panics
    /// If the query has another dimension.
    pub fn search(&self, query: &[f32], k: usize) -> Result<Vec<u32>, Failed> {
        assert_eq!(query.len(), self.dim, "a query of another dimension");
        let k = k.min(self.rows);
        if k == 0 {
            return Ok(Vec::new());
        }
        ffi::set_threads(1);
        let rows = ffi::search(&self.index, query, self.dim, k).map_err(Failed)?;
        Ok(rows.into_iter().filter_map(|row| u32::try_from(row).ok()).collect())
    }
}

/// Whether this machine has what FAISS was built for.
///
/// # Errors
/// The name of what is missing.
pub fn check_processor() -> Result<(), &'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        if !is_x86_feature_detected!("avx2") {
            return Err("AVX2");
        }
        if !is_x86_feature_detected!("fma") || !is_x86_feature_detected!("f16c") {
            return Err("FMA and F16C");
        }
    }
    Ok(())
}

fn joined<'a>(rows: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
    rows.flatten().copied().collect()
}

fn name(file: &Path) -> Result<&str, Failed> {
    file.to_str().ok_or_else(|| Failed(format!("the path {} is not UTF-8", file.display())))
}
