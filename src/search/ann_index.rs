//! The index over sealed rows: it proposes rows, which are scored like all others.
//!
//! Its rows are those that were live when it was built, in the order of the view. What became of each since then is in
//! `locations`; a row that is gone stays in the index and is never returned.

use std::sync::Arc;

use likewise_index::{Bits, FaissIndex, Graph, SearchParams};

use super::segment_view::SegmentView;
use crate::error::{Error, Kind, Result};
use crate::storage::collections::{IndexFile, Snapshot};

/// A row in a view's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RowLocation {
    part: u32,
    row: u32,
}

/// Of a row that is gone.
const GONE: RowLocation = RowLocation { part: u32::MAX, row: u32::MAX };

/// An index as a view holds it.
#[derive(Debug, Clone)]
pub(super) struct AnnIndex {
    engine: Arc<AnnEngine>,
    snapshot: Arc<Snapshot>,
    /// Where the rows of the index are now.
    locations: Arc<[RowLocation]>,
    /// Parts from the first on whose rows it holds.
    parts: usize,
    /// Whether its parts have been compacted since, so that it is not what the next start can open.
    is_obsolete: bool,
}

/// What searches.
#[derive(Debug)]
pub(super) enum AnnEngine {
    Graph(Box<Graph<IndexFile>>),
    Faiss(FaissIndex),
}

impl AnnIndex {
    /// The index of a snapshot over the parts of a view, which begin with the segments that it covers.
    ///
    /// # Errors
    /// `Corrupt` if it is not an index of these parts; `Internal` if FAISS cannot open it.
    pub(super) fn open(
        snapshot: Arc<Snapshot>,
        parts: &[SegmentView],
        dim: usize,
        nprobe: usize,
    ) -> Result<AnnIndex> {
        let engine = AnnEngine::open(snapshot.file(), nprobe)?;
        AnnIndex::new(engine, snapshot, parts, dim)
    }

    /// The index that is open already, of a snapshot over the parts of a view.
    ///
    /// # Errors
    /// `Corrupt` if it is not an index of these parts.
    pub(super) fn new(
        engine: AnnEngine,
        snapshot: Arc<Snapshot>,
        parts: &[SegmentView],
        dim: usize,
    ) -> Result<AnnIndex> {
        let corrupt = |what: &str| Error::new(Kind::Corrupt, format!("cannot open an index: {what}"));
        let coverage = snapshot.coverage();
        let mut locations = Vec::new();
        for (number, covered) in coverage.segments.iter().enumerate() {
            let segment = parts.get(number).and_then(|part| part.block.segment());
            let is_same = |number, rows| (number, rows) == (covered.number, covered.rows as usize);
            if !segment.is_some_and(|segment| is_same(segment.number(), segment.rows())) {
                return Err(corrupt("its segments are not those of the collection"));
            }
            let is_left_out = |row: &u32| {
                covered.left_out.get(*row as usize / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1)
            };
            let rows = (0..covered.rows).filter(|row| !is_left_out(row));
            locations.extend(rows.map(|row| RowLocation { part: number as u32, row }));
        }
        if engine.shape() != (locations.len(), dim) {
            return Err(corrupt("it has other rows than its manifest says"));
        }
        let parts = coverage.segments.len();
        Ok(AnnIndex {
            engine: Arc::new(engine),
            snapshot,
            locations: locations.into(),
            parts,
            is_obsolete: false,
        })
    }

    /// Its file.
    pub(super) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Parts from the first on whose rows it holds.
    pub(super) fn parts(&self) -> usize {
        self.parts
    }

    /// Rows in it, gone ones included.
    pub(super) fn rows(&self) -> usize {
        self.locations.len()
    }

    /// Whether the next start cannot open it.
    pub(super) fn is_obsolete(&self) -> bool {
        self.is_obsolete
    }

    /// Where its rows are now, as part and row; none for one that is gone.
    pub(super) fn locations(&self) -> impl Iterator<Item = Option<(usize, usize)>> {
        self.locations
            .iter()
            .map(|&location| (location != GONE).then_some((location.part as usize, location.row as usize)))
    }

