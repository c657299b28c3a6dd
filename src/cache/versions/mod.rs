//! What is current: a random token for each tag and each namespace that was ever invalidated, and one for everything.
//!
//! An invalidation replaces a token; no tier is searched. Entries keep the tokens that were current when their loader
//! began, so an entry made before an invalidation shows it by itself, in whatever tier and after whatever restart.
//! Tokens are compared for equality only: no clock and no counter can make an old entry current again.
//!
//! A subject that was never invalidated has the token 0. The epoch of an entry holds the token of everything too, and
//! that one is random from the first start on: if all tokens are lost, every entry is a miss.

mod current;

use std::collections::HashMap;
use std::sync::Arc;

use self::current::Subjects;
pub(super) use self::current::{Bump, Current, Version};
pub use self::current::{Mode, Stamp, Standing, Tokens};
use crate::domain::{EntryMeta, Subject};
use crate::error::{Error, Kind, Result};
use crate::storage::{Change, Records};

const TABLE: &str = "versions";
/// The record of everything; those of subjects have keys of eight bytes.
const EVERYTHING: &[u8] = b"everything";
/// Records read at a time when opening.
const CHUNK: usize = 4096;
/// About what a change costs in the queue of the records.
const CHANGE_BYTES: usize = 128;

/// All tokens: in memory for judging, in the records for the next start. Shared by `Arc`.
#[derive(Debug)]
pub struct Versions {
    current: Current,
    records: Arc<Records>,
}

impl Versions {
    /// The tokens among `records`, at most `subjects_max` of them. Blocks.
    ///
    /// # Errors
    /// `Io`, `DiskFull`, `Corrupt` from the records.
    pub async fn open(records: Arc<Records>, subjects_max: usize) -> Result<Versions> {
        let (mut everything, mut subjects) = read_all(&records)?;
        if let Some(copy) = records.take_mirrored() {
            let changes = reconcile(copy, &mut everything, &mut subjects)?;
            if !changes.is_empty() {
                tracing::warn!(subjects = changes.len(), "invalidations were taken from their copy");
                records.write(changes).await?;
            }
        }
        let everything = match everything {
            Some(version) => version,
            None => {
                let version = Version::starting(random()?);
                records.put(TABLE, EVERYTHING, &version.encode()).await?;
                version
            }
        };
        Ok(Versions { current: Current::new(everything, subjects, subjects_max), records })
    }

    /// As [`Current::standing`].
    pub fn standing(&self, meta: &EntryMeta) -> Standing {
        self.current.standing(meta)
    }

    /// As [`Current::stamp`].
    pub fn stamp(&self) -> Stamp {
        self.current.stamp()
    }

    /// As [`Current::admit`].
    pub fn admit(&self, stamp: Stamp, namespace: Subject, tags: &[Subject]) -> Option<Tokens> {
        self.current.admit(stamp, namespace, tags)
    }

    /// Invalidates what carries one of the subjects: hidden at once, and for good once this returns.
    ///
    /// # Errors
    /// `Io`, `DiskFull`, `Unavailable`: entries are hidden until the next start, and may come back after it.
    pub async fn bump(&self, subjects: &[Subject], mode: Mode) -> Result<()> {
        let room = self.records.reserve((subjects.len() + 1) * CHANGE_BYTES).await?;
        let tokens = subjects.iter().map(|_| random()).collect::<Result<Vec<u64>>>()?;
        let bump = Bump { subjects, tokens, spare: random()?, mode };
        self.current.bump(bump, |changes| self.records.submit(room, changes))?.durable().await
    }

    /// Invalidates everything. Otherwise as [`Versions::bump`].
    ///
    /// # Errors
    /// As [`Versions::bump`].
    pub async fn bump_everything(&self, mode: Mode) -> Result<()> {
        let room = self.records.reserve(CHANGE_BYTES).await?;
        let token = random()?;
        self.current
            .bump_everything(token, mode, |change| self.records.submit(room, vec![change]))?
            .durable()
            .await
    }

    /// Subjects with a token of their own.
    pub fn subjects(&self) -> usize {
        self.current.subjects()
    }
}

