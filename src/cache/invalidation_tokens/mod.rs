//! The current tokens: a random one for each tag and each namespace that was ever invalidated, and one for everything.
//!
//! An invalidation replaces a token; no tier is searched. Entries keep the tokens that were current when their loader
//! began, so an entry made before an invalidation shows it by itself, in whatever tier and after whatever restart.
//! Tokens are compared for equality only: no clock and no counter can make an old entry current again.
//!
//! A subject that was never invalidated has the token 0. The epoch of an entry holds a second token too. For the default
//! tenant it is that of everything, for all other tenants a common one and that of all that the tenant has. The token of
//! everything and the common one are random from the first start on: if all tokens are lost, every entry is a miss.

mod table;

use std::collections::HashMap;
use std::collections::hash_map::Entry::Vacant;
use std::sync::Arc;

use self::table::Subjects;
pub(super) use self::table::{Bump, TokenHistory, TokenTable};
pub use self::table::{EntryTokens, Mode, Stamp, Standing};
use crate::domain::{EntryMeta, NamespaceId, Subject};
use crate::error::{Error, Kind, Result};
use crate::storage::{Change, Records};

const TABLE: &str = "versions";
/// The record of everything; those of subjects have keys of eight bytes.
const EVERYTHING: &[u8] = b"everything";
/// The record of all that tenants other than the default one have: a subject that no entry carries, as programs from
/// before there were tenants read it.
const OTHER_TENANTS: Subject = Subject(u64::from_le_bytes(*b"tenants*"));
/// Records read at a time when opening.
const CHUNK: usize = 4096;
/// About what a change costs in the queue of the records.
const CHANGE_BYTES: usize = 128;

/// All tokens: in memory for judging, in the records for the next start. Shared by `Arc`.
#[derive(Debug)]
pub struct InvalidationTokens {
    table: TokenTable,
    records: Arc<Records>,
}

impl InvalidationTokens {
    /// The tokens among `records`, at most `subjects_max` of them. Blocks.
    ///
    /// # Errors
    /// `Io`, `DiskFull`, `Corrupt` from the records.
    pub async fn open(records: Arc<Records>, subjects_max: usize) -> Result<InvalidationTokens> {
        let (mut everything, mut subjects) = read_all(&records)?;
        if let Some(copy) = records.take_mirrored() {
            let changes = reconcile(copy, &mut everything, &mut subjects)?;
            if !changes.is_empty() {
                tracing::warn!(subjects = changes.len(), "invalidations were taken from their copy");
                records.write(changes).await?;
            }
        }
        let everything = match everything {
            Some(history) => history,
            None => {
                let history = TokenHistory::starting(random()?);
                records.put(TABLE, EVERYTHING, &history.encode()).await?;
                history
            }
        };
        if let Vacant(missing) = subjects.entry(OTHER_TENANTS) {
            let history = missing.insert(TokenHistory::starting(random()?));
            records.put(TABLE, &OTHER_TENANTS.0.to_le_bytes(), &history.encode()).await?;
        }
        Ok(InvalidationTokens { table: TokenTable::new(everything, subjects, subjects_max), records })
    }

    /// As [`TokenTable::standing`].
    pub fn standing(&self, meta: &EntryMeta) -> Standing {
        self.table.standing(meta)
    }

    /// As [`TokenTable::stamp`].
    pub fn stamp(&self) -> Stamp {
        self.table.stamp()
    }

    /// As [`TokenTable::admit`].
    pub fn admit(&self, stamp: Stamp, namespace: NamespaceId, tags: &[Subject]) -> Option<EntryTokens> {
        self.table.admit(stamp, namespace, tags)
    }

    /// Invalidates what carries one of the subjects: hidden at once, and for good once this returns.
    ///
    /// # Errors
    /// `Io`, `DiskFull`, `Unavailable`: entries are hidden until the next start, and may come back after it.
    pub async fn bump(&self, subjects: &[Subject], mode: Mode) -> Result<()> {
        let room = self.records.reserve((subjects.len() + 2) * CHANGE_BYTES).await?;
        let tokens = subjects.iter().map(|_| random()).collect::<Result<Vec<u64>>>()?;
        let bump = Bump { subjects, tokens, spares: [random()?, random()?], mode };
        self.table.bump(bump, |changes| self.records.submit(room, changes))?.durable().await
    }

