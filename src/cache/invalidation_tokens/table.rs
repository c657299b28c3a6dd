//! The tokens in memory, behind one lock. Judges and loaders read them.

use std::collections::{HashMap, HashSet};

use super::history::{Mode, Standing, TokenHistory};
use super::token_log::{InvalidationIds, LoadedTokens, OTHER_TENANTS, TokenChange};
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
    /// Invalidations of this node that its follower has not read in the shared log, by what they invalidate, the oldest first. Empty
    /// without one.
    unread: HashMap<Subject, Vec<UnreadInvalidation>>,
}

/// Invalidations of a subject that are remembered one by one while they are sent and not read. Of more the oldest are taken for one.
const UNREAD_MAX: usize = 8;

/// Invalidations of one subject by this node that its follower has not read in the shared log. Those that are not sent are one.
#[derive(Debug)]
struct UnreadInvalidation {
    /// The nonce of the event with which they were sent.
    sent: Option<u64>,
    /// Invalidations before the first one. `None` if an earlier process has made it.
    before: Option<u64>,
}

/// What has tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::cache) enum Subject {
    /// All that the default tenant has.
    Everything,
    /// An invalidation id; [`OTHER_TENANTS`] among them.
    Id(InvalidationId),
}

/// What came of changes that were read in the shared log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::cache) struct Applied {
    /// The changes of this table, to be written down.
    pub(in crate::cache) changes: Vec<TokenChange>,
    /// Subjects that this node has invalidated at the same time: their entries may carry the token of an invalidation that another node's one
    /// does not know. They are to be invalidated once more.
    pub(in crate::cache) contested: HashSet<Subject>,
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
    /// Whether the tokens are those of a shared log.
    is_shared: bool,
}

impl TokenTable {
    /// The tokens as they were read, at most `invalidation_ids_max` of invalidation ids. Those of [`OTHER_TENANTS`] are among the invalidation ids.
    pub(in crate::cache) fn new(
        everything: TokenHistory,
        mut invalidation_ids: InvalidationIds,
        invalidation_ids_max: usize,
        is_shared: bool,
    ) -> TokenTable {
        let other_tenants = invalidation_ids.remove(&OTHER_TENANTS).unwrap_or_default();
        let untouched = TokenHistory::default();
        let unread = HashMap::new();
        let state = State { everything, other_tenants, invalidation_ids, untouched, bumps: 0, unread };
        TokenTable { state: RwLock::new(state), invalidation_ids_max, is_shared }
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
        let before = state.bumps;
        let mut changes = Vec::with_capacity(bump.invalidation_ids.len() + 1);
        if state.invalidation_ids.len() + bump.invalidation_ids.len() > self.invalidation_ids_max {
            changes.extend(state.start_over(bump.spares));
        }
        state.bumps += 1;
        let tokens = bump.invalidation_ids.iter().zip(bump.tokens);
        changes
            .extend(tokens.map(|(&invalidation_id, token)| state.replace(invalidation_id, token, bump.mode)));
        if self.is_shared {
            state.expect(changes.iter().filter_map(TokenChange::subject), Some(before));
        }
        submit(changes)
    }

    /// Gives everything that the default tenant has a new token. `submit` as in [`TokenTable::bump`].
    pub(in crate::cache) fn bump_everything<T>(
        &self,
        token: u64,
        mode: Mode,
        submit: impl FnOnce(Vec<TokenChange>) -> T,
    ) -> T {
        let mut state = ignore_poison(self.state.write());
        let before = state.bumps;
        state.bumps += 1;
        let bumps = state.bumps;
        state.everything = state.everything.next(token, mode, bumps);
        let changes = vec![TokenChange::Everything(state.everything.clone())];
        if self.is_shared {
            state.expect(changes.iter().filter_map(TokenChange::subject), Some(before));
        }
        submit(changes)
    }

    /// Takes over the tokens that an invalidation of this node has got in the shared log, which no entry carries yet. Those of a subject
    /// that this node has invalidated once more since stay. What is being loaded is not admitted. Returns the changes.
    pub(in crate::cache) fn publish(&self, changes: Vec<TokenChange>, nonce: u64) -> Vec<TokenChange> {
        let mut state = ignore_poison(self.state.write());
        state.bumps += 1;
        let mut applied = Vec::new();
        for change in changes {
            let expected = change.subject().and_then(|subject| state.unread.get(&subject));
            if expected.is_some_and(|unread| unread.iter().all(|unread| unread.sent == Some(nonce))) {
                applied.extend(state.set(change));
            }
        }
        applied
    }

