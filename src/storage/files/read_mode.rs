//! How mapped or stored bytes are read.

use serde::{Deserialize, Serialize};

/// How a store reads its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadMode {
    /// Copied out of a read-only mapping: fastest, but a device that fails to deliver a page kills the process.
    #[default]
    Mmap,
    /// Read by a system call: one to two microseconds more, and a failing device is an error.
    Pread,
}