/// Everything's version, if it is there, and those of subjects.
fn read_all(records: &Records) -> Result<(Option<Version>, Subjects)> {
    let (mut everything, mut subjects) = (None, Subjects::default());
    let mut from = Vec::new();
    loop {
        let chunk = records.range(TABLE, &from, CHUNK)?;
        let Some((last, _)) = chunk.last() else { return Ok((everything, subjects)) };
        from.clone_from(last);
        from.push(0);
        for (key, value) in &chunk {
            let corrupt = || Error::new(Kind::Corrupt, "read the versions of tags");
            let version = Version::decode(value).ok_or_else(corrupt)?;
            if key == EVERYTHING {
                everything = Some(version);
            } else {
                let subject = key.as_slice().try_into().map_err(|_| corrupt())?;
                subjects.insert(Subject(u64::from_le_bytes(subject)), version);
            }
        }
    }
}

/// Sets right what differs from the copy of the tokens, and returns what is to be written for it.
///
/// Without a token of everything the table was lost, and the copy takes its place. Where both differ, an invalidation got
/// into one of them only: a new token makes it hold, whichever was the later one.
fn reconcile(
    mut copy: HashMap<Vec<u8>, Vec<u8>>,
    everything: &mut Option<Version>,
    subjects: &mut Subjects,
) -> Result<Vec<Change>> {
    let is_lost = everything.is_none() && copy.contains_key(EVERYTHING);
    let renewed = |copied: Option<&Vec<u8>>| match copied.and_then(|bytes| Version::decode(bytes)) {
        Some(version) if is_lost => Ok(version),
        _ => random().map(Version::starting),
    };
    let mut changes = Vec::new();
    let copied = copy.remove(EVERYTHING);
    if everything.as_ref().map(Version::encode) != copied {
        let version = renewed(copied.as_ref())?;
        changes.push(Change::put(TABLE, EVERYTHING, version.encode()));
        *everything = Some(version);
    }
    for (subject, version) in subjects.iter_mut() {
        let key = subject.0.to_le_bytes();
        let copied = copy.remove(&key[..]);
        if copied.as_ref() != Some(&version.encode()) {
            *version = renewed(copied.as_ref())?;
            changes.push(Change::put(TABLE, key, version.encode()));
        }
    }
    for (key, copied) in copy {
        let Ok(subject) = <[u8; 8]>::try_from(key.as_slice()) else { continue };
        let version = renewed(Some(&copied))?;
        changes.push(Change::put(TABLE, subject, version.encode()));
        subjects.insert(Subject(u64::from_le_bytes(subject)), version);
    }
    Ok(changes)
}

/// A number that was not used before; never 0.
pub(super) fn random() -> Result<u64> {
    let token = getrandom::u64()
        .map_err(|error| Error::new(Kind::Io, "draw a random number").source(std::io::Error::from(error)))?;
    Ok(token.max(1))
}

#[cfg(test)]
mod tests {
    use super::current::OUTDATED_MAX;
    use super::*;
    use crate::domain::{Codec, UnixSeconds};

    const TAG: Subject = Subject(1);
    const OTHER: Subject = Subject(2);
    const NAMESPACE: Subject = Subject(3);

    fn block<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn open(dir: &tempfile::TempDir, subjects_max: usize) -> Versions {
        block(Versions::open(Arc::new(Records::open(dir.path()).unwrap()), subjects_max)).unwrap()
    }

    fn entry(versions: &Versions, tags: &[Subject]) -> EntryMeta {
        let tokens = versions.admit(versions.stamp(), NAMESPACE, tags).unwrap();
        EntryMeta {
            namespace: NAMESPACE,
            epoch: tokens.epoch,
            tags: tokens.tags,
            ..EntryMeta::ending(Codec::Raw, UnixSeconds(0), UnixSeconds::NEVER)
        }
    }

