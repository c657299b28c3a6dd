//! Which indexes may be built: a grammar of factory strings, each number with its bounds, and what a build may cost.
//!
//! FAISS takes what it reads from a factory string on trust: `PQ0` divides by zero, `NSG0` never ends, `HNSW65536` takes
//! gigabytes. So FAISS only sees strings that [`IndexSpec::factory`] has written, and that are in this grammar:
//!
//! ```text
//! index = codes | "HNSW" links [ ",Flat" | ",SQ8" ] | "IVF" lists "," codes
//! codes = "Flat" | "SQ4" | "SQ6" | "SQ8" | "SQfp16" | "SQbf16" | "PQ" parts [ "x" bits ]
//! ```
//!
//! Numbers are decimal, without sign and leading zeros. `links` is 4 to 64, `lists` 1 to 65536, `parts` 1 to 256 and a
//! divisor of the dimension, `bits` 4 to 8 (8 if left out).
//!
//! Graphs are those that are searched by [`Graph`](crate::Graph). FAISS's own search of a graph does not end where a distance is
//! not a number, as that of a half-precision code of 70,000 is.

use std::fmt;

/// The grammar in one line, for messages.
pub const GRAMMAR: &str = "CODES, HNSW<links>, HNSW<links>,Flat, HNSW<links>,SQ8 or IVF<lists>,CODES, where CODES is Flat, \
    SQ4, SQ6, SQ8, SQfp16, SQbf16, PQ<parts> or PQ<parts>x<bits>; links is 4 to 64, lists 1 to 65536, parts 1 to 256 and a \
    divisor of the dimension, bits 4 to 8";

/// The longest string that is read: longer ones are in no case in the grammar.
const FACTORY_BYTES_MAX: usize = 32;
const LINKS: std::ops::RangeInclusive<u32> = 4..=64;
const LISTS: std::ops::RangeInclusive<u32> = 1..=65_536;
const PARTS: std::ops::RangeInclusive<u32> = 1..=256;
const BITS: std::ops::RangeInclusive<u32> = 4..=8;
/// FAISS's default for product codes.
const BITS_DEFAULT: u32 = 8;
/// Components of all centroids of lists: 128 MiB. Training compares each training row with all of them, ten times.
const CENTROID_COMPONENTS_MAX: u64 = 1 << 25;
/// FAISS keeps a table of the distances of centroids and product codes in memory while such an index is open.
const TABLE_BYTES_MAX: u64 = 512 << 20;
/// Rows that ranges and centroids are learned from at most, and their bytes.
const TRAINING_ROWS_MAX: u64 = 1 << 18;
const TRAINING_BYTES_MAX: u64 = 1 << 30;
/// Rows for each centroid that training uses at most: `ClusteringParameters::max_points_per_centroid` of FAISS.
const ROWS_PER_CENTROID: u64 = 256;
/// Rounds of k-means: FAISS's defaults for lists (`Level1Quantizer`) and for product codes (`ClusteringParameters`).
const LIST_ROUNDS: u64 = 10;
const CODE_ROUNDS: u64 = 25;

/// An index that may be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IndexSpec {
    structure: Structure,
    codes: RowCodes,
}

/// How rows are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Structure {
    /// All of them are compared.
    Scan,
    Graph {
        links: u32,
    },
    Lists {
        lists: u32,
    },
}

/// How rows are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum RowCodes {
    Flat,
    /// By FAISS's name for it.
    Scalar(&'static str),
    Product {
        parts: u32,
        bits: u32,
    },
}

/// Names of scalar quantizers, with the bits of a component, rounded up.
const SCALAR: [(&str, u64); 5] = [("SQ4", 4), ("SQ6", 6), ("SQ8", 8), ("SQfp16", 16), ("SQbf16", 16)];

/// Why a factory string is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError(String);

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SpecError {}

/// What a build may take. More is a fault of the build, which is then ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Seconds.
    pub seconds: u64,
}

