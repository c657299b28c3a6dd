//! Whether two questions may share an answer though their words differ.
//!
//! Contains: the rule guard, which questions are never answered in other words, and the threshold that follows from judged requests. Must not contain: I/O, a clock, an async function.
//! The one idea: similarity proposes, rules forbid.

pub mod calibration;
pub mod guard;
