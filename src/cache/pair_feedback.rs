//! What clients have said of answers that were served to questions in other words: a table of the small records.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;

use crate::domain::{Key, KeyHasher, TenantId, UnixSeconds};
use crate::error::{Error, Kind, Result};
use crate::labels::label_enum;
use crate::storage::{Change, Records};
use crate::sync::lock;

const TABLE: &str = "pair_feedback";
/// Records read at a time when opening.
const CHUNK: usize = 4096;
/// Bytes of a question of a pair. Longer ones are answered in the same words only.
pub const PAIR_QUESTION_BYTES_MAX: usize = 4096;
/// Pairs that are kept of one tenant.
pub(super) const TENANT_PAIRS_MAX: usize = 20_000;

label_enum! {
    /// Whether the answer to one question was right for another.
    pub enum PairJudgement {
        /// It was.
        Right = "right",
        /// It was not: the two never share an answer again.
        Wrong = "wrong",
    }
}

/// Two questions of a tenant, in any order.
#[derive(Debug, Clone, Copy)]
pub struct QuestionPair<'a> {
    /// Whose questions they are.
    pub tenant: &'a TenantId,
    /// The question that was asked.
    pub asked: &'a str,
    /// The stored question whose answer was served.
    pub stored: &'a str,
}

/// Feedback on pairs. Shared by `Arc`.
///
/// Memory: some 80 bytes a pair.
#[derive(Debug)]
pub struct PairFeedback {
    records: Arc<Records>,
    pairs: Mutex<Pairs>,
}

#[derive(Debug, Default)]
struct Pairs {
    judgements: HashMap<Key, PairJudgement>,
    /// Of them, those of wrong pairs.
    wrong: usize,
    by_tenant: HashMap<TenantId, usize>,
}

/// The record of a pair, in JSON.
#[derive(Debug, Serialize, Deserialize)]
struct PairRecord {
    tenant: String,
    asked: String,
    stored: String,
    is_wrong: bool,
    at: u32,
}

impl QuestionPair<'_> {
    /// The key of the pair: the same for both orders, and whatever capitals, accents, signs and spaces the questions are written with.
    pub fn key(&self) -> Key {
        let mut questions = [self.asked, self.stored].map(folded);
        questions.sort_unstable();
        let mut hasher = KeyHasher::new("likewise/pair/v1");
        hasher.field(self.tenant.as_str().as_bytes());
        questions.iter().for_each(|question| _ = hasher.field(question.as_bytes()));
        hasher.finish()
    }
}

/// The letters and digits of a text in lower case and without accents, with one space behind each word.
fn folded(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        let start = folded.len();
        let letters = word.nfkd().filter(|letter| letter.is_alphanumeric());
        folded.extend(letters.flat_map(char::to_lowercase));
        if folded.len() > start {
            folded.push(' ');
        }
    }
    folded
}

impl PairFeedback {
    /// The feedback among `records`. Blocks.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    pub fn open(records: Arc<Records>) -> Result<PairFeedback> {
        let (mut pairs, mut from) = (Pairs::default(), Vec::new());
        loop {
            let chunk = records.range(TABLE, &from, CHUNK)?;
            let Some((last, _)) = chunk.last() else { break };
            from.clone_from(last);
            from.push(0);
            for (_, value) in &chunk {
                pairs
                    .read(value)
                    .ok_or_else(|| Error::new(Kind::Corrupt, "cannot read the feedback on answers"))?;
            }
        }
        Ok(PairFeedback { records, pairs: Mutex::new(pairs) })
    }

    /// Records what a client says of a pair, and returns what holds of it now: once it was wrong, it stays wrong. Durable when this returns.
    ///
    /// # Errors
    /// `Overloaded` if the tenant has 20,000 other pairs; `Io`, `DiskFull`, `Unavailable` if the disk did not take it: then it
    /// holds until the next start only.
    pub async fn record(
        &self,
        pair: QuestionPair<'_>,
        judgement: PairJudgement,
        now: UnixSeconds,
    ) -> Result<PairJudgement> {
        let key = pair.key();
        let record = |judgement| PairRecord {
            tenant: pair.tenant.as_str().into(),
            asked: pair.asked.trim().into(),
            stored: pair.stored.trim().into(),
            is_wrong: judgement == PairJudgement::Wrong,
            at: now.0,
        };
        let room = self.records.reserve(record(PairJudgement::Wrong).change(key)?.bytes()).await?;
        let (judgement, pending) = {
            let mut pairs = lock(&self.pairs);
            let judgement = pairs.add(key, pair.tenant, judgement)?;
            // Under the lock, so that a later judgement on the pair is written later.
            (judgement, self.records.submit(room, vec![record(judgement).change(key)?])?)
        };
        pending.durable().await?;
        Ok(judgement)
    }

    /// Whether the two must not share an answer.
    pub fn is_wrong(&self, pair: QuestionPair<'_>) -> bool {
        // Most servers have no feedback: they need no key.
        if lock(&self.pairs).judgements.is_empty() {
            return false;
        }
        let key = pair.key();
        lock(&self.pairs).judgements.get(&key) == Some(&PairJudgement::Wrong)
    }

    /// Pairs that must not share an answer.
    pub fn wrong_pairs(&self) -> usize {
        lock(&self.pairs).wrong
    }

    /// The keys of the pairs that must not share an answer.
    pub(super) fn wrong_keys(&self) -> HashSet<Key> {
        let pairs = lock(&self.pairs);
        let wrong = pairs.judgements.iter().filter(|(_, judgement)| **judgement == PairJudgement::Wrong);
        wrong.map(|(key, _)| *key).collect()
    }

    /// The record of a wrong pair, once it is on the disk. Blocks.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn wrong_record(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        let is_wrong =
            |record: &Vec<u8>| serde_json::from_slice(record).is_ok_and(|record: PairRecord| record.is_wrong);
        Ok(self.records.get(TABLE, &key.0)?.filter(is_wrong))
    }

    /// Records what a client has said to another node. What is no record of a wrong pair is left out.
    ///
    /// # Errors
    /// As [`PairFeedback::record`].
    pub(super) async fn add_record(&self, record: &[u8]) -> Result<()> {
        let Ok(PairRecord { tenant, asked, stored, is_wrong: true, at }) = serde_json::from_slice(record)
        else {
            return Ok(());
        };
        let Some(tenant) = TenantId::named(&tenant) else { return Ok(()) };
        if [&asked, &stored].iter().any(|question| question.len() > PAIR_QUESTION_BYTES_MAX) {
            return Ok(());
        }
        let pair = QuestionPair { tenant: &tenant, asked: &asked, stored: &stored };
        self.record(pair, PairJudgement::Wrong, UnixSeconds(at)).await.map(|_| ())
    }
}

