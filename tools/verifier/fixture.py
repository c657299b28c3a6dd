"""Writes pairs with the verifier's exact input and logits, for tests of other implementations."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import data
import quantize
from model import BaseModel, PairEncoder, logits

PAIRS = [
    ("equal", "How do I reset my password?", "how do i reset my password"),
    ("hit", "How long does delivery to Lisbon take?", "When will a parcel to Lisbon arrive?"),
    ("hit", "Can I pay with two cards?", "Is it possible to use 2 cards for one payment?"),
    ("hit", "The app isn't loading", "my app does not load"),
    ("hit", "Please cancel order B-5521", "I want you to cancel order B-5521"),
    ("hit", "¿Cuánto cuesta enviar 5 kg a Oporto?", "¿Qué precio tiene mandar 5000 g a Oporto?"),
    (
        "hit",
        "¿Cómo cambio mi dirección de envío?",
        "quiero saber cómo modificar la dirección de envío",
    ),
    ("trap", "How do I pause my subscription?", "How do I cancel my subscription?"),
    ("trap", "Does the buyer pay the seller's fee?", "Does the seller pay the buyer's fee?"),
    ("trap", "Is the Canon X200 waterproof?", "Is the Canon X200 Pro waterproof?"),
    ("trap", "What is the fee for 3 transfers?", "What is the fee for 30 transfers?"),
    ("trap", "¿Puedo viajar con mi perro?", "¿Puedo viajar sin mi perro?"),
    ("trap", "¿Cuál es el vuelo de Bilbao a Sevilla?", "¿Cuál es el vuelo de Sevilla a Bilbao?"),
    ("unlike", "What time do you open on Friday?", "Translate this letter into German"),
    ("one word", "refund", "devolución"),
    (
        "long",
        "I bought a washing machine from you in the spring and since last week it makes a very "
        "loud noise when it spins, so I would like to know whether a technician can come to my "
        "house and what a visit costs",
        "Since last week the washing machine that I bought from you in the spring is very loud "
        "while spinning. Can you send a technician to my house, and what does the visit cost?",
    ),
    (
        "too long",
        "I bought a washing machine from you in the spring and since last week it makes a very "
        "loud noise when it spins, so I would like to know whether a technician can come to my "
        "house, what a visit costs, and whether I could get a new machine instead of a repair "
        "because this is already the third time that the same machine has broken down on us",
        "My washing machine is loud",
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="folder of the embedding model")
    parser.add_argument("--guard", default="likewise guard", help="command that runs the rules")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    base = BaseModel.load(arguments.model)
    encoder = PairEncoder(arguments.model)
    verifier, metadata = quantize.load(arguments.weights, base)
    rows = []
    guarded = data.run_guard(
        ({"kind": kind, "a": a, "b": b} for kind, a, b in PAIRS), arguments.guard
    )
    for row in guarded:
        cached, question = row["canonical_a"], row["canonical_b"]
        fixture = {
            "kind": row["kind"],
            "a": row["a"],
            "b": row["b"],
            "canonical_a": cached,
            "canonical_b": question,
        }
        if encoder.fits(cached, question):
            fixture |= encoder.encode(cached, question)._asdict()
            [logit] = logits(verifier, encoder, [(cached, question)])
            fixture["logit"] = round(logit, 6)
        else:
            fixture["logit"] = None
        rows.append(fixture)
    document = {
        "description": "logit is null where a text is too long to be judged",
        "model": metadata["model"],
        "weights_sha256": hashlib.sha256(arguments.weights.read_bytes()).hexdigest(),
        "logit_min": float(metadata["logit_min"]),
        "pairs": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in document.pop("pairs")]
    head = json.dumps(document, ensure_ascii=False)[:-1]
    text = head + ', "pairs": [\n' + ",\n".join(lines) + "\n]}\n"
    json.loads(text)
    arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
