"""The SHA-256 of the windows that `transformers` cuts SQuAD's passages into, with the tokens of the answers.

    pip install tokenizers==0.23.3 transformers==5.23.0
    zstd -dc dev-v1.1.rebuilt.json.zst | python span_windows.py tokenizer.json

The hashed text has one line a window, of numbers joined by single spaces: the row's ids, and for each token of the
passage its first byte in the passage and the one behind its last. Windows have 384 tokens, 128 of the passage in
common. It prints the hash and the number of windows, which `crates/data/tests/real_data.rs` compares with its own, and
how many have an answer by the lines of run_qa.py, with the sum of the places of all first and last tokens; a first
token that these lines put behind the window (see `span` in spans.py) is its last.
"""

import hashlib
import json
import sys

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from spans import span

made = Tokenizer.from_file(sys.argv[1])
made.no_truncation()
made.no_padding()
fast = PreTrainedTokenizerFast(tokenizer_object=made)
hash_, windows, answered, spans = hashlib.sha256(), 0, 0, 0
for article in json.load(sys.stdin.buffer)["data"]:
    for paragraph in article["paragraphs"]:
        passage = paragraph["context"]
        to_byte = [0]
        for character in passage:
            to_byte.append(to_byte[-1] + len(character.encode()))
        for asked in paragraph["qas"]:
            found = fast(
                asked["question"],
                passage,
                truncation="only_second",
                max_length=384,
                stride=128,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
            )
            answer = asked["answers"][0]
            start, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
            for i, ids in enumerate(found["input_ids"]):
                sequence, offsets = found.sequence_ids(i), found["offset_mapping"][i]
                first, tokens = sequence.index(1), sequence.count(1)
                places = [to_byte[place] for pair in offsets[first : first + tokens] for place in pair]
                hash_.update((" ".join(map(str, ids + places)) + "\n").encode())
                windows += 1
                begin, last = span(offsets, sequence, start, end)
                answered += last > 0
                spans += min(begin, first + tokens - 1) + last
print(hash_.hexdigest(), windows, "windows", answered, "with an answer", spans, "as the sum of their places")
