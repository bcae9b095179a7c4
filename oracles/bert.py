"""Small random BERTs with three kinds of head and what the `transformers` package computes with them.

Made with torch 2.15.0, transformers 5.23.0, safetensors 0.8.0.

    pip install torch transformers safetensors
    python oracles/bert.py

Writes crates/models/tests/golden/bert-{a,b,c,spans,tags}/, each a Hugging Face folder (config.json and
model.safetensors; bert-b is sharded: two files and model.safetensors.index.json) with an
expected.safetensors beside it (B rows, L length, D hidden_size, C labels). bert-{a,b,c} sort rows into
classes, bert-spans finds answers, bert-tags sorts tokens:

    input_ids, token_type_ids, attention_mask   [B, L] i64, right-padded; a padding position holds
                                                config.pad_token_id, type 0 and mask 0
    hidden.0 .. hidden.N                        [B, L, D] f32; 0 is the embeddings' output, k that of
                                                encoder layer k-1; padding positions included
    logits                                      [B, C] f32; of bert-spans [B, 2, L], starts and ends, -1e30 at
                                                padding; of bert-tags [B, L, C]
    labels, loss [] f32, grad.NAME              not of bert-b and bert-c: mean cross-entropy and its gradient
                                                for every parameter NAME of model.safetensors. Labels i64 are
                                                [B]; of bert-spans [B, 2], places of start and end, whose
                                                probabilities are over the row without its padding, as
                                                `transformers` does not have it; of bert-tags [B, L], -100 at
                                                padding and at a few tokens

Weights are drawn with standard deviation 0.2, biases included, and layer norm gains around 1, ten times
the usual initialization, so that a wrong transpose or a forgotten bias shows. Evaluation mode, no
dropout. The model runs in f64 on the f32 weights and the results are rounded to f32, so the error
of a comparison is the other side's; the script checks that the f32 model agrees.

No real token has the padding id: PyTorch's `padding_idx` drops that embedding row's gradient.
"""

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

GOLDEN = Path(__file__).resolve().parents[1] / "crates/models/tests/golden"

CASES = {
    "a": dict(
        seed=1,
        lengths=[9, 5, 1, 7],
        gradients=True,
        config=dict(
            vocab_size=61, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=40, max_position_embeddings=24, layer_norm_eps=1e-12, num_labels=2,
        ),
    ),
    "b": dict(
        seed=2,
        lengths=[3, 11, 8],
        shard_size="120KB",
        config=dict(
            vocab_size=97, hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
            intermediate_size=64, max_position_embeddings=32, layer_norm_eps=1e-5,
            id2label={0: "entailment", 1: "neutral", 2: "contradiction"},
            label2id={"entailment": 0, "neutral": 1, "contradiction": 2},
        ),
    ),
    "c": dict(
        seed=3,
        lengths=[13, 2, 6, 12, 4],
        config=dict(
            vocab_size=80, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
            intermediate_size=72, max_position_embeddings=13, layer_norm_eps=1e-12, num_labels=3,
            pad_token_id=5,
        ),
    ),
    "spans": dict(
        seed=4,
        lengths=[12, 4, 9],
        gradients=True,
        model=BertForQuestionAnswering,
        config=dict(
            vocab_size=61, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=40, max_position_embeddings=24, layer_norm_eps=1e-12,
        ),
    ),
    "tags": dict(
        seed=5,
        lengths=[5, 10, 3],
        gradients=True,
        model=BertForTokenClassification,
        config=dict(
            vocab_size=61, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=40, max_position_embeddings=24, layer_norm_eps=1e-12,
            id2label={0: "O", 1: "B-PER", 2: "I-PER"}, label2id={"O": 0, "B-PER": 1, "I-PER": 2},
        ),
    ),
}


def randomize(model, generator):
    """Draws every parameter from N(0, 0.2^2), layer norm gains from N(1, 0.2^2)."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            parameter.copy_(mean + 0.2 * torch.randn(parameter.shape, generator=generator))


def draw_batch(config, lengths, generator):
    """Random ids without the padding id; the second segment starts at a random place of each row."""
    rows, length = len(lengths), max(lengths)
    input_ids = torch.full((rows, length), config.pad_token_id)
    token_type_ids = torch.zeros(rows, length, dtype=torch.int64)
    attention_mask = torch.zeros(rows, length, dtype=torch.int64)
    for row, real in enumerate(lengths):
        ids = torch.randint(0, config.vocab_size - 1, (real,), generator=generator)
        input_ids[row, :real] = ids + (ids >= config.pad_token_id)
        second = int(torch.randint(1, real + 1, (), generator=generator))
        token_type_ids[row, second:real] = 1
        attention_mask[row, :real] = 1
    return dict(input_ids=input_ids, token_type_ids=token_type_ids, attention_mask=attention_mask)


def logits_of(output, mask):
    """Logits, a row for each label but those of padding."""
    if "start_logits" not in output:
        return output.logits
    return torch.stack([output.start_logits, output.end_logits], 1).masked_fill(mask[:, None] == 0, -1e30)


def draw_labels(model, lengths, generator):
    """Labels of a batch."""
    below = lambda n: int(torch.randint(0, n, (), generator=generator))
    if isinstance(model, BertForQuestionAnswering):
        return torch.tensor([sorted([below(length), below(length)]) for length in lengths])
    classes = model.config.num_labels
    if isinstance(model, BertForTokenClassification):
        row = lambda length: [below(classes) if below(4) else -100 for _ in range(length)]
        return torch.tensor([row(length) + [-100] * (max(lengths) - length) for length in lengths])
    return torch.randint(0, classes, (len(lengths),), generator=generator)


def make(name, case):
    generator = torch.Generator().manual_seed(case["seed"])
    config = BertConfig(type_vocab_size=2, attn_implementation="eager", **case["config"])
    model = case.get("model", BertForSequenceClassification)(config).eval()
    randomize(model, generator)
    batch = draw_batch(config, case["lengths"], generator)

    folder = GOLDEN / f"bert-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size=case.get("shard_size", "10MB"))

    single = model(**batch, output_hidden_states=True)
    labels = draw_labels(model, case["lengths"], generator)
    model.double()
    output = model(**batch, output_hidden_states=True)
    logits = logits_of(output, batch["attention_mask"])
    expected = dict(batch, logits=logits)
    for layer, (hidden, hidden32) in enumerate(zip(output.hidden_states, single.hidden_states)):
        torch.testing.assert_close(hidden32.double(), hidden, rtol=0, atol=1e-5)
        expected[f"hidden.{layer}"] = hidden
    if case.get("gradients"):
        loss = cross_entropy(logits.flatten(0, -2), labels.flatten())
        if "start_logits" not in output:
            torch.testing.assert_close(model(**batch, labels=labels).loss, loss)
        loss.backward()
        expected |= dict(labels=labels, loss=loss)
        expected |= {f"grad.{n}": p.grad for n, p in model.named_parameters()}

    rounded = {
        n: (t.detach().float() if t.is_floating_point() else t).contiguous() for n, t in expected.items()
    }
    save_file(rounded, folder / "expected.safetensors")
    print(f"{folder.name}: {', '.join(sorted(p.name for p in folder.iterdir()))}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, case in CASES.items():
        make(name, case)
