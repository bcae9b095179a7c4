//! Long texts: one canvas behind the other.

use super::{Canvas, ParallelOptions, Written, write};
use crate::cache::KvCache;
use crate::error::DecodeError;
use crate::packed_decoder::PackedDecoder;
use crate::pass::Positions;

/// Writes at most so many canvases, each behind those before it, until one holds a token that `ends` texts. `watch` sees
/// the number of the canvas, from 0 on, and each of its passes.
///
/// A finished canvas is read into the cache as a prompt is, causally, and never again: the keys and values are those that
/// a model trained with [`Mask::canvas`](lapidary_kernels::mask::Mask::canvas) has for a prompt, so that nothing is
/// approximated. The last canvas is not read.
///
/// # Errors
/// As [`write`]: also when a later canvas does not fit.
pub fn write_blocks(
    decoder: &PackedDecoder,
    cache: &mut KvCache,
    options: &ParallelOptions,
    blocks: usize,
    ends: impl Fn(u32) -> bool,
    mut watch: impl FnMut(usize, &Canvas),
) -> Result<Vec<Written>, DecodeError> {
    let mut written: Vec<Written> = Vec::new();
    for block in 0..blocks {
        if let Some(before) = written.last() {
            if before.tokens.iter().any(|token| ends(*token)) {
                break;
            }
            decoder.read(&before.tokens, cache, Positions::Last)?;
        }
        // Two canvases of one seed would begin as the same noise.
        let options = ParallelOptions { seed: options.seed.wrapping_add(block as u64), ..options.clone() };
        written.push(write(decoder, cache, &options, |canvas| watch(block, canvas))?);
    }
    Ok(written)
}
