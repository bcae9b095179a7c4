"""PyTorch's time for one training step of the decoder that `lapidary bench train` times.

Run with torch 2.15.0; any recent version does.

    pip install torch
    python oracles/peers/train_step.py --threads 2 --json --only decoder

One step is: zero the gradients, forward, mean cross-entropy over all B*S positions, backward, AdamW
update, always on the same random batch. Both sides must use these sizes:

    D = 256 width, 6 layers, 4 heads, FF = 1024, S = 256 positions, B = 16 rows, V = 4096 tokens
    pre-norm blocks with one fused QKV projection and exact GELU, learned positions, a final layer norm
    and an output projection of its own without bias: 6,901,760 parameters; no dropout
    causal attention through `scaled_dot_product_attention` (the fused kernel)
    AdamW with lr 3e-4, betas (0.9, 0.999), eps 1e-8, weight decay 0.01

    --threads N   threads of PyTorch (default 2)
    --repeats N   timed steps (default 5)
    --warmup N    steps before them that do not count (default 2)
    --only WORK   decoder (f32) or decoder_bf16 (bf16 autocast, f32 weights); both without it
    --json        one JSON object per work, one a line, on standard output:
                  {"name": "decoder_step.f32", "median_seconds", "min_seconds", "max_seconds", "repeats"}
                  without it the same as a sentence; versions go to standard error
"""

import argparse
import json
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

D, LAYERS, HEADS, FF, S, B, V = 256, 6, 4, 1024, 256, 16, 4096


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.up, self.down = nn.Linear(D, FF), nn.Linear(FF, D)

    def forward(self, x):  # [B, S, D]
        qkv = self.qkv(self.norm1(x)).view(B, S, 3, HEADS, D // HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, H, S, K]
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(a.transpose(1, 2).reshape(B, S, D))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(V, D), nn.Embedding(S, D)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, V, bias=False)

    def forward(self, ids):  # [B, S] -> [B, S, V]
        x = self.tokens(ids) + self.positions(torch.arange(S))
        return self.head(self.norm(self.blocks(x)))


def decoder_step(bf16):
    """A closure that takes one training step."""
    torch.manual_seed(0)
    ids, targets = torch.randint(0, V, (B, S)), torch.randint(0, V, (B, S))
    model = Decoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(model(ids).view(-1, V).float(), targets.view(-1))
        loss.backward()
        optimizer.step()

    return step


WORK = {
    "decoder": ("decoder_step.f32", lambda: decoder_step(bf16=False)),
    "decoder_bf16": ("decoder_step.bf16", lambda: decoder_step(bf16=True)),
}


def measure(name, step, warmup, repeats):
    for _ in range(warmup):
        step()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return dict(
        name=name, median_seconds=statistics.median(seconds),
        min_seconds=min(seconds), max_seconds=max(seconds), repeats=repeats,
    )


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--repeats", type=positive, default=5)
    parser.add_argument("--warmup", type=positive, default=2)
    parser.add_argument("--only", choices=WORK)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} threads", file=sys.stderr)
    for work in [arguments.only] if arguments.only else WORK:
        name, make = WORK[work]
        result = measure(name, make(), arguments.warmup, arguments.repeats)
        if arguments.json:
            print(json.dumps(result), flush=True)
        else:
            spread = f"{result['min_seconds']:.3f} to {result['max_seconds']:.3f}"
            print(f"{name}: median {result['median_seconds']:.3f} s ({spread}, {result['repeats']} steps)")


if __name__ == "__main__":
    main()
