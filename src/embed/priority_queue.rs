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

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
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
        let (mut batch, mut total, mut dropped) = (Vec::new(), 0_usize, 0);
        while batch.len() < limits.items {
            let bulk_is_next = self.interactive.is_empty() || (bulk_begins && batch.is_empty());
            let takes_bulk = bulk_is_next && !self.bulk.is_empty();
            let queue = if takes_bulk { &mut self.bulk } else { &mut self.interactive };
            let Some(next) = queue.front() else { break };
            if is_unwanted(next) {
                queue.pop_front();
                dropped += 1;
                continue;
            }
            total = total.saturating_add(cost(next));
            if !batch.is_empty() && total > limits.cost {
                break;
            }
            batch.extend(queue.pop_front());
        }
        if !batch.is_empty() {
            self.batches += 1;
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
    fn unwanted_items_are_dropped_and_cost_nothing() {
        let mut queue = queue(&[1, 2, 3], &[4, 5]);
        let batch = queue.take_batch(BatchLimits { items: 9, cost: 100 }, |item| *item, |item| item % 2 == 0);
        assert_eq!(batch, TakenBatch { items: vec![1, 3, 5], dropped: 2 });
        assert!(queue.is_empty());
    }
}
