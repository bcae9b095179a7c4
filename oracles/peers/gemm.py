"""PyTorch's time for square matrix products.

Run with torch 2.15.0; any recent version does.

    pip install torch
    python oracles/peers/gemm.py --threads 2 --json --only gemm_1024.f32

One product is `torch.matmul(a, b, out=c)` of random N x N matrices, always the same ones, N = 1024 and
2048, in f32 and in bf16. On a processor without bf16 arithmetic bf16 is far slower than f32.

    --threads N   threads of PyTorch (default 2)
    --repeats N   timed products (default 10)
    --warmup N    products before them that do not count (default 2)
    --only WORK   gemm_1024.f32, gemm_1024.bf16, gemm_2048.f32 or gemm_2048.bf16; all without it
    --json        one JSON object per work, one a line, on standard output:
                  {"name": "gemm_1024.f32", "median_seconds", "min_seconds", "max_seconds", "repeats",
                  "gflops", "peak_rss_bytes"}
                  without it the times as a sentence; versions go to standard error

gflops is 2 N^3 / median_seconds / 10^9.
"""

import torch

from timing import Work, main


def product(n, dtype):
    """A closure that multiplies once."""
    torch.manual_seed(0)
    a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
    c = torch.empty(n, n, dtype=dtype)
    return lambda: torch.matmul(a, b, out=c)


def work(n, kind, dtype):
    return Work(f"gemm_{n}.{kind}", lambda: product(n, dtype), rates=dict(gflops=2e-9 * n**3))


KINDS = {"f32": torch.float32, "bf16": torch.bfloat16}
WORKS = {w.name: w for w in (work(n, *kind) for n in (1024, 2048) for kind in KINDS.items())}


if __name__ == "__main__":
    main(__doc__, WORKS, repeats=10)
