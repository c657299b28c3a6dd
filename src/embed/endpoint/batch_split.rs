//! Splits a refused batch in halves, until each refused text is alone in its part.
//!
//! Parts are sent level by level, so texts far from a refused one get their vectors first. One refused text of n costs
//! 2 log2(n) further requests. The number of further requests of a batch is limited.

use std::collections::VecDeque;

use super::error_reply::{Failure, FailureCause};
use crate::error::{Error, Kind};

/// Further requests of one batch: enough if all texts of 128 are refused, or about 30 of 256.
const REQUESTS_EXTRA_MAX: usize = 256;

/// The parts of a batch that are still to be sent.
pub struct BatchSplit<T> {
    waiting: VecDeque<Vec<T>>,
    /// Remaining further requests after refusals of a text.
    extra_of_text: usize,
    /// Remaining further requests after failures of unclear cause: enough to find one text.
    extra_of_unclear: usize,
    /// Whether a part has been split.
    pub is_split: bool,
    /// Whether a part has succeeded.
    pub has_succeeded: bool,
}

impl<T> BatchSplit<T> {
    /// The whole batch is the first part.
    pub fn new(batch: Vec<T>) -> BatchSplit<T> {
        let levels = batch.len().next_power_of_two().ilog2() as usize;
        BatchSplit {
            waiting: VecDeque::from([batch]),
            extra_of_text: REQUESTS_EXTRA_MAX.max(2 * levels),
            extra_of_unclear: 2 * levels,
            is_split: false,
            has_succeeded: false,
        }
    }

    /// The next part.
    #[expect(clippy::should_implement_trait, reason = "parts are added between two calls")]
    pub fn next(&mut self) -> Option<Vec<T>> {
        self.waiting.pop_front()
    }

    /// Splits a failed part into halves and queues them. Returns the part with the error of its texts if it cannot be split.
    pub fn split(&mut self, mut part: Vec<T>, failure: Failure) -> Option<(Vec<T>, Error)> {
        let Failure { error, cause } = failure;
        // The endpoint answers for other texts of the batch.
        let is_of_text = cause == FailureCause::Unclear && self.is_split && self.has_succeeded;
        let cause = if is_of_text { FailureCause::Text } else { cause };
        let extra = match cause {
            FailureCause::Text => &mut self.extra_of_text,
            FailureCause::Unclear => &mut self.extra_of_unclear,
            FailureCause::Endpoint => return Some((part, error)),
        };
        if part.len() < 2 {
            return Some((part, error));
        }
        if *extra < 2 {
            // The refused text is not known, and the endpoint's message may quote it to another client.
            let message = "cannot find the refused texts of a batch: the remote model refuses too many";
            let error = if cause == FailureCause::Text { Error::new(Kind::Upstream, message) } else { error };
            return Some((part, error));
        }
        *extra -= 2;
        self.is_split = true;
        let half = part.split_off(part.len().div_ceil(2));
        self.waiting.extend([part, half]);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(cause: FailureCause) -> Failure {
        let kind = if cause == FailureCause::Text { Kind::InvalidInput } else { Kind::Upstream };
        Failure { error: Error::new(kind, "refused"), cause }
    }

    /// Asks for `count` texts of which the endpoint refuses some: requests, texts with a vector, and errors by place.
    fn ask(
        count: usize,
        cause: FailureCause,
        is_bad: impl Fn(usize) -> bool,
    ) -> (usize, usize, Vec<(usize, Kind)>) {
        let mut parts = BatchSplit::new((0..count).collect());
        let (mut requests, mut embedded, mut errors) = (0, 0, Vec::new());
        while let Some(part) = parts.next() {
            requests += 1;
            if !part.iter().any(|&text| is_bad(text)) {
                embedded += part.len();
            } else if let Some((part, error)) = parts.split(part, failure(cause)) {
                errors.extend(part.into_iter().map(|text| (text, error.kind())));
            }
        }
        (requests, embedded, errors)
    }

    #[test]
    fn one_refused_text_costs_twice_the_logarithm_and_fails_alone() {
        for count in [1_usize, 2, 3, 7, 64, 100, 256, 2048] {
            for bad in [0, count / 3, count - 1] {
                for (cause, kind) in
                    [(FailureCause::Text, Kind::InvalidInput), (FailureCause::Unclear, Kind::Upstream)]
                {
                    let (requests, embedded, errors) = ask(count, cause, |text| text == bad);
                    assert_eq!((embedded, errors), (count - 1, vec![(bad, kind)]), "{bad} of {count}");
                    let levels = count.next_power_of_two().ilog2() as usize;
                    assert!(requests <= 2 * levels + 1, "{requests} requests for {bad} of {count}");
                }
            }
        }
    }

    #[test]
    fn several_refused_texts_fail_alone_too() {
        let (requests, embedded, errors) = ask(256, FailureCause::Text, |text| text % 16 == 5);
        assert_eq!((embedded, errors.len()), (240, 16));
        assert!(errors.iter().all(|(text, kind)| text % 16 == 5 && *kind == Kind::InvalidInput));
        assert!(requests <= 1 + REQUESTS_EXTRA_MAX);
        // All of a small batch.
        let (requests, _, errors) = ask(64, FailureCause::Text, |_| true);
        assert_eq!((requests, errors.len()), (127, 64));
    }

    #[test]
    fn the_requests_for_one_batch_are_bounded() {
        let (requests, embedded, errors) = ask(2048, FailureCause::Text, |text| text % 2 == 0);
        assert!(requests <= 1 + REQUESTS_EXTRA_MAX, "{requests}");
        assert_eq!(embedded + errors.len(), 2048);
        assert!(errors.iter().all(|(text, kind)| text % 2 == 0 || *kind == Kind::Upstream));
        // An endpoint that is out of order is not asked for each text.
        let (requests, _, errors) = ask(256, FailureCause::Unclear, |_| true);
        assert!(requests <= 17 && errors.len() == 256, "{requests}");
        let (requests, _, errors) = ask(256, FailureCause::Endpoint, |_| true);
        assert_eq!((requests, errors.len()), (1, 256));
    }
}
