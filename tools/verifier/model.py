"""The verifier's network: the first layers of a BERT encoder that reads two texts at once.

Input is `[CLS] cached [SEP] question [SEP]`, both texts in canonical form. The word embeddings
belong to the embedding model and stay frozen, so they are not part of the verifier's weights.
Every other parameter starts from the embedding model, is trained, and has the name that it has in
the weights file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

LAYERS = 3
TEXT_TOKENS_MAX = 48
"""Tokens of one text. A pair with a longer text is not judged."""

POSITIONS = 128
"""Rows of the position table that are kept. A pair has at most 2 x 48 + 3 tokens."""

HEAD_UNITS = 128

MARK_OTHER = 0
MARK_SHARED = 1
"""The token occurs in the other text too, or is a special token."""
MARK_DIGIT_DIFFERS = 2
"""The token contains a digit and does not occur in the other text."""


class EncodedPair(NamedTuple):
    """One pair as token ids, token types (0 first text, 1 second text) and marks."""

    ids: list[int]
    types: list[int]
    marks: list[int]


class Batch(NamedTuple):
    """Encoded pairs, padded with zeros. Each tensor: pairs x tokens."""

    ids: Tensor
    types: Tensor
    marks: Tensor
    mask: Tensor


class PairEncoder:
    """Turns two texts into the verifier's input. Token ids of a text are computed once."""

    def __init__(self, model_dir: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        special = self.tokenizer.encode("a").ids
        self.first, self.separator = special[0], special[-1]
        vocabulary = self.tokenizer.get_vocab()
        self.with_digit = {
            token_id for token, token_id in vocabulary.items() if any(c.isdigit() for c in token)
        }
        self._tokens: dict[str, list[int]] = {}

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text without special tokens, not truncated."""
        if text not in self._tokens:
            self._tokens[text] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return self._tokens[text]

    def fits(self, *texts: str) -> bool:
        """Whether every text has between 1 and `TEXT_TOKENS_MAX` tokens."""
        return all(0 < len(self.tokens(text)) <= TEXT_TOKENS_MAX for text in texts)

    def encode(self, first: str, second: str) -> EncodedPair:
        """The pair as input of the network. Texts are cut to `TEXT_TOKENS_MAX` tokens."""
        a = self.tokens(first)[:TEXT_TOKENS_MAX]
        b = self.tokens(second)[:TEXT_TOKENS_MAX]
        return EncodedPair(
            ids=[self.first, *a, self.separator, *b, self.separator],
            types=[0] * (len(a) + 2) + [1] * (len(b) + 1),
            marks=[
                MARK_SHARED,
                *self._marks(a, set(b)),
                MARK_SHARED,
                *self._marks(b, set(a)),
                MARK_SHARED,
            ],
        )

    def _marks(self, tokens: Sequence[int], other: set[int]) -> list[int]:
        def mark(token: int) -> int:
            if token in other:
                return MARK_SHARED
            return MARK_DIGIT_DIFFERS if token in self.with_digit else MARK_OTHER

        return [mark(token) for token in tokens]


def collate(pairs: Sequence[EncodedPair]) -> Batch:
    """Pads encoded pairs to the longest of them."""
    longest = max(len(pair.ids) for pair in pairs)
    ids, types, marks, mask = torch.zeros(4, len(pairs), longest, dtype=torch.long)
    for row, pair in enumerate(pairs):
        length = len(pair.ids)
        ids[row, :length] = torch.tensor(pair.ids)
        types[row, :length] = torch.tensor(pair.types)
        marks[row, :length] = torch.tensor(pair.marks)
        mask[row, :length] = 1
    return Batch(ids, types, marks, mask)


@dataclass(frozen=True)
class BaseModel:
    """What the verifier needs of the embedding model."""

    name: str
    heads: int
    hidden: int
    intermediate: int
    epsilon: float
    weights: dict[str, Tensor]
    words_sha256: str
    tokenizer_sha256: str

    @classmethod
    def load(cls, model_dir: Path) -> BaseModel:
        """Reads `config.json`, `model.safetensors` and the hash of `tokenizer.json`."""
        config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
        weights = {
            name.removeprefix("bert."): tensor.float()
            for name, tensor in load_file(model_dir / "model.safetensors").items()
            if tensor.is_floating_point()
        }
        words = weights["embeddings.word_embeddings.weight"].contiguous()
        return cls(
            name=model_dir.resolve().name,
            heads=config["num_attention_heads"],
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            epsilon=config["layer_norm_eps"],
            weights=weights,
            words_sha256=hashlib.sha256(words.numpy().astype("<f4").tobytes()).hexdigest(),
            tokenizer_sha256=hashlib.sha256(
                (model_dir / "tokenizer.json").read_bytes()
            ).hexdigest(),
        )


class Layer(nn.Module):
    """One encoder layer of BERT: attention, then two dense layers, each with a residual sum."""

    def __init__(self, base: BaseModel) -> None:
        super().__init__()
        hidden, intermediate = base.hidden, base.intermediate
        self.heads = base.heads
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict(
                    {name: nn.Linear(hidden, hidden) for name in ("query", "key", "value")}
                ),
                "output": _residual(hidden, hidden, base.epsilon),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(hidden, intermediate)})
        self.output = _residual(intermediate, hidden, base.epsilon)

    def forward(self, x: Tensor, mask: Tensor, dropout: float) -> Tensor:
        pairs, tokens, hidden = x.shape
        query, key, value = (
            self.attention["self"][name](x)
            .view(pairs, tokens, self.heads, hidden // self.heads)
            .transpose(1, 2)
            for name in ("query", "key", "value")
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        attended = attended.transpose(1, 2).reshape(pairs, tokens, hidden)
        x = _add(x, attended, self.attention["output"], dropout)
        inner = F.gelu(self.intermediate["dense"](x))
        return _add(x, inner, self.output, dropout)


def _residual(inputs: int, outputs: int, epsilon: float) -> nn.ModuleDict:
    return nn.ModuleDict(
        {"dense": nn.Linear(inputs, outputs), "LayerNorm": nn.LayerNorm(outputs, epsilon)}
    )


def _add(x: Tensor, inner: Tensor, output: nn.ModuleDict, dropout: float) -> Tensor:
    return output["LayerNorm"](x + F.dropout(output["dense"](inner), dropout))


class Verifier(nn.Module):
    """The whole network. `forward` returns one logit a pair; high means "same question"."""

    def __init__(self, base: BaseModel, layers: int = LAYERS) -> None:
        super().__init__()
        hidden = base.hidden
        self.words = base.weights["embeddings.word_embeddings.weight"]
        self.embeddings = nn.ModuleDict(
            {
                "position_embeddings": nn.Embedding(POSITIONS, hidden),
                "token_type_embeddings": nn.Embedding(2, hidden),
                "marks": nn.Embedding(3, hidden),
                "LayerNorm": nn.LayerNorm(hidden, base.epsilon),
            }
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(base) for _ in range(layers))})
        self.head = nn.ModuleDict(
            {"inner": nn.Linear(5 * hidden, HEAD_UNITS), "output": nn.Linear(HEAD_UNITS, 1)}
        )
        nn.init.zeros_(self.embeddings["marks"].weight)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name in base.weights:
                    parameter.copy_(base.weights[name][: parameter.shape[0]])

    def forward(self, batch: Batch, dropout: float = 0.0) -> Tensor:
        words = F.embedding(batch.ids, self.words)
        positions = self.embeddings["position_embeddings"].weight[: batch.ids.shape[1]]
        x = words + positions
        x = x + self.embeddings["token_type_embeddings"](batch.types)
        x = x + self.embeddings["marks"](batch.marks)
        x = F.dropout(self.embeddings["LayerNorm"](x), dropout)
        mask = batch.mask[:, None, None, :].bool()
        for layer in self.encoder["layer"]:
            x = layer(x, mask, dropout)
        first = _mean(x, batch.mask * (1 - batch.types))
        second = _mean(x, batch.mask * batch.types)
        pooled = torch.cat([x[:, 0], first, second, (first - second).abs(), first * second], dim=1)
        inner = F.dropout(F.gelu(self.head["inner"](pooled)), dropout)
        return self.head["output"](inner).squeeze(1)


def _mean(x: Tensor, selected: Tensor) -> Tensor:
    """Mean over the selected tokens. The special tokens of a type count as its tokens."""
    weights = selected.to(x.dtype)[:, :, None]
    return (x * weights).sum(1) / weights.sum(1)


@torch.inference_mode()
def logits(
    model: Verifier, encoder: PairEncoder, pairs: Sequence[tuple[str, str]], batch: int = 64
) -> list[float]:
    """Logits of (cached, question) pairs of canonical texts, in f32, in the order given."""
    encoded = [encoder.encode(first, second) for first, second in pairs]
    by_length = sorted(range(len(pairs)), key=lambda row: len(encoded[row].ids))
    result = [0.0] * len(pairs)
    for start in range(0, len(pairs), batch):
        rows = by_length[start : start + batch]
        for row, logit in zip(rows, model(collate([encoded[r] for r in rows])).tolist()):
            result[row] = logit
    return result
