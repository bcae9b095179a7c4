//! The machine's own limits beside what the work reached.

use std::hint::black_box;
use std::time::Instant;

use lapidary_eval::result::RunResult;
use lapidary_kernels::limits;
use lapidary_kernels::team::with_team;

use super::{Measured, Work, median};

const REPEATS: usize = 15;

/// What bounds a work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Multiplications and additions in registers.
    Arithmetic,
    /// Reading a buffer of so many bytes again and again.
    Reading(usize),
}

impl Limit {
    /// What bounds `work`; nothing that is measured here, for `None`.
    pub fn of(work: &dyn Work) -> Option<Self> {
        let arithmetic = work.amount().is_some_and(|(_, unit)| unit == "gflop_per_second");
        work.bytes_read().map(Self::Reading).or(arithmetic.then_some(Self::Arithmetic))
    }

    /// What the machine reaches now, in GFLOP/s or GB/s, all threads together, measured a few times. Other work on the
    /// machine slows both sides, so that this belongs beside the work that it bounds.
    pub fn rates(self) -> Vec<f64> {
        match self {
            Self::Arithmetic => (0..REPEATS).map(|_| multiply_add_rate()).collect(),
            Self::Reading(bytes) => read_rates(bytes),
        }
    }
}

/// Says how much of what bounds the works each reached: `NAME.share_of_f32_peak` or `NAME.share_of_read_rate`.
pub fn record(result: &mut RunResult, works: &[Box<dyn Work>], measured: &[Measured]) -> anyhow::Result<()> {
    for (work, measured) in works.iter().zip(measured) {
        let (name, ours) = (work.name(), median(&measured.ours));
        let Some(limit) = Limit::of(work.as_ref()) else { continue };
        let rate = median(&measured.limits);
        let mut put = |what: &str, value: f64| result.metrics.insert(format!("{name}.{what}"), value);
        match limit {
            Limit::Arithmetic => {
                let (amount, _) = work.amount().unwrap_or_default();
                put("machine_f32_peak_gflop_per_second", rate)?;
                put("share_of_f32_peak", amount / ours / rate)?;
            }
            Limit::Reading(bytes) => {
                let amount = bytes as f64 / 1e9;
                put("bytes_read", bytes as f64)?;
                put("machine_read_gb_per_second", rate)?;
                put("share_of_read_rate", amount / ours / rate)?;
            }
        }
    }
    Ok(())
}

/// Of reading one buffer of so many bytes.
fn read_rates(bytes: usize) -> Vec<f64> {
    /// Readings that are timed together, as the tokens of a text are.
    const TIMES: usize = 128;
    let buffer = vec![1f32; bytes / size_of::<f32>()];
    with_team(rayon::current_num_threads(), |team| {
        let once = |_| {
            let begun = Instant::now();
            for _ in 0..TIMES {
                black_box(limits::read(black_box(&buffer), team));
            }
            (TIMES * bytes) as f64 / 1e9 / begun.elapsed().as_secs_f64()
        };
        (0..REPEATS).map(once).collect()
    })
}

fn multiply_add_rate() -> f64 {
    let begun = Instant::now();
    limits::multiply_add(4_000_000) / 1e9 / begun.elapsed().as_secs_f64()
}
