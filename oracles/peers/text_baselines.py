"""What a language model of books has to beat, in bits a byte of the held-out text: general compressors, and
n-gram models over the same tokens.

Run with numpy 2.4.6, zstandard 0.25.0 and Python 3.11 with liblzma 5.4; recent versions do.

    pip install numpy zstandard
    python oracles/peers/text_baselines.py --check
    python oracles/peers/text_baselines.py CORPUS TEXT LIST --json

CORPUS is the folder `corpus` of a run of recipes/books.toml, with the token stores `train` and `held_out`; TEXT
is the archive that they were made of (.tar or .tar.zst), LIST its list of names, of which every tenth is held
out. That the stores hold these documents, in this order and of these sizes, is checked, and so are their
checksums.

Compressors: with T the training documents one after the other and H the held-out ones,

    bits_a_byte        8 (size(T H) - size(T)) / bytes(H): what H adds to a file that has T before it
    bits_a_byte_alone  8 size(H) / bytes(H)

    xz_9      xz -9: `lzma` with preset 9, whose dictionary of 64 MiB should hold all of it
    xz_9e     xz -9e
    zstd_22   zstd --ultra -22 --long=27

kneser_ney: interpolated modified Kneser-Ney smoothing (Chen and Goodman, "An Empirical Study of Smoothing
Techniques for Language Modeling", TR-10-98, 1998), of order N = 1 to --order. For a token w after the k - 1
tokens h, and h' these without the first,

    p_k(w | h) = (c_k(h w) - D_k(c_k(h w))) / sum_v c_k(h v) + gamma_k(h) p_{k-1}(w | h')
    gamma_k(h) = sum_v D_k(c_k(h v)) / sum_v c_k(h v) = (D1 N1(h) + D2 N2(h) + D3+ N3+(h)) / sum_v c_k(h v)
    p_0 = 1 / V, and p_k(w | h) = p_{k-1}(w | h') where the sum is 0
    c_N(g)  how often g stands in the training tokens
    c_k(g)  for k < N, how many different tokens stand before g
    D_k(0) = 0, D_k(1) = D1 = 1 - 2 Y n2 / n1, D_k(2) = D2 = 2 - 3 Y n3 / n2, D_k(3 and more) = D3+ =
    3 - 4 Y n4 / n3, Y = n1 / (n1 + 2 n2), of the n1 .. n4 k-grams that have c_k 1 .. 4

Where one of n1 .. n4 is 0, as can be with single tokens, or a discount is not in [0, 1], [0, 2], [0, 3], the
discounts are 0.5, 1, 1.5, and `estimated` is false. Counted and predicted is what `lapidary run` measures a model
on: all tokens of the held-out store, those that end documents too, each from the tokens before it, across the
ends of documents; before the first token, of training too, stands the one that ends documents, and before that
nothing: there p_k of fewer tokens is used.

    --order N           largest order (default 5)
    --hold-out-every N  which of the list are held out (default 10, as in the recipe)
    --only WORK         xz_9, xz_9e, zstd_22 or kneser_ney; may be repeated; all without it
    --json              one JSON object on standard output:
                        {"train": {documents, bytes, tokens, tokens_sha256}, "held_out": the same, "vocabulary",
                         "xz_9": {bits_a_byte, bits_a_byte_alone, compressed_bytes: {train, both, held_out},
                                  seconds}, "xz_9e", "zstd_22": the same,
                         "kneser_ney": [for each order {order, bits_a_byte, perplexity, bits_a_token, grams,
                                  discounts, estimated}], "kneser_ney_seconds": {counting, reading}}
                        seconds are the processor's, on one thread; discounts those of the highest order;
                        without it a table; what is being done goes to standard error
    --out FILE          also write the numbers as a result of the program's own form (results/text-baselines.json)
    --check             instead: compares probabilities with a second implementation, of dictionaries, on small
                        random texts, and adds them up over the vocabulary. Needs no files
"""

import argparse
import collections
import datetime
import functools
import hashlib
import json
import lzma
import math
import pathlib
import random
import re
import resource
import subprocess
import sys
import tarfile
import time
from typing import NamedTuple

import numpy as np

# KenLM's defaults, for counts that say nothing.
FALLBACK = (0.5, 1.0, 1.5)
XZ_DICTIONARY = 64 << 20