impl IndexSpec {
    /// Reads a factory string.
    ///
    /// # Errors
    /// Everything that is not in the grammar, with what it is, or the bound that it breaks.
    pub fn parse(text: &str) -> Result<IndexSpec, SpecError> {
        let unknown = || {
            let shown: String = text.chars().take(FACTORY_BYTES_MAX).collect();
            SpecError(format!("{shown:?} is not an index that can be built"))
        };
        if text.len() > FACTORY_BYTES_MAX {
            return Err(unknown());
        }
        let (head, codes) = text.split_once(',').map_or((text, None), |(head, codes)| (head, Some(codes)));
        let structure = if let Some(links) = head.strip_prefix("HNSW") {
            Structure::Graph { links: number(links, LINKS, "links").ok_or_else(unknown)?? }
        } else if let Some(lists) = head.strip_prefix("IVF") {
            Structure::Lists { lists: number(lists, LISTS, "lists").ok_or_else(unknown)?? }
        } else {
            Structure::Scan
        };
        let codes = match (structure, codes) {
            (Structure::Scan, None) => head,
            (Structure::Graph { .. }, None) => "Flat",
            (Structure::Graph { .. }, Some(codes @ ("Flat" | "SQ8"))) => codes,
            (Structure::Graph { .. }, Some(_)) => return Err(unknown()),
            (Structure::Lists { .. }, Some(codes)) => codes,
            (Structure::Scan, Some(_)) | (Structure::Lists { .. }, None) => return Err(unknown()),
        };
        Ok(IndexSpec { structure, codes: RowCodes::parse(codes).ok_or_else(unknown)?? })
    }

