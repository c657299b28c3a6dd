//! Tokens as invalidations of this node and of others change them.

use super::*;
use crate::domain::{Codec, TenantId, UnixSeconds};

const TAG: InvalidationId = InvalidationId(1);
const OTHER: InvalidationId = InvalidationId(2);

fn shop() -> NamespaceId {
    NamespaceId::of(&TenantId::default(), "shop")
}

fn table() -> TokenTable {
    TokenTable::new(TokenHistory::starting(7), InvalidationIds::default(), 100, true)
}

fn entry(table: &TokenTable) -> EntryMeta {
    let tokens = table.admit(table.stamp(), shop(), &[TAG]).unwrap();
    EntryMeta {
        namespace: shop(),
        epoch: tokens.epoch,
        tags: tokens.tags,
        ..EntryMeta::ending(Codec::Raw, UnixSeconds(0), UnixSeconds::NEVER)
    }
}

fn bump(table: &TokenTable, token: u64, nonce: u64) -> Vec<TokenChange> {
    let changes = bump_unsent(table, token);
    table.mark_sent([Subject::Id(TAG)].into_iter(), nonce);
    changes
}

fn bump_unsent(table: &TokenTable, token: u64) -> Vec<TokenChange> {
    let bump = Bump { invalidation_ids: &[TAG], tokens: vec![token], spares: [1, 2], mode: Mode::Hard };
    table.bump(bump, |changes| changes)
}

fn of_tag(token: u64) -> Vec<TokenChange> {
    vec![TokenChange::InvalidationId(TAG, TokenHistory::starting(token))]
}

#[test]
fn a_change_of_another_node_hides_entries_and_refuses_what_was_being_loaded() {
    let table = table();
    let (old, stamp) = (entry(&table), table.stamp());
    let applied = table.apply(false, of_tag(11), None);
    assert_eq!((applied.changes, applied.contested), (of_tag(11), HashSet::new()));
    assert_eq!(table.standing(&old), Standing::Revoked);
    assert_eq!(table.admit(stamp, shop(), &[TAG]), None);
    assert_eq!(table.standing(&entry(&table)), Standing::Current);
    assert_eq!(table.apply(false, of_tag(11), None), Applied::default(), "nothing differs");
}

#[test]
fn a_change_of_this_node_is_read_back_without_effect_and_a_later_one_stays() {
    let table = table();
    bump(&table, 11, 101);
    bump(&table, 12, 102);
    let fresh = entry(&table);
    assert_eq!(table.apply(false, of_tag(11), Some(101)), Applied::default());
    assert_eq!(table.standing(&fresh), Standing::Current, "the token of the later one");
    assert_eq!(table.apply(false, of_tag(12), Some(102)).changes, of_tag(12), "it is written down");
    assert_eq!(table.standing(&fresh), Standing::Current);
    table.apply(false, of_tag(13), None);
    assert_eq!(table.standing(&fresh), Standing::Revoked);
}

/// The entry was loaded after this node's invalidation and before the other node's one, which came first in the log.
#[test]
fn an_invalidation_of_another_node_before_an_unread_one_is_contested() {
    let table = table();
    bump(&table, 11, 101);
    let loaded = entry(&table);
    let applied = table.apply(false, of_tag(21), None);
    assert_eq!(applied.contested, HashSet::from([Subject::Id(TAG)]));
    let again = bump(&table, 31, 103);
    assert_eq!(table.standing(&loaded), Standing::Revoked);
    table.apply(false, of_tag(11), Some(101));
    table.apply(false, again, Some(103));
    assert_eq!(table.standing(&loaded), Standing::Revoked);
}

/// Another node has invalidated the tag after the entry was loaded, and before this node's invalidation was in the log.
#[test]
fn an_entry_of_before_an_invalidation_was_in_the_log_is_hidden_once_it_is() {
    let table = table();
    bump(&table, 11, 101);
    let (loaded, stamp) = (entry(&table), table.stamp());
    assert_eq!(table.publish(of_tag(12), 101), of_tag(12));
    assert_eq!(table.standing(&loaded), Standing::Revoked);
    assert_eq!(table.admit(stamp, shop(), &[TAG]), None);
    let fresh = entry(&table);
    assert_eq!(table.apply(false, of_tag(12), Some(101)).changes, of_tag(12), "it is written down");
    assert_eq!(table.standing(&fresh), Standing::Current);
    bump(&table, 13, 102);
    bump(&table, 14, 103);
    let last = entry(&table);
    assert_eq!(table.publish(of_tag(23), 102), []);
    assert_eq!(table.standing(&last), Standing::Current, "a later one of this node is not in the log yet");
}

