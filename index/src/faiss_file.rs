//! FAISS's files, read without FAISS: flat rows, HNSW graphs, 8-bit codes, and tables of ids around them.
//!
//! The format is that of FAISS 1.7 to 1.15 (`faiss/impl/index_write.cpp`): a tag of four letters, a header, arrays with
//! their lengths before them, little-endian, nothing aligned. Every length is checked against the file before it is used,
//! and every number of a graph before the graph is searched, so that a file from anywhere gives an error at worst.

use std::fmt;
use std::ops::Range;

use crate::Metric;

/// FAISS's own limit is `int`; ours is that of the exact scan.
const DIM_MAX: usize = 65_536;
/// FAISS's name for codes of 8 bits a component.
const QT_8BIT: u32 = 0;
/// Levels that a graph may have: one in 2^4 rows at least reaches each next one.
const LEVELS_MAX: usize = 64;

/// Why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub(crate) String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a FAISS file that can be read here: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

pub(crate) type Result<T> = std::result::Result<T, Malformed>;

/// What a file holds, as places in its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) metric: Metric,
    pub(crate) dim: usize,
    pub(crate) rows: usize,
    pub(crate) content: GraphContent,
}

#[derive(Clone, Debug)]
pub(crate) enum GraphContent {
    /// Rows of f32.
    Flat { floats: Range<usize> },
    /// Rows of 8-bit codes.
    Sq8(Sq8),
    /// A graph over rows that are one of the two above.
    Hnsw { graph: GraphLayout, storage: Box<Layout> },
    /// Rows with ids: 64-bit integers.
    IdMap { ids: Range<usize>, inner: Box<Layout> },
}

/// Codes `c` that stand for `low + (c + 0.5) / 255 * span` in each dimension.
#[derive(Clone, Debug)]
pub(crate) struct Sq8 {
    pub(crate) low: Vec<f32>,
    pub(crate) span: Vec<f32>,
    pub(crate) codes: Range<usize>,
}

/// The arrays of a graph.
#[derive(Clone, Debug)]
pub(crate) struct GraphLayout {
    /// How many neighbours of a node are stored below each level.
    pub(crate) below_level: Vec<usize>,
    /// i32 each: the number of levels of a node.
    pub(crate) levels: Range<usize>,
    /// u64 each: where a node's neighbours begin.
    pub(crate) offsets: Range<usize>,
    /// i32 each; the list of a level ends with -1 if it is not full.
    pub(crate) neighbors: Range<usize>,
    /// Where a search begins; none in an empty graph.
    pub(crate) entry: Option<usize>,
    /// The highest level, from 0.
    pub(crate) level_max: usize,
}

impl Layout {
    /// Reads what a file holds. Cost: reads headers only.
    ///
    /// # Errors
    /// A kind that is not read here, or lengths that do not fit.
    pub(crate) fn read(file: &[u8]) -> Result<Layout> {
        let mut reader = FileReader { file, at: 0 };
        let layout = reader.index(2)?;
        if reader.at != file.len() {
            return Err(Malformed(format!("{} bytes follow its end", file.len() - reader.at)));
        }
        Ok(layout)
    }
}

pub(crate) struct FileReader<'a> {
    pub(crate) file: &'a [u8],
    pub(crate) at: usize,
}

