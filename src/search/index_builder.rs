//! The builder of indexes: it plans the index of each collection, and runs one build at a time.

use std::sync::Mutex;
use std::sync::mpsc::Receiver;

use likewise_index::{Cost, GRAMMAR, IndexSpec, Metric, SpecError};
use serde::{Deserialize, Serialize};

use super::ann_index::AnnEngine;
use super::build::{self, BuildEnd, BuildFailure, BuildTask, FailureCause, Program};
use super::segment_view::SegmentView;
use super::settings::{Indexed, Settings};
use crate::error::{Error, Kind, Result};
use crate::storage::collections::{Coverage, Covered, Draft, IndexFile};
use crate::sync::lock;

/// An index that is being built.
#[derive(Debug)]
pub(super) struct RunningBuild {
    pub(super) draft: Draft,
    pub(super) built: Receiver<Result<Option<Built>, BuildFailure>>,
}

/// Documents from which on a collection has the index that it names.
const NAMED_ROWS_MIN: usize = 1024;
/// The longest build whose limit is not configured.
const SECONDS_MAX: u64 = 6 * 3600;

/// When and how collections are indexed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Indexing {
    /// Collections with fewer rows are searched exactly, unless they name an index.
    pub rows_min: usize,
    /// FAISS's name for what is built where a collection names nothing.
    pub factory: String,
    /// For graphs: nodes looked at for each row that is added.
    pub ef_construction: usize,
    /// For graphs: nodes expanded by a search that does not say how many.
    pub ef: usize,
    /// For inverted files: lists visited by a search.
    pub nprobe: usize,
    /// Threads that build; 0 takes half of the cores.
    pub build_threads: usize,
    /// A build that takes longer is ended; 0 takes a limit that follows from its rows.
    pub build_seconds_max: u64,
    /// A build that needs more memory is ended; 0 takes a limit that follows from its rows.
    pub build_memory_bytes_max: u64,
}

impl Default for Indexing {
    fn default() -> Indexing {
        Indexing {
            rows_min: 50_000,
            factory: "HNSW32,SQ8".into(),
            ef_construction: 200,
            ef: 96,
            nprobe: 32,
            build_threads: 0,
            build_seconds_max: 0,
            build_memory_bytes_max: 0,
        }
    }
}

/// Builds indexes, one at a time.
#[derive(Debug)]
pub(super) struct IndexBuilder {
    pub(super) indexing: Indexing,
    program: Program,
    build_lock: Mutex<()>,
}

/// The index that a collection is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IndexPlan {
    /// As it is named.
    pub(super) factory: String,
    pub(super) spec: IndexSpec,
    pub(super) metric: Metric,
    pub(super) dim: usize,
    /// Documents from which on the collection has it.
    pub(super) rows_min: usize,
}

/// An index to build.
pub(super) struct BuildOrder {
    pub(super) plan: IndexPlan,
    /// The sealed parts of a view.
    pub(super) parts: Vec<SegmentView>,
    pub(super) version: u64,
    pub(super) draft: Draft,
}

/// An index that has been built and that no view holds yet.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) file: IndexFile,
    pub(super) coverage: Coverage,
    pub(super) engine: AnnEngine,
}

impl IndexBuilder {
    /// # Errors
    /// `Config` for a factory string that is not in the grammar.
    pub(super) fn new(indexing: Indexing, program: Program) -> Result<IndexBuilder> {
        let refused =
            |error| Error::new(Kind::Config, format!("search.index.factory: {error}; it is {GRAMMAR}"));
        IndexSpec::parse(&indexing.factory).map_err(refused)?;
        Ok(IndexBuilder { indexing, program, build_lock: Mutex::new(()) })
    }

