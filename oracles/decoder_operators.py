"""What PyTorch computes for the operators of decoders: outputs and gradients on small inputs.

Made with torch 2.15.0, transformers 5.23.0, safetensors 0.8.0.

    pip install torch transformers safetensors
    python oracles/decoder_operators.py

Writes crates/ops/tests/golden/decoder_operators.safetensors, as `operators.py` does: inputs are f32
numbers, PyTorch computes in f64 from them, the results are rounded to f32. Tensors are named
OPERATOR.CASE.TENSOR; `dT` is the gradient with respect to `T` of the sum of `dy * y` (`dout * out` for
attention). All are f32 unless said otherwise; a tensor that a case does not use is absent.

rms_norm.{plain, odd, residual, residual_odd, small}
    x [N, D], residual [N, D] (residual*), w [D], eps [1]
    -> y [N, D] = w (x + residual) / sqrt(mean of (x + residual)^2 + eps)
    dy [N, D] -> dx [N, D] (dresidual is the same), dw [D]
    `small` has rows whose mean square is about eps.

rotary.{plain, odd, far}
    q, dq_out [N, H*K], k, dk_out [N, G*K], positions [N] i64, shape [3] i64 = H, G, K
    -> q_out, dq [N, H*K], k_out, dk [N, G*K]
    Element i < K/2 of a head is paired with element i + K/2 (`rotate_half` of transformers):
    out[i] = x[i] cos a - x[i + K/2] sin a, out[i + K/2] = x[i + K/2] cos a + x[i] sin a,
    a = position * 10000^(-2i/K). Positions lie below 200, in `far` between 4,000 and 8,192: there angles
    in f32 are up to 5e-5 off.

attention.{full, causal, prefix, window}{, _padding, _rotary, _padding_rotary}
    q, dout [R*L, H*K], k, v [R*L, G*K] -> out, dq [R*L, H*K], dk, dv [R*L, G*K]
    shape [5] i64: R rows, L length, H query heads, G key-value heads, K head width; query head h, columns
    h*K .. (h+1)*K, reads key-value head h / (H/G); scores are scaled by 1/sqrt K
    lengths [R] i64 (*padding*): keys j >= lengths[row] are hidden; `dout` is 0 for the queries there.
    Their `out` is what the keys before give them, 0 for a query that sees none.
    prefix [R] i64 (prefix*): query i sees key j where j <= i or j < prefix[row]; causal: j <= i
    window [1] i64 (window*): query i sees key j where i - window < j <= i
    positions [R*L] i64 (*rotary): q and k are rotated as above before; gradients are of q and k as given

gelu_tanh.plain
    x [N], dy [N] -> y [N], dx [N]; x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), x from -100 to 100

geglu, geglu_tanh, swiglu, each .{plain, odd, wide}
    x [N, 2F] = [gate | up], dy [N, F] -> y [N, F] = act(gate) * up, dx [N, 2F]
    act is the exact GELU x/2 (1 + erf(x / sqrt 2)), the one of `gelu_tanh`, and x / (1 + exp(-x))
    `wide` has gates from -100 to 100.

linear_cross_entropy.{plain, odd, normalized, capped, capped_odd}
    x [N, D], w [V, D], targets [N] i64 (-100 is ignored), normalizer [1], cap [1] (capped*)
    logits = x w^T, or cap * tanh(x w^T / cap)
    -> loss [1] f64 = sum of -log p[target] / normalizer, dx [N, D], dw [V, D]
    normalizer is the number of targets that count, except in `normalized` (32)
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from operators import draw, generator, gradients, record, tensors

GOLDEN = Path(__file__).resolve().parents[1] / "crates/ops/tests/golden"
BASE = 10000.0


def rms_norm(case, rows, width, eps, residual=False, std=1.0):
    x, dy = draw(rows, width, std=std), draw(rows, width)
    inputs = dict(x=x, w=draw(width, mean=1.0, std=0.3))
    extra = {"residual": draw(rows, width)} if residual else {}
    total = x + extra["residual"] if residual else x
    y = F.rms_norm(total, (width,), inputs["w"], eps)
    values = inputs | extra | dict(eps=torch.tensor([eps], dtype=torch.float64), y=y, dy=dy)
    record(f"rms_norm.{case}", values | gradients(y, dy, inputs))


def draw_positions(count, low=0, high=200):
    return torch.randint(low, high, (count,), generator=generator)


def rotate(q, k, positions):
    """Rotates q and k, [R, heads, L, K], by their tokens' positions, [R, L]."""
    width = q.shape[-1]
    frequencies = BASE ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = positions[..., None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return apply_rotary_pos_emb(q, k, angles.cos(), angles.sin())


def split_heads(tokens, rows, heads):
    """[R*L, heads*K] -> [R, heads, L, K]"""
    length = tokens.shape[0] // rows
    return tokens.view(rows, length, heads, -1).transpose(1, 2)


def join_heads(x):
    """[R, heads, L, K] -> [R*L, heads*K]"""
    return x.transpose(1, 2).flatten(2).flatten(0, 1)


def rotary(case, tokens, heads, kv_heads, head_width, low=0, high=200):
    flat = dict(q=draw(tokens, heads * head_width), k=draw(tokens, kv_heads * head_width))
    d_out = [draw(*x.shape) for x in flat.values()]
    positions = draw_positions(tokens, low, high)
    q, k = (split_heads(x, 1, n) for x, n in zip(flat.values(), (heads, kv_heads)))
    q_out, k_out = (join_heads(x) for x in rotate(q, k, positions[None]))
    values = dict(
        positions=positions, shape=torch.tensor([heads, kv_heads, head_width]),
        q_out=q_out, k_out=k_out, dq_out=d_out[0], dk_out=d_out[1],
    )
    record(f"rotary.{case}", flat | values | gradients((q_out, k_out), d_out, flat))


def attention(case, shape, kind="full", prefix=None, window=None, lengths=None, positions=None):
    rows, length, heads, kv_heads, head_width = shape
    tokens = rows * length
    heads_of = dict(q=heads, k=kv_heads, v=kv_heads)
    flat = {name: draw(tokens, n * head_width, std=1.5) for name, n in heads_of.items()}
    dout = draw(tokens, heads * head_width)
    query, key = torch.arange(length)[:, None], torch.arange(length)[None, :]
    visible = torch.ones(rows, 1, length, length, dtype=torch.bool)
    if kind != "full":
        visible &= key <= query
    if kind == "prefix":
        visible |= key < torch.tensor(prefix)[:, None, None, None]
    if kind == "window":
        visible &= key > query - window
    if lengths is not None:
        visible &= key < torch.tensor(lengths)[:, None, None, None]
        dout = dout * (torch.arange(length) < torch.tensor(lengths)[:, None]).view(tokens, 1)
    q, k, v = (split_heads(flat[name], rows, n) for name, n in heads_of.items())
    if positions is not None:
        q, k = rotate(q, k, positions.view(rows, length))
    out = join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=visible, enable_gqa=True))
    values = flat | dict(shape=torch.tensor(shape), out=out, dout=dout)
    if prefix is not None:
        values["prefix"] = torch.tensor(prefix)
    if window is not None:
        values["window"] = torch.tensor([window])
    if lengths is not None:
        values["lengths"] = torch.tensor(lengths)
    if positions is not None:
        values["positions"] = positions
    record(f"attention.{case}", values | gradients(out, dout, flat))


