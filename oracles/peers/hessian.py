"""PyTorch's time for one Hessian-vector product of a BERT's loss, exact, by double backward.

Run with torch 2.15.0 and transformers 5.23.0; any recent versions do.

    pip install torch transformers
    python oracles/peers/hessian.py --threads 2 --json --only hessian_product.last_layer

One product is: for every batch the loss, its gradient with a graph, the gradient's product with v, the
gradient of that; summed over the batches. Weights below the lowest layer in question need no gradient,
so that nothing is kept of those layers. Both sides must use these sizes:

    N = 1024 rows of L = 16 random tokens in batches of 32, without padding; random labels
    a BERT of 6 layers, D = 384, 12 heads, F = 1536, a vocabulary of 30522, 2 classes; random weights,
    evaluation mode, attn_implementation="eager" (the fused attention has no second derivative)
    the mean cross-entropy over all rows
    first_layer, last_layer: over the 1,774,464 parameters of layer 0 or 5; encoder: over all six

    --threads N   threads of PyTorch (default 2)
    --repeats N   timed products (default 3)
    --warmup N    products before them that do not count (default 1)
    --only WORK   hessian_product.last_layer, hessian_product.first_layer or hessian_product.encoder
    --json        one JSON object per work, one a line, on standard output:
                  {"name": "hessian_product.encoder", "median_seconds", "min_seconds", "max_seconds",
                  "repeats", "peak_rss_bytes"}
                  without it the times as a sentence; versions go to standard error
"""

import torch
from transformers import BertConfig, BertForSequenceClassification

from timing import Work, main

N, L, BATCH, LAYERS, VOCABULARY = 1024, 16, 32, 6, 30522


def product(layers):
    """A closure that multiplies one random vector over these layers' parameters."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=384, num_hidden_layers=LAYERS, num_attention_heads=12,
        intermediate_size=1536, attn_implementation="eager",
    )
    model = BertForSequenceClassification(config).eval()
    ids, labels = torch.randint(0, VOCABULARY, (N, L)), torch.randint(0, 2, (N,))
    model.requires_grad_(False)
    parameters = []
    for layer in layers:
        model.bert.encoder.layer[layer].requires_grad_(True)
        parameters += model.bert.encoder.layer[layer].parameters()
    v = [torch.randn_like(parameter) for parameter in parameters]

    def run():
        total = [torch.zeros_like(parameter) for parameter in parameters]
        for rows in torch.arange(N).split(BATCH):
            loss = model(input_ids=ids[rows], labels=labels[rows]).loss * (len(rows) / N)
            gradient = torch.autograd.grad(loss, parameters, create_graph=True)
            along = sum((g * v).sum() for g, v in zip(gradient, v))
            for sum_, part in zip(total, torch.autograd.grad(along, parameters)):
                sum_ += part
        return total

    return run


WORKS = {
    f"hessian_product.{name}": Work(f"hessian_product.{name}", lambda layers=layers: product(layers))
    for name, layers in (("last_layer", [LAYERS - 1]), ("first_layer", [0]), ("encoder", range(LAYERS)))
}


if __name__ == "__main__":
    main(__doc__, WORKS, repeats=3, warmup=1)
