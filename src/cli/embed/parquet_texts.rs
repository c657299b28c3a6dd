//! The texts of a Parquet file. Only the columns that are read are decoded, a page at a time.

use std::path::Path;
use std::sync::Arc;

use fs_err::File;
use likewise::error::{Error, Kind, Result};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Row, RowAccessor as _};
use parquet::schema::types::Type;
use serde_json::Value;

use super::text_source::{TextColumns, TextLine, TextSource};

/// The texts of a file; each has the number of its row, which counts from 1.
///
/// # Errors
/// `Config` if it cannot be opened or a column is missing; `InvalidInput` if it is damaged.
pub(super) fn texts(path: &Path, columns: &TextColumns) -> Result<TextSource> {
    let open = |error| Error::new(Kind::Config, "cannot open a file").source(error);
    let damaged = |error: ParquetError| {
        Error::new(Kind::InvalidInput, "cannot read the Parquet file")
            .with("file", path.display())
            .source(error)
    };
    let file = File::open(path).map_err(open)?.into_file();
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    let metadata = reader.metadata().file_metadata();
    let count = usize::try_from(metadata.num_rows()).unwrap_or_default();
    let projection = projection(metadata.schema(), columns)?;
    let places = RowPlaces::of(&projection, columns);
    let mut rows = RowIter::from_file_into(Box::new(reader)).project(Some(projection)).map_err(damaged)?;
    let mut number = 0;
    let mut has_failed = false;
    let next = move || {
        let row = rows.next().filter(|_| !has_failed)?;
        number += 1;
        let text = match row {
            Ok(row) => places.text(&row, number),
            Err(error) => {
                has_failed = true;
                Err(Error::new(Kind::Corrupt, "cannot read a row").source(error))
            }
        };
        Some((number, text))
    };
    Ok(TextSource { texts: Box::new(std::iter::from_fn(next)), count: Some(count), unit: "row" })
}

/// The columns of the schema that are read.
fn projection(schema: &Type, columns: &TextColumns) -> Result<Type> {
    let find = |name: &str| schema.get_fields().iter().find(|field| field.name() == name);
    let missing = |name: &str| {
        let names: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
        Error::new(Kind::Config, format!("the table has no column `{name}`, but {}", names.join(", ")))
    };
    let text = find(&columns.text).ok_or_else(|| missing(&columns.text))?;
    let id = match (find(columns.id()), &columns.id) {
        (None, Some(named)) => return Err(missing(named)),
        (id, _) => id.filter(|id| id.name() != text.name()),
    };
    Type::group_type_builder(schema.name())
        .with_fields([Some(text), id].into_iter().flatten().map(Arc::clone).collect())
        .build()
        .map_err(|error| Error::new(Kind::InvalidInput, "cannot read the columns").source(error))
}

/// Where the columns stand in a row.
#[derive(Clone, Copy)]
struct RowPlaces {
    text: usize,
    id: Option<usize>,
}

impl RowPlaces {
    fn of(projection: &Type, columns: &TextColumns) -> RowPlaces {
        let place = |name: &str| projection.get_fields().iter().position(|field| field.name() == name);
        RowPlaces { text: place(&columns.text).unwrap_or_default(), id: place(columns.id()) }
    }

    fn text(self, row: &Row, number: usize) -> Result<TextLine> {
        let fault = |what: &str| Error::new(Kind::InvalidInput, what);
        let text = string(row, self.text).ok_or_else(|| fault("the text is missing, or no text"))?;
        if text.is_empty() {
            return Err(fault("the text must not be empty"));
        }
        let id = match self.id {
            Some(place) => id(row, place).ok_or_else(|| fault("the id is neither a text nor an integer"))?,
            None => (number - 1).into(),
        };
        Ok(TextLine { number, id, text })
    }
}

fn string(row: &Row, place: usize) -> Option<String> {
    let bytes = || String::from_utf8(row.get_bytes(place).ok()?.data().to_vec()).ok();
    row.get_string(place).ok().cloned().or_else(bytes)
}

fn id(row: &Row, place: usize) -> Option<Value> {
    let signed = || row.get_long(place).or_else(|_| row.get_int(place).map(i64::from)).ok();
    let unsigned = || row.get_ulong(place).or_else(|_| row.get_uint(place).map(u64::from)).ok();
    string(row, place)
        .map(Value::from)
        .or_else(|| signed().map(Value::from))
        .or_else(|| unsigned().map(Value::from))
}
