"""The exact top Hessian eigenvalue of every encoder layer of a fine-tuned BERT, by PyTorch.

Run with torch 2.15.0 and transformers 5.23.0; any recent versions do.

    pip install torch transformers scipy
    python oracles/peers/layer_eigenvalues.py --model runs/qbert-sst2/seed1/finetune/model --data rows.tsv

To be held against `lapidary curvature MODEL --data rows.tsv --layers --samples 1 --layer-examples N` with
N the number of rows, of which all are taken by both. ARPACK's Lanczos (scipy's eigsh) on exact products
(double backward of the mean cross-entropy, evaluation mode, f32), in batches of rows of about one length, for
the eigenvalue of largest magnitude.

    --model DIR      a Hugging Face folder with a classifier's head
    --data FILE      tab-separated, with a header
    --text COLUMN    (default sentence)
    --label COLUMN   classes counted from 0 (default label)
    --layers N ...   (default all)
    --batch N        rows at once (default 32)
    --tolerance T    of the residual, relative to the eigenvalue (default 1e-2)
    --threads N      (default 2)

Prints one JSON object a layer: {"layer", "value", "residual", "products", "seconds_per_product"}.
"""

import argparse
import csv
import json
import time

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from transformers import AutoTokenizer, BertForSequenceClassification


def batches(arguments, pad_id):
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    with open(arguments.data, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    ids = [tokenizer(row[arguments.text])["input_ids"] for row in rows]
    labels = [int(row[arguments.label]) for row in rows]
    order = sorted(range(len(rows)), key=lambda row: len(ids[row]))
    for start in range(0, len(order), arguments.batch):
        part = order[start:start + arguments.batch]
        longest = max(len(ids[row]) for row in part)
        padded = torch.tensor([ids[row] + [pad_id] * (longest - len(ids[row])) for row in part])
        mask = torch.tensor([[1] * len(ids[row]) + [0] * (longest - len(ids[row])) for row in part])
        yield padded, mask, torch.tensor([labels[row] for row in part])


def product(model, data, rows, parameters, v):
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for ids, mask, labels in data:
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss * (len(labels) / rows)
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)
        along = sum((g * v).sum() for g, v in zip(gradient, v))
        for sum_, part in zip(total, torch.autograd.grad(along, parameters)):
            sum_ += part
    return total


def top(model, data, rows, parameters, tolerance):
    """Value, relative residual and products of the eigenvalue of largest magnitude."""
    sizes = [parameter.numel() for parameter in parameters]
    products = 0

    def apply(flat):
        nonlocal products
        products += 1
        parts = torch.from_numpy(flat.astype(np.float32).ravel()).split(sizes)
        v = [part.view_as(parameter) for part, parameter in zip(parts, parameters)]
        return torch.cat([part.flatten() for part in product(model, data, rows, parameters, v)]).double().numpy()

    hessian = LinearOperator((sum(sizes), sum(sizes)), matvec=apply, dtype=np.float64)
    start = torch.randn(sum(sizes)).double().numpy()
    (value,), vectors = eigsh(hessian, k=1, which="LM", ncv=8, tol=tolerance, v0=start)
    vector = vectors[:, 0]
    return value, float(np.linalg.norm(apply(vector) - value * vector) / abs(value)), products


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--text", default="sentence")
    parser.add_argument("--label", default="label")
    parser.add_argument("--layers", type=int, nargs="*")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tolerance", type=float, default=1e-2)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    # The fused attention has no second derivative.
    model = BertForSequenceClassification.from_pretrained(arguments.model, attn_implementation="eager").eval()
    data = list(batches(arguments, model.config.pad_token_id))
    rows = sum(len(labels) for _, _, labels in data)
    for layer in range(model.config.num_hidden_layers) if arguments.layers is None else arguments.layers:
        model.requires_grad_(False)
        model.bert.encoder.layer[layer].requires_grad_(True)
        parameters = list(model.bert.encoder.layer[layer].parameters())
        begun = time.perf_counter()
        value, residual, products = top(model, data, rows, parameters, arguments.tolerance)
        seconds = (time.perf_counter() - begun) / products
        print(json.dumps(dict(
            layer=layer, value=value, residual=residual, products=products, seconds_per_product=seconds,
        )), flush=True)


if __name__ == "__main__":
    main()