    /// Bytes in memory, mapped ones not counted.
    pub(super) fn memory_bytes(&self) -> usize {
        let engine = match &*self.engine {
            AnnEngine::Graph(graph) => graph.memory_bytes(),
            AnnEngine::Faiss(index) => index.memory_bytes(),
        };
        engine + self.locations.len() * size_of::<RowLocation>()
    }

    /// Whether it can search among some of its rows only.
    pub(super) fn takes_filters(&self) -> bool {
        match &*self.engine {
            AnnEngine::Graph(_) => true,
            AnnEngine::Faiss(_) => false,
        }
    }

    /// Rows near a vector as part and row; with `keep`, only those of which the bits of their part say so. Where FAISS
    /// searches, that are half of all rows at least.
    pub(super) fn propose(
        &self,
        vector: &[f32],
        params: SearchParams,
        keep: Option<&[&Bits]>,
    ) -> Vec<(usize, usize)> {
        let is_kept = keep.map(|keep| {
            move |number: u32| {
                let location = self.locations[number as usize];
                keep.get(location.part as usize).is_some_and(|bits| bits.get(location.row as usize))
            }
        });
        let numbers = match &*self.engine {
            AnnEngine::Graph(graph) => {
                graph.search(vector, params, is_kept.as_ref().map(|is_kept| is_kept as &dyn Fn(u32) -> bool))
            }
            AnnEngine::Faiss(index) => {
                let found = index.search(vector, 2 * params.candidates).unwrap_or_else(|error| {
                    // A scan finds what is missing.
                    tracing::error!(%error, "an index cannot be searched");
                    Vec::new()
                });
                found
                    .into_iter()
                    .filter(|&number| is_kept.as_ref().is_none_or(|is_kept| is_kept(number)))
                    .collect()
            }
        };
        let location = |number: u32| self.locations[number as usize];
        numbers
            .into_iter()
            .map(location)
            .map(|location| (location.part as usize, location.row as usize))
            .collect()
    }

    /// The same index after parts `from..to` have become one part of their live rows, or none.
    pub(super) fn compacted(
        &self,
        parts: &[SegmentView],
        from: usize,
        to: usize,
        is_empty: bool,
    ) -> AnnIndex {
        let mut next = 0;
        let mut ranks: Vec<Vec<u32>> = Vec::new();
        for part in &parts[from..to] {
            let mut rank = vec![u32::MAX; part.block.len()];
            for row in part.live().iter() {
                rank[row] = next;
                next += 1;
            }
            ranks.push(rank);
        }
        let gained = usize::from(!is_empty);
        let moved = |location: &RowLocation| {
            let part = location.part as usize;
            if *location == GONE || part < from {
                *location
            } else if part >= to {
                RowLocation { part: (part - (to - from) + gained) as u32, row: location.row }
            } else {
                match ranks[part - from][location.row as usize] {
                    u32::MAX => GONE,
                    row => RowLocation { part: from as u32, row },
                }
            }
        };
        AnnIndex {
            locations: self.locations.iter().map(moved).collect(),
            parts: self.parts - (to - from) + gained,
            is_obsolete: true,
            ..self.clone()
        }
    }
}

impl AnnEngine {
    /// Opens the file of an index, whose checksum has been verified.
    ///
    /// # Errors
    /// `Corrupt` if it is none that is built here, or contradicts itself; `Internal` if FAISS cannot open it.
    pub(super) fn open(file: &IndexFile, nprobe: usize) -> Result<AnnEngine> {
        if let Ok(graph) = Graph::open(file.clone()) {
            return Ok(AnnEngine::Graph(Box::new(graph)));
        }
        // Of a kind that only FAISS reads, once all that it takes on trust has been checked.
        let opened = FaissIndex::open(file.path(), file.as_ref(), nprobe);
        let failed = |error| Error::new(Kind::Corrupt, "cannot open an index").source(error);
        opened.map(AnnEngine::Faiss).map_err(failed)
    }

    /// Rows and dimension.
    fn shape(&self) -> (usize, usize) {
        match self {
            AnnEngine::Graph(graph) => (graph.len(), graph.dim()),
            AnnEngine::Faiss(index) => (index.len(), index.dim()),
        }
    }
}