    /// Invalidations of an earlier process are not in the shared log yet: they are expected there.
    pub(in crate::cache) fn expect(&self, subjects: impl Iterator<Item = Subject>) {
        ignore_poison(self.state.write()).expect(subjects, None);
    }

    /// All invalidations of these subjects are sent, as the event of this nonce.
    pub(in crate::cache) fn mark_sent(&self, subjects: impl Iterator<Item = Subject>, nonce: u64) {
        let mut state = ignore_poison(self.state.write());
        for subject in subjects {
            state.unread.get_mut(&subject).into_iter().for_each(|unread| mark_sent(unread, nonce));
        }
    }

    /// The event of this nonce may not have come into the log: the invalidations are sent again.
    pub(in crate::cache) fn mark_unsent(&self, subjects: impl Iterator<Item = Subject>, nonce: u64) {
        let mut state = ignore_poison(self.state.write());
        for subject in subjects {
            state.unread.get_mut(&subject).into_iter().for_each(|unread| mark_unsent(unread, nonce));
        }
    }

    /// A point before every invalidation that is not read in the shared log: what is loaded from then on may be from before one of
    /// them. `None` if an earlier process has made one.
    pub(in crate::cache) fn stamp_as_read(&self) -> Option<Stamp> {
        let state = self.state();
        let mut unread = state.unread.values().flatten();
        let earliest = unread.try_fold(state.bumps, |earliest, unread| Some(earliest.min(unread.before?)));
        earliest.map(Stamp)
    }

    /// Takes over changes that were read in the shared log. `own` is the name of the invalidation if this node has made it.
    ///
    /// What is loaded meanwhile is admitted only if none of its tokens differs.
    pub(in crate::cache) fn apply(
        &self,
        starts_over: bool,
        changes: Vec<TokenChange>,
        own: Option<u64>,
    ) -> Applied {
        let mut state = ignore_poison(self.state.write());
        state.bumps += 1;
        let mut applied = Applied::default();
        if starts_over && own.is_none() {
            state.forget_ids(&mut applied);
        }
        for change in changes {
            let Some(subject) = change.subject() else { continue };
            let is_unread = state.unread.contains_key(&subject);
            match own {
                Some(nonce) if is_unread && !state.has_read_last(subject, nonce) => {}
                None if is_unread => _ = applied.contested.insert(subject),
                Some(_) => {
                    // Written down with the cursor also if it was published: the record of that may not be durable.
                    state.set(change.clone());
                    applied.changes.push(change);
                }
                None => applied.changes.extend(state.set(change)),
            }
            if !is_unread {
                // An earlier process may have known it: what began before it is refused nevertheless.
                state.mark_bumped(subject);
            }
        }
        applied
    }

    /// Takes over all tokens of the shared log, of which events are lost. Nothing that is being loaded is admitted.
    pub(in crate::cache) fn reload(&self, loaded: LoadedTokens) -> Applied {
        let mut guard = ignore_poison(self.state.write());
        let state = &mut *guard;
        state.bumps += 1;
        let mut applied = Applied { contested: state.unread.keys().copied().collect(), ..Applied::default() };
        let is_forgotten = |id: &InvalidationId| {
            !loaded.invalidation_ids.contains_key(id) && !state.unread.contains_key(&Subject::Id(*id))
        };
        let forgotten = state.invalidation_ids.extract_if(|id, _| is_forgotten(id));
        applied.changes.extend(forgotten.map(|(id, _)| TokenChange::Forget(id)));
        let ids = loaded.invalidation_ids.into_iter();
        let ids = ids.map(|(id, history)| TokenChange::InvalidationId(id, history));
        for change in std::iter::once(TokenChange::Everything(loaded.everything)).chain(ids) {
            if change.subject().is_some_and(|subject| !state.unread.contains_key(&subject)) {
                applied.changes.extend(state.set(change));
            }
        }
        state.everything.bumped = state.bumps;
        state.other_tenants.bumped = state.bumps;
        applied
    }

