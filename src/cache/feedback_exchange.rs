//! Exchanges with all nodes the pairs of questions that share no answer.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::pair_feedback::PairFeedback;
use super::redis::SharedPairs;
use crate::domain::Key;
use crate::error::{Kind, Result};

/// The pause between two exchanges.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause behind failures.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// After so many exchanges all keys are compared, also where the numbers of pairs are those with which nothing differed.
const COMPARED_EVERY: u32 = 600;
/// Records that are read at a time.
const RECORDS_AT_ONCE: usize = 64;

/// How many pairs Redis and this node had, when neither lacked any that the other could give.
type PairCounts = (usize, usize);

/// Exchanges the wrong pairs of this node with those of all until the last owner drops the feedback. Each node has all of them, and Redis
/// too: one that has lost them gets them back.
///
/// Cost: a call a second, of which Redis answers a number; where that has changed, the keys of all pairs (32 bytes each).
pub async fn exchange_feedback(feedback: Weak<PairFeedback>, shared: SharedPairs) {
    let (mut agreed, mut exchanges, mut pause) = (None, 0_u32, PAUSE);
    while let Some(feedback) = feedback.upgrade() {
        exchanges = exchanges.wrapping_add(1);
        if exchanges.is_multiple_of(COMPARED_EVERY) {
            agreed = None;
        }
        pause = match exchange(&feedback, &shared, &mut agreed).await {
            Ok(()) => PAUSE,
            Err(error) => {
                tracing::debug!(%error, "cannot exchange feedback with other nodes");
                (pause * 2).min(PAUSE_MAX)
            }
        };
        drop(feedback);
        tokio::time::sleep(pause).await;
    }
}

/// Exchanges what differs, unless the counts are those with which nothing did: pairs are never removed.
async fn exchange(
    feedback: &Arc<PairFeedback>,
    shared: &SharedPairs,
    agreed: &mut Option<PairCounts>,
) -> Result<()> {
    let count = shared.count().await?;
    if *agreed == Some((count, feedback.wrong_pairs())) {
        return Ok(());
    }
    let (theirs, ours) = (shared.keys().await?, feedback.wrong_keys());
    let unknown: Vec<Key> = theirs.difference(&ours).copied().collect();
    for keys in unknown.chunks(RECORDS_AT_ONCE) {
        for record in shared.get(keys).await? {
            match feedback.add_record(&record).await {
                Err(error) if error.kind() == Kind::Overloaded => {
                    tracing::debug!(%error, "cannot keep the feedback of another node");
                }
                added => added?,
            }
        }
    }
    let missing: Vec<Key> = ours.difference(&theirs).copied().collect();
    for keys in missing.chunks(RECORDS_AT_ONCE) {
        shared.add(&records_of(feedback, keys.to_vec()).await?).await?;
    }
    let is_agreed = feedback.wrong_pairs() == ours.len() && missing.is_empty();
    *agreed = is_agreed.then_some((count, ours.len()));
    Ok(())
}

/// The records of wrong pairs, as far as they are on the disk.
async fn records_of(feedback: &Arc<PairFeedback>, keys: Vec<Key>) -> Result<Vec<(Key, Vec<u8>)>> {
    let feedback = Arc::clone(feedback);
    let read = move || {
        let record = |key: Key| Ok(feedback.wrong_record(&key)?.map(|record| (key, record)));
        keys.into_iter().filter_map(|key| record(key).transpose()).collect()
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| Ok(Vec::new()))
}
