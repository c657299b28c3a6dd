//! Products of matrices: a tile of the result at a time, which stays in registers until it is finished.
//!
//! Each number of a result is one chain of multiply-adds over the inputs, first to last, wherever its tile lies: it does not depend on
//! the other rows.

use pulp::{Simd, WithSimd};

use crate::lanes::{CacheLine, LANES, Lanes};

/// A matrix in panels of sixteen columns; a panel holds its rows one behind the other. Columns behind the last are zeros.
#[derive(Default)]
pub(crate) struct Panels {
    rows: usize,
    lines: Vec<CacheLine>,
}

impl Panels {
    /// Takes the matrix with these columns in place of what was here.
    pub(crate) fn fill_columns<'a>(
        &mut self,
        columns: impl ExactSizeIterator<Item = &'a [f32]>,
        rows: usize,
    ) {
        self.clear(rows, columns.len());
        for (n, column) in columns.enumerate() {
            let panel = &mut self.lines[n / LANES * rows..][..rows];
            for (line, value) in panel.iter_mut().zip(column) {
                line.0[n % LANES] = *value;
            }
        }
    }

    /// Takes the matrix with these rows in place of what was here.
    pub(crate) fn fill_rows<'a>(&mut self, rows: impl ExactSizeIterator<Item = &'a [f32]>, columns: usize) {
        let count = rows.len();
        self.clear(count, columns);
        for (n, row) in rows.enumerate() {
            for (panel, part) in row.chunks(LANES).enumerate() {
                self.lines[panel * count + n].0[..part.len()].copy_from_slice(part);
            }
        }
    }

    fn clear(&mut self, rows: usize, columns: usize) {
        self.rows = rows;
        self.lines.clear();
        self.lines.resize(rows * columns.div_ceil(LANES), CacheLine::ZERO);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[CacheLine]> {
        self.lines.chunks_exact(self.rows.max(1))
    }
}

/// Rows of a matrix, each `width` numbers, `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct StridedRows<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) width: usize,
}

/// Multiplies `count` rows by one panel. `finish` gets the number of a row and its sixteen results.
#[inline(always)]
pub(crate) fn multiply<S: Simd, const N: usize>(
    simd: S,
    left: StridedRows<'_>,
    count: usize,
    panel: &[CacheLine],
    mut finish: impl FnMut(usize, Lanes<S, N>),
) {
    let tiles = count.div_ceil(rows_max(N));
    for n in 0..tiles {
        let (first, end) = (count * n / tiles, count * (n + 1) / tiles);
        macro_rules! tile_of {
            ($($rows:literal)*) => {
                match end - first {
                    $($rows if $rows <= rows_max(N) => {
                        let sums = simd.vectorize(Tile::<N, $rows> { left, first, panel });
                        for n in 0..$rows {
                            finish(first + n, Lanes::load(&sums[n].0));
                        }
                    })*
                    rows => unreachable!("a tile of {rows} rows"),
                }
            };
        }
        tile_of!(1 2 3 4 5 6 7 8 9 10 11 12);
    }
}

/// Rows of a tile whose sums, a line of the panel and a factor fit in the registers.
const fn rows_max(registers_a_line: usize) -> usize {
    match registers_a_line {
        // 12 of the 32 registers of AVX-512: enough to hide the time of a multiply-add.
        1 => 12,
        // 12 of the 16 of AVX2; 24 of the 32 of NEON.
        2 | 4 => 6,
        // Without vectors of its own the compiler has 16 of SSE2.
        _ => 2,
    }
}

/// The products of `ROWS` rows, from `first` on, with a panel. A function of its own, so that its loop has all registers.
struct Tile<'a, const N: usize, const ROWS: usize> {
    left: StridedRows<'a>,
    first: usize,
    panel: &'a [CacheLine],
}

impl<const N: usize, const ROWS: usize> WithSimd for Tile<'_, N, ROWS> {
    type Output = [CacheLine; ROWS];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [CacheLine; ROWS] {
        let Tile { left, first, panel } = self;
        let mut rows: [&[f32]; ROWS] = [&[]; ROWS];
        for (n, row) in rows.iter_mut().enumerate() {
            *row = &left.values[(first + n) * left.stride..][..left.width][..panel.len()];
        }
        let mut sums = [Lanes::<S, N>::splat(simd, 0.0); ROWS];
        for (k, line) in panel.iter().enumerate() {
            let line = Lanes::load(&line.0);
            for n in 0..ROWS {
                line.add_products(simd, rows[n][k], &mut sums[n]);
            }
        }
        let mut lines = [CacheLine::ZERO; ROWS];
        for n in 0..ROWS {
            sums[n].store(&mut lines[n].0);
        }
        lines
    }
}
