//! The tokens in memory, behind one lock. Judges and loaders read them.

use super::history::{Mode, Standing, TokenHistory};
use super::token_log::{InvalidationIds, OTHER_TENANTS, TokenChange};
use crate::domain::{EntryMeta, InvalidationId, NamespaceId, TagToken};
use crate::sync::{RwLock, RwLockReadGuard, ignore_poison};

/// A point in the order of invalidations. Loaders take one before they begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(u64);

/// The tokens that a new entry carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryTokens {
    /// The epoch of its namespace.
    pub epoch: u64,
    /// Its tags.
    pub tags: Box<[TagToken]>,
}

#[derive(Debug)]
struct State {
    /// Of all that the default tenant has.
    everything: TokenHistory,
    /// Of all that the other tenants have. No invalidation replaces it, unless the invalidation ids are too many.
    other_tenants: TokenHistory,
    invalidation_ids: InvalidationIds,
    /// Stands for every invalidation id that was never invalidated.
    untouched: TokenHistory,
    /// Invalidations so far in this process.
    bumps: u64,
}

/// Some invalidation ids to be invalidated.
pub(in crate::cache) struct Bump<'a> {
    pub(in crate::cache) invalidation_ids: &'a [InvalidationId],
    /// A new token for each.
    pub(in crate::cache) tokens: Vec<u64>,
    /// New tokens of everything, for the default tenant and for the others, should the invalidation ids be too many.
    pub(in crate::cache) spares: [u64; 2],
    pub(in crate::cache) mode: Mode,
}

/// All tokens.
#[derive(Debug)]
pub(in crate::cache) struct TokenTable {
    state: RwLock<State>,
    invalidation_ids_max: usize,
}

impl TokenTable {
    /// The tokens as they were read, at most `invalidation_ids_max` of invalidation ids. Those of [`OTHER_TENANTS`] are among the invalidation ids.
    pub(in crate::cache) fn new(
        everything: TokenHistory,
        mut invalidation_ids: InvalidationIds,
        invalidation_ids_max: usize,
    ) -> TokenTable {
        let other_tenants = invalidation_ids.remove(&OTHER_TENANTS).unwrap_or_default();
        let untouched = TokenHistory::default();
        let state = State { everything, other_tenants, invalidation_ids, untouched, bumps: 0 };
        TokenTable { state: RwLock::new(state), invalidation_ids_max }
    }

    /// How an entry stands. Costs one shared lock and a probe for the namespace, for each tag, and for another tenant than
    /// the default one.
    pub(in crate::cache) fn standing(&self, meta: &EntryMeta) -> Standing {
        let state = self.state();
        let tags = meta.tags.iter().map(|tag| state.history(tag.tag).standing_of(tag.token));
        tags.fold(state.epoch_standing(meta.namespace, meta.epoch), Ord::max)
    }

    /// The present point in the order of invalidations. A loader takes it before it begins.
    pub(in crate::cache) fn stamp(&self) -> Stamp {
        Stamp(self.state().bumps)
    }

    /// The tokens of an entry whose loader began at `stamp`. None if something that it depends on has been invalidated
    /// since: what was loaded from before an invalidation is never admitted, also when its tags are known only now.
    pub(in crate::cache) fn admit(
        &self,
        stamp: Stamp,
        namespace: NamespaceId,
        tags: &[InvalidationId],
    ) -> Option<EntryTokens> {
        let state = self.state();
        let is_unchanged =
            |invalidation_id: &InvalidationId| state.history(*invalidation_id).bumped <= stamp.0;
        if state.tenant_bumped(namespace) > stamp.0
            || !is_unchanged(&namespace.invalidation_id())
            || !tags.iter().all(is_unchanged)
        {
            return None;
        }
        let tag_token = |&tag: &InvalidationId| TagToken { tag, token: state.history(tag).token };
        Some(EntryTokens { epoch: state.epoch(namespace), tags: tags.iter().map(tag_token).collect() })
    }