impl Pairs {
    /// Adds a judgement. Returns the one that holds.
    fn add(&mut self, key: Key, tenant: &TenantId, judgement: PairJudgement) -> Result<PairJudgement> {
        if let Some(known) = self.judgements.get_mut(&key) {
            if judgement == PairJudgement::Wrong && *known != judgement {
                *known = judgement;
                self.wrong += 1;
            }
            return Ok(*known);
        }
        let count = self.by_tenant.entry(tenant.clone()).or_default();
        if *count == TENANT_PAIRS_MAX {
            let message =
                format!("there is feedback on {TENANT_PAIRS_MAX} pairs of questions, and room for no other");
            return Err(Error::new(Kind::Overloaded, message));
        }
        *count += 1;
        self.wrong += usize::from(judgement == PairJudgement::Wrong);
        self.judgements.insert(key, judgement);
        Ok(judgement)
    }

    /// Adds what a record says. `None` if it is none.
    fn read(&mut self, value: &[u8]) -> Option<()> {
        let record: PairRecord = serde_json::from_slice(value).ok()?;
        let tenant = TenantId::named(&record.tenant)?;
        let key = QuestionPair { tenant: &tenant, asked: &record.asked, stored: &record.stored }.key();
        let judgement = if record.is_wrong { PairJudgement::Wrong } else { PairJudgement::Right };
        *self.by_tenant.entry(tenant).or_default() += 1;
        self.wrong += usize::from(record.is_wrong);
        self.judgements.insert(key, judgement);
        Some(())
    }
}

impl PairRecord {
    fn change(&self, key: Key) -> Result<Change> {
        let unwritten = |error| Error::new(Kind::Internal, "cannot write feedback as JSON").source(error);
        Ok(Change::put(TABLE, key.0, serde_json::to_vec(self).map_err(unwritten)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn open(dir: &tempfile::TempDir) -> PairFeedback {
        PairFeedback::open(Arc::new(Records::open(dir.path()).unwrap())).unwrap()
    }

    #[test]
    fn a_wrong_pair_stays_wrong_in_both_orders_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (TenantId::default(), TenantId::named("other").unwrap());
        let pair = |tenant, asked, stored| QuestionPair { tenant, asked, stored };
        let wrong = pair(&ours, "Can I pause?", "Can I cancel?");
        let feedback = open(&dir);
        assert!(!feedback.is_wrong(wrong));
        let say = |feedback: &PairFeedback, pair, judgement| {
            block(feedback.record(pair, judgement, UnixSeconds(7))).unwrap()
        };
        assert_eq!(say(&feedback, wrong, PairJudgement::Right), PairJudgement::Right);
        assert!(!feedback.is_wrong(wrong));
        assert_eq!(say(&feedback, wrong, PairJudgement::Wrong), PairJudgement::Wrong);
        let reversed = pair(&ours, " can I  cancel", "Cán I PAUSE?\n");
        assert_eq!(say(&feedback, reversed, PairJudgement::Right), PairJudgement::Wrong);
        feedback.records.shutdown();
        drop(feedback);

        let feedback = open(&dir);
        assert!(feedback.is_wrong(wrong) && feedback.is_wrong(reversed));
        assert!(!feedback.is_wrong(pair(&theirs, "Can I pause?", "Can I cancel?")), "of another tenant");
        assert!(!feedback.is_wrong(pair(&ours, "Can I pause it?", "Can I cancel?")));
        assert_eq!(feedback.wrong_pairs(), 1);
    }

    #[test]
    fn the_pairs_of_a_tenant_have_a_limit_that_those_of_another_do_not_fill() {
        let mut pairs = Pairs::default();
        let (ours, theirs) = (TenantId::default(), TenantId::named("other").unwrap());
        let key = |number: usize| KeyHasher::new("test").field(number.to_string().as_bytes()).finish();
        for number in 0..TENANT_PAIRS_MAX {
            pairs.add(key(number), &ours, PairJudgement::Right).unwrap();
        }
        let refused = pairs.add(key(TENANT_PAIRS_MAX), &ours, PairJudgement::Wrong).unwrap_err();
        assert_eq!(refused.kind(), Kind::Overloaded);
        assert_eq!(
            pairs.add(key(3), &ours, PairJudgement::Wrong).unwrap(),
            PairJudgement::Wrong,
            "a known one"
        );
        assert!(pairs.add(key(TENANT_PAIRS_MAX), &theirs, PairJudgement::Wrong).is_ok());
    }
}