def fail(what):
    sys.exit(f"text_baselines.py: {what}")


def say(what):
    print(what, file=sys.stderr, flush=True)


class Store(NamedTuple):
    documents: list  # [(name, bytes of its text)]
    bytes: int
    tokens: np.ndarray  # [tokens], i64
    vocabulary: int
    end: int
    header: dict

    def describe(self):
        sizes = dict(documents=len(self.documents), bytes=self.bytes, tokens=len(self.tokens))
        return sizes | dict(tokens_sha256=self.header["tokens_sha256"])


def read_store(folder):
    """A token store, as crates/data/src/store.rs writes it."""
    header = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))
    if (header["format"], header["version"]) != ("lapidary-tokens", 1):
        fail(f"{folder} is no token store of version 1")
    vocabulary, width, end = header["vocabulary"], header["width"], header["end"]
    if width != (2 if vocabulary <= 1 << 16 else 4):
        fail(f"{folder} has ids of {width} bytes for a vocabulary of {vocabulary}")
    raw = (folder / "tokens.bin").read_bytes()
    if len(raw) != header["tokens"] * width or hashlib.sha256(raw).hexdigest() != header["tokens_sha256"]:
        fail(f"{folder} does not have the ids that its header describes")
    tokens = np.frombuffer(raw, f"<u{width}").astype(np.int64)
    documents = header["documents"]
    # A document's last token is the one that ends it, and there are no others of these.
    ends = [document["offset"] - 1 for document in documents[1:]] + [len(tokens) - 1]
    if tokens.max() >= vocabulary or np.flatnonzero(tokens == end).tolist() != ends:
        fail(f"{folder} has ids beyond its vocabulary, or ends of documents elsewhere than its header says")
    names = [(document["name"], document["bytes"]) for document in documents]
    return Store(names, sum(size for _, size in names), tokens, vocabulary, end, header)


def read_documents(path):
    """The names and bytes of an archive's documents, in order."""
    with open(path, "rb") as file:
        if path.suffix == ".zst":
            import zstandard

            file = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(file)
        with tarfile.open(fileobj=file, mode="r|") as archive:
            for entry in archive:
                if entry.isfile():
                    # The product leaves out a byte order mark too.
                    yield entry.name, archive.extractfile(entry).read().removeprefix(b"\xef\xbb\xbf")


def read_texts(text, names, every, stores):
    """The training and the held-out text. What is held out is found from the list and compared with the stores."""
    lines = names.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    held_out = {line.rsplit("\t", 1)[-1] for line in lines[every - 1 :: every]}
    texts, found = ([], []), ([], [])
    for name, content in read_documents(text):
        part = name in held_out
        texts[part].append(content)
        found[part].append((name, len(content)))
    for part, store, kind in zip(found, stores, ["training", "held-out"]):
        if part != store.documents:
            fail(f"the {kind} documents of the text are not those of the store")
    return [b"".join(part) for part in texts]


def xz(preset):
    return lambda data: len(lzma.compress(data, format=lzma.FORMAT_XZ, preset=preset))


def zstd(data):
    import zstandard

    parameters = zstandard.ZstdCompressionParameters.from_level(22, window_log=27, enable_ldm=True)
    return len(zstandard.ZstdCompressor(compression_params=parameters).compress(data))


COMPRESSORS = dict(xz_9=xz(9), xz_9e=xz(9 | lzma.PRESET_EXTREME), zstd_22=zstd)
WORKS = [*COMPRESSORS, "kneser_ney"]


def compress(size, train, held_out):
    start = time.process_time()
    sizes = dict(train=size(train), both=size(train + held_out), held_out=size(held_out))
    return dict(
        bits_a_byte=8 * (sizes["both"] - sizes["train"]) / len(held_out),
        bits_a_byte_alone=8 * sizes["held_out"] / len(held_out),
        compressed_bytes=sizes, seconds=time.process_time() - start,
    )