    /// Gives invalidation ids new tokens. `submit` gets what is to be written under the lock, so that memory and disk agree on
    /// which of two invalidations came last.
    pub(in crate::cache) fn bump<T>(&self, bump: Bump<'_>, submit: impl FnOnce(Vec<TokenChange>) -> T) -> T {
        let mut state = ignore_poison(self.state.write());
        let mut changes = Vec::with_capacity(bump.invalidation_ids.len() + 1);
        if state.invalidation_ids.len() + bump.invalidation_ids.len() > self.invalidation_ids_max {
            changes.extend(state.start_over(bump.spares));
        }
        state.bumps += 1;
        let tokens = bump.invalidation_ids.iter().zip(bump.tokens);
        changes
            .extend(tokens.map(|(&invalidation_id, token)| state.replace(invalidation_id, token, bump.mode)));
        submit(changes)
    }

    /// Gives everything that the default tenant has a new token. `submit` as in [`TokenTable::bump`].
    pub(in crate::cache) fn bump_everything<T>(
        &self,
        token: u64,
        mode: Mode,
        submit: impl FnOnce(TokenChange) -> T,
    ) -> T {
        let mut state = ignore_poison(self.state.write());
        state.bumps += 1;
        let bumps = state.bumps;
        state.everything = state.everything.next(token, mode, bumps);
        submit(TokenChange::Everything(state.everything.clone()))
    }

    /// Invalidation ids with a token of their own.
    pub(in crate::cache) fn invalidation_ids(&self) -> usize {
        self.state().invalidation_ids.len()
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        ignore_poison(self.state.read())
    }
}

impl State {
    fn history(&self, invalidation_id: InvalidationId) -> &TokenHistory {
        self.invalidation_ids.get(&invalidation_id).unwrap_or(&self.untouched)
    }

    /// The tokens of all that the tenant of a namespace has, and what the epochs of its entries hold besides.
    fn tenant(&self, namespace: NamespaceId) -> (&TokenHistory, u64) {
        match namespace.tenant() {
            None => (&self.everything, 0),
            Some(tenant) => (self.history(tenant), self.other_tenants.token),
        }
    }

    /// The last invalidation of all that the tenant of a namespace has.
    fn tenant_bumped(&self, namespace: NamespaceId) -> u64 {
        let base = if namespace.is_of_other_tenant() { self.other_tenants.bumped } else { 0 };
        self.tenant(namespace).0.bumped.max(base)
    }

    /// The token of a namespace and that of all that its tenant has in one number.
    fn epoch(&self, namespace: NamespaceId) -> u64 {
        let (tenant, base) = self.tenant(namespace);
        base ^ tenant.token ^ self.history(namespace.invalidation_id()).token
    }

    fn epoch_standing(&self, namespace: NamespaceId, epoch: u64) -> Standing {
        let (tenant, base) = self.tenant(namespace);
        let (own, epoch) = (self.history(namespace.invalidation_id()), epoch ^ base);
        if epoch == tenant.token ^ own.token {
            return Standing::Current;
        }
        let mut own_tokens = std::iter::once(own.token).chain(own.outdated.iter().copied());
        let is_known = own_tokens.any(|own| tenant.standing_of(epoch ^ own) != Standing::Revoked);
        if is_known { Standing::Outdated } else { Standing::Revoked }
    }

    /// Gives an invalidation id a new token.
    fn replace(&mut self, invalidation_id: InvalidationId, token: u64, mode: Mode) -> TokenChange {
        let history = self.history(invalidation_id).next(token, mode, self.bumps);
        self.invalidation_ids.insert(invalidation_id, history.clone());
        TokenChange::InvalidationId(invalidation_id, history)
    }

    /// Forgets every invalidation id, which is right only together with a new token of everything.
    fn start_over(&mut self, [everything, other_tenants]: [u64; 2]) -> Vec<TokenChange> {
        tracing::warn!(
            invalidation_ids = self.invalidation_ids.len(),
            "too many tags were invalidated: everything is, instead"
        );
        self.bumps += 1;
        self.everything = self.everything.next(everything, Mode::Hard, self.bumps);
        self.other_tenants = self.other_tenants.next(other_tenants, Mode::Hard, self.bumps);
        let replaced = [
            TokenChange::Everything(self.everything.clone()),
            TokenChange::InvalidationId(OTHER_TENANTS, self.other_tenants.clone()),
        ];
        let forgotten =
            self.invalidation_ids.drain().map(|(invalidation_id, _)| TokenChange::Forget(invalidation_id));
        replaced.into_iter().chain(forgotten).collect()
    }
}
