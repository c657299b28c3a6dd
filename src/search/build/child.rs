//! The process that builds one index: reads a task and its rows, lets FAISS build, writes the file.

use std::io::Read;

use likewise_index::{BuildParams, IndexSpec};

use super::task::{BuildTask, HEAD_BYTES_MAX, PIECE_BYTES};
use crate::error::{Error, Kind, Result};

/// What a process prints that cannot write its file.
pub(super) const UNWRITTEN: &str = "cannot write the file of an index";
/// Rows that FAISS is given at a time.
const CHUNK_ROWS: usize = 4096;

/// Does the task that is written to `input`, with the rows that follow it.
///
/// Blocks, and may end the process or never return: only for a process that may.
///
/// # Errors
/// `InvalidInput` for a task that cannot be done, with what FAISS says of it; `Io` if the input ends early.
pub fn build_index(input: &mut impl Read) -> Result<()> {
    let task = read_task(input)?;
    let refused = |error: &dyn std::fmt::Display| Error::invalid("index", error.to_string());
    let spec = IndexSpec::parse(&task.factory).map_err(|error| refused(&error))?;
    let BuildTask { metric, dim, ef_construction, threads, .. } = task;
    let build_params = BuildParams { spec, metric, dim, ef_construction, threads };
    let mut builder = build_params.begin().map_err(|error| refused(&error))?;
    if task.training_rows > 0 {
        let rows = read_rows(input, task.training_rows, dim)?;
        builder.train(&rows).map_err(|error| refused(&error))?;
    }
    for from in (0..task.rows).step_by(CHUNK_ROWS) {
        let rows = read_rows(input, CHUNK_ROWS.min(task.rows - from), dim)?;
        builder.add(&rows).map_err(|error| refused(&error))?;
    }
    builder.write(&task.file).map_err(|error| Error::new(Kind::Io, UNWRITTEN).source(error))
}

fn read_task(input: &mut impl Read) -> Result<BuildTask> {
    let io = |error| Error::io("cannot read the index to build", error);
    let mut length = [0; 4];
    input.read_exact(&mut length).map_err(io)?;
    let length = u32::from_le_bytes(length);
    if length > HEAD_BYTES_MAX {
        return Err(Error::new(Kind::InvalidInput, format!("a task of {length} bytes")));
    }
    let mut head = vec![0; length as usize];
    input.read_exact(&mut head).map_err(io)?;
    serde_json::from_slice(&head)
        .map_err(|error| Error::new(Kind::InvalidInput, "cannot read the index to build").source(error))
}

/// Rows one after the other.
fn read_rows(input: &mut impl Read, rows: usize, dim: usize) -> Result<Vec<f32>> {
    let mut left = rows * dim;
    let mut floats = Vec::with_capacity(left);
    let mut piece = vec![0; PIECE_BYTES];
    while left > 0 {
        let piece = &mut piece[..(4 * left).min(PIECE_BYTES)];
        input.read_exact(piece).map_err(|error| Error::io("cannot read the rows of an index", error))?;
        let (components, _) = piece.as_chunks::<4>();
        floats.extend(components.iter().map(|&bytes| f32::from_le_bytes(bytes)));
        left -= components.len();
    }
    Ok(floats)
}
