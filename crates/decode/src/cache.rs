//! Keys and values of the tokens so far.

/// What a decoder remembers of one sequence. Made by [`PackedDecoder::cache`](crate::PackedDecoder::cache).
#[derive(Clone, Debug)]
pub struct KvCache {
    /// One a block, first to last.
    pub(crate) blocks: Vec<Remembered>,
    pub(crate) capacity: usize,
    pub(crate) len: usize,
}

/// Keys and values of a block, each `[heads, capacity, head width]`, of which the first `len` places are filled.
#[derive(Clone, Debug)]
pub(crate) struct Remembered {
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
}

impl KvCache {
    pub(crate) fn new(blocks: usize, capacity: usize, width: usize) -> Self {
        let block = || Remembered { keys: vec![0.0; capacity * width], values: vec![0.0; capacity * width] };
        Self { blocks: (0..blocks).map(|_| block()).collect(), capacity, len: 0 }
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

impl Remembered {
    /// Takes the keys and values of new tokens at the places from `first` on out of rows `[queries, keys, values]`, each
    /// part of which is `heads * head_width` wide.
    pub(crate) fn put(&mut self, rows: &[f32], first: usize, capacity: usize, heads: usize, head_width: usize) {
        let width = heads * head_width;
        for (place, row) in (first..).zip(rows.chunks_exact(3 * width)) {
            for (store, part) in [(&mut self.keys, &row[width..2 * width]), (&mut self.values, &row[2 * width..])] {
                for (head, part) in part.chunks_exact(head_width).enumerate() {
                    let at = (head * capacity + place) * head_width;
                    store[at..at + head_width].copy_from_slice(part);
                }
            }
        }
    }
}
