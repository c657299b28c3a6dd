//! Whether two questions may share an answer though their words differ.
//!
//! Contains: the rule guard, and which questions are never answered in other words. Must not contain: I/O, a clock, an async function.
//! The one idea: similarity proposes, rules forbid.

pub mod guard;
