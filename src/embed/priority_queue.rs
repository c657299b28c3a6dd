//! The queue of embedding jobs: interactive before bulk, taken in batches.

use std::collections::VecDeque;

use super::Priority;

/// Every eighth batch begins with the oldest bulk item: interactive load slows bulk items down and never starves them.
const BULK_FIRST_EVERY: u64 = 8;

/// The limits of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimits {
    /// Items in it.
    pub(super) items: usize,
    /// The sum of their costs.
    pub(super) cost: usize,
}

/// A batch that was taken from the queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TakenBatch<T> {
    /// The items, in order.
    pub(super) items: Vec<T>,
    /// Items that were dropped, since their callers have left.
    pub(super) dropped: usize,
}

/// Items that wait, each priority in order of arrival.
#[derive(Debug)]
pub(super) struct PriorityQueue<T> {
    interactive: VecDeque<T>,
    bulk: VecDeque<T>,
    batches: u64,
}

impl<T> PriorityQueue<T> {
    pub(super) fn new() -> PriorityQueue<T> {
        PriorityQueue { interactive: VecDeque::new(), bulk: VecDeque::new(), batches: 0 }
    }

    pub(super) fn push(&mut self, priority: Priority, item: T) {
        match priority {
            Priority::Interactive => self.interactive.push_back(item),
            Priority::Bulk => self.bulk.push_back(item),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.interactive.len() + self.bulk.len()
    }

    /// Whether there is no item of a priority.
    pub(super) fn has_none_of(&self, priority: Priority) -> bool {
        match priority {
            Priority::Interactive => self.interactive.is_empty(),
            Priority::Bulk => self.bulk.is_empty(),
        }
    }

    /// The next item, interactive before bulk.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.interactive.pop_front().or_else(|| self.bulk.pop_front())
    }

    /// Removes all items.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.interactive.drain(..).chain(self.bulk.drain(..))
    }

    /// The next batch: oldest first, interactive before bulk, within the limits, with at least one item even if that exceeds the cost.
    pub(super) fn take_batch(
        &mut self,
        limits: BatchLimits,
        cost: impl Fn(&T) -> usize,
        is_unwanted: impl Fn(&T) -> bool,
    ) -> TakenBatch<T> {
        let bulk_begins = self.batches % BULK_FIRST_EVERY == BULK_FIRST_EVERY - 1;
        let next = |queue: &Self, is_first: bool| {
            let bulk_is_next = queue.interactive.is_empty() || (bulk_begins && is_first);
            if bulk_is_next && !queue.bulk.is_empty() { Priority::Bulk } else { Priority::Interactive }
        };
        let taken = self.take(next, limits, cost, is_unwanted);
        self.batches += u64::from(!taken.items.is_empty());
        taken
    }

    /// The next batch of one priority, as [`PriorityQueue::take_batch`] otherwise.
    pub(super) fn take_batch_of(
        &mut self,
        priority: Priority,
        limits: BatchLimits,
        cost: impl Fn(&T) -> usize,
        is_unwanted: impl Fn(&T) -> bool,
    ) -> TakenBatch<T> {
        self.take(|_, _| priority, limits, cost, is_unwanted)
    }

    /// A batch of items whose priorities `next` names, for the first item and for each further one.
    fn take(
        &mut self,
        next: impl Fn(&Self, bool) -> Priority,
        limits: BatchLimits,
        cost: impl Fn(&T) -> usize,
        is_unwanted: impl Fn(&T) -> bool,
    ) -> TakenBatch<T> {
        let (mut batch, mut total, mut dropped) = (Vec::new(), 0_usize, 0);
        while batch.len() < limits.items {
            let queue = match next(self, batch.is_empty()) {
                Priority::Interactive => &mut self.interactive,
                Priority::Bulk => &mut self.bulk,
            };
            let Some(item) = queue.front() else { break };
            if is_unwanted(item) {
                queue.pop_front();
                dropped += 1;
                continue;
            }
            total = total.saturating_add(cost(item));
            if !batch.is_empty() && total > limits.cost {
                break;
            }
            batch.extend(queue.pop_front());
        }
        TakenBatch { items: batch, dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: BatchLimits = BatchLimits { items: 1, cost: 1 };

    fn queue(interactive: &[usize], bulk: &[usize]) -> PriorityQueue<usize> {
        let mut queue = PriorityQueue::new();
        interactive.iter().for_each(|&item| queue.push(Priority::Interactive, item));
        bulk.iter().for_each(|&item| queue.push(Priority::Bulk, item));
        queue
    }

    #[test]
    fn interactive_goes_first_and_bulk_begins_every_eighth_batch() {
        let mut queue = queue(&[1; 40], &[2; 40]);
        let order: Vec<usize> = (0..16).flat_map(|_| queue.take_batch(ONE, |_| 1, |_| false).items).collect();
        let bulk: Vec<usize> = (0..16).filter(|&place| order[place] == 2).collect();
        assert_eq!(bulk, [7, 15]);
    }

    #[test]
    fn a_batch_ends_before_the_item_that_would_exceed_a_limit() {
        let mut queue = queue(&[], &[3, 4, 5, 100, 1, 1, 1, 1]);
        let mut take = || queue.take_batch(BatchLimits { items: 3, cost: 8 }, |cost| *cost, |_| false).items;
        assert_eq!(take(), [3, 4]);
        assert_eq!(take(), [5]);
        assert_eq!(take(), [100]);
        assert_eq!(take(), [1, 1, 1]);
        assert_eq!(take(), [1]);
        assert_eq!(take(), [0_usize; 0]);
    }

    #[test]
    fn bulk_items_fill_what_interactive_ones_leave() {
        let mut queue = queue(&[1, 2], &[3, 4]);
        let batch = queue.take_batch(BatchLimits { items: 3, cost: 100 }, |_| 1, |_| false);
        assert_eq!(batch.items, [1, 2, 3]);
    }

    #[test]
    fn a_batch_of_one_priority_leaves_the_other() {
        let mut queue = queue(&[1, 2], &[3, 4, 5]);
        let limits = BatchLimits { items: 2, cost: 100 };
        assert_eq!(queue.take_batch_of(Priority::Bulk, limits, |_| 1, |_| false).items, [3, 4]);
        assert_eq!(queue.take_batch_of(Priority::Interactive, limits, |_| 1, |_| false).items, [1, 2]);
        assert!(queue.has_none_of(Priority::Interactive) && !queue.has_none_of(Priority::Bulk));
        let dropped = queue.take_batch_of(Priority::Bulk, limits, |_| 1, |_| true);
        assert_eq!(dropped, TakenBatch { items: Vec::new(), dropped: 1 });
    }

    #[test]
    fn unwanted_items_are_dropped_and_cost_nothing() {
        let mut queue = queue(&[1, 2, 3], &[4, 5]);
        let batch = queue.take_batch(BatchLimits { items: 9, cost: 100 }, |item| *item, |item| item % 2 == 0);
        assert_eq!(batch, TakenBatch { items: vec![1, 3, 5], dropped: 2 });
        assert_eq!(queue.len(), 0);
    }
}
