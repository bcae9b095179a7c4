"""The exact Hessian of a small BERT's loss, one encoder layer at a time.

Made with torch 2.15.0, transformers 5.23.0, safetensors 0.8.0.

    pip install torch transformers safetensors
    python oracles/bert.py && python oracles/hessian.py

Copies config.json and model.safetensors of crates/models/tests/golden/bert-a to
crates/curvature/tests/golden/bert-a/ and writes crates/curvature/tests/golden/bert-hessian.safetensors.
The loss is the mean cross-entropy over the batch, in evaluation mode and in f64. Layer N's block is the
Hessian with respect to all parameters of `bert.encoder.layer.N`, made row by row by double backward and
diagonalized densely. n is the layer's number of parameters. The labels are the model's own predictions,
as after training: with random labels the eigenvalue of largest magnitude is negative.

    input_ids, token_type_ids, attention_mask   [B, L] i64, right-padded with id 0
    labels                                      [B] i64
    loss                                        [1] f64
    layer.N.top                                 [1] f64, the eigenvalue of largest magnitude, with its
                                                sign: what power iteration finds; positive here, so
                                                also the largest eigenvalue
    layer.N.eigenvalues                         [n] f64, ascending
    layer.N.eigenvector                         [n] f64, of `top`, unit norm, sign arbitrary
    layer.N.trace                               [1] f64
    layer.N.gradient                            [n] f64
    layer.N.v, layer.N.hv                       [n] f64, a random unit vector and Hessian times it

Vectors of length n are the layer's parameters in the sorted (byte) order of their state_dict names, each
flattened row-major. bert-hessian.json holds that order: {"layers": [[{"name", "shape", "offset"}, ...]]}.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BertForSequenceClassification

from bert import draw_batch

CRATES = Path(__file__).resolve().parents[1] / "crates"
MODEL = CRATES / "models/tests/golden/bert-a"
GOLDEN = CRATES / "curvature/tests/golden"
LENGTHS = [8, 5, 6, 3, 8, 7, 4, 6]
ROWS_AT_ONCE = 256


def flatten(tensors):
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def dense_hessian(gradient, parameters):
    """[n, n] from the differentiable flat gradient [n]."""
    identity = torch.eye(gradient.numel(), dtype=gradient.dtype)
    rows = []
    for unit_vectors in identity.split(ROWS_AT_ONCE):
        parts = torch.autograd.grad(
            gradient, parameters, unit_vectors, retain_graph=True, is_grads_batched=True
        )
        rows.append(torch.cat([part.reshape(len(unit_vectors), -1) for part in parts], dim=1))
    return torch.cat(rows)


def layer_block(loss, named, generator):
    """The golden values of one layer; `named` is its sorted [(name, parameter)]."""
    parameters = [parameter for _, parameter in named]
    gradient = flatten(torch.autograd.grad(loss, parameters, create_graph=True))
    hessian = dense_hessian(gradient, parameters)
    torch.testing.assert_close(hessian, hessian.T, rtol=0, atol=1e-12)

    eigenvalues, eigenvectors = torch.linalg.eigh(hessian)
    top = eigenvalues.abs().argmax()
    assert eigenvalues[top] > 1.2 * eigenvalues.abs().sort().values[-2], "power iteration needs a gap"

    v = torch.randn(len(gradient), generator=generator, dtype=torch.float64)
    v /= v.norm()
    product = flatten(torch.autograd.grad(gradient @ v, parameters, retain_graph=True))
    torch.testing.assert_close(product, hessian @ v, rtol=0, atol=1e-12)
    return dict(
        top=eigenvalues[top][None], eigenvalues=eigenvalues, eigenvector=eigenvectors[:, top].contiguous(),
        trace=hessian.trace()[None], gradient=gradient, v=v, hv=product,
    )


def order(named):
    entries, offset = [], 0
    for name, parameter in named:
        entries.append(dict(name=name, shape=list(parameter.shape), offset=offset))
        offset += parameter.numel()
    return entries


def main():
    (GOLDEN / "bert-a").mkdir(parents=True, exist_ok=True)
    for file in ("config.json", "model.safetensors"):
        shutil.copyfile(MODEL / file, GOLDEN / "bert-a" / file)

    generator = torch.Generator().manual_seed(0)
    model = BertForSequenceClassification.from_pretrained(MODEL, attn_implementation="eager")
    model = model.double().eval()
    batch = draw_batch(model.config, LENGTHS, generator)
    batch["labels"] = model(**batch).logits.argmax(dim=1)
    loss = model(**batch).loss

    tensors, layers = dict(batch, loss=loss[None]), []
    for layer in range(model.config.num_hidden_layers):
        prefix = f"bert.encoder.layer.{layer}."
        named = sorted((n, p) for n, p in model.named_parameters() if n.startswith(prefix))
        block = layer_block(loss, named, generator)
        tensors |= {f"layer.{layer}.{name}": value for name, value in block.items()}
        layers.append(order(named))
        print(f"layer {layer}: {len(block['v'])} parameters, top eigenvalue {block['top'].item():.6f}")

    tensors = {name: value.detach().clone() for name, value in tensors.items()}
    save_file(tensors, GOLDEN / "bert-hessian.safetensors")
    (GOLDEN / "bert-hessian.json").write_text(json.dumps({"layers": layers}, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
