//! How fast matrix products are: GFLOP/s of the shapes of a decoder's training step and of two squares, on one thread
//! and on all, beside the rate of multiplications and additions that never leave the registers.
//!
//! `cargo run --release -p lapidary-kernels --example products [-- REPEATS [NAME [bf16] [cpu]]]`; NAME picks the shapes
//! that contain it, `bf16` rounds the factors, and `cpu` divides by processor time instead of time, which tells more on
//! a machine that is not idle.

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Instant;

use lapidary_kernels::isa::{self, Isa};
use lapidary_kernels::linear::{linear, linear_backward_input, linear_backward_weight};
use lapidary_kernels::precision::Precision;
use rayon::ThreadPoolBuilder;

/// Name, rows, inputs and outputs of a layer.
const SHAPES: [(&str, usize, usize, usize); 6] = [
    ("256 to 256", 4096, 256, 256),
    ("256 to 1024", 4096, 256, 1024),
    ("1024 to 256", 4096, 1024, 256),
    ("256 to 4096", 4096, 256, 4096),
    ("square 1024", 1024, 1024, 1024),
    ("square 2048", 2048, 2048, 2048),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let repeats = arguments.next().map_or(20, |repeats| repeats.parse().expect("a number of repeats"));
    let wanted = arguments.next().unwrap_or_default();
    let options: Vec<String> = arguments.collect();
    let has = |option: &str| options.iter().any(|o| o == option);
    let clock = if has("cpu") { processor_time } else { time };
    let precision = if has("bf16") { Precision::Bf16 } else { Precision::F32 };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{}; GFLOP/s of the fastest of {repeats} runs (and of the median)", isa::active());
    println!("{:24} {:>16} {:>16}", "", "1 thread", format!("{threads} threads"));
    let pools = [1, threads].map(|n| ThreadPoolBuilder::new().num_threads(n).build().expect("threads"));
    let print = |name: &str, flops: f64, work: &mut (dyn FnMut() + Send)| {
        let [one, all] = [&pools[0], &pools[1]].map(|pool| pool.install(|| rates(repeats, flops, clock, work)));
        println!("{name:24} {one:>16} {all:>16}");
    };

    const STEPS: usize = 1 << 20;
    let flops = (STEPS * FLOPS) as f64;
    print("in registers", flops, &mut || {
        let threads = rayon::current_num_threads();
        rayon::broadcast(|_| black_box(multiply_and_add(STEPS / threads)));
    });
    for (name, n, input, output) in SHAPES.into_iter().filter(|(name, ..)| name.contains(&wanted)) {
        let (x, w, dy) = (numbers(n * input), numbers(output * input), numbers(n * output));
        let (mut y, mut dx, mut dw) = (vec![0.0; n * output], vec![0.0; n * input], vec![0.0; output * input]);
        let flops = 2.0 * (n * input * output) as f64;
        let print = |what: &str, work: &mut (dyn FnMut() + Send)| print(&format!("{name} {what}"), flops, work);
        print("y", &mut || linear(&x, &w, None, None, n, input, output, precision, &mut y));
        print("dx", &mut || linear_backward_input(&dy, &w, n, input, output, precision, &mut dx));
        print("dw", &mut || linear_backward_weight(&dy, &x, n, input, output, precision, &mut dw));
    }
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0).collect()
}

/// Seconds since the first call.
fn time() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// Seconds that this process has computed, a thread.
fn processor_time() -> f64 {
    #[cfg(unix)]
    {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call writes the struct that it is given.
        unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut now) };
        (now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9) / rayon::current_num_threads() as f64
    }
    #[cfg(not(unix))]
    time()
}

fn rates(repeats: usize, flops: f64, clock: fn() -> f64, work: &mut (dyn FnMut() + Send)) -> String {
    work();
    let mut seconds: Vec<f64> = (0..repeats)
        .map(|_| {
            let start = clock();
            work();
            clock() - start
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    format!("{:.1} ({:.1})", flops / seconds[0] / 1e9, flops / seconds[repeats / 2] / 1e9)
}

/// Floating-point operations of a step of [`multiply_and_add`].
const FLOPS: usize = 2 * SUMS * LANES;

/// Sums under way: enough for two multipliers of four cycles each.
const SUMS: usize = 12;

/// Numbers of a register.
const LANES: usize = if cfg!(target_arch = "x86_64") { 8 } else { 4 };

/// `steps` times a multiplication and addition for each of [`SUMS`] registers.
fn multiply_and_add(steps: usize) -> [[f32; LANES]; SUMS] {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn avx2(steps: usize) -> [[f32; LANES]; SUMS] {
        in_registers::<true>(steps)
    }
    #[cfg(target_arch = "x86_64")]
    if isa::active() >= Isa::Avx2 {
        // SAFETY: the processor has the active set, and every set above AVX2 includes it.
        return unsafe { avx2(steps) };
    }
    in_registers::<{ cfg!(target_arch = "aarch64") }>(steps)
}

#[inline(always)]
fn in_registers<const FMA: bool>(steps: usize) -> [[f32; LANES]; SUMS] {
    let mut sums = [[0f32; LANES]; SUMS];
    let factor: [f32; LANES] = black_box([0.999; LANES]);
    for _ in 0..steps {
        for sum in &mut sums {
            for (sum, factor) in sum.iter_mut().zip(factor) {
                *sum = if FMA { sum.mul_add(factor, factor) } else { *sum * factor + factor };
            }
        }
    }
    sums
}
