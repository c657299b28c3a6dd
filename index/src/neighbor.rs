//! What a search finds.

/// A row that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbor {
    /// Position of its block among those searched.
    pub block: u32,
    /// Its row in the block.
    pub row: u32,
    /// Its score; higher is nearer.
    pub score: f32,
}