    /// Whether such an index can hold vectors of this length.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self, dim: usize) -> Result<(), SpecError> {
        let refused = |message: String| Err(SpecError(message));
        if let RowCodes::Product { parts, .. } = self.codes
            && !dim.is_multiple_of(parts as usize)
        {
            return refused(format!(
                "PQ{parts} has {parts} parts, which does not divide the dimension {dim}"
            ));
        }
        match (self.structure, self.codes) {
            (Structure::Lists { lists }, _) if u64::from(lists) * dim as u64 > CENTROID_COMPONENTS_MAX => {
                let max = CENTROID_COMPONENTS_MAX / dim as u64;
                refused(format!("IVF has at most {max} lists at dimension {dim}, got {lists}"))
            }
            (Structure::Lists { lists }, RowCodes::Product { parts, bits })
                if table_bytes(lists, parts, bits) > TABLE_BYTES_MAX =>
            {
                let max = TABLE_BYTES_MAX / table_bytes(1, parts, bits);
                refused(format!("IVF over PQ{parts}x{bits} has at most {max} lists, got {lists}"))
            }
            _ => Ok(()),
        }
    }

    /// The string that FAISS is given.
    pub fn factory(&self) -> String {
        let codes = match self.codes {
            RowCodes::Flat => "Flat".to_owned(),
            RowCodes::Scalar(name) => name.to_owned(),
            // Without the training for polysemous codes, which no search here uses.
            RowCodes::Product { parts, bits } => format!("PQ{parts}x{bits}np"),
        };
        match self.structure {
            Structure::Scan => codes,
            Structure::Graph { links } => format!("HNSW{links},{codes}"),
            Structure::Lists { lists } => format!("IVF{lists},{codes}"),
        }
    }

    /// Whether it is a graph, whose construction has an effort.
    pub fn is_graph(&self) -> bool {
        matches!(self.structure, Structure::Graph { .. })
    }

    /// Rows that it cannot be trained without: one for each centroid.
    pub fn rows_min(&self) -> usize {
        self.centroids().into_iter().max().unwrap_or(1).max(1) as usize
    }

    /// Rows of so many that it is trained on; 0 if it needs no training.
    pub fn training_rows(&self, rows: usize, dim: usize) -> usize {
        let is_trained = !matches!(
            (self.structure, self.codes),
            (Structure::Scan | Structure::Graph { .. }, RowCodes::Flat)
        );
        let by_bytes = (TRAINING_BYTES_MAX / (4 * dim.max(1) as u64)).max(self.rows_min() as u64);
        let rows = (rows as u64).min(TRAINING_ROWS_MAX).min(by_bytes);
        if is_trained { rows as usize } else { 0 }
    }

    /// What the build of an index of so many rows may take.
    ///
    /// Memory: 512 MiB, and 32 MiB for each thread, for the program and its stacks; three times the index, because FAISS's
    /// vectors double when they grow; four times the training rows, which it copies and cuts into pieces; the centroids
    /// and the table of product codes. Time: two minutes, and a second for each half billion multiplications of
    /// - training: rows x centroids x dimension, 10 times for lists and 25 times for product codes;
    /// - adding: rows x dimension x what each row is compared with, which is all centroids, and in a graph at most
    ///   `ef_construction` nodes with twice `links` neighbours each.
    ///
    /// Real builds take a tenth of that time: it ends those that would not end by themselves.
    pub fn cost(&self, rows: usize, dim: usize, ef_construction: usize, threads: usize) -> Cost {
        let (rows, dim, threads) = (rows as u64, dim as u64, threads.max(1) as u64);
        let training_rows = self.training_rows(rows as usize, dim as usize) as u64;
        let (per_row, fixed) = self.bytes(dim);
        let memory_bytes = (512_u64 << 20)
            .saturating_add(threads.saturating_mul(32 << 20))
            .saturating_add(rows.saturating_mul(per_row).saturating_mul(3))
            .saturating_add(training_rows.saturating_mul(dim * 16))
            .saturating_add(fixed.saturating_mul(2));
        let [lists, codes] = self.centroids();
        let trained = |centroids: u64, rounds: u64| {
            training_rows.min(ROWS_PER_CENTROID * centroids).saturating_mul(centroids * dim * rounds)
        };
        let visited = match self.structure {
            Structure::Scan | Structure::Lists { .. } => 0,
            Structure::Graph { links } => {
                (ef_construction as u64).min(rows).saturating_mul(2 * u64::from(links))
            }
        };
        let compared = 1 + lists + codes + visited.min(rows.saturating_mul(4));
        let work = trained(lists, LIST_ROUNDS)
            .saturating_add(trained(codes, CODE_ROUNDS))
            .saturating_add(rows.saturating_mul(dim).saturating_mul(compared));
        Cost { memory_bytes, seconds: 120 + work / 500_000_000 }
    }

    /// Bytes for each row, and bytes besides.
    fn bytes(&self, dim: u64) -> (u64, u64) {
        let codes = match self.codes {
            RowCodes::Flat => 4 * dim,
            RowCodes::Scalar(name) => {
                let bits = SCALAR.iter().find(|(known, _)| *known == name).map_or(16, |(_, bits)| *bits);
                (dim * bits).div_ceil(8)
            }
            RowCodes::Product { parts, bits } => u64::from(parts * bits).div_ceil(8),
        };
        let [_, code_centroids] = self.centroids();
        let centroids = code_centroids * dim * 4;
        match (self.structure, self.codes) {
            (Structure::Scan, _) => (codes, centroids),
            // Twice the links on the lowest level; on the others together less than as many again. Offset, level, lock.
            (Structure::Graph { links }, _) => (codes + 16 * u64::from(links) + 64, centroids),
            (Structure::Lists { lists }, RowCodes::Product { parts, bits }) => {
                (codes + 8, centroids + u64::from(lists) * dim * 4 + table_bytes(lists, parts, bits))
            }
            // Residuals of rows are kept while codes are made.
            (Structure::Lists { lists }, _) => (codes + 8, centroids + u64::from(lists) * (dim * 4 + 64)),
        }
    }

    /// Centroids of lists, and of each part of product codes.
    fn centroids(&self) -> [u64; 2] {
        let lists = match self.structure {
            Structure::Lists { lists } => u64::from(lists),
            Structure::Scan | Structure::Graph { .. } => 0,
        };
        let codes = match self.codes {
            RowCodes::Product { bits, .. } => 1 << bits,
            RowCodes::Flat | RowCodes::Scalar(_) => 0,
        };
        [lists, codes]
    }
}

