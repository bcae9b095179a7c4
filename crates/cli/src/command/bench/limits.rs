//! The machine's own limits beside what the work reached.

use std::time::Instant;

use lapidary_eval::result::RunResult;
use lapidary_kernels::limits;

use super::{Measured, Work, median};

const REPEATS: usize = 15;

/// Measures what bounds the works, and says how much of it each reached: `NAME.share_of_f32_peak`, of multiplications
/// and additions in registers.
pub fn record(result: &mut RunResult, works: &[Box<dyn Work>], measured: &[Measured]) -> anyhow::Result<()> {
    let in_flops = |work: &dyn Work| work.amount().filter(|(_, unit)| *unit == "gflop_per_second");
    if works.iter().any(|work| in_flops(work.as_ref()).is_some()) {
        let peak = multiply_add_rate();
        result.metrics.insert("machine.f32_peak_gflop_per_second", peak)?;
        for (work, measured) in works.iter().zip(measured) {
            if let Some((amount, _)) = in_flops(work.as_ref()) {
                let share = amount / median(&measured.ours) / peak;
                result.metrics.insert(format!("{}.share_of_f32_peak", work.name()), share)?;
            }
        }
    }
    Ok(())
}

/// In GFLOP/s, all threads together.
fn multiply_add_rate() -> f64 {
    let rates: Vec<f64> = (0..REPEATS)
        .map(|_| {
            let begun = Instant::now();
            limits::multiply_add(4_000_000) / 1e9 / begun.elapsed().as_secs_f64()
        })
        .collect();
    median(&rates)
}
