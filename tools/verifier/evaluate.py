"""Measures the verifier behind cosine and rules. Prints tables in Markdown.

Traps served: share of all label 0 pairs that a decision lets through. Paraphrases kept: share of
the label 1 pairs which cosine alone serves at the same threshold. Intervals are Wilson's, 95 %.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import data
import generate
import quantize
from embedder import Embedder
from model import BaseModel, PairEncoder, Verifier, logits

RECALL = 0.35


@dataclass(frozen=True)
class Row:
    """A labelled pair with everything that decides about it."""

    label: int
    kind: str
    language: str
    template: str
    cosine: float
    is_allowed_normal: bool
    is_allowed_strict: bool
    logit: float
    """Infinite for equal canonical texts, minus infinite where a text is too long."""


Decision = Callable[[Row], bool]


def decisions(logit_min: float) -> dict[str, Decision]:
    """What may follow a cosine above the threshold."""
    return {
        "cosine": lambda row: True,
        "normal": lambda row: row.is_allowed_normal,
        "strict": lambda row: row.is_allowed_strict,
        "verifier": lambda row: row.logit >= logit_min,
        "normal + verifier": lambda row: row.is_allowed_normal and row.logit >= logit_min,
        "strict + verifier": lambda row: row.is_allowed_strict and row.logit >= logit_min,
    }


def wilson(successes: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if total == 0:
        return 0.0, 1.0
    share = successes / total
    centre = share + z * z / (2 * total)
    margin = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - margin) / scale), min(1.0, (centre + margin) / scale)


def percent(successes: int, total: int) -> str:
    """A share in per cent with its interval."""
    if total == 0:
        return "-"
    low, high = wilson(successes, total)
    return f"{100 * successes / total:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def is_in_half(template: str, half: str) -> bool:
    """Whether a template belongs to a half of the set of traps."""
    is_test = hashlib.sha256(f"likewise-split-1:{template}".encode()).digest()[0] % 2 == 0
    return half == ("test" if is_test else "dev")


def canonical_logits(
    verifier: Verifier, encoder: PairEncoder, pairs: Sequence[tuple[str, str]]
) -> list[float]:
    """Logits of canonical pairs, with the two cases that need no network."""
    result = [math.inf if a == b else -math.inf for a, b in pairs]
    judged = [i for i, pair in enumerate(pairs) if pair[0] != pair[1] and encoder.fits(*pair)]
    for i, logit in zip(judged, logits(verifier, encoder, [pairs[i] for i in judged])):
        result[i] = logit
    return result


def rows_of(
    raw: Sequence[dict], guard: str, verifier: Verifier, encoder: PairEncoder, embedder: Embedder
) -> list[Row]:
    """Judges labelled pairs {a, b, label} by cosine, rules and verifier."""
    cosines = embedder.cosines([(row["a"], row["b"]) for row in raw])
    guarded = data.run_guard(raw, guard)
    canonical = [(row["canonical_a"], row["canonical_b"]) for row in guarded]
    found = canonical_logits(verifier, encoder, canonical)
    return [
        Row(
            label=row["label"],
            kind=row.get("kind", ""),
            language=row.get("lang", ""),
            template=row.get("template", ""),
            cosine=cosine,
            is_allowed_normal=row["allowed"]["normal"],
            is_allowed_strict=row["allowed"]["strict"],
            logit=logit,
        )
        for row, cosine, logit in zip(guarded, cosines, found, strict=True)
    ]


def print_decisions(title: str, rows: Sequence[Row], threshold: float, logit_min: float) -> None:
    """Traps served and paraphrases kept for each decision."""
    print(f"\n{title}, cosine >= {threshold:g}\n")
    print("| decision | traps served % | paraphrases kept % |\n|---|---|---|")
    traps = sum(row.label == 0 for row in rows)
    candidates = [row for row in rows if row.cosine >= threshold]
    paraphrases = sum(row.label == 1 for row in candidates)
    for name, decide in decisions(logit_min).items():
        served = sum(row.label == 0 and decide(row) for row in candidates)
        kept = sum(row.label == 1 and decide(row) for row in candidates)
        print(f"| {name} | {percent(served, traps)} | {percent(kept, paraphrases)} |")


def print_kinds(rows: Sequence[Row], threshold: float, logit_min: float) -> None:
    """Served among the pairs that cosine serves, by kind and language."""
    chosen = decisions(logit_min)
    names = ("strict", "verifier", "strict + verifier")
    print(f"\nBy kind, served % of what cosine serves at >= {threshold:g}\n")
    print("| kind | language | pairs | " + " | ".join(names) + " |")
    print("|---" * (3 + len(names)) + "|")
    groups: dict[tuple[int, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.cosine >= threshold:
            groups[row.label, row.kind, row.language].append(row)
    for (_, kind, language), members in sorted(groups.items()):
        shares = [percent(sum(map(chosen[name], members)), len(members)) for name in names]
        print(f"| {kind} | {language} | {len(members)} | " + " | ".join(shares) + " |")


def precision_at_recall(rows: Sequence[Row], decide: Decision, recall: float) -> float:
    """Precision where rows by falling cosine, vetoed ones left out, reach a recall. 0 if never."""
    wanted = recall * sum(row.label for row in rows)
    right = 0
    ranked = sorted(filter(decide, rows), key=lambda row: -row.cosine)
    for rank, row in enumerate(ranked, 1):
        right += row.label
        if right >= wanted:
            return right / rank
    return 0.0


def held_out_rows(guard: str, verifier: Verifier, encoder: PairEncoder, seed: int) -> list[Row]:
    """Pairs of the frames that are held out of training. Cosine is left at 1."""
    judged = data.judge(generate.pairs(seed, held_out=True), guard)
    found = canonical_logits(verifier, encoder, [(row.first, row.second) for row in judged])
    return [
        Row(
            row.pair.label,
            *row.pair.source.rsplit("_", 1),
            "",
            1.0,
            row.is_allowed_normal,
            row.is_allowed_strict,
            logit,
        )
        for row, logit in zip(judged, found, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="folder of the embedding model")
    parser.add_argument("--guard", default="likewise guard", help="command that runs the rules")
    parser.add_argument("--prefix", default="", help="goes before a text that is embedded")
    parser.add_argument("--traps", type=Path, help="rows {a, b, label, kind, lang, template}")
    parser.add_argument("--half", choices=("dev", "test"), default="dev", help="of --traps")
    parser.add_argument("--pairs", type=Path, help="rows {a, b, label} of real questions")
    parser.add_argument("--threshold", type=float, nargs="+", default=[0.80, 0.85])
    parser.add_argument("--logit-min", type=float, help="instead of that of the weights")
    arguments = parser.parse_args()

    base = BaseModel.load(arguments.model)
    encoder = PairEncoder(arguments.model)
    verifier, metadata = quantize.load(arguments.weights, base)
    embedder = Embedder(base, encoder, arguments.prefix)
    logit_min = float(metadata["logit_min"])
    if arguments.logit_min is not None:
        logit_min = arguments.logit_min
    print(f"{arguments.weights.name}, logit_min {logit_min:g}")

    held_out = held_out_rows(arguments.guard, verifier, encoder, seed=1)
    print_decisions("Generated, frames held out of training", held_out, 0.0, logit_min)
    print_kinds(held_out, 0.0, logit_min)
    if arguments.traps:
        raw = [
            row
            for row in data.read_json_lines(arguments.traps)
            if is_in_half(row["template"], arguments.half)
        ]
        rows = rows_of(raw, arguments.guard, verifier, encoder, embedder)
        reworded = [row for row in rows if row.label == 1 or row.template.endswith("-x")]
        for threshold in arguments.threshold:
            for language in ("en", "es"):
                of_language = [row for row in rows if row.language == language]
                print_decisions(f"Traps, {language}", of_language, threshold, logit_min)
            print_decisions("Traps, both languages", rows, threshold, logit_min)
            print_decisions("Reworded traps (-x)", reworded, threshold, logit_min)
            print_kinds(rows, threshold, logit_min)
    if arguments.pairs:
        raw = list(data.read_json_lines(arguments.pairs))
        rows = rows_of(raw, arguments.guard, verifier, encoder, embedder)
        print(f"\nReal pairs ({len(rows)}), precision at recall {RECALL:g}\n")
        print("| decision | precision |\n|---|---|")
        for name, decide in decisions(logit_min).items():
            print(f"| {name} | {precision_at_recall(rows, decide, RECALL):.3f} |")


if __name__ == "__main__":
    main()