/// A lease of another node that is older than this node's invalidation in the log must not pass for a younger one.
#[test]
fn what_is_loaded_from_a_point_of_the_log_on_is_from_before_every_unread_invalidation() {
    let table = table();
    assert_eq!(table.stamp_as_read(), Some(table.stamp()));
    bump(&table, 11, 101);
    bump(&table, 12, 102);
    let as_read = table.stamp_as_read().unwrap();
    assert_eq!(table.admit(as_read, shop(), &[TAG]), None);
    table.publish(of_tag(21), 101);
    table.apply(false, of_tag(21), Some(101));
    let as_read = table.stamp_as_read().unwrap();
    assert_eq!(table.admit(as_read, shop(), &[TAG]), None, "the second is not read");
    table.apply(false, of_tag(22), Some(102));
    assert_eq!(table.stamp_as_read(), Some(table.stamp()));
    table.expect([Subject::Id(TAG)].into_iter());
    assert_eq!(table.stamp_as_read(), None, "an earlier process has made it");
}

/// One that waits is one with those that are made meanwhile, and one that was sent in vain with those that are sent next.
#[test]
fn invalidations_of_a_subject_that_wait_are_one_and_those_that_are_read_are_forgotten() {
    let table = table();
    let unread = || table.state().unread.get(&Subject::Id(TAG)).map_or(0, Vec::len);
    (0..1000).for_each(|n| _ = bump_unsent(&table, 100 + n));
    assert_eq!(unread(), 1);
    let subject = || [Subject::Id(TAG)].into_iter();
    table.mark_sent(subject(), 1);
    bump_unsent(&table, 11);
    assert_eq!(unread(), 2);
    table.mark_unsent(subject(), 1);
    assert_eq!((unread(), table.publish(of_tag(21), 1)), (1, vec![]), "it is sent again");
    table.mark_sent(subject(), 2);
    table.apply(false, of_tag(21), Some(1));
    assert_eq!(table.publish(of_tag(22), 2), of_tag(22));
    table.apply(false, of_tag(22), Some(2));
    assert_eq!(unread(), 0);
    (0..1000).for_each(|n| _ = bump(&table, 100 + n, 1000 + n));
    assert_eq!(unread(), UNREAD_MAX);
    let refused = table.admit(table.stamp_as_read().unwrap(), shop(), &[TAG]);
    assert_eq!(refused, None, "the oldest is among them");
    table.apply(false, of_tag(31), Some(1998));
    assert_eq!(unread(), 1);
}

#[test]
fn all_tokens_are_taken_over_but_those_of_unread_invalidations() {
    let table = table();
    bump(&table, 11, 101);
    table.apply(false, vec![TokenChange::InvalidationId(OTHER, TokenHistory::starting(5))], None);
    let (fresh, stamp) = (entry(&table), table.stamp());
    let ids = [(TAG, TokenHistory::starting(99)), (OTHER_TENANTS, TokenHistory::starting(3))];
    let loaded =
        LoadedTokens { everything: TokenHistory::starting(7), invalidation_ids: ids.into_iter().collect() };
    let applied = table.reload(loaded);
    assert_eq!(applied.contested, HashSet::from([Subject::Id(TAG)]));
    assert!(applied.changes.contains(&TokenChange::Forget(OTHER)), "{:?}", applied.changes);
    assert_eq!(table.standing(&fresh), Standing::Current);
    assert_eq!(table.admit(stamp, shop(), &[]), None, "what is being loaded is not admitted");
    assert_eq!(table.invalidation_ids(), 1);
}

#[test]
fn the_tokens_of_all_other_tenants_are_replaced_where_they_are() {
    let table = table();
    let acme = NamespaceId::of(&TenantId::named("acme").unwrap(), "shop");
    let epoch = table.admit(table.stamp(), acme, &[]).unwrap().epoch;
    let bump = Bump { invalidation_ids: &[OTHER_TENANTS], tokens: vec![5], spares: [1, 2], mode: Mode::Hard };
    table.bump(bump, drop);
    assert_ne!(table.admit(table.stamp(), acme, &[]).unwrap().epoch, epoch);
    let of_all = |change: &TokenChange| change.subject() == Some(Subject::Id(OTHER_TENANTS));
    assert_eq!((table.all().into_iter().filter(of_all).count(), table.invalidation_ids()), (1, 0));
}

#[test]
fn another_node_that_starts_over_hides_everything() {
    let table = table();
    bump(&table, 11, 101);
    let old = entry(&table);
    let everything = vec![TokenChange::Everything(TokenHistory::starting(8))];
    let applied = table.apply(true, everything, None);
    assert_eq!(applied.contested, HashSet::from([Subject::Id(TAG)]));
    assert_eq!(table.standing(&old), Standing::Revoked);
}
