//! The texts of a table in CSV (RFC 4180), whose first line names the columns.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use csv::{ByteRecord, ReaderBuilder};
use likewise::error::{Error, Kind, Result};

use super::text_source::{TextColumns, TextLine, TextSource};

/// Bytes of a record, about. One that is longer has a quote that is not closed.
const RECORD_BYTES_MAX: usize = 64 << 20;

/// Where the columns stand that are read.
#[derive(Clone, Copy)]
struct ColumnPlaces {
    text: usize,
    id: Option<usize>,
}

/// The texts of a table; each has the number of the line in which its record begins.
///
/// # Errors
/// `Config` if a column is missing or the first line cannot be read.
pub(super) fn texts(
    reader: Box<dyn BufRead + Send>,
    delimiter: u8,
    columns: &TextColumns,
) -> Result<TextSource> {
    let place = Rc::new(LinePlace { left: Cell::new(RECORD_BYTES_MAX), line: Cell::new(0) });
    let lines = LineReader { reader, place: Rc::clone(&place), is_at_start: true };
    // Records of other lengths are faults of their lines, and no end of the file.
    let mut table = ReaderBuilder::new().flexible(true).delimiter(delimiter).from_reader(lines);
    let header = table.byte_headers().map_err(|error| unreadable("cannot read the first line", error))?;
    let columns = ColumnPlaces::find(header, columns)?;
    let mut record = ByteRecord::new();
    let mut row = 0;
    let mut has_failed = false;
    let next = move || {
        if has_failed {
            return None;
        }
        place.left.set(RECORD_BYTES_MAX);
        match table.read_byte_record(&mut record) {
            Ok(false) => None,
            Ok(true) => {
                let further = record.as_slice().iter().filter(|&&byte| byte == b'\n').count();
                let line = place.line.get() - further;
                row += 1;
                Some((line, columns.text(&record, line, row - 1)))
            }
            Err(error) => {
                has_failed = true;
                Some((place.line.get(), Err(unreadable("cannot read a record", error))))
            }
        }
    };
    Ok(TextSource { texts: Box::new(std::iter::from_fn(next)), count: None, unit: "line" })
}

impl ColumnPlaces {
    fn find(header: &ByteRecord, columns: &TextColumns) -> Result<ColumnPlaces> {
        let place = |name: &str| header.iter().position(|column| column.trim_ascii() == name.as_bytes());
        let missing = |name: &str| {
            let named: Vec<_> = header.iter().map(String::from_utf8_lossy).collect();
            Error::new(Kind::Config, format!("the table has no column `{name}`, but {}", named.join(", ")))
        };
        let text = place(&columns.text).ok_or_else(|| missing(&columns.text))?;
        let id = match (place(columns.id()), &columns.id) {
            (None, Some(named)) => return Err(missing(named)),
            (id, _) => id,
        };
        Ok(ColumnPlaces { text, id })
    }

    fn text(self, record: &ByteRecord, number: usize, row: usize) -> Result<TextLine> {
        let field = |place: usize| {
            let fault = |what: &str| Error::new(Kind::InvalidInput, what);
            let bytes = record.get(place).ok_or_else(|| fault("the record has too few fields"))?;
            String::from_utf8(bytes.to_vec()).map_err(|_| fault("the record is not UTF-8"))
        };
        let text = field(self.text)?;
        if text.is_empty() {
            return Err(Error::new(Kind::InvalidInput, "the text must not be empty"));
        }
        let id = self.id.map(field).transpose()?.map_or_else(|| row.into(), Into::into);
        Ok(TextLine { number, id, text })
    }
}

fn unreadable(what: &str, error: csv::Error) -> Error {
    Error::io(what, error.into())
}

/// How far a table has been read.
struct LinePlace {
    /// Bytes that its record may still have.
    left: Cell<usize>,
    /// The last line of which something was read, from 1.
    line: Cell<usize>,
}

/// Reads a line at a time: so the line in which a record ends is the last that was read, however lines end.
struct LineReader {
    reader: Box<dyn BufRead + Send>,
    place: Rc<LinePlace>,
    is_at_start: bool,
}

impl Read for LineReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.reader.fill_buf()?;
        let available = &available[..available.len().min(buffer.len())];
        let read = available.iter().position(|&byte| byte == b'\n').map_or(available.len(), |end| end + 1);
        buffer[..read].copy_from_slice(&available[..read]);
        self.reader.consume(read);
        if read > 0 {
            self.place.line.update(|line| line + usize::from(self.is_at_start));
            self.is_at_start = buffer[read - 1] == b'\n';
        }
        let left = self.place.left.get().checked_sub(read);
        self.place.left.set(left.ok_or_else(|| {
            let message = format!("it is longer than {RECORD_BYTES_MAX} bytes: is a quote not closed?");
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(table: &[u8], columns: &TextColumns) -> Result<Vec<(usize, Result<TextLine>)>> {
        Ok(texts(Box::new(io::Cursor::new(table.to_vec())), b',', columns)?.texts.collect())
    }

    fn columns(text: &str, id: Option<&str>) -> TextColumns {
        TextColumns { text: text.into(), id: id.map(str::to_owned) }
    }

    #[test]
    fn records_are_read_by_columns_and_wrong_ones_are_named_by_their_lines() {
        let table = b"\xef\xbb\xbfsku, title ,text\r\n1,\"a \"\"b\"\",\nc\",x\r\n2\n3,\xff,y\n4,,z\n\n5,d,\n";
        let read = read(table, &columns("title", Some("sku"))).unwrap();
        let lines: Vec<usize> = read.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 4, 5, 6, 8]);
        let first = read[0].1.as_ref().unwrap();
        assert_eq!((&first.id, &*first.text), (&"1".into(), "a \"b\",\nc"));
        for (place, what) in [(1, "too few fields"), (2, "not UTF-8"), (3, "must not be empty")] {
            let said = read[place].1.as_ref().map(|_| ()).unwrap_err().to_string();
            assert!(said.contains(what), "{said}");
        }
        assert_eq!(read[4].1.as_ref().unwrap().text, "d");
    }

    #[test]
    fn ids_are_places_where_the_table_has_none() {
        let read = read(b"text\na\nb\n", &columns("text", None)).unwrap();
        let ids: Vec<_> = read.iter().map(|(_, text)| text.as_ref().unwrap().id.clone()).collect();
        assert_eq!(ids, [0, 1]);
    }

    #[test]
    fn a_column_that_is_missing_is_named() {
        for (text, id, what) in [("body", None, "`body`"), ("text", Some("ean"), "`ean`")] {
            let error = read(b"text,id\na,1\n", &columns(text, id)).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert!(error.message().contains(what) && error.message().contains("text, id"), "{error}");
        }
    }

    #[test]
    fn a_quote_that_is_not_closed_does_not_fill_the_memory() {
        let table = [&b"text\na\n\""[..], &vec![b'x'; RECORD_BYTES_MAX + (1 << 20)]].concat();
        let read = read(&table, &columns("text", None)).unwrap();
        let error = read[1].1.as_ref().map(|_| ()).unwrap_err();
        assert!(
            read.len() == 2 && error.kind() == Kind::Io && error.to_string().contains("quote"),
            "{error}"
        );
    }
}
