//! The machine's own limits beside what the work reached.

use std::hint::black_box;
use std::time::Instant;

use lapidary_eval::result::RunResult;
use lapidary_kernels::limits;
use lapidary_kernels::team::with_team;

use super::{Measured, Work, median};

const REPEATS: usize = 15;

/// Says how much of what bounds the works each reached: `NAME.share_of_f32_peak`, of multiplications and additions in
/// registers, and `NAME.share_of_read_rate`, of reading as many bytes again and again.
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
    for (work, measured) in works.iter().zip(measured) {
        if let Some(bytes) = work.bytes_read() {
            let (name, seconds) = (work.name(), median(&measured.reading));
            result.metrics.insert(format!("{name}.bytes_read"), bytes as f64)?;
            result.metrics.insert(format!("{name}.machine_read_gb_per_second"), bytes as f64 / 1e9 / seconds)?;
            result.metrics.insert(format!("{name}.share_of_read_rate"), seconds / median(&measured.ours))?;
        }
    }
    Ok(())
}

/// Seconds of reading one buffer of so many bytes, all threads together, measured a few times.
pub fn reading(bytes: usize) -> Vec<f64> {
    /// Readings that are timed together, as the tokens of a text are.
    const TIMES: usize = 128;
    let buffer = vec![1f32; bytes / size_of::<f32>()];
    with_team(rayon::current_num_threads(), |team| {
        (0..REPEATS)
            .map(|_| {
                let begun = Instant::now();
                for _ in 0..TIMES {
                    black_box(limits::read(black_box(&buffer), team));
                }
                begun.elapsed().as_secs_f64() / TIMES as f64
            })
            .collect()
    })
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
