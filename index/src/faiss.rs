//! FAISS: it builds indexes, writes their files, and searches those of kinds that are not searched in place.

use std::fmt;
use std::path::Path;

use ::faiss::index::autotune::ParameterSpace;
use ::faiss::index::io::{self, IoFlags};
use ::faiss::index::{Index as _, IndexImpl};
use ::faiss::{MetricType, index_factory};

use crate::spec::IndexSpec;
use crate::{Metric, faiss_check, ffi};

/// Rows that FAISS is given at a time.
const CHUNK_ROWS: usize = 4096;
/// `faiss::IO_FLAG_MMAP_IFC`; the crate's own constant for mapping is not FAISS's.
const MAPPED: i32 = 512;

/// Why FAISS did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaissError(String);

impl fmt::Display for FaissError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FAISS: {}", self.0)
    }
}

impl std::error::Error for FaissError {}

impl From<::faiss::error::Error> for FaissError {
    fn from(error: ::faiss::error::Error) -> FaissError {
        FaissError(without_place(&error.to_string()).to_owned())
    }
}

/// What FAISS says without the function and the source file that say it: `Error in F at PATH/X.cpp:12: Error: 'C' failed: M`.
fn without_place(message: &str) -> &str {
    let message = message.strip_prefix("Native faiss error: ").unwrap_or(message);
    let place = message.rfind(".cpp:").or_else(|| message.rfind(".h:"));
    let Some((_, said)) = place.and_then(|at| message[at + 3..].split_once(": ")) else { return message };
    said.split_once("' failed: ").map_or(said, |(_, why)| why)
}

/// What is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildParams {
    /// The kind of index.
    pub spec: IndexSpec,
    /// How vectors are compared.
    pub metric: Metric,
    /// Length of the vectors.
    pub dim: usize,
    /// For graphs: nodes looked at for each row that is added. More make a better graph, and take as much longer.
    pub ef_construction: usize,
    /// Threads that build.
    pub threads: usize,
}

impl BuildParams {
    /// An empty index of this kind.
    ///
    /// A build may end the process, or never end: FAISS does not check what it computes with. So it runs in a process
    /// that may.
    ///
    /// # Errors
    /// A kind that does not go with the dimension; what FAISS says.
    pub fn begin(&self) -> Result<Builder, FaissError> {
        self.spec.check(self.dim).map_err(|refused| FaissError(refused.to_string()))?;
        let metric = match self.metric {
            Metric::Cosine | Metric::InnerProduct => MetricType::InnerProduct,
            Metric::L2 => MetricType::L2,
        };
        let dim = u32::try_from(self.dim).map_err(|_| FaissError(format!("dimension {}", self.dim)))?;
        ffi::set_threads(self.threads);
        let index = index_factory(dim, self.spec.factory(), metric)?;
        if self.spec.is_graph() {
            let effort = self.ef_construction as f64;
            ParameterSpace::new()?.set_index_parameter(&index, "efConstruction", effort)?;
        }
        Ok(Builder { index })
    }

    /// Builds an index of rows and writes its file.
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
    ) -> Result<(), FaissError> {
        let mut builder = self.begin()?;
        let training_rows = self.spec.training_rows(rows.len(), self.dim);
        if training_rows > 0 {
            builder.train(&joined(training(rows.clone(), training_rows)))?;
        }
        let mut rows = rows;
        loop {
            let chunk = joined(rows.by_ref().take(CHUNK_ROWS));
            if chunk.is_empty() {
                return builder.write(file);
            }
            builder.add(&chunk)?;
        }
    }
}

/// Evenly spaced rows, as many as training takes.
pub fn training<'a>(
    rows: impl ExactSizeIterator<Item = &'a [f32]>,
    count: usize,
) -> impl Iterator<Item = &'a [f32]> {
    let step = rows.len() / count.max(1);
    rows.step_by(step.max(1)).take(count)
}

/// An index that is being built.
pub struct Builder {
    index: IndexImpl,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").finish_non_exhaustive()
    }
}

impl Builder {
    /// Learns ranges and centroids from rows, one after the other.
    ///
    /// # Errors
    /// What FAISS says: too few rows.
    pub fn train(&mut self, rows: &[f32]) -> Result<(), FaissError> {
        Ok(self.index.train(rows)?)
    }

    /// Adds rows, one after the other.
    ///
    /// # Errors
    /// What FAISS says: it has learned nothing, no memory.
    pub fn add(&mut self, rows: &[f32]) -> Result<(), FaissError> {
        Ok(self.index.add(rows)?)
    }

    /// Writes the index to a file.
    ///
    /// # Errors
    /// What FAISS says: the file cannot be written.
    pub fn write(&self, file: &Path) -> Result<(), FaissError> {
        Ok(io::write_index(&self.index, name(file)?)?)
    }
}

/// An index that FAISS searches in its mapped file. Nothing in it can be changed.
pub struct FaissIndex {
    index: ffi::Unchanged,
    dim: usize,
    rows: usize,
    memory_bytes: usize,
}

impl fmt::Debug for FaissIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resident").field("dim", &self.dim).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl FaissIndex {
    /// Opens a file that [`Builder::write`] wrote. FAISS trusts what it reads, so every number that it computes places
    /// from is checked before. The file is mapped, and must not be written to any more. `nprobe` is how many lists a search
    /// of an inverted file visits.
    ///
    /// # Errors
    /// A file of another kind, or one that contradicts itself; what FAISS says.
    pub fn open(file: &Path, content: &[u8], nprobe: usize) -> Result<FaissIndex, FaissError> {
        let shape = faiss_check::check(content).map_err(|malformed| FaissError(malformed.to_string()))?;
        ffi::set_threads(1);
        let index = io::read_index_with_flags(name(file)?, IoFlags::from(MAPPED))?;
        // Of an index without lists FAISS refuses it, and there is nothing to set.
        let _ = ParameterSpace::new()?.set_index_parameter(&index, "nprobe", nprobe as f64);
        let (dim, rows) = (index.d() as usize, usize::try_from(index.ntotal()).unwrap_or(0));
        if (dim, rows) != (shape.dim, shape.rows) {
            return Err(FaissError("the file was read as another one".into()));
        }
        Ok(FaissIndex { index: ffi::Unchanged::new(index), dim, rows, memory_bytes: shape.memory_bytes })
    }

    /// Bytes of memory that it takes, mapped ones not counted.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
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
    pub fn search(&self, query: &[f32], k: usize) -> Result<Vec<u32>, FaissError> {
        assert_eq!(query.len(), self.dim, "a query of another dimension");
        let k = k.min(self.rows);
        if k == 0 {
            return Ok(Vec::new());
        }
        ffi::set_threads(1);
        let rows = ffi::search(&self.index, query, self.dim, k).map_err(FaissError)?;
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

fn name(file: &Path) -> Result<&str, FaissError> {
    file.to_str().ok_or_else(|| FaissError(format!("the path {} is not UTF-8", file.display())))
}

#[cfg(test)]
mod tests {
    use super::without_place;

    #[test]
    fn messages_name_no_source_file() {
        let said = "Error in virtual void faiss::Clustering::train(idx_t) at /home/x/faiss/Clustering.cpp:77: Error: \
            'nx >= k' failed: Number of training points (10) should be at least as large as number of clusters (64)";
        let message = "Number of training points (10) should be at least as large as number of clusters (64)";
        assert_eq!(without_place(said), message);
        assert_eq!(
            without_place("Error in f at /a/b.cpp:5: could not open x for writing"),
            "could not open x for writing"
        );
        assert_eq!(without_place("Native faiss error: std::exception"), "std::exception");
    }
}
