"""What the peers share: their arguments, the timing and what they print."""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Callable, NamedTuple

import torch


class Work(NamedTuple):
    name: str
    make: Callable  # () -> a closure that does the timed work once
    units: int = 1  # seconds are reported for one unit of it, of so many
    rates: dict = {}  # of one unit: what is in it, by the rate's name; 1 token gives tokens per second


def peak_rss_bytes():
    """The process's largest resident memory so far. Linux only.

    Not `getrusage`: its ru_maxrss can be that of the process that started this one.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024


def measure(work, warmup, repeats):
    run = work.make()
    for _ in range(warmup):
        run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append((time.perf_counter() - start) / work.units)
    median = statistics.median(seconds)
    result = dict(
        name=work.name, median_seconds=median,
        min_seconds=min(seconds), max_seconds=max(seconds), repeats=repeats,
    )
    rates = {name: amount / median for name, amount in work.rates.items()}
    return result | rates | dict(peak_rss_bytes=peak_rss_bytes())


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main(doc, works, repeats=5, warmup=2):
    """Times what the command line names; `works` has each Work under its name for --only."""
    parser = argparse.ArgumentParser(description=doc.split("\n", 1)[0])
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--repeats", type=positive, default=repeats)
    parser.add_argument("--warmup", type=positive, default=warmup)
    parser.add_argument("--only", choices=works)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} threads", file=sys.stderr)
    for key in [arguments.only] if arguments.only else works:
        result = measure(works[key], arguments.warmup, arguments.repeats)
        if arguments.json:
            print(json.dumps(result), flush=True)
        else:
            spread = f"{result['min_seconds']:.4g} to {result['max_seconds']:.4g}"
            rates = "".join(f", {name} {result[name]:.4g}" for name in works[key].rates)
            print(
                f"{result['name']}: median {result['median_seconds']:.4g} s"
                f" ({spread}, {result['repeats']} repeats){rates}"
            )
