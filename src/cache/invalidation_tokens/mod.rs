//! The current tokens: a random one for each tag and each namespace that was ever invalidated, and one for everything.
//!
//! An invalidation replaces a token; no tier is searched. Entries keep the tokens that were current when their loader
//! began, so an entry made before an invalidation shows it by itself, in whatever tier and after whatever restart.
//! Tokens are compared for equality only: no clock and no counter can make an old entry current again.
//!
//! An invalidation id that was never invalidated has the token 0. The epoch of an entry holds a second token too. For the default
//! tenant it is that of everything, for all other tenants a common one and that of all that the tenant has. The token of
//! everything and the common one are random from the first start on: if all tokens are lost, every entry is a miss.

mod history;
mod local_log;
mod table;
mod token_log;

use std::sync::Arc;

pub(super) use self::history::OUTDATED_MAX;
pub use self::history::{Mode, Standing, TokenHistory};
pub use self::local_log::LocalTokenLog;
pub(super) use self::local_log::{CHANGE_BYTES, record_of};
pub(super) use self::table::{Applied, Bump, Subject, TokenTable};
pub use self::table::{EntryTokens, Stamp};
pub(super) use self::token_log::OTHER_TENANTS;
pub use self::token_log::{LoadedTokens, Propagation, QueueChanges, Queued, TokenChange, TokenLog};
use super::random::random_id;
use crate::domain::{EntryMeta, InvalidationId, NamespaceId};
use crate::error::Result;

/// All tokens: in memory for judging, in the log for the next start. Shared by `Arc`.
#[derive(Debug)]
pub struct InvalidationTokens {
    table: TokenTable,
    log: Arc<dyn TokenLog>,
}

impl InvalidationTokens {
    /// The tokens of `log`, at most `invalidation_ids_max` of invalidation ids. Blocks.
    ///
    /// # Errors
    /// As [`TokenLog::load`].
    pub async fn open(log: Arc<dyn TokenLog>, invalidation_ids_max: usize) -> Result<InvalidationTokens> {
        let LoadedTokens { everything, invalidation_ids } = log.load().await?;
        let table = TokenTable::new(everything, invalidation_ids, invalidation_ids_max, log.is_shared());
        Ok(InvalidationTokens { table, log })
    }