impl RowCodes {
    /// None for what is no name of codes.
    fn parse(text: &str) -> Option<Result<RowCodes, SpecError>> {
        if text == "Flat" {
            return Some(Ok(RowCodes::Flat));
        }
        if let Some((name, _)) = SCALAR.iter().find(|(name, _)| *name == text) {
            return Some(Ok(RowCodes::Scalar(name)));
        }
        let text = text.strip_prefix("PQ")?;
        let (parts, bits) = text.split_once('x').map_or((text, None), |(parts, bits)| (parts, Some(bits)));
        let parts = number(parts, PARTS, "parts")?;
        let bits = bits.map_or(Some(Ok(BITS_DEFAULT)), |bits| number(bits, BITS, "bits"))?;
        Some(parts.and_then(|parts| Ok(RowCodes::Product { parts, bits: bits? })))
    }
}

/// A number within its bounds; none for what is no number as it is written here.
fn number(text: &str, bounds: std::ops::RangeInclusive<u32>, what: &str) -> Option<Result<u32, SpecError>> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let has_leading_zero = text.len() > 1 && text.starts_with('0');
    if text.is_empty() || !is_number || has_leading_zero {
        return None;
    }
    let (min, max) = (*bounds.start(), *bounds.end());
    let number = text.parse().ok().filter(|number| bounds.contains(number));
    Some(number.ok_or_else(|| SpecError(format!("{what} is {min} to {max}, got {text}"))))
}

