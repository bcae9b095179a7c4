"""Windows over passages, best spans and scores of extracted answers by Hugging Face's code:
crates/data/tests/golden/{uncased,cased}.tokenizer.json and spans.json.

    pip install tokenizers==0.23.3 transformers==5.23.0 numpy==2.4.6 tqdm
    python oracles/spans.py compute_score.py utils_qa.py

The two arguments are files of other repositories: metrics/squad/compute_score.py of huggingface/evaluate (a7dd338, the
official evaluate-v1.1.py) and examples/pytorch/question-answering/utils_qa.py of huggingface/transformers 4.x. All
texts and the vocabulary are invented.

spans.json, places of texts in bytes:

    {"cases": [{tokenizer, question, passage, answer: [start, text], max_length, stride, question_length, n_best,
                max_tokens, cut: whether the question was longer than question_length,
                windows: [{ids, types, passage: [first, end) place of its tokens, bytes: [start, end, start, end, ...],
                           span: [start, end], as the lines of run_qa.py have it, see `span`}],
                best: [start, end] of the best span by the logits of `logits`, or null where there is none}],
     "scores": {"rows": [{prediction, answers, exact_match, f1}], "exact_match", "f1"}}
"""

import contextlib
import importlib.util
import io
import json
import pathlib
import random
import sys

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

OUT = pathlib.Path(__file__).parent.parent / "crates/data/tests/golden"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = "river stone ##stone cut light ##ing ##er ##s north wind blue glass the of".split()
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789éüßñœдождьмирнг"
# Decomposed, as an uncased BERT reads them: the parts of Hangul syllables, and a Kannada and a Hebrew word.
LETTERS += "".join(chr(c) for c in [*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A8, 0x11C3)])
LETTERS += "ಕನಡಾಿಗಳ" + "שלום" + "かなカタ"
SINGLE = "山川日本語東京.,;:!?()-'\"$%/–—…😀🎉👍♥"
WORDS = """river Stone cutter lighting northern winds bluestone glassers the of Of riverstone unheard 1973 3,5 U.S. it's
    café cafe\u0301 naïve Über über Straße œuvre mañana I\u0307stanbul дождь мир 서울 한국어 ಕನ್ನಡ שָׁלוֹם 東京 日本語の川 かな カタ
    😀 🎉🎉 👍🏽 👩\u200d👩\u200d👧 ♥ 10–20 (cut) "light" — … $12 zero\u200bwidth soft\u00adhyphen ﬁne x² ½ tab\there
    Łódź zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz""".split(" ")
WORDS = [word.strip("\n") for word in WORDS if word.strip()]
# Answers that begin and end with characters of several tokens, that hold a mark which no token stands for, or are all.
FIXED = [
    ("stone?", "한국어 서울 river", "서울"),
    ("stone?", "cut 한국어", "국"),
    ("stone?", "서울에 한국어 " * 8 + "서울", "한국어 서울에"),
    ("stone?", "a cafe\u0301 wind", "cafe\u0301"),
    ("stone?", "a cafe\u0301s wind", "cafe\u0301s"),
    ("stone?", "\u00adglass\u00ad", "\u00adglass"),
    ("stone?", "light", "light"),
]
GAPS = [" "] * 12 + ["  ", "\u00a0", "\u3000", "\n", " \t "]