    #[test]
    fn an_invalidation_reaches_what_carries_its_subject_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let versions = open(&dir, 100);
        let (tagged, other) = (entry(&versions, &[TAG]), entry(&versions, &[OTHER]));
        block(versions.bump(&[TAG], Mode::Hard)).unwrap();
        assert_eq!(versions.standing(&tagged), Standing::Revoked);
        assert_eq!(versions.standing(&other), Standing::Current);
        let fresh = entry(&versions, &[TAG, OTHER]);
        assert_eq!(versions.standing(&fresh), Standing::Current);
        block(versions.bump(&[NAMESPACE], Mode::Hard)).unwrap();
        assert_eq!(versions.standing(&fresh), Standing::Revoked);
        let last = entry(&versions, &[]);
        block(versions.bump_everything(Mode::Hard)).unwrap();
        assert_eq!(versions.standing(&last), Standing::Revoked);
    }

    #[test]
    fn a_soft_invalidation_outdates_and_a_hard_one_after_it_revokes() {
        let dir = tempfile::tempdir().unwrap();
        let versions = open(&dir, 100);
        for subject in [TAG, NAMESPACE] {
            let old = entry(&versions, &[TAG]);
            block(versions.bump(&[subject], Mode::Soft)).unwrap();
            block(versions.bump(&[subject], Mode::Soft)).unwrap();
            assert_eq!(versions.standing(&old), Standing::Outdated);
            assert_eq!(versions.standing(&entry(&versions, &[TAG])), Standing::Current);
            block(versions.bump(&[subject], Mode::Hard)).unwrap();
            assert_eq!(versions.standing(&old), Standing::Revoked);
        }
        let old = entry(&versions, &[TAG]);
        block(versions.bump_everything(Mode::Soft)).unwrap();
        assert_eq!(versions.standing(&old), Standing::Outdated);
        for _ in 0..OUTDATED_MAX {
            block(versions.bump_everything(Mode::Soft)).unwrap();
        }
        assert_eq!(versions.standing(&old), Standing::Revoked, "older than what is remembered");
    }

    #[test]
    fn what_was_loaded_before_an_invalidation_is_never_admitted() {
        let dir = tempfile::tempdir().unwrap();
        let versions = open(&dir, 100);
        let before = versions.stamp();
        block(versions.bump(&[TAG], Mode::Soft)).unwrap();
        assert_eq!(versions.admit(before, NAMESPACE, &[TAG]), None);
        assert!(versions.admit(before, NAMESPACE, &[OTHER]).is_some());
        assert!(versions.admit(versions.stamp(), NAMESPACE, &[TAG]).is_some());
        block(versions.bump_everything(Mode::Hard)).unwrap();
        assert_eq!(versions.admit(before, NAMESPACE, &[]), None);
    }

    #[test]
    fn a_restart_forgets_no_invalidation_and_revives_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (old, fresh) = {
            let versions = open(&dir, 100);
            let old = entry(&versions, &[TAG]);
            block(versions.bump(&[TAG], Mode::Hard)).unwrap();
            (old, entry(&versions, &[TAG]))
        };
        let versions = open(&dir, 100);
        assert_eq!(versions.standing(&old), Standing::Revoked);
        assert_eq!(versions.standing(&fresh), Standing::Current);
        let elsewhere = tempfile::tempdir().unwrap();
        let lost = open(&elsewhere, 100);
        assert_eq!(lost.standing(&fresh), Standing::Revoked, "without its tokens an entry is a miss");
    }

    #[test]
    fn too_many_subjects_invalidate_everything_and_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let versions = open(&dir, 3);
        let never_touched = entry(&versions, &[]);
        for n in 10..14 {
            block(versions.bump(&[Subject(n)], Mode::Hard)).unwrap();
        }
        assert_eq!(versions.standing(&never_touched), Standing::Revoked);
        assert_eq!(versions.subjects(), 1);
        let fresh = entry(&versions, &[Subject(13)]);
        drop(versions);
        let versions = open(&dir, 3);
        assert_eq!((versions.subjects(), versions.standing(&fresh)), (1, Standing::Current));
    }

    /// What the records have lost is taken from the copy of the tokens; what is in one of both only is invalidated.
    #[test]
    fn lost_records_cost_no_token_and_bring_nothing_hidden_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(crate::storage::records::RECORDS_NAME);
        let (hidden, shown, before) = {
            let versions = open(&dir, 100);
            let hidden = entry(&versions, &[TAG]);
            block(versions.bump(&[TAG], Mode::Hard)).unwrap();
            (hidden, entry(&versions, &[TAG]), fs_err::read(&path).unwrap())
        };
        let older = fs_err::read(&path).unwrap();
        assert!(!before.is_empty());
        fs_err::remove_file(&path).unwrap();
        let versions = open(&dir, 100);
        assert_eq!(versions.standing(&hidden), Standing::Revoked);
        assert_eq!(versions.standing(&shown), Standing::Current, "its token is in the copy");
        block(versions.bump(&[OTHER], Mode::Hard)).unwrap();
        let after = entry(&versions, &[OTHER]);
        drop(versions);
        // The records go back to a time before the last invalidation, as when their last commit is damaged.
        fs_err::write(&path, older).unwrap();
        let versions = open(&dir, 100);
        assert_eq!(versions.standing(&after), Standing::Revoked, "it is in the copy only");
        assert_eq!(versions.standing(&shown), Standing::Current);
        let fresh = entry(&versions, &[OTHER]);
        drop(versions);
        let versions = open(&dir, 100);
        assert_eq!(versions.standing(&fresh), Standing::Current, "both agree again");
        assert_eq!(versions.standing(&shown), Standing::Current);
    }
}
