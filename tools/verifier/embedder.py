"""Sentence embeddings of the base model: all layers, mean pooling, unit length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model import BaseModel, Layer, PairEncoder

TEXT_TOKENS_MAX = 126


class Embedder:
    """Embeds raw texts in f32. `prefix` goes before each text, for models that ask for one."""

    def __init__(self, base: BaseModel, encoder: PairEncoder, prefix: str = "") -> None:
        self.base = base
        self.encoder = encoder
        self.prefix = prefix
        self.layers = []
        while (start := f"encoder.layer.{len(self.layers)}.") + "output.dense.bias" in base.weights:
            layer = Layer(base)
            layer.load_state_dict(
                {
                    name.removeprefix(start): values
                    for name, values in base.weights.items()
                    if name.startswith(start)
                }
            )
            self.layers.append(layer.eval())

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], batch: int = 64) -> np.ndarray:
        """Embeddings, one row a text, in the order given."""
        tokens = [
            [
                self.encoder.first,
                *self.encoder.tokens(self.prefix + text)[:TEXT_TOKENS_MAX],
                self.encoder.separator,
            ]
            for text in texts
        ]
        by_length = sorted(range(len(texts)), key=lambda row: len(tokens[row]))
        result = np.zeros((len(texts), self.base.hidden), np.float32)
        for start in range(0, len(texts), batch):
            rows = by_length[start : start + batch]
            result[rows] = self._embed_batch([tokens[row] for row in rows]).numpy()
        return result

    def _embed_batch(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        longest = max(map(len, tokens))
        ids = torch.zeros(len(tokens), longest, dtype=torch.long)
        mask = torch.zeros(len(tokens), longest)
        for row, text in enumerate(tokens):
            ids[row, : len(text)] = torch.tensor(text)
            mask[row, : len(text)] = 1
        weights = self.base.weights
        x = F.embedding(ids, weights["embeddings.word_embeddings.weight"])
        x = x + weights["embeddings.position_embeddings.weight"][:longest]
        x = x + weights["embeddings.token_type_embeddings.weight"][0]
        x = F.layer_norm(
            x,
            (self.base.hidden,),
            weights["embeddings.LayerNorm.weight"],
            weights["embeddings.LayerNorm.bias"],
            self.base.epsilon,
        )
        for layer in self.layers:
            x = layer(x, mask[:, None, None, :].bool(), 0.0)
        mean = (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        return F.normalize(mean, dim=1)

    def cosines(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Cosine of each pair of texts."""
        texts = sorted({text for pair in pairs for text in pair})
        row = {text: number for number, text in enumerate(texts)}
        vectors = self.embed(texts)
        return [float(vectors[row[a]] @ vectors[row[b]]) for a, b in pairs]
