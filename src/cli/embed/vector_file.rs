//! Where vectors go: JSON lines, an array of NumPy with the documents of its rows beside it, or a Parquet file.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use likewise::error::{Error, Kind, Result};
use serde_json::json;

use super::text_source::TextLine;
use super::vector_table::VectorTable;
use crate::cli::npy;
use crate::cli::partial_file::PartialFile;

/// A form of files of vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum VectorFormat {
    Jsonl,
    Npy,
    Parquet,
}

/// Takes vectors in the order of their texts.
pub(super) trait VectorWriter {
    /// Adds the vector of a text, as little-endian f32.
    ///
    /// # Errors
    /// `Io` or `DiskFull`; `Upstream` for a vector of another length, where a file has one length only.
    fn write(&mut self, line: &TextLine, vector: &[u8]) -> Result<()>;

    /// Ends the file, which has its name from now on.
    ///
    /// # Errors
    /// `Io` or `DiskFull`.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Creates the output at `path`, or standard output. Its name says in which form it is, unless `format` does.
///
/// # Errors
/// `Config` if it cannot be created; `InvalidInput` for an array or a table without a file; `Conflict` if the documents beside an array are of another.
pub(super) fn create(
    path: Option<&Path>,
    format: Option<VectorFormat>,
    ids: Option<&Path>,
) -> Result<Box<dyn VectorWriter>> {
    let path = path.filter(|path| path.as_os_str() != "-");
    let ending = path.and_then(|path| path.extension()?.to_str());
    let by_name = match ending {
        Some("npy") => VectorFormat::Npy,
        Some("parquet") => VectorFormat::Parquet,
        _ => VectorFormat::Jsonl,
    };
    match (format.unwrap_or(by_name), path) {
        (VectorFormat::Jsonl, None) => Ok(Box::new(VectorLines(BufWriter::new(io::stdout())))),
        (VectorFormat::Jsonl, Some(path)) => Ok(Box::new(VectorLines(PartialFile::create(path)?))),
        (VectorFormat::Npy, Some(path)) => Ok(Box::new(VectorArray::create(path, ids)?)),
        (VectorFormat::Parquet, Some(path)) => Ok(Box::new(VectorTable::create(path)?)),
        (VectorFormat::Npy | VectorFormat::Parquet, None) => {
            Err(Error::new(Kind::InvalidInput, "this output format needs a file: name one by --output"))
        }
    }
}

/// JSON objects with `id`, `text` and `embedding`.
struct VectorLines<W>(W);

impl<W: Write> VectorLines<W> {
    fn add(&mut self, line: &TextLine, vector: &[u8]) -> Result<()> {
        let json = json!({ "id": line.id, "text": line.text, "embedding": numbers(vector) });
        writeln!(self.0, "{json}").map_err(unwritten)
    }
}

impl VectorWriter for VectorLines<PartialFile> {
    fn write(&mut self, line: &TextLine, vector: &[u8]) -> Result<()> {
        self.add(line, vector)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.0.finish()
    }
}

impl VectorWriter for VectorLines<BufWriter<io::Stdout>> {
    fn write(&mut self, line: &TextLine, vector: &[u8]) -> Result<()> {
        self.add(line, vector)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.0.flush().map_err(unwritten)
    }
}

/// An array of one row for each text. How many there are stands before them, and is known at the end.
struct VectorArray {
    array: PartialFile,
    ids: PartialFile,
    shape: npy::Shape,
}

impl VectorArray {
    fn create(path: &Path, ids: Option<&Path>) -> Result<VectorArray> {
        let ids = npy::ids_file(path, ids)?;
        let shape = npy::Shape { rows: 0, columns: 0 };
        let (mut array, ids) = (PartialFile::create(path)?, PartialFile::create(&ids)?);
        array.write_all(&npy::header(shape)).map_err(unwritten)?;
        Ok(VectorArray { array, ids, shape })
    }
}

impl VectorWriter for VectorArray {
    fn write(&mut self, line: &TextLine, vector: &[u8]) -> Result<()> {
        let columns = vector.len() / 4;
        if self.shape.rows > 0 && columns != self.shape.columns {
            let message =
                format!("the model gave a vector of {columns} numbers after {}", self.shape.columns);
            return Err(Error::new(Kind::Upstream, message).with("line", line.number));
        }
        self.shape = npy::Shape { rows: self.shape.rows + 1, columns };
        self.array.write_all(vector).map_err(unwritten)?;
        writeln!(self.ids, "{}", json!({ "id": id_text(line), "text": line.text })).map_err(unwritten)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.array.rewrite_start(&npy::header(self.shape))?;
        self.ids.finish()?;
        self.array.finish()
    }
}

/// The id as a text, which an import and a table take.
pub(super) fn id_text(line: &TextLine) -> String {
    line.id.as_str().map_or_else(|| line.id.to_string(), str::to_owned)
}

/// The numbers of a vector.
pub(super) fn numbers(vector: &[u8]) -> Vec<f32> {
    vector.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

fn unwritten(error: io::Error) -> Error {
    Error::io("cannot write the vectors", error)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn line(id: Value) -> TextLine {
        TextLine { number: 1, id, text: "uno".into() }
    }

    #[test]
    fn an_array_has_the_rows_that_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let mut writer = create(Some(&path), None, None).unwrap();
        writer.write(&line(7.into()), &[1; 8]).unwrap();
        writer.write(&line("b".into()), &[2; 8]).unwrap();
        assert_eq!(writer.write(&line("c".into()), &[2; 4]).unwrap_err().kind(), Kind::Upstream);
        assert!(!path.exists());
        writer.finish().unwrap();
        let bytes = fs_err::read(&path).unwrap();
        let mut rest = &bytes[..];
        assert_eq!(npy::read_header(&mut rest).unwrap(), npy::Shape { rows: 2, columns: 2 });
        assert_eq!(rest, [[1; 8], [2; 8]].concat());
        let ids = fs_err::read_to_string(dir.path().join("ids.jsonl")).unwrap();
        assert_eq!(ids, "{\"id\":\"7\",\"text\":\"uno\"}\n{\"id\":\"b\",\"text\":\"uno\"}\n");
        // Those of another array are not overwritten.
        assert_eq!(
            create(Some(&dir.path().join("b.npy")), None, None).map(|_| ()).unwrap_err().kind(),
            Kind::Conflict
        );
        assert!(create(None, Some(VectorFormat::Npy), None).is_err());
    }
}
