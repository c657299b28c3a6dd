"""Training pairs: where they come from, how the rules see them and how much each one counts."""

from __future__ import annotations

import gzip
import json
import random
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from model import EncodedPair, PairEncoder

SHARE_OF_VETOED = 0.5
"""Share of the pairs with a veto of the rules that is used. The verifier rarely sees such pairs."""

SHARE_OF_EQUAL = 0.05
"""Share of the pairs with equal canonical texts that is used. They need no verifier."""

WEIGHT_OF_ALLOWED_TRAP = 1.5
"""Loss weight of a label 0 pair that passes the rules, against 1 for other pairs."""

SHARE_OF_NEWS = 0.5
"""Share of the PAWS pairs that is used. They are long and unlike questions."""


@dataclass(frozen=True)
class Pair:
    """Two texts, and whether one answer serves both (label 1)."""

    first: str
    second: str
    label: int
    source: str
    weight: float = 1.0


@dataclass(frozen=True)
class JudgedPair:
    """A pair with its canonical texts and the verdict of the rules."""

    pair: Pair
    first: str
    second: str
    is_allowed_normal: bool
    is_allowed_strict: bool


@dataclass(frozen=True)
class Example:
    """A training example: canonical texts, label and loss weight."""

    first: str
    second: str
    label: int
    weight: float
    source: str


def read_json_lines(path: Path) -> Iterator[dict]:
    """Rows of a JSON lines file, gzip-compressed where the name ends in `.gz`."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def read_pairs(path: Path) -> list[Pair]:
    """Pairs of a file of rows {a, b, label, src, w}."""
    return [
        Pair(row["a"], row["b"], row["label"], row["src"], row["w"])
        for row in read_json_lines(path)
    ]


def run_guard(rows: Iterable[dict], guard: str) -> list[dict]:
    """Runs the rules over rows {a, b}; adds canonical_a, canonical_b and allowed to each."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    done = subprocess.run(
        shlex.split(guard), input=lines, capture_output=True, check=True, encoding="utf-8"
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def judge(pairs: Sequence[Pair], guard: str) -> list[JudgedPair]:
    """Canonical texts and verdicts of all pairs, in the order given."""
    rows = run_guard(({"a": pair.first, "b": pair.second} for pair in pairs), guard)
    if len(rows) != len(pairs):
        raise ValueError(f"the guard returned {len(rows)} rows for {len(pairs)} pairs")
    return [
        JudgedPair(
            pair,
            row["canonical_a"],
            row["canonical_b"],
            row["allowed"]["normal"],
            row["allowed"]["strict"],
        )
        for pair, row in zip(pairs, rows)
    ]


def select(judged: Sequence[JudgedPair], encoder: PairEncoder, seed: int) -> list[Example]:
    """Chooses and weighs the pairs to train on.

    A pair that the rules veto never reaches the verifier where the rules saw the difference, but
    the same difference in other words does, so a share of those stays.
    """
    rng = random.Random(seed)
    examples = []
    seen: set[tuple[str, str]] = set()
    for row in judged:
        key = (row.first, row.second)
        if key in seen or not encoder.fits(row.first, row.second):
            continue
        is_equal = row.first == row.second
        if is_equal and row.pair.label == 0:
            continue
        share = 1.0
        if is_equal:
            share *= SHARE_OF_EQUAL
        if not row.is_allowed_normal:
            share *= SHARE_OF_VETOED
        if row.pair.source == "paws":
            share *= SHARE_OF_NEWS
        if rng.random() >= share:
            continue
        seen.add(key)
        weight = row.pair.weight
        if row.pair.label == 0 and row.is_allowed_normal:
            weight *= WEIGHT_OF_ALLOWED_TRAP
        examples.append(Example(row.first, row.second, row.pair.label, weight, row.pair.source))
    rng.shuffle(examples)
    return examples


def epoch(
    examples: Sequence[Example], encoder: PairEncoder, batch: int, rng: random.Random
) -> Iterator[tuple[list[EncodedPair], list[float], list[float]]]:
    """Batches of encoded pairs with labels and weights, each pair once, in random order.

    Pairs of similar length share a batch. Which text comes first is drawn for each pair.
    """
    order = list(range(len(examples)))
    rng.shuffle(order)
    lengths = [
        len(encoder.tokens(example.first)) + len(encoder.tokens(example.second))
        for example in examples
    ]
    batches = []
    pool = batch * 40
    for start in range(0, len(order), pool):
        chunk = sorted(order[start : start + pool], key=lengths.__getitem__)
        batches += [chunk[i : i + batch] for i in range(0, len(chunk), batch)]
    rng.shuffle(batches)
    for rows in batches:
        encoded, labels, weights = [], [], []
        for row in rows:
            example = examples[row]
            texts = (example.first, example.second)
            if rng.random() < 0.5:
                texts = texts[::-1]
            encoded.append(encoder.encode(*texts))
            labels.append(float(example.label))
            weights.append(example.weight)
        yield encoded, labels, weights
