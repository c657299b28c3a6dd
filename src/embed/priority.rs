//! Which texts are embedded first.

/// The priority of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// A caller waits for it.
    Interactive,
    /// Part of a large request or a job.
    Bulk,
}
