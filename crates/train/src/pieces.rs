//! Rows of which a piece is repaired, as where a text is written on.

use std::ops::Range;

use lapidary_kernels::rng::Stream;
use lapidary_models::objective::TextBatch;

/// Places of a piece that does not reach the end of its row.
const SHORT: Range<usize> = 1..17;

/// The place that pieces draw from, with the row added.
const PIECES: u64 = 5 << 59;

/// The batch with this share of its rows' canvases made pieces: a piece begins at any of the first `tokens[row]` places of
/// the row's target, what is before it is given as the prompt is, and it reaches to the end of the target or, every other
/// one, for 1 to 16 places.
///
/// A canvas that always begins where the text does is not what a model sees that drafts the next few tokens of a text, or
/// writes the second of several canvases.
pub fn in_pieces(batch: TextBatch, tokens: &[usize], share: f64) -> TextBatch {
    let (mut prompts, mut ends) = (batch.prompts.to_vec(), batch.ends.to_vec());
    for (row, (prompt, end)) in prompts.iter_mut().zip(&mut ends).enumerate() {
        let mut stream = Stream::at_place(batch.key.seed, batch.key.step, PIECES + row as u64);
        if f64::from(stream.uniform()) >= share || tokens[row] == 0 {
            continue;
        }
        *prompt += stream.below(tokens[row]);
        if stream.below(2) == 0 {
            *end = (*prompt + SHORT.start + stream.below(SHORT.len())).min(*end);
        }
    }
    TextBatch { prompts: prompts.into(), ends: ends.into(), ..batch }
}

#[cfg(test)]
mod tests {
    use lapidary_kernels::linear_cross_entropy::DrawKey;

    use super::*;

    #[test]
    fn pieces_lie_within_the_targets() {
        let (rows, length) = (400, 60);
        let batch = |step| {
            let prompts = (0..rows).map(|row| row % 7).collect();
            let ends = (0..rows).map(|row| 40 + row % 20).collect();
            TextBatch { ids: vec![0; rows * length], rows, prompts, ends, key: DrawKey { seed: 1, step } }
        };
        let (before, tokens) = (batch(3), vec![20; rows]);
        let same = in_pieces(batch(3), &tokens, 0.0);
        assert_eq!((same.prompts, same.ends), (before.prompts.clone(), before.ends.clone()));
        let some = in_pieces(batch(3), &tokens, 0.5);
        let (mut moved, mut short) = (0, 0);
        for row in 0..rows {
            let (from, to) = (before.prompts[row]..before.ends[row], some.prompts[row]..some.ends[row]);
            assert!(from.start <= to.start && to.start < from.start + 20 && to.start < to.end && to.end <= from.end);
            assert!(to.end == from.end || to.len() <= 16);
            moved += usize::from(from != to);
            short += usize::from(to.end != from.end);
        }
        assert!((150..250).contains(&moved) && (60..140).contains(&short), "{moved}, {short} of {rows}");
        assert_ne!(some.prompts, in_pieces(batch(4), &tokens, 0.5).prompts, "each batch has its own");
    }
}