    /// Whether the index that a collection names can be built.
    ///
    /// # Errors
    /// `InvalidInput`, with the grammar.
    pub(super) fn check(&self, settings: &Settings) -> Result<()> {
        match self.plan(settings) {
            // The server's own index is no fault of a client's.
            Err(refused) if matches!(settings.index, Indexed::Factory(_)) => {
                let message = format!("{refused}; index is auto, exact, {GRAMMAR}");
                Err(Error::invalid("index", message))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The index that a collection is to have; none if it is to be searched exactly.
    ///
    /// # Errors
    /// Why there is no such index: its name was accepted before this grammar, or its vectors are of a length that the
    /// server's index cannot have.
    pub(super) fn plan(&self, settings: &Settings) -> Result<Option<IndexPlan>, SpecError> {
        let (factory, rows_min) = match &settings.index {
            Indexed::Exact => return Ok(None),
            Indexed::Auto => (&self.indexing.factory, self.indexing.rows_min),
            Indexed::Factory(factory) => (factory, NAMED_ROWS_MIN),
        };
        let (metric, dim) = (settings.metric, settings.dim);
        let spec = IndexSpec::parse(factory)?;
        spec.check(dim)?;
        let rows_min = rows_min.max(spec.rows_min());
        Ok(Some(IndexPlan { factory: factory.clone(), spec, metric, dim, rows_min }))
    }

    fn threads(&self) -> usize {
        let half = || std::thread::available_parallelism().map_or(1, |cores| usize::from(cores) / 2);
        let threads = if self.indexing.build_threads == 0 { half() } else { self.indexing.build_threads };
        threads.max(1)
    }

    /// What a build may take: what is configured, or what follows from its rows.
    fn limits(&self, plan: &IndexPlan, rows: usize) -> Cost {
        let Indexing { ef_construction, build_seconds_max, build_memory_bytes_max, .. } = self.indexing;
        let cost = plan.spec.cost(rows, plan.dim, ef_construction, self.threads());
        let chosen = |configured, derived| if configured == 0 { derived } else { configured };
        Cost {
            memory_bytes: chosen(build_memory_bytes_max, cost.memory_bytes),
            seconds: chosen(build_seconds_max, cost.seconds.min(SECONDS_MAX)),
        }
    }

    fn build_to_draft(
        &self,
        order: &BuildOrder,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Option<Built>, BuildFailure> {
        let _turn = lock(&self.build_lock);
        if !is_wanted() {
            return Ok(None);
        }
        let rows: Vec<&[f32]> =
            order.parts.iter().flat_map(SegmentView::rows).map(|(vector, _)| vector).collect();
        let IndexPlan { factory, spec, metric, dim, .. } = &order.plan;
        let task = BuildTask {
            factory: factory.clone(),
            metric: *metric,
            dim: *dim,
            rows: rows.len(),
            training_rows: spec.training_rows(rows.len(), *dim),
            ef_construction: self.indexing.ef_construction,
            threads: self.threads(),
            file: order.draft.path().to_owned(),
        };
        let limits = self.limits(&order.plan, rows.len());
        let end = build::run(&self.program, &task, &rows, limits, &is_wanted)?;
        if end == BuildEnd::Unwanted || !is_wanted() {
            return Ok(None);
        }
        let file = order.draft.finish()?;
        let covered = |part: &SegmentView| {
            let segment = part.block.segment().expect("parts of segments: this is a bug");
            Covered { number: segment.number(), rows: segment.rows() as u32, left_out: part.dead_bits() }
        };
        let coverage = Coverage {
            factory: factory.clone(),
            version: order.version,
            segments: order.parts.iter().map(covered).collect(),
        };
        let unreadable = |error| {
            BuildFailure::new(FailureCause::Crash, "it wrote a file that cannot be read").source(error)
        };
        Ok(Some(Built {
            engine: AnnEngine::open(&file, self.indexing.nprobe).map_err(unreadable)?,
            file,
            coverage,
        }))
    }

    /// Builds an index, writes it to its draft and opens it; none, and no draft, if it is no longer wanted. Blocks until it
    /// is its turn, and then for as long as it takes.
    pub(super) fn build(
        &self,
        order: &BuildOrder,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Option<Built>, BuildFailure> {
        let built = self.build_to_draft(order, is_wanted);
        if !matches!(built, Ok(Some(_))) {
            order.draft.discard();
        }
        built
    }
}
