"""What PyTorch's fake quantization operators give for group-wise weights and row-wise activations.

Made with torch 2.15.0, safetensors 0.8.0.

    pip install torch safetensors
    python oracles/quantizer.py

Writes crates/quant/tests/golden/quantizer.safetensors. Codes are unsigned, 0 .. 2^bits - 1:

    code = clamp(round_ties_even(w / scale) + zero, 0, 2^bits - 1)        y = scale * (code - zero)

weights.bBITS.gGROUPS, BITS in {2, 3, 4, 8}, GROUPS in {1, 4, 11}, from
`torch.fake_quantize_per_channel_affine` and `torch._fake_quantize_learnable_per_channel_affine`:
    w, dy [11, 16] f32; scales, zeros [GROUPS] f32; group g holds the rows
    g*11/GROUPS .. (g+1)*11/GROUPS (integer division)
    codes [11, 16] u8; y [11, 16] f32
    mask [11, 16] u8, 1 where the code before clamping lies in 0 .. 2^bits - 1; dw [11, 16] f32 = dy * mask
    dscales [GROUPS] f32 = sum of dy * ((code - zero) - mask * w / scale) over the group
    (Esser et al. 2020, eq. 3)

ties.bBITS: the same tensors for one group of [4, 8] and scale 0.25, every w / scale halfway between codes.

rows.bBITS, every row of an activation with its own range, the zero of the row kept exact:
    x [6, 20] f32; scales, zeros [6] f32; codes [6, 20] u8; y [6, 20] f32
    low = min(0, min x), high = max(0, max x), scale = (high - low) / (2^bits - 1),
    zero = round_ties_even(-low / scale); rows 3, 4 and 5 are all positive, all negative and all zero
    (scale 1, zero 0, y 0 there)

PyTorch multiplies by 1 / scale where the formula divides, so no w / scale (but for `ties`, where both are
exact) is closer than 1e-3 to a rounding boundary: codes and masks can be compared exactly.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

GOLDEN = Path(__file__).resolve().parents[1] / "crates/quant/tests/golden"
BITS = (2, 3, 4, 8)
MARGIN = 1e-3

generator = torch.Generator().manual_seed(0)
tensors = {}


def record(case, **values):
    for name, value in values.items():
        tensors[f"{case}.{name}"] = value.detach().clone()


def near_boundary(w, scale):
    """Where w / scale is too close to a half for f32 arithmetic to decide the code in only one way."""
    fraction = (w.double() / scale.double()) % 1.0
    return (fraction - 0.5).abs() < MARGIN


def row_groups(rows, groups):
    """The group of each row."""
    starts = torch.tensor([group * rows // groups for group in range(groups)])
    return torch.searchsorted(starts, torch.arange(rows), right=True) - 1


def fake_quantize(case, bits, w, scales, zeros, group, ties=False):
    top = 2**bits - 1
    dy = torch.randn(w.shape, generator=generator)
    row_scales, row_zeros = scales[group], zeros[group]

    leaf = w.clone().requires_grad_()
    y = torch.fake_quantize_per_channel_affine(leaf, row_scales, row_zeros.int(), 0, 0, top)
    (dw,) = torch.autograd.grad(y, leaf, dy)

    # The formulas of the docstring, in f64.
    scale, zero = row_scales.double()[:, None], row_zeros.double()[:, None]
    unclamped = torch.round(w.double() / scale) + zero
    codes = unclamped.clamp(0, top)
    mask = codes == unclamped
    torch.testing.assert_close(y.double(), scale * (codes - zero), rtol=1e-6, atol=0)
    assert torch.equal(dw, dy * mask)
    slope = (codes - zero) - mask * w.double() / scale
    d_row_scales = (dy * slope).sum(dim=1)

    if not ties:
        # PyTorch's learnable operator gives each row's scale gradient; its mask differs at ties.
        learnable = [t.clone().requires_grad_() for t in (w, row_scales, row_zeros)]
        y_learnable = torch._fake_quantize_learnable_per_channel_affine(*learnable, 0, 0, top, 1.0)
        dw_learnable, expected, _ = torch.autograd.grad(y_learnable, learnable, dy)
        assert torch.equal(y, y_learnable) and torch.equal(dw, dw_learnable)
        torch.testing.assert_close(d_row_scales.float(), expected, rtol=1e-4, atol=1e-4)

    dscales = torch.zeros(len(scales)).double().index_add(0, group, d_row_scales).float()
    record(
        case, w=w, dy=dy, scales=scales, zeros=zeros,
        codes=codes.to(torch.uint8), y=y, mask=mask.to(torch.uint8), dw=dw, dscales=dscales,
    )


def weights(bits, groups, rows=11, columns=16):
    top = 2**bits - 1
    group = row_groups(rows, groups)
    # A range of 1.2 to 2 standard deviations to either side leaves some weights outside.
    scales = 0.05 * (2.4 + 1.6 * torch.rand(groups, generator=generator)) / top
    zeros = torch.randint(0, top + 1, (groups,), generator=generator).float()
    zeros[0] = float(2 ** (bits - 1))
    w = 0.05 * torch.randn(rows, columns, generator=generator)
    while (near := near_boundary(w, scales[group][:, None])).any():
        w = torch.where(near, 0.05 * torch.randn(rows, columns, generator=generator), w)
    fake_quantize(f"weights.b{bits}.g{groups}", bits, w, scales, zeros, group)


def ties(bits):
    w = (torch.arange(32).reshape(4, 8) - 16 + 0.5) * 0.25
    zeros = torch.tensor([float(2 ** (bits - 1) - 1)])  # odd: rounding before adding the zero matters
    group = torch.zeros(4, dtype=torch.int64)
    fake_quantize(f"ties.b{bits}", bits, w, torch.tensor([0.25]), zeros, group, ties=True)


def row_ranges(x, bits):
    top = 2**bits - 1
    low, high = x.amin(dim=1).clamp(max=0), x.amax(dim=1).clamp(min=0)
    scales = (high - low) / top
    scales = torch.where(scales > 0, scales, 1.0)
    exact_zeros = low.abs() / scales
    return scales, torch.round(exact_zeros), exact_zeros


def rows(bits, count=6, columns=20):
    top = 2**bits - 1
    magnitudes = torch.tensor([[1.0], [30.0], [1e-3], [2.0], [0.5], [0.0]])
    while True:
        x = magnitudes * torch.randn(count, columns, generator=generator)
        x[3], x[4] = x[3].abs(), -x[4].abs()
        scales, zeros, exact_zeros = row_ranges(x, bits)
        if not (near_boundary(x, scales[:, None]).any() or near_boundary(exact_zeros, torch.ones(1)).any()):
            break
    y = torch.fake_quantize_per_channel_affine(x, scales, zeros.int(), 0, 0, top)
    codes = (torch.round(x / scales[:, None]) + zeros[:, None]).clamp(0, top)
    torch.testing.assert_close(y, scales[:, None] * (codes - zeros[:, None]), rtol=1e-6, atol=0)
    record(f"rows.b{bits}", x=x, scales=scales, zeros=zeros, codes=codes.to(torch.uint8), y=y)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for bits in BITS:
        for groups in (1, 4, 11):
            weights(bits, groups)
        ties(bits)
        rows(bits)
    GOLDEN.mkdir(parents=True, exist_ok=True)
    save_file(tensors, GOLDEN / "quantizer.safetensors")
    print(f"quantizer.safetensors: {len(tensors)} tensors")
