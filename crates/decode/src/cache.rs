//! Keys and values of the tokens so far.

use lapidary_kernels::attention::KeyValueCache;

/// What a decoder remembers of one sequence. Made by [`PackedDecoder::cache`](crate::PackedDecoder::cache).
#[derive(Clone, Debug)]
pub struct KvCache {
    /// One a block, first to last; the first `len` tokens of each count.
    pub(crate) blocks: Vec<KeyValueCache>,
    pub(crate) capacity: usize,
    pub(crate) len: usize,
}

impl KvCache {
    pub(crate) fn new(blocks: usize, capacity: usize, heads: usize, head_width: usize) -> Self {
        Self { blocks: vec![KeyValueCache::new(capacity, heads, head_width); blocks], capacity, len: 0 }
    }

    /// Tokens that it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens that it has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all but the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}