fn table_bytes(lists: u32, parts: u32, bits: u32) -> u64 {
    u64::from(lists) * u64::from(parts) * (4 << bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_grammar_names_is_read() {
        for (text, factory) in [
            ("Flat", "Flat"),
            ("SQ8", "SQ8"),
            ("SQbf16", "SQbf16"),
            ("PQ8", "PQ8x8np"),
            ("PQ256x4", "PQ256x4np"),
            ("HNSW32", "HNSW32,Flat"),
            ("HNSW4,Flat", "HNSW4,Flat"),
            ("HNSW64,SQ8", "HNSW64,SQ8"),
            ("IVF1,Flat", "IVF1,Flat"),
            ("IVF65536,SQ4", "IVF65536,SQ4"),
            ("IVF1024,PQ16", "IVF1024,PQ16x8np"),
        ] {
            let spec = IndexSpec::parse(text).unwrap_or_else(|refused| panic!("{text}: {refused}"));
            assert_eq!(spec.factory(), factory);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            ",",
            "flat",
            "Flat ",
            " Flat",
            "Flat,",
            ",Flat",
            "Flat,Flat",
            "SQ",
            "SQ5",
            "SQ8_direct",
            "SQ8,Flat",
            "PQ",
            "PQ0",
            "PQ257",
            "PQ08",
            "PQ8x",
            "PQ8x0",
            "PQ8x3",
            "PQ8x9",
            "PQ8x8x8",
            "PQ8np",
            "PQ8x4fs",
            "PQ-1",
            "PQ+1",
            "PQ8x+8",
            "PQ99999999999999999999",
            "HNSW",
            "HNSW0",
            "HNSW1",
            "HNSW3",
            "HNSW65",
            "HNSW032",
            "HNSW32,",
            "HNSW32,HNSW32",
            "HNSW32,PQ0",
            "HNSW32,PQ8",
            "HNSW32,SQ4",
            "HNSW32,SQfp16",
            "HNSW32,PQ4x0",
            "HNSW32_SQ8",
            "HNSW32,2x8+PQ4",
            "IVF",
            "IVF4",
            "IVF0,Flat",
            "IVF65537,Flat",
            "IVF4k,Flat",
            "IVF4,",
            "IVF4,PQ0",
            "IVF4,HNSW32",
            "IVF4_HNSW32,Flat",
            "IVF4(Flat),Flat",
            "IVF4,Flat,RFlat",
            "NSG0",
            "NSG32",
            "LSH",
            "ZnLattice8x65536_6",
            "RaBitQ",
            "RQ8x8",
            "LSQ8x8",
            "PCA8,Flat",
            "OPQ8,PQ8",
            "IDMap,Flat",
            "IMI2x8,Flat",
            "Flat\0",
            "ＦＬＡＴ",
            "IVF٤,Flat",
            "HNSW32,SQ8,SQ8,SQ8,SQ8,SQ8,SQ8,SQ8,SQ8,SQ8,SQ8,SQ8,SQ8",
        ] {
            let refused = IndexSpec::parse(text).expect_err(text).to_string();
            assert!(refused.len() < 120, "{refused}");
        }
        assert_eq!(IndexSpec::parse("HNSW1").unwrap_err().to_string(), "links is 4 to 64, got 1");
    }

    #[test]
    fn parts_divide_the_dimension_and_tables_are_bounded() {
        let fits = |text: &str, dim| IndexSpec::parse(text).unwrap().check(dim).is_ok();
        assert!(fits("PQ8", 384) && !fits("PQ7", 384));
        assert!(!fits("PQ16", 8) && fits("PQ16x4", 16));
        assert!(fits("IVF4096,Flat", 8192) && !fits("IVF4097,Flat", 8192));
        assert!(fits("IVF65536,SQ8", 512) && !fits("IVF65536,SQ8", 513));
        assert!(fits("IVF4096,PQ96", 384) && !fits("IVF65536,PQ96", 384));
    }

    #[test]
    fn costs_grow_with_what_is_built_and_never_overflow() {
        for text in ["Flat", "SQ8", "PQ256", "HNSW64,Flat", "HNSW64,SQ8", "IVF65536,Flat", "IVF512,PQ256"] {
            let spec = IndexSpec::parse(text).unwrap();
            let mut before = Cost { memory_bytes: 0, seconds: 0 };
            for rows in [0, 1, 1000, 1 << 20, 1 << 31, usize::MAX] {
                let cost = spec.cost(rows, 8192, 100_000, 64);
                assert!(
                    cost.memory_bytes >= before.memory_bytes && cost.seconds >= before.seconds,
                    "{text}, {rows}"
                );
                before = cost;
            }
        }
        let usual = IndexSpec::parse("HNSW32,SQ8").unwrap().cost(1_000_000, 384, 200, 2);
        assert!((2 << 30..6 << 30).contains(&usual.memory_bytes), "{usual:?}");
        assert!((3600..86_400).contains(&usual.seconds), "{usual:?}");
        let small = IndexSpec::parse("IVF64,Flat").unwrap().cost(3000, 24, 200, 1);
        assert!(small.memory_bytes < 600 << 20 && small.seconds < 130, "{small:?}");
    }

    #[test]
    fn training_takes_rows_for_each_centroid() {
        let rows = |text: &str, rows, dim| IndexSpec::parse(text).unwrap().training_rows(rows, dim);
        assert_eq!((rows("Flat", 1000, 8), rows("HNSW32", 1000, 8)), (0, 0));
        assert_eq!((rows("SQ8", 1000, 8), rows("HNSW32,SQ8", 1_000_000, 384)), (1000, 1 << 18));
        assert_eq!(rows("SQ8", 1_000_000, 8192), 1 << 15);
        assert_eq!(IndexSpec::parse("IVF64,PQ8").unwrap().rows_min(), 256);
        assert_eq!(IndexSpec::parse("IVF4096,PQ8x4").unwrap().rows_min(), 4096);
        assert_eq!(IndexSpec::parse("HNSW8").unwrap().rows_min(), 1);
    }
}
