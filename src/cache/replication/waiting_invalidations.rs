//! Invalidations that wait: in their order, and a subject that waits already only once.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use tokio::sync::oneshot;

use crate::cache::change_log::NewToken;
use crate::cache::invalidation_tokens::{Mode, Subject};

/// Subjects of one call at most, unless one invalidation has more: Redis does nothing else meanwhile.
const CALL_SUBJECTS_MAX: usize = 512;

/// Invalidations that are sent together.
#[derive(Debug, Clone)]
pub(in crate::cache) struct InvalidationBatch {
    /// Whether all invalidation ids are forgotten first.
    pub(in crate::cache) starts_over: bool,
    /// What is invalidated, each subject once.
    pub(in crate::cache) tokens: Vec<NewToken>,
    /// How many invalidations these are.
    pub(super) invalidations: usize,
}

#[derive(Debug)]
struct WaitingInvalidation {
    place: u64,
    starts_over: bool,
    tokens: Vec<NewToken>,
    /// Notified when it is in the log.
    waiters: Vec<oneshot::Sender<()>>,
}

/// The invalidations that wait.
#[derive(Debug, Default)]
pub(super) struct WaitingInvalidations {
    waiting: VecDeque<WaitingInvalidation>,
    /// The place at which a subject waits last, and in which mode.
    last: HashMap<Subject, (u64, Mode)>,
    /// The first place that is not being sent.
    unsent: u64,
    /// Subjects of all that wait.
    subjects: usize,
}

impl WaitingInvalidations {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn subjects(&self) -> usize {
        self.subjects
    }

    pub(super) fn all_subjects(&self) -> Vec<Subject> {
        let tokens = self.waiting.iter().flat_map(|waiting| &waiting.tokens);
        tokens.map(|token| token.subject).collect()
    }

    pub(super) fn push(&mut self, place: u64, starts_over: bool, tokens: Vec<NewToken>) {
        if starts_over {
            // It forgets what those before it have changed.
            self.last.clear();
        }
        self.last.extend(tokens.iter().map(|token| (token.subject, (place, token.mode))));
        self.subjects += tokens.len();
        self.waiting.push_back(WaitingInvalidation { place, starts_over, tokens, waiters: Vec::new() });
    }

    /// The place at which the last of these waits, if each waits already and is not being sent: the tokens that are sent are drawn then.
    pub(super) fn covering(&self, tokens: &[NewToken]) -> Option<u64> {
        let place_of = |token: &NewToken| {
            let &(place, mode) = self.last.get(&token.subject)?;
            let is_covered = place >= self.unsent && (mode == Mode::Hard || token.mode == Mode::Soft);
            is_covered.then_some(place)
        };
        let places: Option<Vec<u64>> = tokens.iter().map(place_of).collect();
        places?.into_iter().max()
    }

    /// Notifies a caller when the invalidation at a place is in the log.
    pub(super) fn add_waiter(&mut self, place: u64, waiter: oneshot::Sender<()>) {
        let found = self.waiting.binary_search_by_key(&place, |waiting| waiting.place);
        let Some(waiting) = found.ok().and_then(|at| self.waiting.get_mut(at)) else { return };
        if waiting.waiters.len() == waiting.waiters.capacity() {
            waiting.waiters.retain(|waiter| !waiter.is_closed());
        }
        waiting.waiters.push(waiter);
    }

    /// The first ones, whose subjects are not too many for one call.
    pub(super) fn take(&mut self) -> Option<InvalidationBatch> {
        let starts_over = self.waiting.front()?.starts_over;
        let (mut tokens, mut invalidations): (Vec<NewToken>, usize) = (Vec::new(), 0);
        let mut places: HashMap<Subject, usize> = HashMap::new();
        for waiting in &self.waiting {
            let is_first = invalidations == 0;
            if !is_first && (waiting.starts_over || tokens.len() + waiting.tokens.len() > CALL_SUBJECTS_MAX) {
                break;
            }
            for token in &waiting.tokens {
                match places.entry(token.subject) {
                    // Entries from before a hard invalidation must not be served stale.
                    Entry::Occupied(place) if token.mode == Mode::Hard => tokens[*place.get()] = *token,
                    Entry::Occupied(_) => {}
                    Entry::Vacant(place) => {
                        place.insert(tokens.len());
                        tokens.push(*token);
                    }
                }
            }
            invalidations += 1;
            self.unsent = waiting.place + 1;
        }
        Some(InvalidationBatch { starts_over, tokens, invalidations })
    }