class Smoothed:
    """The two terms of p_k: of each k-gram what its own count gives, of each context the weight of p_{k-1}."""

    def __init__(self, counts, contexts, number):  # [grams], [grams] the context of each, contexts
        n = np.bincount(np.minimum(counts, 5), minlength=5)[1:5].tolist()
        self.discounts, self.estimated = discounts(n)
        discount = np.array([0.0, *self.discounts])[np.minimum(counts, 3)]
        total = np.bincount(contexts, counts, number)  # [contexts]
        known = np.maximum(total, 1.0)
        self.own = (counts - discount) / known[contexts]  # [grams]
        self.weight = np.where(total > 0, np.bincount(contexts, discount, number) / known, 1.0)  # [contexts]

    def probabilities(self, grams, contexts, lower):  # [positions] each, -1 where unseen
        own = np.where(grams >= 0, self.own[grams], 0.0)
        return own + np.where(contexts >= 0, self.weight[contexts], 1.0) * lower


def discounts(n):
    """D1, D2, D3+ of counts of counts, and whether these gave them."""
    if min(n) > 0:
        y = n[0] / (n[0] + 2 * n[1])
        found = tuple(k - (k + 1) * y * n[k] / n[k - 1] for k in (1, 2, 3))
        if all(0 <= d <= k for k, d in enumerate(found, 1)):
            return found, True
    return FALLBACK, False


class Level(NamedTuple):
    keys: np.ndarray  # [grams], ascending: the id of the first k - 1 tokens, times V, plus the last
    highest: Smoothed  # p_N where N is k
    lower: Smoothed  # p_k where N is larger; None of the largest order


class KneserNey:
    """Models of all orders up to one. A k-gram's id is its place among the sorted keys, and an id and a token make
    the next key, so that keys stay below tokens * V whatever the order."""

    def __init__(self, tokens, vocabulary, order):  # tokens [T], the one that is before the text first
        self.vocabulary, self.levels = vocabulary, []
        ids = np.zeros(len(tokens) + 1, np.int64)  # of the k-gram that begins at each position; here k = 0
        waiting = None  # what a level needs besides its continuation counts
        number = 1
        for k in range(1, order + 1):
            keys, first, inverse, counts = np.unique(
                ids[: len(tokens) - k + 1] * vocabulary + tokens[k - 1 :],
                return_index=True, return_inverse=True, return_counts=True)
            if waiting:
                # Each different k-gram is one token before its last k - 1.
                self.levels.append(level(*waiting, np.bincount(ids[first + 1], minlength=number)))
            waiting = keys, keys // vocabulary, number, counts
            ids, number = inverse, len(keys)
        self.levels.append(level(*waiting, None))

    def probabilities(self, tokens):  # [T] -> for each order [T], of each token after all before it
        found, lower, orders = np.zeros(len(tokens) + 1, np.int64), np.full(len(tokens), 1 / self.vocabulary), []
        for k, level in enumerate(self.levels[: len(tokens)], 1):
            contexts = found[: len(tokens) - k + 1]
            keys = np.where(contexts >= 0, contexts * self.vocabulary + tokens[k - 1 :], -1)
            places = np.minimum(np.searchsorted(level.keys, keys), len(level.keys) - 1)
            found = np.where(level.keys[places] == keys, places, -1)
            # The first tokens have not enough before them.
            base, rest = lower[: k - 1], lower[k - 1 :]
            orders.append(np.concatenate([base, level.highest.probabilities(found, contexts, rest)]))
            if level.lower:
                lower = np.concatenate([base, level.lower.probabilities(found, contexts, rest)])
        return orders + [lower] * (len(self.levels) - len(orders))


def level(keys, contexts, number, counts, continuations):
    lower = None if continuations is None else Smoothed(continuations, contexts, number)
    return Level(keys, Smoothed(counts, contexts, number), lower)


def kneser_ney(train, held_out, order):
    """A result for each order, and seconds."""
    def text(store):
        return np.concatenate([[store.end], store.tokens])

    start = time.process_time()
    model = KneserNey(text(train), train.vocabulary, order)
    counted = time.process_time()
    results = []
    for k, (level, p) in enumerate(zip(model.levels, model.probabilities(text(held_out))), 1):
        bits = -float(np.log2(p[1:]).sum())
        a_token = bits / len(held_out.tokens)
        results.append(dict(
            order=k, bits_a_byte=bits / held_out.bytes, perplexity=2**a_token, bits_a_token=a_token,
            grams=len(level.keys), discounts=level.highest.discounts, estimated=level.highest.estimated))
    return results, dict(counting=counted - start, reading=time.process_time() - counted)


