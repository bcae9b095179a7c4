"""Scores of entities by seqeval: crates/data/tests/golden/entities.json.

    pip install seqeval==1.2.2 numpy==2.4.6
    python oracles/entities.py

Tags are drawn at random, so that many are ill-formed: an I that continues nothing or changes its type, no type at all.

    {"cases": [{expected, predicted: sentences of tags joined by spaces,
                all: [precision, recall, f1, support] of the micro average, 0-1,
                types: {type: likewise},
                entities: [[type, first word, last word] of each sentence of `expected`]}]}
"""

import json
import pathlib
import random
import warnings

from seqeval.metrics import classification_report
from seqeval.metrics.sequence_labeling import get_entities

OUT = pathlib.Path(__file__).parent.parent / "crates/data/tests/golden"
TYPES = ["PER", "LOC", "creative-work", "a_b", "é"]
# Sentences that say little: without entities, without words, with one type only or with none.
SMALL = [
    (["O O", "O"], ["O O", "O"]),
    (["B-PER I-PER"], ["O O"]),
    (["O O"], ["B-PER I-PER"]),
    (["", "B-PER"], ["", "B-PER"]),
    (["I-PER I-PER"], ["B-PER I-PER"]),
    (["B-PER I-PER O"], ["B-PER I-LOC O"]),
    (["B-PER B-PER I-PER"], ["B-PER I-PER I-PER"]),
    (["I-PER I-LOC I-LOC"], ["B-PER B-LOC I-LOC"]),
    (["B I O I B"], ["B I O B I"]),
    (["B- I- O I-", "B-PER"], ["B I O I", "I-PER"]),
    (["B-PER O", "I-PER O"], ["B-PER O", "I-PER O"]),
]


def sentence(draw):
    types = draw.sample(TYPES, draw.randint(1, 3))
    tags = []
    for _ in range(draw.randint(0, 12)):
        prefix = draw.choice("OOBII")
        tags.append("O" if prefix == "O" else f"{prefix}-{draw.choice(types)}")
    return tags


def changed(draw, tags):
    """Tags of which some are others."""
    others = sentence(draw) + ["O"]
    return [draw.choice(others) if draw.random() < 0.25 else tag for tag in tags]


def case(expected, predicted):
    if any(get_entities(tags) for tags in expected + predicted):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = classification_report(expected, predicted, output_dict=True)
    else:
        # seqeval has no report of nothing; its f1_score gives 0.
        report = {"micro avg": {"precision": 0.0, "recall": 0.0, "f1-score": 0.0, "support": 0}}
    keys = ["precision", "recall", "f1-score", "support"]
    scores = {name: [float(score[key]) for key in keys] for name, score in report.items()}
    return {
        "expected": [" ".join(tags) for tags in expected],
        "predicted": [" ".join(tags) for tags in predicted],
        "all": scores["micro avg"],
        "types": {name: score for name, score in scores.items() if not name.endswith(" avg")},
        "entities": [get_entities(tags) for tags in expected],
    }


draw = random.Random(1)
cases = [case([t.split() for t in expected], [t.split() for t in predicted]) for expected, predicted in SMALL]
for _ in range(60):
    expected = [sentence(draw) for _ in range(draw.randint(1, 8))]
    cases.append(case(expected, [changed(draw, tags) for tags in expected]))
text = json.dumps({"cases": cases}, ensure_ascii=False, separators=(",", ":"))
(OUT / "entities.json").write_text(text.replace('{"expected"', '\n{"expected"') + "\n")
print(len(cases), "cases")