    /// Invalidates everything that the default tenant has. Otherwise as [`InvalidationTokens::bump`].
    ///
    /// # Errors
    /// As [`InvalidationTokens::bump`].
    pub async fn bump_everything(&self, mode: Mode) -> Result<()> {
        let room = self.records.reserve(CHANGE_BYTES).await?;
        let token = random()?;
        self.table
            .bump_everything(token, mode, |change| self.records.submit(room, vec![change]))?
            .durable()
            .await
    }

    /// Subjects with a token of their own.
    pub fn subjects(&self) -> usize {
        self.table.subjects()
    }
}

/// The tokens of everything, if they are there, and those of subjects.
fn read_all(records: &Records) -> Result<(Option<TokenHistory>, Subjects)> {
    let (mut everything, mut subjects) = (None, Subjects::default());
    let mut from = Vec::new();
    loop {
        let chunk = records.range(TABLE, &from, CHUNK)?;
        let Some((last, _)) = chunk.last() else { return Ok((everything, subjects)) };
        from.clone_from(last);
        from.push(0);
        for (key, value) in &chunk {
            let corrupt = || Error::new(Kind::Corrupt, "read the tokens of tags");
            let history = TokenHistory::decode(value).ok_or_else(corrupt)?;
            if key == EVERYTHING {
                everything = Some(history);
            } else {
                let subject = key.as_slice().try_into().map_err(|_| corrupt())?;
                subjects.insert(Subject(u64::from_le_bytes(subject)), history);
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
    everything: &mut Option<TokenHistory>,
    subjects: &mut Subjects,
) -> Result<Vec<Change>> {
    let is_lost = everything.is_none() && copy.contains_key(EVERYTHING);
    let renewed = |copied: Option<&Vec<u8>>| match copied.and_then(|bytes| TokenHistory::decode(bytes)) {
        Some(history) if is_lost => Ok(history),
        _ => random().map(TokenHistory::starting),
    };
    let mut changes = Vec::new();
    let copied = copy.remove(EVERYTHING);
    if everything.as_ref().map(TokenHistory::encode) != copied {
        let history = renewed(copied.as_ref())?;
        changes.push(Change::put(TABLE, EVERYTHING, history.encode()));
        *everything = Some(history);
    }
    for (subject, history) in subjects.iter_mut() {
        let key = subject.0.to_le_bytes();
        let copied = copy.remove(&key[..]);
        if copied.as_ref() != Some(&history.encode()) {
            *history = renewed(copied.as_ref())?;
            changes.push(Change::put(TABLE, key, history.encode()));
        }
    }
    for (key, copied) in copy {
        let Ok(subject) = <[u8; 8]>::try_from(key.as_slice()) else { continue };
        let history = renewed(Some(&copied))?;
        changes.push(Change::put(TABLE, subject, history.encode()));
        subjects.insert(Subject(u64::from_le_bytes(subject)), history);
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
    use super::table::OUTDATED_MAX;
    use super::*;
    use crate::domain::{Codec, TenantId, UnixSeconds};

    const TAG: Subject = Subject(1);
    const OTHER: Subject = Subject(2);

    fn namespace() -> NamespaceId {
        NamespaceId::of(&TenantId::default(), "shop")
    }

    fn block<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn open(dir: &tempfile::TempDir, subjects_max: usize) -> InvalidationTokens {
        block(InvalidationTokens::open(Arc::new(Records::open(dir.path()).unwrap()), subjects_max)).unwrap()
    }

    fn entry(current: &InvalidationTokens, tags: &[Subject]) -> EntryMeta {
        entry_in(namespace(), current, tags)
    }

    fn entry_in(namespace: NamespaceId, current: &InvalidationTokens, tags: &[Subject]) -> EntryMeta {
        let tokens = current.admit(current.stamp(), namespace, tags).unwrap();
        EntryMeta {
            namespace,
            epoch: tokens.epoch,
            tags: tokens.tags,
            ..EntryMeta::ending(Codec::Raw, UnixSeconds(0), UnixSeconds::NEVER)
        }
    }

    #[test]
    fn an_invalidation_reaches_what_carries_its_subject_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = open(&dir, 100);
        let (tagged, other) = (entry(&tokens, &[TAG]), entry(&tokens, &[OTHER]));
        block(tokens.bump(&[TAG], Mode::Hard)).unwrap();
        assert_eq!(tokens.standing(&tagged), Standing::Revoked);
        assert_eq!(tokens.standing(&other), Standing::Current);
        let fresh = entry(&tokens, &[TAG, OTHER]);
        assert_eq!(tokens.standing(&fresh), Standing::Current);
        block(tokens.bump(&[namespace().subject()], Mode::Hard)).unwrap();
        assert_eq!(tokens.standing(&fresh), Standing::Revoked);
        let last = entry(&tokens, &[]);
        block(tokens.bump_everything(Mode::Hard)).unwrap();
        assert_eq!(tokens.standing(&last), Standing::Revoked);
    }

    #[test]
    fn a_soft_invalidation_outdates_and_a_hard_one_after_it_revokes() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = open(&dir, 100);
        for subject in [TAG, namespace().subject()] {
            let old = entry(&tokens, &[TAG]);
            block(tokens.bump(&[subject], Mode::Soft)).unwrap();
            block(tokens.bump(&[subject], Mode::Soft)).unwrap();
            assert_eq!(tokens.standing(&old), Standing::Outdated);
            assert_eq!(tokens.standing(&entry(&tokens, &[TAG])), Standing::Current);
            block(tokens.bump(&[subject], Mode::Hard)).unwrap();
            assert_eq!(tokens.standing(&old), Standing::Revoked);
        }
        let old = entry(&tokens, &[TAG]);
        block(tokens.bump_everything(Mode::Soft)).unwrap();
        assert_eq!(tokens.standing(&old), Standing::Outdated);
        for _ in 0..OUTDATED_MAX {
            block(tokens.bump_everything(Mode::Soft)).unwrap();
        }
        assert_eq!(tokens.standing(&old), Standing::Revoked, "older than what is remembered");
    }

    #[test]
    fn what_was_loaded_before_an_invalidation_is_never_admitted() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = open(&dir, 100);
        let before = tokens.stamp();
        block(tokens.bump(&[TAG], Mode::Soft)).unwrap();
        assert_eq!(tokens.admit(before, namespace(), &[TAG]), None);
        assert!(tokens.admit(before, namespace(), &[OTHER]).is_some());
        assert!(tokens.admit(tokens.stamp(), namespace(), &[TAG]).is_some());
        block(tokens.bump_everything(Mode::Hard)).unwrap();
        assert_eq!(tokens.admit(before, namespace(), &[]), None);
    }

    #[test]
    fn a_restart_forgets_no_invalidation_and_revives_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (old, fresh) = {
            let tokens = open(&dir, 100);
            let old = entry(&tokens, &[TAG]);
            block(tokens.bump(&[TAG], Mode::Hard)).unwrap();
            (old, entry(&tokens, &[TAG]))
        };
        let tokens = open(&dir, 100);
        assert_eq!(tokens.standing(&old), Standing::Revoked);
        assert_eq!(tokens.standing(&fresh), Standing::Current);
        let elsewhere = tempfile::tempdir().unwrap();
        let lost = open(&elsewhere, 100);
        assert_eq!(lost.standing(&fresh), Standing::Revoked, "without its tokens an entry is a miss");
    }

    #[test]
    fn an_invalidation_of_everything_reaches_one_tenant_in_every_mode_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let [acme, globex] = ["acme", "globex"].map(|name| TenantId::named(name).unwrap());
        let all_of = |tenant| NamespaceId::tenant_subject(tenant).unwrap();
        let [of_acme, of_globex] = [&acme, &globex].map(|tenant| NamespaceId::of(tenant, "shop"));
        let tokens = open(&dir, 100);
        let (own, theirs) = (entry(&tokens, &[]), entry_in(of_globex, &tokens, &[]));
        let standing = |tokens: &InvalidationTokens, old: &EntryMeta| {
            [&own, old, &theirs].map(|meta| tokens.standing(meta))
        };
        use Standing::{Current, Outdated, Revoked};
        let old = entry_in(of_acme, &tokens, &[]);
        let stamp = tokens.stamp();
        block(tokens.bump(&[all_of(&acme)], Mode::Soft)).unwrap();
        assert_eq!(standing(&tokens, &old), [Current, Outdated, Current]);
        assert_eq!(tokens.admit(stamp, of_acme, &[]), None);
        assert!(
            tokens.admit(stamp, of_globex, &[]).is_some() && tokens.admit(stamp, namespace(), &[]).is_some()
        );
        block(tokens.bump(&[of_acme.subject()], Mode::Soft)).unwrap();
        assert_eq!(standing(&tokens, &old), [Current, Outdated, Current]);
        block(tokens.bump(&[all_of(&acme)], Mode::Hard)).unwrap();
        assert_eq!(standing(&tokens, &old), [Current, Revoked, Current]);
        let fresh = entry_in(of_acme, &tokens, &[]);
        drop(tokens);
        let tokens = open(&dir, 100);
        assert_eq!(standing(&tokens, &old), [Current, Revoked, Current]);
        block(tokens.bump_everything(Mode::Hard)).unwrap();
        assert_eq!(standing(&tokens, &fresh), [Revoked, Current, Current]);
    }

    #[test]
    fn too_many_subjects_bring_back_nothing_of_any_tenant() {
        let dir = tempfile::tempdir().unwrap();
        let acme = TenantId::named("acme").unwrap();
        let (tokens, of_acme) = (open(&dir, 3), NamespaceId::of(&acme, "shop"));
        let hidden = entry_in(of_acme, &tokens, &[]);
        block(tokens.bump(&[of_acme.tenant().unwrap()], Mode::Hard)).unwrap();
        let stamp = tokens.stamp();
        block(tokens.bump(&[10, 11, 12].map(Subject), Mode::Hard)).unwrap();
        assert_eq!(tokens.subjects(), 3, "the token of the tenant is forgotten");
        assert_eq!((tokens.standing(&hidden), tokens.admit(stamp, of_acme, &[])), (Standing::Revoked, None));
        let fresh = entry_in(of_acme, &tokens, &[]);
        drop(tokens);
        let tokens = open(&dir, 3);
        let standing = [&hidden, &fresh].map(|meta| tokens.standing(meta));
        assert_eq!(standing, [Standing::Revoked, Standing::Current]);
        let lost = open(&tempfile::tempdir().unwrap(), 3);
        assert_eq!(lost.standing(&hidden), Standing::Revoked, "without its tokens an entry is a miss");
    }

    #[test]
    fn too_many_subjects_invalidate_invalidate_everything_and_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = open(&dir, 3);
        let never_touched = entry(&tokens, &[]);
        for n in 10..14 {
            block(tokens.bump(&[Subject(n)], Mode::Hard)).unwrap();
        }
        assert_eq!(tokens.standing(&never_touched), Standing::Revoked);
        assert_eq!(tokens.subjects(), 1);
        let fresh = entry(&tokens, &[Subject(13)]);
        drop(tokens);
        let tokens = open(&dir, 3);
        assert_eq!((tokens.subjects(), tokens.standing(&fresh)), (1, Standing::Current));
    }

    /// What the records have lost is taken from the copy of the tokens; what is in one of both only is invalidated.
    #[test]
    fn lost_records_cost_no_token_and_bring_nothing_hidden_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(crate::storage::records::RECORDS_NAME);
        let (hidden, shown, before) = {
            let tokens = open(&dir, 100);
            let hidden = entry(&tokens, &[TAG]);
            block(tokens.bump(&[TAG], Mode::Hard)).unwrap();
            (hidden, entry(&tokens, &[TAG]), fs_err::read(&path).unwrap())
        };
        let older = fs_err::read(&path).unwrap();
        assert!(!before.is_empty());
        fs_err::remove_file(&path).unwrap();
        let tokens = open(&dir, 100);
        assert_eq!(tokens.standing(&hidden), Standing::Revoked);
        assert_eq!(tokens.standing(&shown), Standing::Current, "its token is in the copy");
        block(tokens.bump(&[OTHER], Mode::Hard)).unwrap();
        let after = entry(&tokens, &[OTHER]);
        drop(tokens);
        // The records go back to a time before the last invalidation, as when their last commit is damaged.
        fs_err::write(&path, older).unwrap();
        let tokens = open(&dir, 100);
        assert_eq!(tokens.standing(&after), Standing::Revoked, "it is in the copy only");
        assert_eq!(tokens.standing(&shown), Standing::Current);
        let fresh = entry(&tokens, &[OTHER]);
        drop(tokens);
        let tokens = open(&dir, 100);
        assert_eq!(tokens.standing(&fresh), Standing::Current, "both agree again");
        assert_eq!(tokens.standing(&shown), Standing::Current);
    }
}