def attention_cases():
    """Each kind on two shapes, with and without padding and rotation."""
    even, odd = (2, 8, 4, 2, 8), (3, 7, 6, 1, 6)
    kinds = dict(
        full=({}, {}),
        causal=({}, {}),
        prefix=(dict(prefix=[3, 8]), dict(prefix=[4, 0, 2])),
        window=(dict(window=3), dict(window=4)),
    )
    following = torch.cat([torch.arange(8), torch.arange(5, 13)])
    for kind, (of_even, of_odd) in kinds.items():
        attention(kind, even, kind, **of_even)
        attention(f"{kind}_padding", odd, kind, lengths=[7, 5, 1], **of_odd)
        attention(f"{kind}_rotary", odd, kind, positions=draw_positions(21), **of_odd)
        attention(f"{kind}_padding_rotary", even, kind, lengths=[8, 5], positions=following, **of_even)


def gate_grid():
    """166 numbers from -100 to 100."""
    return torch.cat([torch.linspace(-10, 10, 160), torch.tensor([-100.0, -40.0, 40.0, 100.0, 1e-20, -1e-6])])


def gelu_tanh():
    x = gate_grid().double().requires_grad_()
    dy = draw(x.numel())
    y = F.gelu(x, approximate="tanh")
    record("gelu_tanh.plain", dict(x=x, y=y, dy=dy) | gradients(y, dy, dict(x=x)))