    /// The table, for the follower of a shared log.
    pub(super) fn table(&self) -> &TokenTable {
        &self.table
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
    pub fn admit(
        &self,
        stamp: Stamp,
        namespace: NamespaceId,
        tags: &[InvalidationId],
    ) -> Option<EntryTokens> {
        self.table.admit(stamp, namespace, tags)
    }

    /// Invalidates what carries one of the invalidation ids: hidden at once, and for good once this returns.
    ///
    /// # Errors
    /// `Io`, `DiskFull`, `Unavailable`: entries are hidden until the next start, and may come back after it.
    pub async fn bump(&self, invalidation_ids: &[InvalidationId], mode: Mode) -> Result<Propagation> {
        self.log.check_room()?;
        self.bump_waiting(invalidation_ids, mode).await
    }

    /// Invalidates once more what waits to be sent to other nodes, however many changes wait.
    pub(super) async fn bump_again(&self, invalidation_ids: &[InvalidationId]) -> Result<Propagation> {
        self.bump_waiting(invalidation_ids, Mode::Hard).await
    }

    async fn bump_waiting(&self, invalidation_ids: &[InvalidationId], mode: Mode) -> Result<Propagation> {
        let queue = self.log.append(invalidation_ids.len() + 2).await?;
        let tokens = invalidation_ids.iter().map(|_| random_id()).collect::<Result<Vec<u64>>>()?;
        let spares = [random_id()?, random_id()?];
        let bump = Bump { invalidation_ids, tokens, spares, mode };
        self.table.bump(bump, queue)?.await
    }

    /// Invalidates everything that the default tenant has. Otherwise as [`InvalidationTokens::bump`].
    ///
    /// # Errors
    /// As [`InvalidationTokens::bump`].
    pub async fn bump_everything(&self, mode: Mode) -> Result<Propagation> {
        self.log.check_room()?;
        self.bump_everything_waiting(mode).await
    }

    /// As [`InvalidationTokens::bump_again`].
    pub(super) async fn bump_everything_again(&self) -> Result<Propagation> {
        self.bump_everything_waiting(Mode::Hard).await
    }

    async fn bump_everything_waiting(&self, mode: Mode) -> Result<Propagation> {
        let queue = self.log.append(1).await?;
        let token = random_id()?;
        self.table.bump_everything(token, mode, queue)?.await
    }

    /// Invalidation ids with a token of their own.
    pub fn invalidation_ids(&self) -> usize {
        self.table.invalidation_ids()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::domain::{Codec, TenantId, UnixSeconds};
    use crate::error::{Error, Kind};
    use crate::storage::Records;

    const TAG: InvalidationId = InvalidationId(1);
    const OTHER: InvalidationId = InvalidationId(2);

    fn namespace() -> NamespaceId {
        NamespaceId::of(&TenantId::default(), "shop")
    }

    fn block<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn open(dir: &tempfile::TempDir, invalidation_ids_max: usize) -> InvalidationTokens {
        let records = Arc::new(Records::open(dir.path()).unwrap());
        block(InvalidationTokens::open(Arc::new(LocalTokenLog::new(records)), invalidation_ids_max)).unwrap()
    }

    fn entry(current: &InvalidationTokens, tags: &[InvalidationId]) -> EntryMeta {
        entry_in(namespace(), current, tags)
    }

    fn entry_in(namespace: NamespaceId, current: &InvalidationTokens, tags: &[InvalidationId]) -> EntryMeta {
        let tokens = current.admit(current.stamp(), namespace, tags).unwrap();
        EntryMeta {
            namespace,
            epoch: tokens.epoch,
            tags: tokens.tags,
            ..EntryMeta::ending(Codec::Raw, UnixSeconds(0), UnixSeconds::NEVER)
        }
    }

    #[test]
    fn an_invalidation_reaches_what_carries_its_id_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = open(&dir, 100);
        let (tagged, other) = (entry(&tokens, &[TAG]), entry(&tokens, &[OTHER]));
        block(tokens.bump(&[TAG], Mode::Hard)).unwrap();
        assert_eq!(tokens.standing(&tagged), Standing::Revoked);
        assert_eq!(tokens.standing(&other), Standing::Current);
        let fresh = entry(&tokens, &[TAG, OTHER]);
        assert_eq!(tokens.standing(&fresh), Standing::Current);
        block(tokens.bump(&[namespace().invalidation_id()], Mode::Hard)).unwrap();
        assert_eq!(tokens.standing(&fresh), Standing::Revoked);
        let last = entry(&tokens, &[]);
        block(tokens.bump_everything(Mode::Hard)).unwrap();
        assert_eq!(tokens.standing(&last), Standing::Revoked);
    }

    #[test]
    fn a_soft_invalidation_outdates_and_a_hard_one_after_it_revokes() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = open(&dir, 100);
        for invalidation_id in [TAG, namespace().invalidation_id()] {
            let old = entry(&tokens, &[TAG]);
            block(tokens.bump(&[invalidation_id], Mode::Soft)).unwrap();
            block(tokens.bump(&[invalidation_id], Mode::Soft)).unwrap();
            assert_eq!(tokens.standing(&old), Standing::Outdated);
            assert_eq!(tokens.standing(&entry(&tokens, &[TAG])), Standing::Current);
            block(tokens.bump(&[invalidation_id], Mode::Hard)).unwrap();
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
        let all_of = |tenant| NamespaceId::tenant_id_bits(tenant).unwrap();
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
        block(tokens.bump(&[of_acme.invalidation_id()], Mode::Soft)).unwrap();
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
    fn too_many_ids_bring_back_nothing_of_any_tenant() {
        let dir = tempfile::tempdir().unwrap();
        let acme = TenantId::named("acme").unwrap();
        let (tokens, of_acme) = (open(&dir, 3), NamespaceId::of(&acme, "shop"));
        let hidden = entry_in(of_acme, &tokens, &[]);
        block(tokens.bump(&[of_acme.tenant().unwrap()], Mode::Hard)).unwrap();
        let stamp = tokens.stamp();
        block(tokens.bump(&[10, 11, 12].map(InvalidationId), Mode::Hard)).unwrap();
        assert_eq!(tokens.invalidation_ids(), 3, "the token of the tenant is forgotten");
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
    fn too_many_ids_invalidate_invalidate_everything_and_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = open(&dir, 3);
        let never_touched = entry(&tokens, &[]);
        for n in 10..14 {
            block(tokens.bump(&[InvalidationId(n)], Mode::Hard)).unwrap();
        }
        assert_eq!(tokens.standing(&never_touched), Standing::Revoked);
        assert_eq!(tokens.invalidation_ids(), 1);
        let fresh = entry(&tokens, &[InvalidationId(13)]);
        drop(tokens);
        let tokens = open(&dir, 3);
        assert_eq!((tokens.invalidation_ids(), tokens.standing(&fresh)), (1, Standing::Current));
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

    /// Holds no tokens, and appends nothing.
    #[derive(Debug)]
    struct FailingLog;

    impl TokenLog for FailingLog {
        fn load(&self) -> BoxFuture<'_, Result<LoadedTokens>> {
            let everything = TokenHistory::starting(1);
            Box::pin(async { Ok(LoadedTokens { everything, invalidation_ids: Default::default() }) })
        }

        fn append(&self, _: usize) -> BoxFuture<'_, Result<QueueChanges>> {
            let failed = || Error::new(Kind::Io, "cannot append tokens");
            let queue: QueueChanges = Box::new(move |_| Ok(Box::pin(async move { Err(failed()) })));
            Box::pin(async { Ok(queue) })
        }
    }

    #[test]
    fn an_invalidation_that_cannot_be_made_durable_is_an_error_and_hides_until_the_next_start() {
        let tokens = block(InvalidationTokens::open(Arc::new(FailingLog), 100)).unwrap();
        let old = entry(&tokens, &[TAG]);
        assert_eq!(block(tokens.bump(&[TAG], Mode::Hard)).unwrap_err().kind(), Kind::Io);
        assert_eq!(tokens.standing(&old), Standing::Revoked);
        let old = entry(&tokens, &[TAG]);
        assert!(block(tokens.bump_everything(Mode::Hard)).is_err());
        assert_eq!(tokens.standing(&old), Standing::Revoked);
    }
}
