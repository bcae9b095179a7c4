//! Text that a decoder learns to write: the rows of a batch, and what may be done with them.

use std::sync::Arc;

use lapidary_kernels::linear_cross_entropy::DrawKey;

use crate::taps::Positions;

/// Rows of equal length, each a prompt, a target and padding: `[prompt][target][padding]`.
#[derive(Clone, Debug)]
pub struct TextBatch {
    /// `[B·L]`.
    pub ids: Vec<u32>,
    /// `B`.
    pub rows: usize,
    /// Tokens of each row's prompt, which stay as they are: `[B]`.
    pub prompts: Arc<[usize]>,
    /// Where each row's target ends: `[B]`.
    pub ends: Arc<[usize]>,
    /// What the random numbers of this batch belong to.
    pub key: DrawKey,
}

impl TextBatch {
    /// Windows of running text, all of it target: `ids [B·L]`.
    pub fn windows(ids: Vec<u32>, rows: usize, key: DrawKey) -> Self {
        let length = ids.len().checked_div(rows).unwrap_or(0);
        Self { ids, rows, prompts: vec![0; rows].into(), ends: vec![length; rows].into(), key }
    }

    /// `L`.
    pub fn length(&self) -> usize {
        self.ids.len().checked_div(self.rows).unwrap_or(0)
    }

    /// Its rows, and how much of each is text.
    pub fn positions(&self) -> Positions {
        Positions { examples: self.rows, lengths: Some(self.ends.to_vec()) }
    }

    /// Places `[B·L]` of the targets, row after row.
    pub fn target_places(&self) -> impl Iterator<Item = usize> + '_ {
        let length = self.length();
        let rows = self.prompts.iter().zip(&*self.ends).enumerate();
        rows.flat_map(move |(row, (prompt, end))| row * length + prompt..row * length + end)
    }
}
