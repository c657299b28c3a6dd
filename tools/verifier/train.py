"""Trains the verifier and writes its weights. See README.md for the command."""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import data
import generate
import quantize
from model import LAYERS, TEXT_TOKENS_MAX, BaseModel, PairEncoder, Verifier, collate, logits

BATCH = 32
LEARNING_RATE = 2e-4
HEAD_RATE_FACTOR = 5.0
"""The head and the marks start from nothing and learn faster."""
WARM_UP_SHARE = 0.05
DROPOUT = 0.1
LABEL_SMOOTHING = 0.01
EPOCHS = 2.5
SOURCES = (
    "own frames and mutations (CC0-1.0); CLINC150 (CC BY 3.0); HWU64 (CC BY 4.0); "
    "SLURP texts (CC BY 4.0); PAWS-Wiki (free for any purpose)"
)


def training_pairs(data_dir: Path, seed: int) -> list[data.Pair]:
    """All pairs that may be trained on: those of both files and the generated ones."""
    pairs = []
    for name in ("pairs.jsonl.gz", "pairs_forms.jsonl.gz"):
        pairs += data.read_pairs(data_dir / name)
    hosts = [pair for pair in pairs if pair.label == 1 and pair.source != "paws"]
    return pairs + generate.pairs(seed, hosts)


def optimizer_for(model: Verifier) -> torch.optim.Optimizer:
    """AdamW with one learning rate for the encoder and a higher one for what is new."""
    new, pretrained = [], []
    for name, parameter in model.named_parameters():
        is_new = name.startswith("head.") or name.startswith("embeddings.marks.")
        (new if is_new else pretrained).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": pretrained, "rate": LEARNING_RATE},
            {"params": new, "rate": LEARNING_RATE * HEAD_RATE_FACTOR},
        ],
        lr=LEARNING_RATE,
        weight_decay=0.01,
        fused=True,
    )


def train(
    model: Verifier,
    examples: list[data.Example],
    encoder: PairEncoder,
    seed: int,
    minutes: float,
) -> None:
    """Trains in place. The learning rate falls to zero over the epochs or the time, if shorter."""
    rng = random.Random(seed)
    optimizer = optimizer_for(model)
    steps = int(EPOCHS * len(examples) / BATCH)
    started = time.monotonic()
    step, recent = 0, []
    model.train()
    while True:
        for encoded, labels, weights in data.epoch(examples, encoder, BATCH, rng):
            minutes_spent = (time.monotonic() - started) / 60
            done = max(step / steps, minutes_spent / minutes)
            if done >= 1:
                return
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * min(1.0, done / WARM_UP_SHARE) * (1.0 - done)
            # On short texts the plain attention takes a quarter less time than the fused one.
            with sdpa_kernel(SDPBackend.MATH):
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    found = model(collate(encoded), DROPOUT)
                target = torch.tensor(labels) * (1 - 2 * LABEL_SMOOTHING) + LABEL_SMOOTHING
                loss = F.binary_cross_entropy_with_logits(
                    found.float(), target, weight=torch.tensor(weights)
                )
                optimizer.zero_grad()
                loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            recent.append(loss.item())
            if step % 200 == 0:
                print(
                    f"step {step} of {steps}, loss {sum(recent) / len(recent):.4f}, "
                    f"{step * BATCH / (minutes_spent * 60):.0f} pairs/s, "
                    f"{minutes_spent:.1f} minutes",
                    flush=True,
                )
                recent.clear()


def print_agreement(
    model: Verifier, stored: Verifier, encoder: PairEncoder, pairs: list[tuple[str, str]]
) -> None:
    """How far the int8 weights are from the trained ones on pairs that were not trained on."""
    model.eval()
    exact = torch.tensor(logits(model, encoder, pairs))
    rounded = torch.tensor(logits(stored, encoder, pairs))
    equal = ((exact >= 0) == (rounded >= 0)).float().mean().item()
    difference = (exact - rounded).abs()
    print(
        f"int8 against f32 on {len(pairs)} pairs: {100 * equal:.2f} % equal decisions at 0, "
        f"logits differ by {difference.mean().item():.4f}, at most {difference.max().item():.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the pair files")
    parser.add_argument("--model", type=Path, required=True, help="folder of the embedding model")
    parser.add_argument("--guard", default="likewise guard", help="command that runs the rules")
    parser.add_argument("--out", type=Path, required=True, help="weights file to write")
    parser.add_argument("--init", type=Path, help="weights file to go on from")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=40.0, help="limit of the training time")
    parser.add_argument("--logit-min", type=float, default=0.0, help="veto below this logit")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    base = BaseModel.load(arguments.model)
    encoder = PairEncoder(arguments.model)
    judged = data.judge(training_pairs(arguments.data, arguments.seed), arguments.guard)
    examples = data.select(judged, encoder, arguments.seed)
    same = sum(example.label for example in examples)
    print(f"{len(examples)} pairs, {same} of them with one answer", flush=True)

    model = quantize.load(arguments.init, base)[0] if arguments.init else Verifier(base)
    train(model, examples, encoder, arguments.seed, arguments.minutes)
    quantize.save(
        arguments.out,
        model,
        {
            "model": base.name,
            "words_sha256": base.words_sha256,
            "tokenizer_sha256": base.tokenizer_sha256,
            "layers": str(LAYERS),
            "heads": str(base.heads),
            "hidden": str(base.hidden),
            "text_tokens_max": str(TEXT_TOKENS_MAX),
            "logit_min": str(arguments.logit_min),
            "languages": "en,es",
            "sources": SOURCES,
            "seed": str(arguments.seed),
            "licence": "Apache-2.0",
        },
    )
    print(f"wrote {arguments.out}", flush=True)
    unseen = data.judge(generate.pairs(arguments.seed, held_out=True), arguments.guard)
    stored, _ = quantize.load(arguments.out, base)
    print_agreement(model, stored, encoder, [(row.first, row.second) for row in unseen])


if __name__ == "__main__":
    main()
