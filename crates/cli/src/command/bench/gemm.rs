//! Products of square matrices.

use lapidary_kernels::linear::linear;
use lapidary_kernels::precision::Precision;
use lapidary_kernels::rng::Stream;

use super::Work;

pub fn works(seed: u64) -> Vec<Box<dyn Work>> {
    let mut works: Vec<Box<dyn Work>> = Vec::new();
    for size in [1024, 2048] {
        for precision in [Precision::F32, Precision::Bf16] {
            works.push(Box::new(Product { size, precision, seed, a: Vec::new(), b: Vec::new(), c: Vec::new() }));
        }
    }
    works
}

/// `c = a bᵀ`; in bf16 the factors are rounded on the way, as they are in training, and the time includes it.
struct Product {
    size: usize,
    precision: Precision,
    seed: u64,
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

impl Work for Product {
    fn name(&self) -> String {
        format!("gemm_{}.{}", self.size, self.precision)
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        let mut stream = Stream::new(self.seed, self.size as u64);
        let mut matrix = || (0..self.size * self.size).map(|_| stream.normal()).collect::<Vec<f32>>();
        (self.a, self.b) = (matrix(), matrix());
        self.c = vec![0.0; self.size * self.size];
        Ok(())
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let n = self.size;
        linear(&self.a, &self.b, None, None, n, n, n, self.precision, &mut self.c);
        Ok(())
    }

    fn amount(&self) -> Option<(f64, &'static str)> {
        Some((2.0 * (self.size as f64).powi(3) / 1e9, "gflop_per_second"))
    }
}
