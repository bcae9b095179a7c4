"""The SHA-256 of the token ids that Hugging Face's `tokenizers` gives for a column of a GLUE table.

    pip install tokenizers
    zstd -dc dev.tsv.zst | python tokenizer_ids.py tokenizer.json sentence

The hashed text has one line a row: the row's ids (special tokens included, no truncation, no padding) in decimal,
joined by single spaces and ended by a newline. It prints the hash and the number of rows and ids, which
`crates/data/tests/real_data.rs` compares with its own. With `transformers` installed the ids are also compared with
those of `BertTokenizerFast`.
"""

import hashlib
import pathlib
import sys

import tokenizers

tokenizer_path, column = sys.argv[1:]

# No csv module: GLUE tables have no quoting.
text = sys.stdin.buffer.read().decode("utf-8")
header, *rows = [line.split("\t") for line in text.removesuffix("\n").split("\n")]
sentences = [row[header.index(column)] for row in rows]

tokenizer = tokenizers.Tokenizer.from_file(tokenizer_path)
tokenizer.no_truncation()
tokenizer.no_padding()
ids = [tokenizer.encode(sentence).ids for sentence in sentences]

try:
    from transformers import BertTokenizerFast
except ImportError:
    print("transformers is not installed: not compared with it", file=sys.stderr)
else:
    folder = pathlib.Path(tokenizer_path).parent
    peer = BertTokenizerFast.from_pretrained(folder)(sentences, truncation=False, padding=False)["input_ids"]
    assert peer == ids, "tokenizers and transformers differ"
    print("transformers gives the same ids", file=sys.stderr)

lines = "".join(" ".join(map(str, row)) + "\n" for row in ids)
print(hashlib.sha256(lines.encode()).hexdigest(), len(ids), "rows", sum(map(len, ids)), "ids")
