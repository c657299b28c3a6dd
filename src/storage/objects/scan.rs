//! Scans over the objects that have names, in the order of their positions, a part at a time.

use super::names::{self, Position, ScanScope};
use super::{HEADS, NAMES, ObjectStore, RecordFrame};
use crate::domain::{EntryNames, Key};
use crate::error::Result;
use crate::storage::records::JoinedRecord;

/// An object that a scan has met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedObject {
    /// Where it stands.
    pub position: Position,
    /// Its names.
    pub names: EntryNames,
    /// The head of its record, which verifies.
    pub head: Vec<u8>,
    /// Length of its value as stored.
    pub value_bytes: u32,
}

/// A part of a scan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanPart {
    /// The objects of the part.
    pub objects: Vec<ScannedObject>,
    /// Records of names that were read for it.
    pub records: usize,
    /// The last position of the part. `None` if the scan is at its end.
    pub last: Option<Position>,
}

impl ObjectStore {
    /// Reads up to `records` records of names within `scope` behind `after`, with the heads of their objects. Blocks. An object
    /// whose names or head do not verify, and one that is being removed, is not part of the scan.
    ///
    /// An object that is there throughout a scan is met exactly once, whatever is stored and removed meanwhile: its position never
    /// changes.
    ///
    /// Errors: `Io`, `Corrupt`; `Unavailable` once the store is off.
    ///
    /// Cost: two lookups a record.
    pub fn scan(&self, scope: &ScanScope, after: Option<Position>, records: usize) -> Result<ScanPart> {
        self.check_is_on()?;
        let mut from = after.map_or_else(|| scope.prefix(), |after| after.as_bytes().to_vec());
        if after.is_some() {
            from.push(0);
        }
        let key_of = |name: &[u8]| Position::from_bytes(name).map_or_else(Vec::new, |at| at.key().0.to_vec());
        let joined = self.records.range_joined(NAMES, &from, records, HEADS, key_of)?;
        let is_full = joined.len() == records;
        let read = |record: &JoinedRecord| {
            let position = Position::from_bytes(&record.key)?;
            scope.contains(&position).then_some(position)
        };
        let last = joined.last().filter(|_| is_full).and_then(read);
        let within = joined.into_iter().filter_map(|record| Some((read(&record)?, record)));
        let mut part = ScanPart { last, ..ScanPart::default() };
        for (position, record) in within {
            part.records += 1;
            part.objects.extend(self.scanned(position, record));
        }
        Ok(part)
    }

    fn scanned(&self, position: Position, record: JoinedRecord) -> Option<ScannedObject> {
        let key = position.key();
        let head = record.joined.filter(|_| self.contains(&key))?;
        let frame = RecordFrame::read(&key, &head).filter(|frame| frame.namespace == position.namespace())?;
        let names = names::decode(&position, &record.value)?;
        Some(ScannedObject { position, names, head, value_bytes: frame.value_bytes })
    }

    /// An object with its names, by its key. Blocks. `None` if it is not there, has no names, or does not verify.
    ///
    /// Errors: as [`ObjectStore::scan`].
    pub fn named(&self, key: &Key) -> Result<Option<ScannedObject>> {
        self.check_is_on()?;
        let Some(head) = self.head(key)? else { return Ok(None) };
        let Some(frame) = RecordFrame::read(key, &head) else { return Ok(None) };
        let position = Position::of(frame.namespace, key);
        let Some(value) = self.records.get(NAMES, position.as_bytes())? else { return Ok(None) };
        let record = JoinedRecord { key: position.as_bytes().to_vec(), value, joined: Some(head) };
        Ok(self.scanned(position, record))
    }
}
