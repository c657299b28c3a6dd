//! The index over sealed rows: it proposes rows, which are scored like all others.
//!
//! Its rows are those that were live when it was built, in the order of the view. What became of each since then is in
//! `spots`; a row that is gone stays in the index and is never returned.

use std::sync::Arc;

use likewise_index::{Bits, Effort, Graph, Resident};

use super::view::Part;
use crate::error::{Error, Kind, Result};
use crate::storage::rows::{IndexFile, Snapshot};

/// A row in a view's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spot {
    part: u32,
    row: u32,
}

/// Of a row that is gone.
const GONE: Spot = Spot { part: u32::MAX, row: u32::MAX };

/// An index as a view holds it.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    engine: Arc<Engine>,
    snapshot: Arc<Snapshot>,
    /// Where the rows of the index are now.
    spots: Arc<[Spot]>,
    /// Parts from the first on whose rows it holds.
    parts: usize,
    /// Whether its parts have been compacted since, so that it is not what the next start can open.
    is_outlived: bool,
}

/// What searches.
#[derive(Debug)]
pub(super) enum Engine {
    Graph(Box<Graph<IndexFile>>),
    Faiss(Resident),
}

impl Sealed {
    /// The index of a snapshot over the parts of a view, which begin with the segments that it covers.
    ///
    /// # Errors
    /// `Corrupt` if it is not an index of these parts; `Internal` if FAISS cannot open it.
    pub(super) fn open(snapshot: Arc<Snapshot>, parts: &[Part], dim: usize, nprobe: usize) -> Result<Sealed> {
        let engine = Engine::open(snapshot.file(), nprobe)?;
        Sealed::new(engine, snapshot, parts, dim)
    }

    /// The index that is open already, of a snapshot over the parts of a view.
    ///
    /// # Errors
    /// `Corrupt` if it is not an index of these parts.
    pub(super) fn new(engine: Engine, snapshot: Arc<Snapshot>, parts: &[Part], dim: usize) -> Result<Sealed> {
        let corrupt = |what: &str| Error::new(Kind::Corrupt, format!("open an index: {what}"));
        let coverage = snapshot.coverage();
        let mut spots = Vec::new();
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
            spots.extend(rows.map(|row| Spot { part: number as u32, row }));
        }
        if engine.shape() != (spots.len(), dim) {
            return Err(corrupt("it has other rows than its manifest says"));
        }
        let parts = coverage.segments.len();
        Ok(Sealed { engine: Arc::new(engine), snapshot, spots: spots.into(), parts, is_outlived: false })
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
        self.spots.len()
    }

    /// Whether the next start cannot open it.
    pub(super) fn is_outlived(&self) -> bool {
        self.is_outlived
    }

    /// Where its rows are now, as part and row; none for one that is gone.
    pub(super) fn spots(&self) -> impl Iterator<Item = Option<(usize, usize)>> {
        self.spots.iter().map(|&spot| (spot != GONE).then_some((spot.part as usize, spot.row as usize)))
    }

    /// Bytes in memory, mapped ones not counted.
    pub(super) fn memory_bytes(&self) -> usize {
        let engine = match &*self.engine {
            Engine::Graph(graph) => graph.memory_bytes(),
            Engine::Faiss(index) => index.memory_bytes(),
        };
        engine + self.spots.len() * size_of::<Spot>()
    }

    /// Whether it can search among some of its rows only.
    pub(super) fn takes_filters(&self) -> bool {
        match &*self.engine {
            Engine::Graph(_) => true,
            Engine::Faiss(_) => false,
        }
    }

    /// Rows near a vector as part and row; with `keep`, only those of which the bits of their part say so. Where FAISS
    /// searches, that are half of all rows at least.
    pub(super) fn propose(
        &self,
        vector: &[f32],
        effort: Effort,
        keep: Option<&[&Bits]>,
    ) -> Vec<(usize, usize)> {
        let is_kept = keep.map(|keep| {
            move |number: u32| {
                let spot = self.spots[number as usize];
                keep.get(spot.part as usize).is_some_and(|bits| bits.get(spot.row as usize))
            }
        });
        let numbers = match &*self.engine {
            Engine::Graph(graph) => {
                graph.search(vector, effort, is_kept.as_ref().map(|is_kept| is_kept as &dyn Fn(u32) -> bool))
            }
            Engine::Faiss(index) => {
                let found = index.search(vector, 2 * effort.candidates).unwrap_or_else(|error| {
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
        let spot = |number: u32| self.spots[number as usize];
        numbers.into_iter().map(spot).map(|spot| (spot.part as usize, spot.row as usize)).collect()
    }

    /// The same index after parts `from..to` have become one part of their live rows, or none.
    pub(super) fn compacted(&self, parts: &[Part], from: usize, to: usize, is_empty: bool) -> Sealed {
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
        let moved = |spot: &Spot| {
            let part = spot.part as usize;
            if *spot == GONE || part < from {
                *spot
            } else if part >= to {
                Spot { part: (part - (to - from) + gained) as u32, row: spot.row }
            } else {
                match ranks[part - from][spot.row as usize] {
                    u32::MAX => GONE,
                    row => Spot { part: from as u32, row },
                }
            }
        };
        Sealed {
            spots: self.spots.iter().map(moved).collect(),
            parts: self.parts - (to - from) + gained,
            is_outlived: true,
            ..self.clone()
        }
    }
}

impl Engine {
    /// Opens the file of an index, whose checksum has been verified.
    ///
    /// # Errors
    /// `Corrupt` if it is none that is built here, or contradicts itself; `Internal` if FAISS cannot open it.
    pub(super) fn open(file: &IndexFile, nprobe: usize) -> Result<Engine> {
        if let Ok(graph) = Graph::open(file.clone()) {
            return Ok(Engine::Graph(Box::new(graph)));
        }
        // Of a kind that only FAISS reads, once all that it takes on trust has been checked.
        let opened = Resident::open(file.path(), file.as_ref(), nprobe);
        let failed = |error| Error::new(Kind::Corrupt, "open an index").source(error);
        opened.map(Engine::Faiss).map_err(failed)
    }

    /// Rows and dimension.
    fn shape(&self) -> (usize, usize) {
        match self {
            Engine::Graph(graph) => (graph.len(), graph.dim()),
            Engine::Faiss(index) => (index.len(), index.dim()),
        }
    }
}