ACTIVATIONS = dict(
    geglu=F.gelu,
    geglu_tanh=lambda x: F.gelu(x, approximate="tanh"),
    swiglu=F.silu,
)


def gated(operator, case, rows, width, wide=False):
    x, dy = draw(rows, 2 * width, std=2.0), draw(rows, width)
    if wide:
        x = torch.cat([gate_grid().double().view(rows, width), x[:, width:]], dim=1).detach().requires_grad_()
    gate, up = x.chunk(2, dim=1)
    y = ACTIVATIONS[operator](gate) * up
    record(f"{operator}.{case}", dict(x=x, y=y, dy=dy) | gradients(y, dy, dict(x=x)))


def linear_cross_entropy(case, rows, width, classes, ignored=(), normalizer=None, cap=None):
    inputs = dict(x=draw(rows, width), w=draw(classes, width, std=0.6))
    targets = torch.randint(0, classes, (rows,), generator=generator)
    targets[list(ignored)] = -100
    normalizer = normalizer or rows - len(ignored)
    logits = F.linear(inputs["x"], inputs["w"])
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    loss = F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum") / normalizer
    values = dict(targets=targets, normalizer=torch.tensor([float(normalizer)]), loss=loss[None])
    if cap is not None:
        values["cap"] = torch.tensor([cap])
    record(f"linear_cross_entropy.{case}", inputs | values | gradients(loss, None, inputs))


if __name__ == "__main__":
    torch.set_num_threads(1)
    rms_norm("plain", rows=6, width=32, eps=1e-6)
    rms_norm("odd", rows=5, width=37, eps=1e-5)
    rms_norm("residual", rows=6, width=32, eps=1e-5, residual=True)
    rms_norm("residual_odd", rows=3, width=21, eps=1e-6, residual=True)
    rms_norm("small", rows=4, width=24, eps=1e-5, std=3e-3)
    rotary("plain", tokens=6, heads=4, kv_heads=2, head_width=8)
    rotary("odd", tokens=5, heads=3, kv_heads=1, head_width=6)
    rotary("far", tokens=7, heads=2, kv_heads=1, head_width=16, low=4000, high=8192)
    attention_cases()
    gelu_tanh()
    for operator in ACTIVATIONS:
        gated(operator, "plain", rows=6, width=16)
        gated(operator, "odd", rows=5, width=13)
        gated(operator, "wide", rows=2, width=83, wide=True)
    linear_cross_entropy("plain", rows=6, width=16, classes=40)
    linear_cross_entropy("odd", rows=9, width=13, classes=37, ignored=(1, 4, 8))
    linear_cross_entropy("normalized", rows=8, width=16, classes=33, ignored=(0,), normalizer=32)
    linear_cross_entropy("capped", rows=6, width=16, classes=40, cap=30.0)
    linear_cross_entropy("capped_odd", rows=7, width=11, classes=29, ignored=(3,), cap=2.5)
    GOLDEN.mkdir(parents=True, exist_ok=True)
    save_file(tensors, GOLDEN / "decoder_operators.safetensors")
    print(f"decoder_operators.safetensors: {len(tensors)} tensors")