# Predictions and answers of annotators.
ROWS = [
    ("the river", ["river", "a stone"]),
    ("River!", ["the river."]),
    ("", [""]),
    ("", ["the"]),
    ("", ["stone"]),
    ("the a an", ["the"]),
    ("stone", [""]),
    ("north wind", ["the north wind", "wind", "north"]),
    ("north north wind", ["north wind wind"]),
    ("a big blue glass", ["blue glass cutter", "glass"]),
    ("an hour, an Hour", ["hour hour"]),
    ("U.S.A.", ["USA", "the U.S."]),
    ("$1,234.5", ["1234.5 dollars", "12345"]),
    ("state-of-the-art", ["state of the art", "stateoftheart"]),
    ("a_b", ["ab"]),
    ("the-river", ["theriver", "river"]),
    ("the\u2013river", ["river", "\u2013 river"]),
    ("theatre another band", ["atre nother bnd"]),
    ("  two\u00a0\u3000words\n", ["two words"]),
    ("zero\u200bwidth", ["zero width", "zerowidth"]),
    ("\u001cone\u0085two\u2028", ["one two"]),
    ("Stra\u00dfe \u0130stanbul \u039f\u0394\u039f\u03a3", ["stra\u00dfe i\u0307stanbul \u03bf\u03b4\u03bf\u03c2", "STRASSE"]),
    ("caf\u00e9", ["cafe\u0301", "cafe"]),
    ("the\u0301", ["the", "\u0301"]),
    ("a\u00b2 the\u00bd an\u2460", ["a\u00b2", "the\u00bd an\u2460"]),
    ("\u201cthe\u201d \u00aban\u00bb (a)", ["\u201c \u201d \u00ab \u00bb"]),
    ("\u6771\u4eac the \u65e5\u672c", ["\u6771\u4eac \u65e5\u672c", "\u6771\u4eac\u65e5\u672c"]),
    ("the\u6771\u4eac", ["\u6771\u4eac"]),
    ("\U0001f600 the\U0001f600 \U0001f468\u200d\U0001f469", ["\U0001f600 \U0001f600 \U0001f468\u200d\U0001f469"]),
    ("\u0914\u0930 a \u0915\u093f", ["\u0914\u0930 \u0915\u093f", "\u0915\u093f"]),
    ("!!!", ["...", "?"]),
    ("one two three four five six", ["six five four three two one", "one"]),
    ("1973", ["in 1973", "October 1973", "1973"]),
]


class Examples(list):
    """A set of one example, as utils_qa.py asks for its columns."""

    def __init__(self, passage):
        super().__init__([{"id": "one", "context": passage}])

    def __getitem__(self, key):
        return [example[key] for example in self] if isinstance(key, str) else super().__getitem__(key)


