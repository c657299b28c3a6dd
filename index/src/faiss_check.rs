//! Checks files before FAISS reads them: FAISS takes lengths, places and rows from a file on trust.
//!
//! Only the kinds that [`IndexSpec`](crate::IndexSpec) names are let through, but for graphs, which FAISS does not search
//! here. Of each, every length is checked against what it follows from, and every row in a list against the rows that
//! there are; codes and centroids are any bytes. The format is that of `faiss/impl/index_write.cpp`, version 1.12.

use crate::faiss_file::{FileReader, Malformed, Result};

/// FAISS's numbers of scalar quantizers (`ScalarQuantizer::QuantizerType`) with the bits of a component, and whether
/// ranges of dimensions are stored.
const SCALAR: [(u32, usize, bool); 5] =
    [(0, 8, true), (1, 4, true), (4, 16, false), (6, 6, true), (7, 16, false)];
/// Bits of a product code: up to so many, each part of a code is a byte at most.
const BITS_MAX: usize = 8;
/// As many parts as [`IndexSpec`](crate::IndexSpec) allows.
const PARTS_MAX: usize = 256;
/// As many lists as [`IndexSpec`](crate::IndexSpec) allows.
const LISTS_MAX: usize = 65_536;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexShape {
    /// Components of a row.
    pub dim: usize,
    /// Rows.
    pub rows: usize,
    /// Bytes that FAISS copies or computes when it opens the file.
    pub memory_bytes: usize,
}

/// Checks a file that FAISS is to read. Cost: reads it but for codes and centroids.
///
/// # Errors
/// A kind that is never built here, or a file that contradicts itself.
pub fn check(file: &[u8]) -> Result<IndexShape> {
    let mut reader = FileReader { file, at: 0 };
    let shape = reader.faiss_index()?;
    if reader.at != file.len() {
        return Err(Malformed(format!("{} bytes follow its end", file.len() - reader.at)));
    }
    Ok(shape)
}

/// A product quantizer.
struct Product {
    parts: usize,
    bits: usize,
}

