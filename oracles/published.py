"""Small random decoders of other people's architectures and what the `transformers` package computes with them.

Made with torch 2.15.0, transformers 5.24.0, safetensors 0.8.0.

    pip install torch transformers safetensors
    python oracles/published.py

Writes crates/models/tests/golden/{llama-a,llama-b,gemma3-a,gemma3-b}/, each a Hugging Face folder (config.json and
model.safetensors) with an expected.safetensors beside it:

    input_ids   [B, L] i64, no padding
    logits      [B, L, V] f32, causal

llama-a has shared keys, Llama 3.1's scaled frequencies and its table of tokens as output matrix; llama-b has neither, but
biases and frequencies divided by a factor, and its settings as `transformers` before version 5 wrote them. gemma3-a has
local blocks with a window shorter than the input and global ones with frequencies of their own; gemma3-b says the same
in the older way, with heads wider than the model.

Weights are drawn with standard deviation 0.2, biases included, and norms' gains around theirs, ten times the usual
initialization, so that a wrong transpose or a forgotten norm shows. Evaluation mode, f64 on the f32 weights; the results
are rounded to f32.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

GOLDEN = Path(__file__).resolve().parents[1] / "crates/models/tests/golden"

COMMON = dict(
    vocab_size=57, hidden_size=24, intermediate_size=40, max_position_embeddings=64, rms_norm_eps=1e-5,
    bos_token_id=1, eos_token_id=2, pad_token_id=0, attn_implementation="eager",
)

LLAMA3 = dict(
    rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16,
)

CASES = {
    "llama-a": (LlamaForCausalLM, LlamaConfig, dict(
        num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        rope_parameters=dict(rope_theta=1000.0, **LLAMA3),
    ), {}),
    "llama-b": (LlamaForCausalLM, LlamaConfig, dict(
        num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3, tie_word_embeddings=False,
        attention_bias=True, mlp_bias=True, rope_parameters=dict(rope_type="linear", factor=2.0, rope_theta=5000.0),
    ), dict(rope_theta=5000.0, rope_scaling=dict(rope_type="linear", factor=2.0))),
    "gemma3-a": (Gemma3ForCausalLM, Gemma3TextConfig, dict(
        num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=20,
        sliding_window=5, layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        rope_parameters=dict(
            sliding_attention=dict(rope_type="default", rope_theta=100.0),
            full_attention=dict(rope_type="linear", factor=8.0, rope_theta=10000.0),
        ),
    ), {}),
    "gemma3-b": (Gemma3ForCausalLM, Gemma3TextConfig, dict(
        num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, head_dim=20, query_pre_attn_scalar=16,
        sliding_window=4, layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        rope_parameters=dict(
            sliding_attention=dict(rope_type="default", rope_theta=100.0),
            full_attention=dict(rope_type="default", rope_theta=10000.0),
        ),
    ), dict(rope_theta=10000.0, rope_local_base_freq=100.0, rope_scaling=None, sliding_window_pattern=3)),
}


def main():
    for seed, (name, (kind, config_kind, settings, older)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        config = config_kind(**COMMON, **settings)
        model = kind(config).eval()
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                around = 1.0 if "norm" in parameter_name and "llama" in name else 0.0
                parameter.copy_(around + 0.2 * torch.randn_like(parameter))
        folder = GOLDEN / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        ids = torch.randint(3, COMMON["vocab_size"], (3, 19))
        with torch.no_grad():
            logits = model.double()(input_ids=ids, use_cache=False).logits.float()
        save_file({"input_ids": ids, "logits": logits.contiguous()}, folder / "expected.safetensors")
        if older:
            path = folder / "config.json"
            written = json.loads(path.read_text())
            for key in ["rope_parameters", "layer_types"]:
                written.pop(key, None)
            path.write_text(json.dumps(written | older, indent=2) + "\n")


if __name__ == "__main__":
    main()