def module(path):
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def tokenizer(lowercase):
    vocabulary = [*SPECIAL, *PIECES, *SINGLE]
    for letter in LETTERS:
        vocabulary += [letter, "##" + letter]
    vocabulary = list(dict.fromkeys(vocabulary))
    made = Tokenizer(models.WordPiece({token: i for i, token in enumerate(vocabulary)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.add_special_tokens(SPECIAL)
    return made


def text(draw, words):
    pieces = []
    for _ in range(words):
        pieces += [draw.choice(WORDS), draw.choice(GAPS)]
    return "".join(pieces[:-1])


def span(offsets, sequence, start_char, end_char):
    """The token places of an answer, as prepare_train_features of run_qa.py finds them."""
    token_start_index = 0
    while sequence[token_start_index] != 1:
        token_start_index += 1
    token_end_index = len(offsets) - 1
    while sequence[token_end_index] != 1:
        token_end_index -= 1
    if not (offsets[token_start_index][0] <= start_char and offsets[token_end_index][1] >= end_char):
        return [0, 0]
    while token_start_index < len(offsets) and offsets[token_start_index][0] <= start_char:
        token_start_index += 1
    while offsets[token_end_index][1] >= end_char:
        token_end_index -= 1
    return [token_start_index - 1, token_end_index + 1]


def logits(case, window, tokens):
    """Start and end logits without two that are equal: multiples of 1/64 below 16, exact in f32."""
    place = np.arange(tokens, dtype=np.int64)
    start = (place * 7919 + window * 4507 + case * 6037) % 1009 - 100 * (place == 0)
    end = (place * 6311 + window * 3001 + case * 9001) % 1013
    return (start / 64).astype(np.float32), (end / 64).astype(np.float32)


def place(draw, passage):
    """Where an answer stands: half of them are words, the others any characters but white space at the ends."""
    while True:
        start, end = sorted(draw.sample(range(len(passage) + 1), 2))
        if draw.random() < 0.5:
            start = max(passage.rfind(" ", 0, start + 1) + 1, 0)
            end = passage.find(" ", end) if passage.find(" ", end) > 0 else len(passage)
        if draw.random() < 0.7:
            end = min(end, start + 12)
        if start < end and passage[start:end] == passage[start:end].strip() != "":
            return start, end


def case(index, draw, tokenizers, utils_qa, fixed=None):
    name = "uncased" if fixed else draw.choice(["uncased", "cased"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizers[name])
    max_length, stride, question_length = draw.choice([(24, 4, 8), (20, 0, 6), (32, 9, 12), (384, 128, 64)])
    n_best, max_tokens = draw.choice([(20, 30), (20, 30), (5, 4), (1, 2)])
    if fixed:
        question, passage, answer = fixed
        start = passage.index(answer)
        end = start + len(answer)
    else:
        question, passage = text(draw, draw.randint(1, 7)), text(draw, draw.choice([1, 5, 20, 40]))
        start, end = place(draw, passage)

    # The pieces of a word do not depend on what follows them, so that a question may be cut between two.
    whole = fast(question, add_special_tokens=False, return_offsets_mapping=True)
    cut = len(whole["input_ids"]) > question_length
    asked = question[: whole["offset_mapping"][question_length - 1][1]] if cut else question
    assert fast(asked, add_special_tokens=False)["input_ids"] == whole["input_ids"][:question_length]

    found = fast(
        asked,
        passage,
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_token_type_ids=True,
        return_offsets_mapping=True,
    )
    to_byte = [len(passage[:i].encode()) for i in range(len(passage) + 1)]
    windows, features, starts, ends = [], [], [], []
    for i, ids in enumerate(found["input_ids"]):
        sequence, offsets = found.sequence_ids(i), found["offset_mapping"][i]
        first, tokens = sequence.index(1), sequence.count(1)
        bytes_ = [to_byte[place] for pair in offsets[first : first + tokens] for place in pair]
        windows.append(
            {
                "ids": ids,
                "types": found["token_type_ids"][i],
                "passage": [first, first + tokens],
                "bytes": bytes_,
                "span": span(offsets, sequence, start, end),
            }
        )
        mapping = [pair if sequence[k] == 1 else None for k, pair in enumerate(offsets)]
        features.append({"example_id": "one", "offset_mapping": mapping})
        start_logits, end_logits = logits(index, i, len(ids))
        starts.append(start_logits)
        ends.append(end_logits)

    # The function gives texts; a passage of a character of its own at each place tells which.
    places = "".join(chr(0x10000 + i) for i in range(len(passage)))
    with contextlib.redirect_stderr(io.StringIO()):
        best = utils_qa.postprocess_qa_predictions(
            Examples(places), features, (starts, ends), n_best_size=n_best, max_answer_length=max_tokens
        )
    best = best["one"]
    best = None if best == "empty" else [to_byte[ord(best[0]) - 0x10000], to_byte[ord(best[-1]) - 0x10000 + 1]]
    return {
        "tokenizer": name,
        "question": question,
        "passage": passage,
        "answer": [to_byte[start], passage[start:end]],
        "max_length": max_length,
        "stride": stride,
        "question_length": question_length,
        "n_best": n_best,
        "max_tokens": max_tokens,
        "cut": cut,
        "windows": windows,
        "best": best,
    }


def main():
    compute_score, utils_qa = map(module, sys.argv[1:])
    tokenizers = {name: tokenizer(name == "uncased") for name in ["uncased", "cased"]}
    for name, made in tokenizers.items():
        made.save(str(OUT / f"{name}.tokenizer.json"), pretty=False)
    draw = random.Random(1)
    cases = [case(index, draw, tokenizers, utils_qa) for index in range(40)]
    cases += [case(40 + index, draw, tokenizers, utils_qa, fixed) for index, fixed in enumerate(FIXED)]

    rows = []
    for prediction, answers in ROWS:
        best = {}
        for name, score in [("exact_match", compute_score.exact_match_score), ("f1", compute_score.f1_score)]:
            best[name] = 100.0 * compute_score.metric_max_over_ground_truths(score, prediction, answers)
        rows.append({"prediction": prediction, "answers": answers} | best)
    qas = [{"id": str(i), "answers": [{"text": text} for text in row["answers"]]} for i, row in enumerate(rows)]
    predictions = {str(i): row["prediction"] for i, row in enumerate(rows)}
    total = compute_score.compute_score([{"paragraphs": [{"qas": qas}]}], predictions)

    golden = {"cases": cases, "scores": {"rows": rows} | total}
    text = json.dumps(golden, ensure_ascii=False, separators=(",", ":"))
    for first in ['{"tokenizer"', '{"prediction"']:
        text = text.replace(first, "\n" + first)
    (OUT / "spans.json").write_text(text + "\n")
    print(len(cases), "cases,", sum(len(case["windows"]) for case in cases), "windows,", len(rows), "rows")


if __name__ == "__main__":
    main()
