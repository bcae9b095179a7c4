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
                  {"name": "decoder_step.f32", "median_seconds", "min_seconds", "max_seconds", "repeats",
                  "peak_rss_bytes"}
                  without it the times as a sentence; versions go to standard error

peak_rss_bytes is the process's largest resident memory until then, imports included: of a work alone
only with --only.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from timing import Work, main

D, LAYERS, HEADS, FF, S, B, V = 256, 6, 4, 1024, 256, 16, 4096


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.up, self.down = nn.Linear(D, FF), nn.Linear(FF, D)

    def forward(self, x):  # [rows, length, D]
        rows, length, _ = x.shape
        qkv = self.qkv(self.norm1(x)).view(rows, length, 3, HEADS, D // HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [rows, H, length, K]
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(a.transpose(1, 2).reshape(rows, length, D))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(V, D), nn.Embedding(S, D)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, V, bias=False)

    def forward(self, ids):  # [rows, length] -> [rows, length, V]
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
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


WORKS = {
    "decoder": Work("decoder_step.f32", lambda: decoder_step(bf16=False)),
    "decoder_bf16": Work("decoder_step.bf16", lambda: decoder_step(bf16=True)),
}


if __name__ == "__main__":
    main(__doc__, WORKS)