    /// All tokens, as the shared log is seeded with them.
    pub(in crate::cache) fn all(&self) -> Vec<TokenChange> {
        let state = self.state();
        let ids = state.invalidation_ids.iter();
        let ids = ids.map(|(&id, history)| TokenChange::InvalidationId(id, history.clone()));
        [
            TokenChange::Everything(state.everything.clone()),
            TokenChange::InvalidationId(OTHER_TENANTS, state.other_tenants.clone()),
        ]
        .into_iter()
        .chain(ids)
        .collect()
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
    /// Invalidations of this node are to be read in the shared log.
    fn expect(&mut self, subjects: impl Iterator<Item = Subject>, before: Option<u64>) {
        for subject in subjects {
            let unread = self.unread.entry(subject).or_default();
            if unread.last().is_none_or(|last| last.sent.is_some()) {
                unread.push(UnreadInvalidation { sent: None, before });
            }
        }
    }

    /// An invalidation of this node was read. Returns whether no later one of the subject is still expected.
    fn has_read_last(&mut self, subject: Subject, nonce: u64) -> bool {
        let Some(unread) = self.unread.get_mut(&subject) else { return true };
        if let Some(at) = unread.iter().position(|unread| unread.sent == Some(nonce)) {
            // What was sent before it is in the log before it, or was sent again with it.
            unread.drain(..=at);
        }
        let is_last = unread.is_empty();
        if is_last {
            self.unread.remove(&subject);
        }
        is_last
    }

    /// Another node has forgotten all invalidation ids.
    fn forget_ids(&mut self, applied: &mut Applied) {
        let forgotten =
            self.invalidation_ids.extract_if(|id, _| !self.unread.contains_key(&Subject::Id(*id)));
        applied.changes.extend(forgotten.map(|(id, _)| TokenChange::Forget(id)));
        applied.contested.extend(self.unread.keys().copied());
    }

    /// Takes a change over. Returns it unless nothing differs.
    fn set(&mut self, change: TokenChange) -> Option<TokenChange> {
        let bumped = self.bumps;
        let (known, history) = match &change {
            TokenChange::Everything(history) => (&mut self.everything, history),
            TokenChange::InvalidationId(OTHER_TENANTS, history) => (&mut self.other_tenants, history),
            TokenChange::InvalidationId(id, history) => {
                (self.invalidation_ids.entry(*id).or_default(), history)
            }
            TokenChange::Forget(_) => return None,
        };
        if (known.token, &known.outdated) == (history.token, &history.outdated) {
            return None;
        }
        *known = TokenHistory { bumped, ..history.clone() };
        Some(change)
    }

    fn mark_bumped(&mut self, subject: Subject) {
        let history = match subject {
            Subject::Everything => Some(&mut self.everything),
            Subject::Id(OTHER_TENANTS) => Some(&mut self.other_tenants),
            Subject::Id(id) => self.invalidation_ids.get_mut(&id),
        };
        history.into_iter().for_each(|history| history.bumped = self.bumps);
    }

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
        let known = if invalidation_id == OTHER_TENANTS {
            &self.other_tenants
        } else {
            self.history(invalidation_id)
        };
        let history = known.next(token, mode, self.bumps);
        if invalidation_id == OTHER_TENANTS {
            self.other_tenants = history.clone();
        } else {
            self.invalidation_ids.insert(invalidation_id, history.clone());
        }
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

fn mark_sent(unread: &mut Vec<UnreadInvalidation>, nonce: u64) {
    unread.last_mut().filter(|last| last.sent.is_none()).into_iter().for_each(|last| last.sent = Some(nonce));
    if unread.len() > UNREAD_MAX {
        let oldest = unread.remove(0);
        unread[0].before = oldest.before;
    }
}

fn mark_unsent(unread: &mut Vec<UnreadInvalidation>, nonce: u64) {
    let Some(at) = unread.iter().position(|unread| unread.sent == Some(nonce)) else { return };
    unread[at].sent = None;
    // A later one that is not sent is sent together with it.
    unread.truncate(at + 1);
}

impl Applied {
    /// Adds what came of later changes.
    pub(in crate::cache) fn extend(&mut self, later: Applied) {
        self.changes.extend(later.changes);
        self.contested.extend(later.contested);
    }
}

impl TokenChange {
    /// What has new tokens. `None` for what is forgotten.
    pub(in crate::cache) fn subject(&self) -> Option<Subject> {
        match self {
            TokenChange::Everything(_) => Some(Subject::Everything),
            TokenChange::InvalidationId(id, _) => Some(Subject::Id(*id)),
            TokenChange::Forget(_) => None,
        }
    }

    /// Its new tokens. `None` for what is forgotten.
    pub(in crate::cache) fn history(&self) -> Option<&TokenHistory> {
        match self {
            TokenChange::Everything(history) | TokenChange::InvalidationId(_, history) => Some(history),
            TokenChange::Forget(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