class Dictionaries:
    """The formulas once more, as they stand, for small texts."""

    def __init__(self, tokens, vocabulary, order):
        self.vocabulary, self.tables = vocabulary, {}
        windows = {k: [tuple(tokens[i : i + k]) for i in range(len(tokens) - k + 1)] for k in range(1, order + 1)}
        for k in range(1, order):
            before = collections.defaultdict(set)
            for gram in windows[k + 1]:
                before[gram[1:]].add(gram[0])
            self.tables[k] = {gram: len(tokens) for gram, tokens in before.items()}
        self.tables[order] = dict(collections.Counter(windows[order]))
        self.discounts = {k: self.estimate(table.values()) for k, table in self.tables.items()}

    @staticmethod
    def estimate(counts):
        n1, n2, n3, n4 = (sum(count == c for count in counts) for c in (1, 2, 3, 4))
        if n1 and n2 and n3 and n4:
            y = n1 / (n1 + 2 * n2)
            d1, d2, d3 = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
            if 0 <= d1 <= 1 and 0 <= d2 <= 2 and 0 <= d3 <= 3:
                return d1, d2, d3
        return 0.5, 1.0, 1.5

    @functools.cache
    def probability(self, before, token):
        """Of a token after others, fewer than the order."""
        table, (d1, d2, d3) = self.tables[len(before) + 1], self.discounts[len(before) + 1]
        shorter = self.probability(before[1:], token) if before else 1 / self.vocabulary
        counts = [table.get((*before, other), 0) for other in range(self.vocabulary)]
        if sum(counts) == 0:
            return shorter
        n1, n2, n3 = counts.count(1), counts.count(2), sum(count >= 3 for count in counts)
        count = counts[token]
        discounted = count if count == 0 else count - (d1 if count == 1 else d2 if count == 2 else d3)
        return discounted / sum(counts) + (d1 * n1 + d2 * n2 + d3 * n3) / sum(counts) * shorter


