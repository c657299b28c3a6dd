//! Vectors as a Parquet file: `id`, `text`, and `embedding` as a list of floats.

use std::io;
use std::path::Path;
use std::sync::Arc;

use likewise::error::{Error, Kind, Result};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, FloatType};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::text_source::TextLine;
use super::vector_file::{VectorWriter, id_text, numbers};
use crate::cli::partial_file::PartialFile;

/// The list has the three levels that readers expect (Parquet's LogicalTypes.md, "Lists").
const SCHEMA: &str = "message vectors {
    required binary id (STRING);
    required binary text (STRING);
    required group embedding (LIST) { repeated group list { required float element; } }
}";
/// Numbers and bytes of texts of a row group, about: as much is in memory.
const GROUP_BYTES: usize = 32 << 20;

/// A file of row groups.
pub(super) struct VectorTable {
    writer: SerializedFileWriter<PartialFile>,
    group: RowGroup,
}

/// Rows that are not written yet.
#[derive(Default)]
struct RowGroup {
    ids: Vec<ByteArray>,
    texts: Vec<ByteArray>,
    numbers: Vec<f32>,
    /// Whether a number is the first of its row (0) or a further one (1).
    repetition: Vec<i16>,
    bytes: usize,
}

impl VectorTable {
    pub(super) fn create(path: &Path) -> Result<VectorTable> {
        let schema = parse_message_type(SCHEMA).map_err(unwritten)?;
        // No two vectors are alike, and no reader asks for the least of their numbers.
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .build();
        let file = PartialFile::create(path)?;
        let writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties));
        Ok(VectorTable { writer: writer.map_err(unwritten)?, group: RowGroup::default() })
    }

    fn flush(&mut self) -> Result<()> {
        let group = std::mem::take(&mut self.group);
        if group.ids.is_empty() {
            return Ok(());
        }
        let mut columns = self.writer.next_row_group().map_err(unwritten)?;
        group.write(&mut columns).and_then(|()| columns.close().map(|_| ())).map_err(unwritten)
    }
}

impl VectorWriter for VectorTable {
    fn write(&mut self, line: &TextLine, vector: &[u8]) -> Result<()> {
        self.group.add(line, vector);
        if self.group.bytes >= GROUP_BYTES { self.flush() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.flush()?;
        self.writer.into_inner().map_err(unwritten)?.finish()
    }
}

impl RowGroup {
    fn add(&mut self, line: &TextLine, vector: &[u8]) {
        let before = self.numbers.len();
        self.ids.push(ByteArray::from(id_text(line).into_bytes()));
        self.texts.push(ByteArray::from(line.text.as_str()));
        self.numbers.extend(numbers(vector));
        self.repetition.extend((before..self.numbers.len()).map(|place| i16::from(place > before)));
        self.bytes += vector.len() + line.text.len();
    }

    fn write<W: io::Write + Send>(
        self,
        columns: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<(), ParquetError> {
        for texts in [&self.ids, &self.texts] {
            if let Some(mut column) = columns.next_column()? {
                column.typed::<ByteArrayType>().write_batch(texts, None, None)?;
                column.close()?;
            }
        }
        if let Some(mut column) = columns.next_column()? {
            // No list is empty.
            let definition = vec![1; self.numbers.len()];
            let levels = (Some(&definition[..]), Some(&self.repetition[..]));
            column.typed::<FloatType>().write_batch(&self.numbers, levels.0, levels.1)?;
            column.close()?;
        }
        Ok(())
    }
}

fn unwritten(error: ParquetError) -> Error {
    if let ParquetError::External(source) = &error
        && let Some(failed) = source.downcast_ref::<io::Error>()
    {
        // A full disk has a kind of its own.
        return Error::io("cannot write the vectors", io::Error::new(failed.kind(), error));
    }
    Error::new(Kind::Io, "cannot write the vectors").source(error)
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::{ListAccessor as _, RowAccessor as _};

    use super::*;
    use crate::cli::embed::parquet_texts;
    use crate::cli::embed::text_source::TextColumns;

    fn columns(text: &str, id: Option<&str>) -> TextColumns {
        TextColumns { text: text.into(), id: id.map(str::to_owned) }
    }

    #[test]
    fn a_table_has_the_rows_that_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vectors.parquet");
        let mut table = Box::new(VectorTable::create(&path).unwrap());
        for n in 0..3_u8 {
            let line = TextLine { number: 1, id: n.into(), text: format!("text {n}") };
            let vector: Vec<u8> = [f32::from(n), 0.5].iter().flat_map(|x| x.to_le_bytes()).collect();
            table.write(&line, &vector).unwrap();
            // Each row is a group.
            table.flush().unwrap();
        }
        assert!(!path.exists());
        table.finish().unwrap();

        let file = fs_err::File::open(&path).unwrap().into_file();
        let reader = SerializedFileReader::new(file).unwrap();
        assert_eq!(reader.num_row_groups(), 3);
        for (n, row) in reader.get_row_iter(None).unwrap().enumerate() {
            let row = row.unwrap();
            let list = row.get_list(2).unwrap();
            assert_eq!((row.get_string(0).unwrap(), list.len()), (&n.to_string(), 2));
            assert_eq!([list.get_float(0).unwrap(), list.get_float(1).unwrap()], [n as f32, 0.5]);
        }
        let read = parquet_texts::texts(&path, &columns("text", None)).unwrap();
        assert_eq!(read.count, Some(3));
        let read: Vec<_> = read.texts.map(|(number, line)| (number, line.unwrap())).collect();
        assert_eq!((read[2].0, &read[2].1.id, &*read[2].1.text), (3, &"2".into(), "text 2"));
        for (text, id, what) in [("body", None, "no column `body`"), ("text", Some("ean"), "no column `ean`")]
        {
            let error = parquet_texts::texts(&path, &columns(text, id)).map(|_| ()).unwrap_err();
            assert!(
                error.message().contains(what) && error.message().contains("id, text, embedding"),
                "{error}"
            );
        }
        let mut lists = parquet_texts::texts(&path, &columns("embedding", None)).unwrap().texts;
        assert!(lines_fault(lists.next()).contains("no text"));
        fs_err::write(&path, "PAR1 and then nothing PAR1").unwrap();
        let damaged = parquet_texts::texts(&path, &columns("text", None)).map(|_| ()).unwrap_err();
        assert_eq!(damaged.kind(), Kind::InvalidInput);
    }

    fn lines_fault(line: Option<(usize, Result<TextLine>)>) -> String {
        line.unwrap().1.map(|_| ()).unwrap_err().to_string()
    }
}
