//! Keys and values of the tokens so far.

use lapidary_kernels::attention::KeyValueCache;

/// What a decoder remembers of one sequence. Made by [`PackedDecoder::cache`](crate::PackedDecoder::cache).
#[derive(Clone, Debug)]
pub struct KvCache {
    /// One a block, first to last; the first `len` tokens of each count.
    pub(crate) blocks: Vec<KeyValueCache>,
    pub(crate) capacity: usize,
    pub(crate) len: usize,
    /// Its tokens, the first `len` of which count.
    pub(crate) tokens: Vec<u32>,
}

impl KvCache {
    pub(crate) fn new(blocks: usize, capacity: usize, heads: usize, head_width: usize) -> Self {
        Self {
            blocks: vec![KeyValueCache::new(capacity, heads, head_width); blocks],
            capacity,
            len: 0,
            tokens: Vec::new(),
        }
    }

    /// Tokens from a position on, whatever was there before.
    pub(crate) fn note(&mut self, past: usize, ids: &[u32]) {
        self.tokens.truncate(past);
        self.tokens.extend(ids);
    }

    /// The last token that it holds.
    pub(crate) fn last(&self) -> Option<u32> {
        self.tokens.get(self.len.checked_sub(1)?).copied()
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
