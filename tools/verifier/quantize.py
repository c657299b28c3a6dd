"""The weights file: matrices as int8 with a scale for each row, vectors as f32.

As a command it changes `logit_min` of a weights file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from model import BaseModel, Verifier

FORMAT = "likewise-verifier-1"


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix as int8 and the scale of each row: weight is about int8 x scale."""
    scale = weight.abs().amax(dim=1) / 127.0
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return torch.round(weight / scale[:, None]).to(torch.int8), scale


def pack(model: Verifier) -> dict[str, Tensor]:
    """The tensors of the weights file."""
    tensors = {}
    for name, parameter in model.named_parameters():
        values = parameter.detach().float()
        if values.dim() == 2:
            tensors[name], tensors[f"{name}.scale"] = quantize_rows(values)
        else:
            tensors[name] = values.clone()
    return tensors


def save(path: Path, model: Verifier, metadata: dict[str, str]) -> None:
    """Writes the weights file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(pack(model), path, metadata={"format": FORMAT, **metadata})


def set_logit_min(path: Path, logit_min: float) -> None:
    """Rewrites a weights file with another `logit_min`."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    save_file(tensors, path, metadata=metadata | {"logit_min": str(logit_min)})


def load(path: Path, base: BaseModel) -> tuple[Verifier, dict[str, str]]:
    """Reads a weights file and widens it to f32. Returns the network and the metadata."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if metadata["format"] != FORMAT:
        raise ValueError(f"{path}: format {metadata['format']}, expected {FORMAT}")
    if metadata["words_sha256"] != base.words_sha256:
        raise ValueError(f"{path} belongs to other word embeddings than those of {base.name}")
    model = Verifier(base, layers=int(metadata["layers"]))
    state = {}
    for name, _ in model.named_parameters():
        values = tensors[name]
        if values.dtype == torch.int8:
            values = values.float() * tensors[f"{name}.scale"][:, None]
        state[name] = values
    model.load_state_dict(state)
    return model.eval(), metadata


def main() -> None:
    parser = argparse.ArgumentParser(description="Changes logit_min of a weights file.")
    parser.add_argument("weights", type=Path)
    parser.add_argument("--logit-min", type=float, required=True, help="veto below this logit")
    arguments = parser.parse_args()
    set_logit_min(arguments.weights, arguments.logit_min)


if __name__ == "__main__":
    main()
