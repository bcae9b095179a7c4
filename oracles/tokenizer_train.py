"""Golden values for tokenizers that Lapidary trains, from Hugging Face's `tokenizers`.

Made with tokenizers 0.23.3 and Python 3.11. Run from the root of the repository, in this order:

    pip install tokenizers
    python oracles/tokenizer_train.py text
    cargo test --release -p lapidary-data -- --ignored write_trained_tokenizers
    python oracles/tokenizer_train.py ids

`text` writes `crates/data/tests/golden/text.txt`, text of an invented language (the generator below), and
`peer_bpe.json`, {"merges": [[left, right]]}: what the trainer of `tokenizers` learns from it, byte-level, with a
vocabulary of 500, special tokens <pad> <bos> <eos> <sep> and pairs that stand at least twice.

Then Lapidary's own trainer writes `bpe.tokenizer.json` and `unigram.tokenizer.json` beside them. `ids` loads each
with `tokenizers` and writes `trained_ids.json`: {"probes": [text], "bpe": [[id]], "unigram": [[id]], "special":
{"bpe": [[id]], "unigram": [[id]]}}. The first lists are ids of text in which special tokens are text
(`encode_special_tokens`), the lists under "special" those of text in which they are meant. That decoding gives each
probe back is asserted here.
"""

import json
import pathlib
import random
import sys

import tokenizers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

golden = pathlib.Path(__file__).parent.parent / "crates/data/tests/golden"
SPECIAL = ["<pad>", "<bos>", "<eos>", "<sep>"]

PROBES = [
    "",
    " ",
    "a",
    "Kalomi ren, tu shior! 1234567 nn'abli 's 'S",
    "  two  spaces\tand\n\n\nlines\r\n ",
    "<pad><bos> <eos>a<sep>",
    "<eos",
    "\0\x01\x7f\x1b[0m",
    "é e\u0301 \u0301\u0301 ü ß İ ı ǅ",
    "日本語のテキスト、한국어 العربية हिन्दी",
    "😀👩🏽‍🚀🇪🇺 \u200d\u200b\ufeff\u00ad\u2028",
    "\ufffd\uffff\U0010ffff\U000e0001",
    "\u00a0\u3000 x\u00a0y",
    "Ġ▁<0x41>##a</w>",
    "x" * 700 + " " * 300 + "-" * 300,
]


def text():
    random.seed(20)
    syllables = ["ka", "lo", "mi", "ren", "tu", "é", "shi", "or", "ab", "nn", "ü", "the", "s", "ing"]
    words = ["".join(random.choices(syllables, k=random.randint(1, 4))) for _ in range(400)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    sentences = []
    for _ in range(600):
        sentence = " ".join(random.choices(words, weights, k=random.randint(3, 14)))
        end = random.choice([".", ".", "!", "?", " 😀", f" {random.randint(1, 3000)}."])
        sentences.append(sentence.capitalize() + end)
    return "\n".join(sentences) + "\n"


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


if sys.argv[1:] == ["text"]:
    golden.mkdir(exist_ok=True)
    (golden / "text.txt").write_bytes(text().encode())
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        min_frequency=2,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    peer = byte_level()
    peer.train_from_iterator([text()], trainer)
    merges = json.loads(peer.to_str())["model"]["merges"]
    (golden / "peer_bpe.json").write_text(json.dumps({"merges": merges}) + "\n")
elif sys.argv[1:] == ["ids"]:
    ids = {"probes": PROBES, "special": {}}
    for name in ["bpe", "unigram"]:
        tokenizer = Tokenizer.from_file(str(golden / f"{name}.tokenizer.json"))
        encode = lambda: [tokenizer.encode(probe, add_special_tokens=False).ids for probe in PROBES]
        ids["special"][name] = encode()
        tokenizer.encode_special_tokens = True
        ids[name] = encode()
        for probe, found in zip(PROBES, ids[name]):
            assert tokenizer.decode(found, skip_special_tokens=False) == probe, (name, probe)
            assert all(id >= len(SPECIAL) for id in found)
    (golden / "trained_ids.json").write_text(json.dumps(ids) + "\n")
else:
    sys.exit(__doc__)