impl FileReader<'_> {
    /// An index, with others nested in it at most so deep.
    fn index(&mut self, depth: usize) -> Result<Layout> {
        let tag = self.array::<4>()?;
        let (dim, rows, metric) = self.header()?;
        let nested = |reader: &mut Self| {
            let inner =
                if depth == 0 { Err(Malformed("nested too deep".into())) } else { reader.index(depth - 1) }?;
            if (inner.dim, inner.rows, inner.metric) != (dim, rows, metric) {
                return Err(Malformed("what is nested has another shape".into()));
            }
            Ok(Box::new(inner))
        };
        let content = match &tag {
            b"IxFI" | b"IxF2" | b"IxFl" => {
                let count = self.count()?;
                GraphContent::Flat { floats: self.array_of(count, 4, rows.checked_mul(dim), "floats")? }
            }
            b"IxSQ" => GraphContent::Sq8(self.sq8(dim, rows)?),
            b"IHNf" | b"IHNs" => {
                let graph = self.graph(rows)?;
                GraphContent::Hnsw { graph, storage: nested(self)? }
            }
            b"IxMp" | b"IxM2" => {
                let inner = nested(self)?;
                let count = self.count()?;
                GraphContent::IdMap { ids: self.array_of(count, 8, Some(rows), "ids")?, inner }
            }
            other => {
                let tag = String::from_utf8_lossy(other).into_owned();
                let message =
                    format!("kind {tag:?}; flat, HNSW over flat or SQ8, SQ8, and id maps of them are read");
                return Err(Malformed(message));
            }
        };
        Ok(Layout { metric, dim, rows, content })
    }

    pub(crate) fn header(&mut self) -> Result<(usize, usize, Metric)> {
        let dim = self.i32()?;
        let rows = i64::from_le_bytes(self.array()?);
        // Two fields that FAISS no longer reads, and whether it was trained.
        self.skip(17)?;
        let metric = match self.i32()? {
            0 => Metric::InnerProduct,
            1 => Metric::L2,
            other => return Err(Malformed(format!("metric {other}"))),
        };
        let dim = usize::try_from(dim).ok().filter(|dim| (1..=DIM_MAX).contains(dim));
        let dim = dim.ok_or_else(|| Malformed("a dimension outside 1 to 65536".into()))?;
        let rows = usize::try_from(rows).ok().filter(|&rows| rows <= i32::MAX as usize);
        let rows = rows.ok_or_else(|| Malformed("a number of rows outside 0 to 2^31 - 1".into()))?;
        Ok((dim, rows, metric))
    }

    fn sq8(&mut self, dim: usize, rows: usize) -> Result<Sq8> {
        let kind = u32::from_le_bytes(self.array()?);
        if kind != QT_8BIT {
            return Err(Malformed(format!("scalar quantizer {kind}; that of 8 bits (0) is read")));
        }
        // How the ranges were found, an argument of that, and sizes that follow from the dimension.
        self.skip(8)?;
        if self.count()? != dim || self.count()? != dim {
            return Err(Malformed("codes of another dimension".into()));
        }
        let count = self.count()?;
        let trained = self.array_of(count, 4, Some(2 * dim), "ranges of codes")?;
        let (numbers, _) = self.file[trained].as_chunks::<4>();
        let mut numbers = numbers.iter().map(|&bytes| f32::from_le_bytes(bytes));
        let low: Vec<f32> = numbers.by_ref().take(dim).collect();
        let span: Vec<f32> = numbers.collect();
        if low.iter().chain(&span).any(|number| !number.is_finite()) {
            return Err(Malformed("a range of codes that is not finite".into()));
        }
        let count = self.count()?;
        let codes = self.array_of(count, 1, rows.checked_mul(dim), "codes")?;
        Ok(Sq8 { low, span, codes })
    }

    pub(crate) fn graph(&mut self, rows: usize) -> Result<GraphLayout> {
        // The probability of each level, of which only building has need.
        let probabilities = self.count()?;
        self.array_of(probabilities, 8, Some(probabilities).filter(|&count| count <= LEVELS_MAX), "levels")?;
        let count = self.count()?;
        let bounds = self.array_of(
            count,
            4,
            Some(count).filter(|count| (2..=LEVELS_MAX + 1).contains(count)),
            "levels",
        )?;
        let (bounds, _) = self.file[bounds].as_chunks::<4>();
        let below_level: Vec<usize> = bounds
            .iter()
            .map(|&bytes| usize::try_from(i32::from_le_bytes(bytes)).unwrap_or(usize::MAX))
            .collect();
        if below_level[0] != 0 || !below_level.is_sorted() || below_level.last() > Some(&(1 << 20)) {
            return Err(Malformed("numbers of neighbours that do not grow".into()));
        }
        let count = self.count()?;
        let levels = self.array_of(count, 4, Some(rows), "levels of nodes")?;
        let count = self.count()?;
        let offsets = self.array_of(count, 8, rows.checked_add(1), "offsets")?;
        let count = self.count()?;
        let neighbors = self.array_of(count, 4, Some(count), "neighbours")?;
        let (entry, level_max) = (self.i32()?, self.i32()?);
        // What building and searching had been set to, and a field that FAISS no longer reads.
        self.skip(12)?;
        let graph = GraphLayout {
            below_level,
            levels,
            offsets,
            neighbors,
            entry: usize::try_from(entry).ok().filter(|&entry| entry < rows),
            level_max: usize::try_from(level_max).unwrap_or(0),
        };
        graph.check(self.file, rows)?;
        Ok(graph)
    }

    pub(crate) fn skip(&mut self, bytes: usize) -> Result<()> {
        let next = self.at.checked_add(bytes).filter(|&next| next <= self.file.len());
        self.at = next.ok_or_else(|| Malformed("it ends early".into()))?;
        Ok(())
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let from = self.at;
        self.skip(N)?;
        Ok(self.file[from..self.at].try_into().expect("so many bytes: this is a bug"))
    }

    pub(crate) fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    pub(crate) fn count(&mut self) -> Result<usize> {
        usize::try_from(u64::from_le_bytes(self.array()?))
            .map_err(|_| Malformed("a length beyond memory".into()))
    }

    /// `count` things of some bytes each, which must be as many as expected.
    pub(crate) fn array_of(
        &mut self,
        count: usize,
        bytes: usize,
        expected: Option<usize>,
        what: &str,
    ) -> Result<Range<usize>> {
        if expected != Some(count) {
            return Err(Malformed(format!("{count} {what}, which is not what its other fields say")));
        }
        let from = self.at;
        self.skip(count.checked_mul(bytes).ok_or_else(|| Malformed(format!("{count} {what}")))?)?;
        Ok(from..self.at)
    }
}