impl FileReader<'_> {
    fn faiss_index(&mut self) -> Result<IndexShape> {
        let tag = self.array::<4>()?;
        let (dim, rows, _) = self.header()?;
        let memory_bytes = match &tag {
            b"IwFl" | b"IwSq" | b"IwPQ" => {
                let from = self.at;
                let table = self.lists_of(&tag, dim, rows)?;
                table + self.at - from
            }
            other => {
                self.rows_of(other, dim, rows)?;
                0
            }
        };
        Ok(IndexShape { dim, rows, memory_bytes })
    }

    /// Rows that are scanned, after their header.
    fn rows_of(&mut self, tag: &[u8; 4], dim: usize, rows: usize) -> Result<()> {
        match tag {
            b"IxFI" | b"IxF2" | b"IxFl" => {
                let count = self.count()?;
                self.array_of(count, 4, rows.checked_mul(dim), "floats").map(drop)
            }
            b"IxSQ" => {
                let code_bytes = self.scalar(dim)?;
                let count = self.count()?;
                self.array_of(count, 1, rows.checked_mul(code_bytes), "codes").map(drop)
            }
            b"IxPq" => {
                let product = self.product(dim)?;
                let count = self.count()?;
                self.array_of(count, 1, rows.checked_mul(product.code_bytes()), "codes")?;
                let search = self.i32()?;
                let signs = self.array::<1>()?;
                self.skip(4)?;
                if search != 0 || signs != [0] {
                    return Err(Malformed("product codes that are searched in another way".into()));
                }
                Ok(())
            }
            other => Err(Malformed(format!("kind {:?}", String::from_utf8_lossy(other)))),
        }
    }

    /// Bytes of a code of a scalar quantizer, which is read.
    fn scalar(&mut self, dim: usize) -> Result<usize> {
        let kind = u32::from_le_bytes(self.array()?);
        let known = SCALAR.iter().find(|(number, ..)| *number == kind);
        let &(_, bits, has_ranges) =
            known.ok_or_else(|| Malformed(format!("scalar quantizer {kind} is never built")))?;
        self.skip(8)?;
        let code_bytes = (dim * bits).div_ceil(8);
        if self.count()? != dim || self.count()? != code_bytes {
            return Err(Malformed("codes of another dimension".into()));
        }
        let count = self.count()?;
        self.array_of(count, 4, Some(if has_ranges { 2 * dim } else { 0 }), "ranges of codes")?;
        Ok(code_bytes)
    }

    fn product(&mut self, dim: usize) -> Result<Product> {
        let (of, parts, bits) = (self.count()?, self.count()?, self.count()?);
        if of != dim || !(1..=PARTS_MAX).contains(&parts) || !dim.is_multiple_of(parts) {
            return Err(Malformed("product codes of another dimension".into()));
        }
        if !(1..=BITS_MAX).contains(&bits) {
            return Err(Malformed(format!("product codes of {bits} bits")));
        }
        let count = self.count()?;
        self.array_of(count, 4, dim.checked_mul(1 << bits), "centroids")?;
        Ok(Product { parts, bits })
    }

    /// An inverted file after its header. Returns the bytes of the table that FAISS computes.
    fn lists_of(&mut self, tag: &[u8; 4], dim: usize, rows: usize) -> Result<usize> {
        let (lists, _probes) = (self.count()?, self.count()?);
        let quantizer = self.array::<4>()?;
        let (inner_dim, centroids, _) = self.header()?;
        if (inner_dim, centroids) != (dim, lists) || !(1..=LISTS_MAX).contains(&lists) {
            return Err(Malformed("lists and centroids that disagree".into()));
        }
        if !matches!(&quantizer, b"IxFI" | b"IxF2" | b"IxFl") {
            return Err(Malformed("centroids that are not flat".into()));
        }
        self.rows_of(&quantizer, dim, lists)?;
        // No table from rows to lists.
        if self.array::<1>()? != [0] || self.count()? != 0 {
            return Err(Malformed("a map of rows that is never built".into()));
        }
        let (code_bytes, table) = match tag {
            b"IwSq" => {
                let code_bytes = self.scalar(dim)?;
                let is_same = self.count()? == code_bytes;
                self.is_bool()?;
                (Some(code_bytes).filter(|_| is_same), 0)
            }
            b"IwPQ" => {
                self.is_bool()?;
                let stated = self.count()?;
                let product = self.product(dim)?;
                let code_bytes = product.code_bytes();
                (
                    Some(code_bytes).filter(|_| stated == code_bytes),
                    (lists * product.parts) << (product.bits + 2),
                )
            }
            _ => (Some(4 * dim), 0),
        };
        let code_bytes = code_bytes.ok_or_else(|| Malformed("codes of another length".into()))?;
        self.inverted(lists, code_bytes, rows)?;
        Ok(table)
    }

    fn is_bool(&mut self) -> Result<()> {
        match self.array::<1>()? {
            [0 | 1] => Ok(()),
            _ => Err(Malformed("neither yes nor no".into())),
        }
    }

    /// The lists: a code and a row for each entry, as many as there are rows.
    fn inverted(&mut self, lists: usize, code_bytes: usize, rows: usize) -> Result<()> {
        let disagree = || Malformed("lists and rows that disagree".into());
        if &self.array::<4>()? != b"ilar" || self.count()? != lists || self.count()? != code_bytes {
            return Err(disagree());
        }
        let sizes = self.sizes(lists)?;
        let total = sizes.iter().try_fold(0_usize, |sum, &size| sum.checked_add(size));
        if total != Some(rows) {
            return Err(disagree());
        }
        for size in sizes {
            self.array_of(size, code_bytes, Some(size), "codes")?;
            let ids = self.array_of(size, 8, Some(size), "rows")?;
            let (ids, _) = self.file[ids].as_chunks::<8>();
            if ids.iter().any(|&id| u64::from_le_bytes(id) >= rows as u64) {
                return Err(Malformed("a row that does not exist".into()));
            }
        }
        Ok(())
    }

    /// Entries of each list: of all of them, or of those that have any.
    fn sizes(&mut self, lists: usize) -> Result<Vec<usize>> {
        let kind = self.array::<4>()?;
        let count = self.count()?;
        let expected = match &kind {
            b"full" => Some(lists),
            b"sprs" => Some(count).filter(|&count| count.is_multiple_of(2) && count <= 2 * lists),
            _ => None,
        };
        let numbers = self.array_of(count, 8, expected, "lengths of lists")?;
        let (numbers, _) = self.file[numbers].as_chunks::<8>();
        let number = |bytes: &[u8; 8]| {
            usize::try_from(u64::from_le_bytes(*bytes))
                .map_err(|_| Malformed("a length beyond memory".into()))
        };
        if &kind == b"full" {
            return numbers.iter().map(number).collect();
        }
        let mut sizes = vec![0; lists];
        for pair in numbers.chunks_exact(2) {
            let place = number(&pair[0])?;
            *sizes.get_mut(place).ok_or_else(|| Malformed("a list that does not exist".into()))? =
                number(&pair[1])?;
        }
        Ok(sizes)
    }
}

impl Product {
    fn code_bytes(&self) -> usize {
        (self.parts * self.bits).div_ceil(8)
    }
}