    /// Those that were taken wait again.
    pub(super) fn untake(&mut self) {
        self.unsent = 0;
    }

    /// Those that were taken wait no longer. Returns their places, and the callers that wait for them.
    pub(super) fn complete(&mut self, sent: &InvalidationBatch) -> (Vec<u64>, Vec<oneshot::Sender<()>>) {
        let (mut places, mut waiters) = (Vec::new(), Vec::new());
        for sent in self.waiting.drain(..sent.invalidations.min(self.waiting.len())) {
            for token in &sent.tokens {
                if self.last.get(&token.subject).is_some_and(|&(place, _)| place == sent.place) {
                    self.last.remove(&token.subject);
                }
            }
            self.subjects -= sent.tokens.len();
            places.push(sent.place);
            waiters.extend(sent.waiters);
        }
        (places, waiters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::InvalidationId;

    fn token(id: u64, mode: Mode) -> NewToken {
        NewToken { subject: Subject::Id(InvalidationId(id)), token: id, mode }
    }

    #[test]
    fn one_call_has_each_subject_once_and_not_too_many() {
        let mut waiting = WaitingInvalidations::default();
        waiting.push(0, false, vec![token(1, Mode::Soft), token(2, Mode::Hard)]);
        waiting.push(1, false, vec![token(1, Mode::Hard), token(2, Mode::Soft)]);
        let many: Vec<NewToken> =
            (10..10 + CALL_SUBJECTS_MAX as u64).map(|id| token(id, Mode::Hard)).collect();
        waiting.push(2, false, many.clone());
        waiting.push(3, true, vec![token(1, Mode::Hard)]);
        let batch = waiting.take().unwrap();
        assert_eq!((batch.starts_over, batch.invalidations), (false, 2));
        assert_eq!(batch.tokens, [token(1, Mode::Hard), token(2, Mode::Hard)]);
        assert_eq!(waiting.complete(&batch).0, [0, 1]);
        let batch = waiting.take().unwrap();
        assert_eq!((batch.invalidations, batch.tokens), (1, many), "nothing is forgotten in between");
        assert_eq!(waiting.subjects(), CALL_SUBJECTS_MAX + 1);
    }

    #[test]
    fn a_waiting_invalidation_covers_later_ones_of_its_subjects_unless_they_hide_more() {
        let mut waiting = WaitingInvalidations::default();
        waiting.push(5, false, vec![token(1, Mode::Hard), token(2, Mode::Soft)]);
        waiting.push(6, false, vec![token(3, Mode::Hard)]);
        assert_eq!(waiting.covering(&[token(1, Mode::Soft), token(3, Mode::Hard)]), Some(6));
        assert_eq!(waiting.covering(&[token(2, Mode::Hard)]), None);
        assert_eq!(waiting.covering(&[token(1, Mode::Hard), token(4, Mode::Hard)]), None);
        for _ in 0..1000 {
            waiting.add_waiter(5, oneshot::channel().0);
        }
        assert!(waiting.waiting[0].waiters.len() < 10, "those that do not wait any more are forgotten");
        let batch = waiting.take().unwrap();
        assert_eq!(waiting.covering(&[token(1, Mode::Hard)]), None, "it is being sent");
        waiting.untake();
        assert_eq!(waiting.covering(&[token(1, Mode::Hard)]), Some(5));
        assert_eq!((waiting.complete(&batch).0, waiting.len(), waiting.subjects()), (vec![5, 6], 0, 0));
        assert!(waiting.all_subjects().is_empty());
    }
}