impl GraphLayout {
    /// Checks every number of the graph, so that a search need not. Cost: reads the whole graph once.
    fn check(&self, file: &[u8], rows: usize) -> Result<()> {
        let (neighbors, _) = file[self.neighbors.clone()].as_chunks::<4>();
        let (levels, _) = file[self.levels.clone()].as_chunks::<4>();
        let (offsets, _) = file[self.offsets.clone()].as_chunks::<8>();
        let top = self.below_level.len() - 1;
        let mut next = 0;
        for (level, offset) in levels.iter().zip(offsets) {
            let level = usize::try_from(i32::from_le_bytes(*level)).unwrap_or(0);
            if !(1..=top).contains(&level) || u64::from_le_bytes(*offset) != next {
                return Err(Malformed("levels and offsets that disagree".into()));
            }
            next += self.below_level[level] as u64;
        }
        if offsets.last().map(|&last| u64::from_le_bytes(last)) != Some(next)
            || next != neighbors.len() as u64
        {
            return Err(Malformed("offsets and neighbours that disagree".into()));
        }
        // As unsigned numbers, -1 is the only one above all rows that is allowed: one comparison of sums for each.
        let is_wrong = |chunk: &[[u8; 4]]| {
            let wrong = chunk.iter().map(|&bytes| {
                let number = i32::from_le_bytes(bytes);
                u32::from(number < -1) | u32::from(number >= rows as i32)
            });
            wrong.fold(0, |any, wrong| any | wrong) != 0
        };
        if neighbors.chunks(4096).any(is_wrong) {
            return Err(Malformed("a neighbour that does not exist".into()));
        }
        if rows > 0 && (self.entry.is_none() || self.level_max >= top) {
            return Err(Malformed("no place to begin a search".into()));
        }
        Ok(())
    }
}

