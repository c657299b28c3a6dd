//! Waiting work in two lanes, and how a batch is cut from them.

use std::collections::VecDeque;

use super::Priority;

/// Of so many batches, one begins with the oldest bulk item: bulk work is slow under interactive load, never stuck.
const BULK_TURN: u64 = 8;

/// The limits of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Items in it.
    pub(super) items: usize,
    /// The sum of their costs.
    pub(super) cost: usize,
}

/// What was cut.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut<T> {
    /// The items of the batch, in order.
    pub(super) batch: Vec<T>,
    /// How many were dropped on the way because nobody wants them any more.
    pub(super) dropped: usize,
}

/// Items that wait, each lane in order of arrival.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    interactive: VecDeque<T>,
    bulk: VecDeque<T>,
    batches: u64,
}

impl<T> Lanes<T> {
    pub(super) fn new() -> Lanes<T> {
        Lanes { interactive: VecDeque::new(), bulk: VecDeque::new(), batches: 0 }
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

    /// Takes everything out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.interactive.drain(..).chain(self.bulk.drain(..))
    }

    /// The next batch: oldest first, interactive before bulk, within the budget, at least one item whatever it costs.
    pub(super) fn cut(
        &mut self,
        budget: Budget,
        cost: impl Fn(&T) -> usize,
        is_unwanted: impl Fn(&T) -> bool,
    ) -> Cut<T> {
        let bulk_begins = self.batches % BULK_TURN == BULK_TURN - 1;
        let (mut batch, mut total, mut dropped) = (Vec::new(), 0_usize, 0);
        while batch.len() < budget.items {
            let bulk_is_next = self.interactive.is_empty() || (bulk_begins && batch.is_empty());
            let takes_bulk = bulk_is_next && !self.bulk.is_empty();
            let lane = if takes_bulk { &mut self.bulk } else { &mut self.interactive };
            let Some(next) = lane.front() else { break };
            if is_unwanted(next) {
                lane.pop_front();
                dropped += 1;
                continue;
            }
            total = total.saturating_add(cost(next));
            if !batch.is_empty() && total > budget.cost {
                break;
            }
            batch.extend(lane.pop_front());
        }
        if !batch.is_empty() {
            self.batches += 1;
        }
        Cut { batch, dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Budget = Budget { items: 1, cost: 1 };

    fn lanes(interactive: &[usize], bulk: &[usize]) -> Lanes<usize> {
        let mut lanes = Lanes::new();
        interactive.iter().for_each(|&item| lanes.push(Priority::Interactive, item));
        bulk.iter().for_each(|&item| lanes.push(Priority::Bulk, item));
        lanes
    }

    #[test]
    fn interactive_goes_first_and_bulk_begins_every_eighth_batch() {
        let mut lanes = lanes(&[1; 40], &[2; 40]);
        let order: Vec<usize> = (0..16).flat_map(|_| lanes.cut(ONE, |_| 1, |_| false).batch).collect();
        let bulk: Vec<usize> = (0..16).filter(|&place| order[place] == 2).collect();
        assert_eq!(bulk, [7, 15]);
    }

    #[test]
    fn a_batch_ends_before_the_item_that_would_exceed_a_limit() {
        let mut lanes = lanes(&[], &[3, 4, 5, 100, 1, 1, 1, 1]);
        let mut cut = || lanes.cut(Budget { items: 3, cost: 8 }, |cost| *cost, |_| false).batch;
        assert_eq!(cut(), [3, 4]);
        assert_eq!(cut(), [5]);
        assert_eq!(cut(), [100]);
        assert_eq!(cut(), [1, 1, 1]);
        assert_eq!(cut(), [1]);
        assert_eq!(cut(), [0_usize; 0]);
    }

    #[test]
    fn bulk_items_fill_what_interactive_ones_leave() {
        let mut lanes = lanes(&[1, 2], &[3, 4]);
        let cut = lanes.cut(Budget { items: 3, cost: 100 }, |_| 1, |_| false);
        assert_eq!(cut.batch, [1, 2, 3]);
    }

    #[test]
    fn unwanted_items_are_dropped_and_cost_nothing() {
        let mut lanes = lanes(&[1, 2, 3], &[4, 5]);
        let cut = lanes.cut(Budget { items: 9, cost: 100 }, |item| *item, |item| item % 2 == 0);
        assert_eq!(cut, Cut { batch: vec![1, 3, 5], dropped: 2 });
        assert!(lanes.is_empty());
    }
}