def check():
    """Small random texts; the last tokens of a vocabulary are in no training text."""
    compared, differ, sums, estimated = 0, 0.0, 0.0, collections.Counter()
    for seed, (vocabulary, length, order) in enumerate([(2, 3, 1), (3, 6, 5), (4, 30, 2), (6, 100, 3), (9, 400, 4),
                                                        (9, 3000, 5), (40, 2000, 5), (300, 3000, 3)]):
        draw = random.Random(seed)
        seen = range(vocabulary - vocabulary // 6)
        train = draw.choices(seen, [1 / (1 + token) ** 1.5 for token in seen], k=length)
        if length > 200:  # with repeats, for counts above 1 of long n-grams
            for _ in range(length // 20):
                at, to = draw.randrange(length - 9), draw.randrange(length - 9)
                train[to : to + 9] = train[at : at + 9]
        held_out = draw.choices(range(vocabulary), k=40) + train[:30]
        model = KneserNey(np.array(train), vocabulary, order)
        references = [Dictionaries(train, vocabulary, n) for n in range(1, order + 1)]
        estimated.update(level.highest.estimated for level in model.levels)

        def after(before, token):
            return [float(p[-1]) for p in model.probabilities(np.array([*before, token]))]

        def expected(before, token, n):
            return references[n - 1].probability(tuple(before[max(0, len(before) - n + 1) :]), token)

        # A whole text, its first tokens after fewer than the order needs.
        for n, p in enumerate(model.probabilities(np.array(held_out)), 1):
            for at, token in enumerate(held_out):
                other = expected(held_out[:at], token, n)
                differ, compared = max(differ, abs(float(p[at]) - other) / other), compared + 1
        # The whole vocabulary after some of training and some at random.
        for trial in range(12):
            at, many = draw.randrange(length), draw.randrange(order + 2)
            before = train[at : at + many] if trial % 2 else draw.choices(range(vocabulary), k=many)
            found = [after(before, token) for token in range(vocabulary)]
            for n in range(1, order + 1):
                sums = max(sums, abs(math.fsum(p[n - 1] for p in found) - 1))
                for token, p in enumerate(found):
                    other = expected(before, token, n)
                    differ, compared = max(differ, abs(p[n - 1] - other) / other), compared + 1
    print(f"{compared} probabilities differ by {differ:.1e} of their size at most, sums over the vocabulary from 1 by "
          f"{sums:.1e}; discounts were estimated {estimated[True]} times and not {estimated[False]} times")
    if not (differ < 1e-12 and sums < 1e-12 and min(estimated[True], estimated[False]) > 0):
        fail("the check failed")


def record(result, path):
    """Writes a result as `lapidary` writes its own."""
    metrics, seconds = {}, 0.0
    for name in COMPRESSORS:
        if name in result:
            it = result[name]
            metrics[f"{name}.bits_per_byte"] = it["bits_a_byte"]
            metrics[f"{name}.bits_per_byte_alone"] = it["bits_a_byte_alone"]
            seconds += it["seconds"]
    for it in result.get("kneser_ney", []):
        metrics[f"kneser_ney_{it['order']}.bits_per_byte"] = it["bits_a_byte"]
        metrics[f"kneser_ney_{it['order']}.perplexity"] = it["perplexity"]
    seconds += sum(result.get("kneser_ney_seconds", {}).values())
    for part in ("train", "held_out"):
        for what in ("documents", "bytes", "tokens"):
            metrics[f"{part}.{what}"] = float(result[part][what])
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    cpus = re.findall(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = int(re.search(r"MemTotal: +(\d+)", pathlib.Path("/proc/meminfo").read_text())[1])
    document = {
        "name": path.stem,
        "commit": commit or "unknown",
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": f"{cpus[0] if cpus else 'unknown'}, {len(cpus)} cores, {round(memory / 2**20)} GiB",
        "isa": "numpy",
        "device": "cpu",
        "threads": 1,
        "seed": 0,
        "seconds": seconds,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "metrics": metrics,
        "peers": {},
        "notes": ["Written by oracles/peers/text_baselines.py; seconds are the processor's, on one thread."],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(":", 1)[0])
    parser.add_argument("corpus", type=pathlib.Path, nargs="?")
    parser.add_argument("text", type=pathlib.Path, nargs="?")
    parser.add_argument("list", type=pathlib.Path, nargs="?")
    parser.add_argument("--order", type=positive, default=5)
    parser.add_argument("--hold-out-every", type=positive, default=10)
    parser.add_argument("--only", choices=WORKS, action="append")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.check:
        return check()
    if arguments.list is None:
        parser.error("CORPUS, TEXT and LIST are needed")
    works = arguments.only or WORKS
    say(f"numpy {np.__version__}, Python {sys.version.split()[0]}")

    train, held_out = stores = [read_store(arguments.corpus / part) for part in ("train", "held_out")]
    for same in ("vocabulary", "end", "tokenizer_sha256"):
        if train.header[same] != held_out.header[same]:
            fail(f"the stores do not have the same {same}")
    texts = read_texts(arguments.text, arguments.list, arguments.hold_out_every, stores)
    if train.bytes + held_out.bytes > XZ_DICTIONARY:
        say("the text is larger than the dictionary of xz -9, which forgets the start of it")
    result = dict(train=train.describe(), held_out=held_out.describe(), vocabulary=train.vocabulary)
    for name in COMPRESSORS:
        if name in works:
            say(f"{name} ...")
            result[name] = compress(COMPRESSORS[name], *texts)
    if "kneser_ney" in works:
        say("kneser_ney ...")
        result["kneser_ney"], result["kneser_ney_seconds"] = kneser_ney(train, held_out, arguments.order)

    if arguments.out:
        record(result, arguments.out)
    if arguments.json:
        print(json.dumps(result))
        return
    for name in [name for name in COMPRESSORS if name in result]:
        it = result[name]
        print(f"{name:14} {it['bits_a_byte']:.4f} bits a byte, alone {it['bits_a_byte_alone']:.4f}; "
              f"{it['seconds']:.1f} s")
    for it in result.get("kneser_ney", []):
        print(f"kneser_ney {it['order']:3} {it['bits_a_byte']:.4f} bits a byte, perplexity {it['perplexity']:.2f}")
    if "kneser_ney_seconds" in result:
        seconds = result["kneser_ney_seconds"]
        print(f"kneser_ney     {seconds['counting']:.1f} s to count, {seconds['reading']:.1f} s to read")


if __name__ == "__main__":
    main()
