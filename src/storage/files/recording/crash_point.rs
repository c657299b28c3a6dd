//! What may be found on the disk if the power fails after any of the recorded calls.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::call::{Call, Image};

/// A moment at which the power may fail: what is certain then, and what is pending.
#[derive(Debug, Clone)]
pub struct CrashPoint {
    names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<Call>,
    files: Vec<Vec<u8>>,
    /// With how many bytes each was created.
    created: Vec<usize>,
    pending: Vec<Pending>,
}

/// A write that may or may not be on the disk.
#[derive(Debug, Clone)]
pub struct Pending {
    file: usize,
    offset: u64,
    bytes: Arc<[u8]>,
    is_undecided: bool,
}

impl Pending {
    /// Its length.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// What of a pending write arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// Nothing.
    Nothing,
    /// All of it.
    All,
    /// Only the first bytes.
    Until(usize),
    /// Only the bytes from here on.
    From(usize),
    /// The first bytes, and the file ends there.
    UntilAndCut(usize),
}

impl CrashPoint {
    /// The moment before the first call.
    pub(super) fn new(base: &Image) -> CrashPoint {
        CrashPoint {
            names: base.keys().cloned().zip(0..).collect(),
            pending_names: Vec::new(),
            files: base.values().cloned().collect(),
            created: base.values().map(Vec::len).collect(),
            pending: Vec::new(),
        }
    }

    /// The moment after one more call.
    pub fn advance(&mut self, call: &Call) {
        match call {
            Call::Create { file, bytes, .. } => {
                debug_assert_eq!(
                    *file,
                    self.files.len(),
                    "files are numbered in the order of their creation"
                );
                let bytes = usize::try_from(*bytes).unwrap_or_default();
                self.files.push(vec![0; bytes]);
                self.created.push(bytes);
                self.pending_names.push(call.clone());
            }
            Call::Write { file, offset, bytes } => self.pending.push(Pending {
                file: *file,
                offset: *offset,
                bytes: bytes.clone(),
                is_undecided: false,
            }),
            Call::Sync { file } => self.settle(*file),
            Call::FailedSync { file } => {
                let pending = self.pending.iter_mut().filter(|pending| pending.file == *file);
                pending.for_each(|pending| pending.is_undecided = true);
            }
            Call::Rename { .. } | Call::Remove { .. } => self.pending_names.push(call.clone()),
            Call::SyncDir => {
                for call in std::mem::take(&mut self.pending_names) {
                    change_name(&mut self.names, &call);
                }
            }
            Call::Mark(_) => {}
        }
    }

    /// The writes that may or may not be on the disk, oldest first.
    pub fn pending(&self) -> &[Pending] {
        &self.pending
    }

    /// How many changes of names are pending.
    pub fn pending_names(&self) -> usize {
        self.pending_names.len()
    }

    /// The files if of each pending write that arrived which `arrived` says (nothing of those that it does not reach),
    /// and the first `names` of the pending changes of names.
    pub fn image(&self, arrived: &[Arrived], names: usize) -> Image {
        let mut files = self.files.clone();
        for (pending, arrived) in self.pending.iter().zip(arrived) {
            let Some(content) = files.get_mut(pending.file) else { continue };
            pending.arrive(content, self.created[pending.file], *arrived);
        }
        let mut directory = self.names.clone();
        self.pending_names.iter().take(names).for_each(|call| change_name(&mut directory, call));
        let content = |file: usize| files.get(file).cloned().unwrap_or_default();
        directory.into_iter().map(|(path, file)| (path, content(file))).collect()
    }

    /// The flush of `file` succeeded: what is pending and not undecided is certain.
    fn settle(&mut self, file: usize) {
        let (settled, pending) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|pending: &Pending| pending.file == file && !pending.is_undecided);
        self.pending = pending;
        for write in settled {
            if let Some(content) = self.files.get_mut(file) {
                apply(content, self.created[file], write.offset, &write.bytes);
            }
        }
    }
}

impl Pending {
    fn arrive(&self, content: &mut Vec<u8>, created: usize, arrived: Arrived) {
        let part = |range: Option<&[u8]>| range.unwrap_or_default().to_vec();
        match arrived {
            Arrived::Nothing => {}
            Arrived::All => apply(content, created, self.offset, &self.bytes),
            Arrived::Until(end) => apply(content, created, self.offset, &part(self.bytes.get(..end))),
            Arrived::From(start) => {
                apply(content, created, self.offset + start as u64, &part(self.bytes.get(start..)));
            }
            Arrived::UntilAndCut(end) => {
                apply(content, created, self.offset, &part(self.bytes.get(..end)));
                content.truncate(usize::try_from(self.offset).unwrap_or(usize::MAX).saturating_add(end));
            }
        }
    }
}

fn change_name(names: &mut BTreeMap<PathBuf, usize>, call: &Call) {
    match call {
        Call::Create { path, file, .. } => {
            names.insert(path.clone(), *file);
        }
        Call::Rename { from, to } => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Call::Remove { path } => {
            names.remove(path);
        }
        Call::Write { .. } | Call::Sync { .. } | Call::FailedSync { .. } | Call::SyncDir | Call::Mark(_) => {}
    }
}

/// Writes into a file's content, which grows where the write ends behind it. Of a file that was created with its space,
/// what it no longer holds after it was shortened stays away.
pub(super) fn apply(content: &mut Vec<u8>, created: usize, offset: u64, bytes: &[u8]) {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    if content.len() >= created {
        content.resize(content.len().max(start.saturating_add(bytes.len())), 0);
    }
    let start = start.min(content.len());
    let room = content.split_at_mut(start).1;
    let count = room.len().min(bytes.len());
    if let (Some(target), Some(source)) = (room.get_mut(..count), bytes.get(..count)) {
        target.copy_from_slice(source);
    }
}
