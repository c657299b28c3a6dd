//! What is current: a random token for each tag and each namespace that was ever invalidated, and one for everything.
//!
//! An invalidation replaces a token; no tier is searched. Entries keep the tokens that were current when their loader
//! began, so an entry made before an invalidation shows it by itself, in whatever tier and after whatever restart.
//! Tokens are compared for equality only: no clock and no counter can make an old entry current again.
//!
//! A subject that was never invalidated has the token 0. The epoch of an entry holds the token of everything too, and
//! that one is random from the first start on: if all tokens are lost, every entry is a miss.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::domain::{ByPrefix, EntryMeta, Subject, TagVersion};
use crate::error::{Error, Kind, Result};
use crate::storage::{Change, Records};

const TABLE: &str = "versions";
/// The record of everything; those of subjects have keys of eight bytes.
const EVERYTHING: &[u8] = b"everything";
/// Tokens of soft invalidations that are remembered. What is older than these is not served stale either.
const OUTDATED_MAX: usize = 4;
/// Records read at a time when opening.
const CHUNK: usize = 4096;
/// About what a change costs in the queue of the records.
const CHANGE_BYTES: usize = 128;

/// How an invalidation hides entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are misses at once.
    Hard,
    /// They are served stale while one request refreshes each.
    Soft,
}

/// How an entry stands to the invalidations so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing that it depends on was invalidated.
    Current,
    /// Something was invalidated softly.
    Outdated,
    /// Something was invalidated.
    Revoked,
}

/// A point in the order of invalidations. Loaders take one before they begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(u64);

/// The tokens that a new entry carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The epoch of its namespace.
    pub epoch: u64,
    /// Its tags.
    pub tags: Box<[TagVersion]>,
}

/// The tokens of one subject, or of everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Version {
    token: u64,
    /// Tokens before soft invalidations, the latest first.
    outdated: Box<[u64]>,
    /// The invalidation that made it, in the order of this process; 0 for those before.
    bumped: u64,
}

type Subjects = HashMap<Subject, Version, ByPrefix>;

#[derive(Debug)]
struct State {
    everything: Version,
    subjects: Subjects,
    /// Stands for every subject that was never invalidated.
    untouched: Version,
    /// Invalidations so far in this process.
    bumps: u64,
}

/// All tokens: in memory for judging, in the records for the next start. Shared by `Arc`.
#[derive(Debug)]
pub struct Versions {
    state: RwLock<State>,
    records: Arc<Records>,
    subjects_max: usize,
}

impl Versions {
    /// The tokens among `records`, at most `subjects_max` of them. Blocks.
    ///
    /// # Errors
    /// `Io`, `DiskFull`, `Corrupt` from the records.
    pub async fn open(records: Arc<Records>, subjects_max: usize) -> Result<Versions> {
        let (everything, subjects) = read_all(&records)?;
        let everything = match everything {
            Some(version) => version,
            None => {
                let version = Version { token: random()?, ..Version::default() };
                records.put(TABLE, EVERYTHING, &version.encode()).await?;
                version
            }
        };
        let state = RwLock::new(State { everything, subjects, untouched: Version::default(), bumps: 0 });
        Ok(Versions { state, records, subjects_max })
    }

    /// How an entry stands. Costs one shared lock and a probe for the namespace and for each tag.
    pub fn standing(&self, meta: &EntryMeta) -> Standing {
        let state = self.state();
        let tags = meta.tags.iter().map(|version| state.version(version.tag).standing_of(version.token));
        tags.fold(state.epoch_standing(meta.namespace, meta.epoch), Ord::max)
    }

    /// The present point in the order of invalidations. A loader takes it before it begins.
    pub fn stamp(&self) -> Stamp {
        Stamp(self.state().bumps)
    }

    /// The tokens of an entry whose loader began at `stamp`. None if something that it depends on has been invalidated
    /// since: what was loaded from before an invalidation is never admitted, also when its tags are known only now.
    pub fn admit(&self, stamp: Stamp, namespace: Subject, tags: &[Subject]) -> Option<Tokens> {
        let state = self.state();
        let is_unchanged = |subject: &Subject| state.version(*subject).bumped <= stamp.0;
        if state.everything.bumped > stamp.0 || !is_unchanged(&namespace) || !tags.iter().all(is_unchanged) {
            return None;
        }
        let version = |&tag: &Subject| TagVersion { tag, token: state.version(tag).token };
        Some(Tokens { epoch: state.epoch(namespace), tags: tags.iter().map(version).collect() })
    }