/// The rows in a FAISS file: flat ones as they are, 8-bit codes as what they stand for, graphs as the rows under them.
#[derive(Debug)]
pub struct Vectors<'a> {
    file: &'a [u8],
    layout: Layout,
    ids: Option<Range<usize>>,
}

impl<'a> Vectors<'a> {
    /// The rows of a file. FAISS never sees it, so it may come from anywhere.
    ///
    /// # Errors
    /// A kind of index whose rows are not kept in a way that is read here, or a file that contradicts itself.
    pub fn read(file: &'a [u8]) -> Result<Vectors<'a>> {
        let mut vectors = Vectors { file, layout: Layout::read(file)?, ids: None };
        loop {
            let inner = match vectors.layout.content {
                GraphContent::Flat { .. } | GraphContent::Sq8(_) => return Ok(vectors),
                GraphContent::Hnsw { storage, .. } => *storage,
                GraphContent::IdMap { ids, inner } => {
                    vectors.ids = Some(ids);
                    *inner
                }
            };
            vectors.layout = inner;
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.layout.rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.layout.rows == 0
    }

    /// Components of a row.
    pub fn dim(&self) -> usize {
        self.layout.dim
    }

    /// How the file says that rows are compared; FAISS knows no cosine, and takes the inner product of unit vectors for it.
    pub fn metric(&self) -> Metric {
        self.layout.metric
    }

    /// The id of a row, if the file has ids.
    pub fn id(&self, row: usize) -> Option<i64> {
        let (ids, _) = self.file[self.ids.clone()?].as_chunks::<8>();
        ids.get(row).map(|&bytes| i64::from_le_bytes(bytes))
    }

    /// A row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> Vec<f32> {
        let dim = self.layout.dim;
        match &self.layout.content {
            GraphContent::Flat { floats } => {
                let (floats, _) = self.file[floats.clone()].as_chunks::<4>();
                floats[row * dim..][..dim].iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
            }
            GraphContent::Sq8(quantizer) => {
                let codes = &self.file[quantizer.codes.clone()][row * dim..][..dim];
                quantizer.decode(codes).collect()
            }
            GraphContent::Hnsw { .. } | GraphContent::IdMap { .. } => {
                unreachable!("`read` has gone through these: this is a bug")
            }
        }
    }
}

impl Sq8 {
    /// What codes of a row stand for.
    pub(crate) fn decode<'a>(&'a self, codes: &'a [u8]) -> impl Iterator<Item = f32> + 'a {
        let parts = codes.iter().zip(self.low.iter().zip(&self.span));
        parts.map(|(&code, (low, span))| low + (f32::from(code) + 0.5) / 255.0 * span)
    }
}

/// What a FAISS file of flat rows begins with; `rows` times `dim` little-endian f32 follow, and nothing else.
pub fn flat_header(metric: Metric, dim: u32, rows: u64) -> [u8; 45] {
    let (tag, number) = match metric {
        Metric::Cosine | Metric::InnerProduct => (b"IxFI", 0_u32),
        Metric::L2 => (b"IxF2", 1),
    };
    let unused = (1_u64 << 20).to_le_bytes();
    let floats = (rows * u64::from(dim)).to_le_bytes();
    let mut header = [0; 45];
    let parts: [&[u8]; 8] = [
        tag,
        &dim.to_le_bytes(),
        &rows.to_le_bytes(),
        &unused,
        &unused,
        &[1],
        &number.to_le_bytes(),
        &floats,
    ];
    let mut rest = &mut header[..];
    for part in parts {
        let (place, after) = rest.split_at_mut(part.len());
        place.copy_from_slice(part);
        rest = after;
    }
    header
}
