"""PyTorch's time for generating tokens with the decoder of `train_step.py`, and for reading a prompt.

Run with torch 2.15.0; any recent version does.

    pip install torch
    python oracles/peers/decode.py --threads 2 --json --only decode.f32

The decoder has D = 256, 6 layers, 4 heads, FF = 1024, V = 4096 and 256 positions, random weights in f32
or bf16 (activations too, no autocast), in evaluation and inference mode. B = 1 row. All works are eager
PyTorch: nothing goes through torch.compile.

    decode          128 tokens, each the most likely after the last, from a prompt of 1; keys and values
                    are kept in tensors for 256 positions made beforehand, and attention
                    (`scaled_dot_product_attention`) reads the filled part. Seconds are those of a token.
    decode_nocache  the model on one token, no cache and nothing before it, 128 times. It does less than
                    `decode` and generates nothing. Seconds are those of a token.
    prefill         one forward pass over 256 tokens, logits of every position. Seconds are those of the
                    pass.

    --threads N   threads of PyTorch (default 2)
    --repeats N   times that each of these is done and timed (default 5)
    --warmup N    times before them that do not count (default 2)
    --only WORK   decode, decode_nocache or prefill, with .f32 or .bf16 after it; all six without it
    --json        one JSON object per work, one a line, on standard output:
                  {"name": "decode.f32", "median_seconds", "min_seconds", "max_seconds", "repeats",
                  "tokens_per_second", "peak_rss_bytes"}
                  without it the times as a sentence; versions go to standard error
"""

import torch
import torch.nn.functional as F

from timing import Work, main
from train_step import D, HEADS, LAYERS, S, V, Decoder

TOKENS = 128


def decoder(dtype):
    torch.manual_seed(0)
    return Decoder().to(dtype).eval()


def advance(block, x, keys, values, position):
    """A block on one token, [1, D], that also fills its place of the cache, [1, H, S, K]."""
    q, k, v = block.qkv(block.norm1(x)).view(3, HEADS, D // HEADS)
    keys[0, :, position], values[0, :, position] = k, v
    seen = slice(position + 1)
    a = F.scaled_dot_product_attention(q[None, :, None], keys[:, :, seen], values[:, :, seen])
    x = x + block.out(a.view(1, D))
    return x + block.down(F.gelu(block.up(block.norm2(x))))


def decode(dtype):
    """A closure that generates 128 tokens after a prompt of one, and returns them."""
    model, prompt = decoder(dtype), torch.randint(0, V, (1,))
    cache = torch.empty(LAYERS, 2, 1, HEADS, S, D // HEADS, dtype=dtype)
    caches = [(layer[0], layer[1]) for layer in cache]

    @torch.inference_mode()
    def generate():
        tokens = [prompt]
        for position in range(TOKENS):
            x = model.tokens(tokens[-1]) + model.positions.weight[position]
            for block, (keys, values) in zip(model.blocks, caches):
                x = advance(block, x, keys, values, position)
            tokens.append(model.head(model.norm(x)).argmax(dim=-1))
        return torch.cat(tokens)

    return generate


def decode_nocache(dtype):
    """A closure that runs the model 128 times on a single token."""
    model, ids = decoder(dtype), torch.randint(0, V, (1, 1))

    @torch.inference_mode()
    def run():
        for _ in range(TOKENS):
            model(ids)

    return run


def prefill(dtype):
    """A closure that runs the model on 256 tokens."""
    model, ids = decoder(dtype), torch.randint(0, V, (1, S))
    return torch.inference_mode()(lambda: model(ids))


def works(kind, dtype):
    token = dict(tokens_per_second=1)
    return [
        Work(f"decode.{kind}", lambda: decode(dtype), TOKENS, token),
        Work(f"decode_nocache.{kind}", lambda: decode_nocache(dtype), TOKENS, token),
        Work(f"prefill.{kind}", lambda: prefill(dtype), rates=dict(tokens_per_second=S)),
    ]


WORKS = {w.name: w for w in works("f32", torch.float32) + works("bf16", torch.bfloat16)}


if __name__ == "__main__":
    main(__doc__, WORKS)