    /// Invalidates what carries one of the subjects: hidden at once, and for good once this returns.
    ///
    /// # Errors
    /// `Io`, `DiskFull`, `Unavailable`: entries are hidden until the next start, and may come back after it.
    pub async fn bump(&self, subjects: &[Subject], mode: Mode) -> Result<()> {
        let room = self.records.reserve((subjects.len() + 1) * CHANGE_BYTES).await?;
        let tokens = subjects.iter().map(|_| random()).collect::<Result<Vec<u64>>>()?;
        let spare = random()?;
        let pending = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let mut changes = Vec::with_capacity(subjects.len() + 1);
            if state.subjects.len() + subjects.len() > self.subjects_max {
                changes.extend(state.start_over(spare));
            }
            state.bumps += 1;
            changes.extend(
                subjects.iter().zip(tokens).map(|(&subject, token)| state.replace(subject, token, mode)),
            );
            // Submitted under the lock, so that memory and disk agree on which of two invalidations came last.
            self.records.submit(room, changes)
        };
        pending?.durable().await
    }

    /// Invalidates everything. Otherwise as [`Versions::bump`].
    ///
    /// # Errors
    /// As [`Versions::bump`].
    pub async fn bump_everything(&self, mode: Mode) -> Result<()> {
        let room = self.records.reserve(CHANGE_BYTES).await?;
        let token = random()?;
        let pending = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.bumps += 1;
            let bumps = state.bumps;
            state.everything = state.everything.next(token, mode, bumps);
            let change = Change::put(TABLE, EVERYTHING, state.everything.encode());
            self.records.submit(room, vec![change])
        };
        pending?.durable().await
    }

    /// Subjects with a token of their own.
    pub fn subjects(&self) -> usize {
        self.state().subjects.len()
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn version(&self, subject: Subject) -> &Version {
        self.subjects.get(&subject).unwrap_or(&self.untouched)
    }

    /// The token of a namespace and that of everything in one number.
    fn epoch(&self, namespace: Subject) -> u64 {
        self.everything.token ^ self.version(namespace).token
    }

    fn epoch_standing(&self, namespace: Subject, epoch: u64) -> Standing {
        let own = self.version(namespace);
        if epoch == self.everything.token ^ own.token {
            return Standing::Current;
        }
        let mut own_tokens = std::iter::once(own.token).chain(own.outdated.iter().copied());
        let is_known = own_tokens.any(|own| self.everything.standing_of(epoch ^ own) != Standing::Revoked);
        if is_known { Standing::Outdated } else { Standing::Revoked }
    }

    /// Gives a subject a new token.
    fn replace(&mut self, subject: Subject, token: u64, mode: Mode) -> Change {
        let version = self.version(subject).next(token, mode, self.bumps);
        let change = Change::put(TABLE, subject.0.to_le_bytes(), version.encode());
        self.subjects.insert(subject, version);
        change
    }

    /// Forgets every subject, which is right only together with a new token of everything.
    fn start_over(&mut self, token: u64) -> Vec<Change> {
        tracing::warn!(
            subjects = self.subjects.len(),
            "too many tags were invalidated: everything is, instead"
        );
        self.bumps += 1;
        self.everything = self.everything.next(token, Mode::Hard, self.bumps);
        let everything = Change::put(TABLE, EVERYTHING, self.everything.encode());
        let forgotten = self.subjects.drain().map(|(subject, _)| subject.0.to_le_bytes());
        std::iter::once(everything).chain(forgotten.map(|key| Change::delete(TABLE, key))).collect()
    }
}

impl Version {
    fn standing_of(&self, token: u64) -> Standing {
        if token == self.token {
            Standing::Current
        } else if self.outdated.contains(&token) {
            Standing::Outdated
        } else {
            Standing::Revoked
        }
    }

    fn next(&self, token: u64, mode: Mode, bumped: u64) -> Version {
        let outdated = match mode {
            Mode::Hard => Box::default(),
            Mode::Soft => {
                std::iter::once(&self.token).chain(&self.outdated).take(OUTDATED_MAX).copied().collect()
            }
        };
        Version { token, outdated, bumped }
    }

    /// The token, then the outdated ones: eight little-endian bytes each.
    fn encode(&self) -> Vec<u8> {
        std::iter::once(&self.token).chain(&self.outdated).flat_map(|token| token.to_le_bytes()).collect()
    }

    fn decode(bytes: &[u8]) -> Option<Version> {
        let (tokens, rest) = bytes.as_chunks::<8>();
        let mut tokens = tokens.iter().map(|&token| u64::from_le_bytes(token));
        let token = tokens.next().filter(|_| rest.is_empty())?;
        Some(Version { token, outdated: tokens.take(OUTDATED_MAX).collect(), bumped: 0 })
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

/// A number that nobody has had before; never 0.
pub(super) fn random() -> Result<u64> {
    let token = getrandom::u64()
        .map_err(|error| Error::new(Kind::Io, "draw a random number").source(std::io::Error::from(error)))?;
    Ok(token.max(1))
}

#[cfg(test)]
mod tests {
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
        let anew = entry(&versions, &[TAG, OTHER]);
        assert_eq!(versions.standing(&anew), Standing::Current);
        block(versions.bump(&[NAMESPACE], Mode::Hard)).unwrap();
        assert_eq!(versions.standing(&anew), Standing::Revoked);
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
        let (old, anew) = {
            let versions = open(&dir, 100);
            let old = entry(&versions, &[TAG]);
            block(versions.bump(&[TAG], Mode::Hard)).unwrap();
            (old, entry(&versions, &[TAG]))
        };
        let versions = open(&dir, 100);
        assert_eq!(versions.standing(&old), Standing::Revoked);
        assert_eq!(versions.standing(&anew), Standing::Current);
        let elsewhere = tempfile::tempdir().unwrap();
        let lost = open(&elsewhere, 100);
        assert_eq!(lost.standing(&anew), Standing::Revoked, "without its tokens an entry is a miss");
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
        let anew = entry(&versions, &[Subject(13)]);
        drop(versions);
        let versions = open(&dir, 3);
        assert_eq!((versions.subjects(), versions.standing(&anew)), (1, Standing::Current));
    }
}
