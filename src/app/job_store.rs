//! Jobs in a table of the small records.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::error::Result;
use crate::service::jobs::{JobChange, JobStore};
use crate::storage::{Change, Records};

const TABLE: &str = "jobs";
/// Records read at a time.
const CHUNK: usize = 256;

/// The table.
pub(super) struct JobTable(pub(super) Arc<Records>);

#[expect(clippy::big_endian_bytes, reason = "the keys of a table are in the order of their bytes")]
fn change((number, record): JobChange) -> Change {
    Change { table: TABLE.into(), key: number.to_be_bytes().into(), value: record }
}

impl JobStore for JobTable {
    fn read_all(&self) -> Result<Vec<Vec<u8>>> {
        let (mut all, mut from) = (Vec::new(), Vec::new());
        loop {
            let chunk = self.0.range(TABLE, &from, CHUNK)?;
            let Some((last, _)) = chunk.last() else { return Ok(all) };
            from.clone_from(last);
            from.push(0);
            all.extend(chunk.into_iter().map(|(_, record)| record));
        }
    }

    fn write(&self, changes: Vec<JobChange>) -> BoxFuture<'_, Result<()>> {
        self.0.write(changes.into_iter().map(change).collect()).boxed()
    }

    fn write_soon(&self, job: JobChange) -> Result<()> {
        self.0.submit_now(vec![change(job)])
    }
}
