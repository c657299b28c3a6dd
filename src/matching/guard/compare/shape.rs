//! To ask how something is done against to ask to do it.

use super::comparison::QuestionComparison;
use crate::matching::guard::conflict::{ConflictKind, Strength};
use crate::matching::guard::request_shape::RequestShape;

impl QuestionComparison<'_> {
    pub(super) fn shapes(&mut self) {
        match (self.first.shape, self.second.shape) {
            (RequestShape::HowTo(one), RequestShape::Act(two))
            | (RequestShape::Act(one), RequestShape::HowTo(two)) => {
                self.add(ConflictKind::Action, Strength::Certain, Some(one), Some(two));
            }
            (RequestShape::HowTo(_), RequestShape::HowTo(_) | RequestShape::Other)
            | (RequestShape::Act(_), RequestShape::Act(_) | RequestShape::Other)
            | (RequestShape::Other, RequestShape::HowTo(_) | RequestShape::Act(_) | RequestShape::Other) => {}
        }
    }
}
