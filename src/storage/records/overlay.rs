//! A database file that is only read: what redb writes to it stays in memory. So a damaged file can be opened, repaired
//! as redb does it, and looked through without being changed.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Mutex;

use fs_err as fs;
use redb::StorageBackend;

use crate::sync::lock;

/// What is kept of the file at a time.
const PAGE_BYTES: u64 = 4096;

/// The file with what was written over it.
#[derive(Debug)]
pub(crate) struct Overlay {
    file: fs::File,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    /// How long the file seems to be.
    bytes: u64,
    /// How much of the file still shows: what was cut off does not come back.
    file_bytes: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    /// Opens the file for reading.
    pub(crate) fn open(path: &Path) -> io::Result<Overlay> {
        let file = fs::File::open(path)?;
        let bytes = file.metadata()?.len();
        let written = Written { bytes, file_bytes: bytes, pages: BTreeMap::new() };
        Ok(Overlay { file, written: Mutex::new(written) })
    }

    /// The same with as many zeros behind the file as fill its last page: a file that was cut there, or has a few bytes more,
    /// still holds its other pages.
    pub(crate) fn in_whole_pages(self) -> Overlay {
        let mut written = lock(&self.written);
        written.bytes = written.bytes.next_multiple_of(PAGE_BYTES);
        drop(written);
        self
    }

    /// Whether the file ends within a page.
    pub(crate) fn ends_within_a_page(path: &Path) -> io::Result<bool> {
        Ok(!fs::metadata(path)?.len().is_multiple_of(PAGE_BYTES))
    }

    /// The same with another beginning.
    pub(crate) fn begin_with(&self, header: &[u8]) -> io::Result<()> {
        self.write_at(0, header)
    }

    /// Changes one byte.
    pub(crate) fn patch(&self, offset: u64, change: impl FnOnce(u8) -> u8) -> io::Result<()> {
        let mut byte = [0];
        self.read_at(offset, &mut byte)?;
        self.write_at(offset, &[change(byte[0])])
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = lock(&self.written);
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > written.bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, within, part) in parts(offset, out.len()) {
            let place = &mut out[part];
            match written.pages.get(&number) {
                Some(page) => place.copy_from_slice(&page[within..within + place.len()]),
                None => self.read_file(&written, number * PAGE_BYTES + within as u64, place)?,
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let mut written = lock(&self.written);
        for (number, within, part) in parts(offset, data.len()) {
            if !written.pages.contains_key(&number) {
                let mut page = vec![0; PAGE_BYTES as usize].into_boxed_slice();
                self.read_file(&written, number * PAGE_BYTES, &mut page)?;
                written.pages.insert(number, page);
            }
            if let Some(page) = written.pages.get_mut(&number) {
                page[within..within + part.len()].copy_from_slice(&data[part]);
            }
        }
        written.bytes = written.bytes.max(offset + data.len() as u64);
        Ok(())
    }

    /// Reads the file itself; behind its end there are zeros.
    fn read_file(&self, written: &Written, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        let there = written.file_bytes.saturating_sub(offset).min(out.len() as u64);
        let there = usize::try_from(there).unwrap_or(out.len());
        self.file.file().read_exact_at(&mut out[..there], offset)
    }
}

/// The pages that a range touches: number, where in the page the range begins, and which part of the range that is.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let here = offset + at as u64;
        let within = usize::try_from(here % PAGE_BYTES).ok()?;
        let count = (PAGE_BYTES as usize - within).min(len - at);
        let part = at..at + count;
        at += count;
        (count > 0).then_some((here / PAGE_BYTES, within, part))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.written).bytes)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = lock(&self.written);
        written.pages.retain(|number, _| number * PAGE_BYTES < len);
        // The rest of the page that the end falls into.
        if len < written.bytes
            && let Some(page) = written.pages.get_mut(&(len / PAGE_BYTES))
        {
            page[usize::try_from(len % PAGE_BYTES).unwrap_or_default()..].fill(0);
        }
        written.file_bytes = written.file_bytes.min(len);
        written.bytes = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_at(offset, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn it_agrees_with_a_vector_and_leaves_the_file_alone(
            steps in proptest::collection::vec((0..3_u8, 0..20_000_u64, 0..9_000_usize, 1..255_u8), 0..30)
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            let original: Vec<u8> = (0..10_000_u32).map(|n| (n % 251) as u8).collect();
            fs::write(&path, &original).unwrap();
            let overlay = Overlay::open(&path).unwrap();
            let mut expected = original.clone();
            for (step, offset, len, byte) in steps {
                let end = offset as usize + len;
                match step {
                    0 => {
                        overlay.write_at(offset, &vec![byte; len]).unwrap();
                        if len > 0 {
                            expected.resize(expected.len().max(end), 0);
                            expected[offset as usize..end].fill(byte);
                        }
                    }
                    1 => {
                        StorageBackend::set_len(&overlay, offset).unwrap();
                        expected.resize(offset as usize, 0);
                    }
                    _ => {
                        let mut out = vec![0; len];
                        let read = overlay.read_at(offset, &mut out).is_ok();
                        assert_eq!(read, end <= expected.len());
                        assert!(!read || out == expected[offset as usize..end]);
                    }
                }
                assert_eq!(lock(&overlay.written).bytes, expected.len() as u64);
            }
            assert_eq!(fs::read(&path).unwrap(), original);
        }
    }
}
