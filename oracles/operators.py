"""What PyTorch computes for the fused operators: outputs and gradients on small inputs.

Made with torch 2.15.0, safetensors 0.8.0.

    pip install torch safetensors
    python oracles/operators.py

Writes crates/ops/tests/golden/operators.safetensors. Inputs are f32 numbers; PyTorch computes in
f64 from them, and the results are rounded to f32. Tensors are named OPERATOR.CASE.TENSOR; `dx` is the
gradient of the sum of `dy * y` with respect to `x` (`dout` and `out` for attention). All are f32 unless
said otherwise; a tensor that a case does not use is absent.

layer_norm.{plain, residual, shifted, wide}
    x [N, D], residual [N, D], gamma [D], beta [D], eps [1] -> y [N, D] = LN(x + residual)
    dy [N, D] -> dx [N, D] (dresidual is the same), dgamma [D], dbeta [D]
    `shifted` has rows of mean 10 and standard deviation 1.

gelu.plain
    x [N], dy [N] -> y [N], dx [N]; the exact form x/2 (1 + erf(x / sqrt 2)), x from -100 to 100

attention.{full, padding, causal, causal_padding, prefix, prefix_padding, empty}
    q, k, v, dout [R*L, H*K] -> out, dq, dk, dv [R*L, H*K], scores scaled by 1/sqrt K
    shape [4] i64: R rows, L length, H heads, K head width; head h has columns h*K .. (h+1)*K
    lengths [R] i64 (*padding, empty): keys j >= lengths[row] are hidden, the queries there still count
    prefix [R] i64 (prefix*): query i sees key j where j <= i or j < prefix[row]; causal: j <= i
    `empty` is `padding` with a row of length 0: its outputs and gradients are 0.

cross_entropy.{plain, ignored, normalized, extreme}
    logits [N, V], targets [N] i64 (-100 is ignored), normalizer [1]
    -> loss [1] f64 = sum of -log p[target] / normalizer, dlogits [N, V]
    normalizer is the number of targets that count, except in `normalized` (32). `extreme` has logits
    of about +-1000.

linear.{plain, bias, single}
    x [N, I], w [O, I], b [O], dy [N, O] -> y [N, O] = x w^T + b, dx [N, I], dw [O, I], db [O]
    `single` has N = 1.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

GOLDEN = Path(__file__).resolve().parents[1] / "crates/ops/tests/golden"

generator = torch.Generator().manual_seed(0)
tensors = {}


def draw(*shape, mean=0.0, std=1.0):
    """An f32 number in an f64 tensor that wants its gradient."""
    value = mean + std * torch.randn(*shape, generator=generator)
    return value.double().requires_grad_()


def record(case, values):
    """Keeps f64 tensors as f32 and integers as they are; `loss` stays f64."""
    for name, value in values.items():
        value = value.detach()
        if value.is_floating_point() and name != "loss":
            value = value.float()
        assert torch.isfinite(value).all(), (case, name)
        tensors[f"{case}.{name}"] = value.clone(memory_format=torch.contiguous_format)


def gradients(output, d_output, inputs):
    """Gradients by name, `dx` for `x`."""
    values = torch.autograd.grad(output, list(inputs.values()), d_output)
    return {f"d{name}": value for name, value in zip(inputs, values)}


def layer_norm(case, rows, width, eps, residual=False, mean=0.0):
    x, dy = draw(rows, width, mean=mean), draw(rows, width)
    inputs = dict(x=x, gamma=draw(width, mean=1.0, std=0.3), beta=draw(width, std=0.3))
    extra = {"residual": draw(rows, width)} if residual else {}
    total = x + extra["residual"] if residual else x
    y = F.layer_norm(total, (width,), inputs["gamma"], inputs["beta"], eps)
    values = inputs | extra | dict(eps=torch.tensor([eps], dtype=torch.float64), y=y, dy=dy)
    record(f"layer_norm.{case}", values | gradients(y, dy, inputs))


def gelu():
    grid = torch.cat([torch.linspace(-10, 10, 161), torch.tensor([-100.0, -40.0, 40.0, 100.0, 1e-20, -1e-6])])
    x, dy = grid.double().requires_grad_(), draw(grid.numel())
    y = F.gelu(x, approximate="none")
    record("gelu.plain", dict(x=x, y=y, dy=dy) | gradients(y, dy, dict(x=x)))


def attention(case, rows, kind="full", lengths=None, prefix=None, length=7, heads=2, head_width=8):
    flat = {name: draw(rows * length, heads * head_width, std=1.5) for name in "qkv"}
    dout = draw(rows * length, heads * head_width)
    query, key = torch.arange(length)[:, None], torch.arange(length)[None, :]
    visible = torch.ones(rows, 1, length, length, dtype=torch.bool)
    if kind != "full":
        visible &= key <= query
    if kind == "prefix":
        visible |= key < torch.tensor(prefix)[:, None, None, None]
    if lengths is not None:
        visible &= key < torch.tensor(lengths)[:, None, None, None]
    q, k, v = (t.view(rows, length, heads, head_width).transpose(1, 2) for t in flat.values())
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
    out = out.transpose(1, 2).reshape(rows * length, heads * head_width)
    values = flat | dict(shape=torch.tensor([rows, length, heads, head_width]), out=out, dout=dout)
    if lengths is not None:
        values["lengths"] = torch.tensor(lengths)
    if prefix is not None:
        values["prefix"] = torch.tensor(prefix)
    record(f"attention.{case}", values | gradients(out, dout, flat))


def cross_entropy(case, rows, classes, ignored=(), normalizer=None, std=2.0):
    logits = draw(rows, classes, std=std)
    targets = torch.randint(0, classes, (rows,), generator=generator)
    targets[list(ignored)] = -100
    normalizer = normalizer or rows - len(ignored)
    loss = F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum") / normalizer
    (dlogits,) = torch.autograd.grad(loss, logits)
    normalizer = torch.tensor([float(normalizer)])
    record(
        f"cross_entropy.{case}",
        dict(logits=logits, targets=targets, normalizer=normalizer, loss=loss[None], dlogits=dlogits),
    )


def linear(case, rows, inputs, outputs, bias=True):
    leaves = dict(x=draw(rows, inputs), w=draw(outputs, inputs, std=0.5))
    if bias:
        leaves["b"] = draw(outputs, std=0.5)
    dy = draw(rows, outputs)
    y = F.linear(leaves["x"], leaves["w"], leaves.get("b"))
    record(f"linear.{case}", leaves | dict(y=y, dy=dy) | gradients(y, dy, leaves))


if __name__ == "__main__":
    torch.set_num_threads(1)
    layer_norm("plain", rows=5, width=24, eps=1e-12)
    layer_norm("residual", rows=5, width=24, eps=1e-5, residual=True)
    layer_norm("shifted", rows=4, width=37, eps=1e-5, mean=10.0)
    layer_norm("wide", rows=3, width=384, eps=1e-12, residual=True)
    gelu()
    attention("full", rows=2)
    attention("padding", rows=3, lengths=[7, 4, 1])
    attention("causal", rows=2, kind="causal")
    attention("causal_padding", rows=3, kind="causal", lengths=[5, 7, 2])
    attention("prefix", rows=3, kind="prefix", prefix=[3, 0, 7])
    attention("prefix_padding", rows=3, kind="prefix", prefix=[4, 2, 5], lengths=[7, 5, 3])
    attention("empty", rows=2, lengths=[0, 6])
    cross_entropy("plain", rows=6, classes=11)
    cross_entropy("ignored", rows=8, classes=5, ignored=(1, 2, 7))
    cross_entropy("normalized", rows=8, classes=33, ignored=(0,), normalizer=32)
    cross_entropy("extreme", rows=6, classes=7, std=400.0)
    linear("plain", rows=6, inputs=9, outputs=5, bias=False)
    linear("bias", rows=13, inputs=24, outputs=17)
    linear("single", rows=1, inputs=10, outputs=4)
    GOLDEN.mkdir(parents=True, exist_ok=True)
    save_file(tensors, GOLDEN / "operators.safetensors")
    print(f"operators.safetensors: {len(tensors)} tensors")
