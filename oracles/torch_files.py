"""Files of PyTorch in both of its forms, and the same tensors as safetensors.

Made with torch 2.15.0, safetensors 0.8.0.

    pip install torch safetensors
    python oracles/torch_files.py

Writes to crates/models/tests/golden/torch/: `archive.pt` (a ZIP archive, since PyTorch 1.6), `pickles.pt` (the form
before it), and `expected.safetensors` with the float tensors of either, in F32 and contiguous, by the keys that lead
to them joined by dots. In the files are dictionaries within dictionaries, a parameter, tensors of every float type,
integers, views that share a storage, one that is transposed, one of every second element, a scalar and an empty one.
"""

from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file

FOLDER = Path(__file__).resolve().parents[1] / "crates/models/tests/golden/torch"


def content():
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    shared = draw(6, 4)
    state = OrderedDict()
    state["conv.weight"] = draw(3, 2, 3, 3)
    state["linear.weight"] = torch.nn.Parameter(draw(4, 5))
    state["upper"], state["lower"] = shared[:2], shared[2:]
    state["transposed"] = shared.t()
    state["every_second"] = shared.flatten()[1::2]
    state["half"], state["bfloat"], state["double"] = draw(7).half(), draw(7).bfloat16(), draw(2, 2).double()
    state["scalar"], state["empty"] = torch.tensor(2.5), torch.zeros(0, 3)
    state["norm.num_batches_tracked"] = torch.tensor(12)
    return {"state_dict": state, "epoch": 7, "best": 91.5, "name": "é", "inner": {"list": [1, (2, None)], "bias": draw(3)}}


def flat(content, prefix=""):
    for key, value in content.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, torch.Tensor) and value.is_floating_point():
            yield f"{prefix}{key}", value.detach().float().contiguous().clone()


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    saved = content()
    torch.save(saved, FOLDER / "archive.pt")
    torch.save(saved, FOLDER / "pickles.pt", _use_new_zipfile_serialization=False)
    save_file(dict(flat(saved)), FOLDER / "expected.safetensors")
