"""Whether weights look trained or random, from the weights alone.

The largest singular value of a matrix of independent entries is rms * (sqrt(rows) + sqrt(columns)), whatever their distribution (Marchenko and Pastur
1967; fluctuations: Tracy and Widom 1994), and so it is in all fresh linear layers here, scaled or not. Gradients add few strong directions, which
rise above that edge. Norms begin with equal weights and zero biases, and the first step changes that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

_VECTORS, _ITERATIONS = 4, 30


@dataclass(frozen=True)
class Verdict:
    """What the weights of a projector say.

    Attributes:
        trained: whether any of the signs below was found.
        edge: by matrix: its largest singular value over that of a random matrix of its shape and size; 1 where random.
        threshold: by matrix: the `edge` above which it counts as trained.
        norms: by weight or bias of a norm: whether it has left its start.
    """

    trained: bool
    edge: dict[str, float]
    threshold: dict[str, float]
    norms: dict[str, bool]


def spectral_edge(matrix: Tensor) -> float:
    """Largest singular value over rms * (sqrt(rows) + sqrt(columns)): 1 for random entries, up to sqrt(smaller dimension) / 2 for rank one.

    Args:
        matrix: (rows, columns). A matrix of zeros gives 0.
    """
    matrix = matrix.float()
    rms = float(matrix.pow(2).mean().sqrt())
    if rms == 0:
        return 0.0
    # Subspace iteration: an SVD of the largest projectors takes minutes. It errs to the low side, by less than 3 % where all values are alike.
    vectors = torch.randn(matrix.shape[1], min(_VECTORS, *matrix.shape), generator=torch.Generator().manual_seed(0))
    for _ in range(_ITERATIONS):
        vectors = torch.linalg.qr(matrix.T @ (matrix @ vectors)).Q
    largest = float(torch.linalg.svdvals(matrix @ vectors)[0])
    return largest / (rms * (math.sqrt(matrix.shape[0]) + math.sqrt(matrix.shape[1])))


def edge_threshold(rows: int, columns: int) -> float:
    """What a random matrix of this shape hardly ever reaches: the fluctuations of its edge shrink with the smaller dimension to the power -2/3."""
    return 1.02 + math.pow(min(rows, columns), -2 / 3)


def judge(tensors: Iterable[tuple[str, Tensor]]) -> Verdict:
    """Judge a projector.

    Args:
        tensors: its weights, by name: matrices of linear layers, and vectors, those of norms having "ln" or "norm" in their names.
    """
    edge: dict[str, float] = {}
    threshold: dict[str, float] = {}
    norms: dict[str, bool] = {}
    for name, tensor in tensors:
        layer, _, kind = name.rpartition(".")
        last = layer.rpartition(".")[2].lower()
        if tensor.dim() == 2 and min(tensor.shape) > 1:
            edge[name] = round(spectral_edge(tensor), 3)
            threshold[name] = round(edge_threshold(*tensor.shape), 3)
        elif tensor.dim() == 1 and ("norm" in last or last.startswith("ln")):
            # Scaled to the embeddings' loudness, a fresh norm's weights are still all alike.
            norms[name] = bool(tensor.abs().max() > 0) if kind == "bias" else bool(tensor.max() != tensor.min())
    trained = any(edge[name] > threshold[name] for name in edge) or any(norms.values())
    return Verdict(trained, edge, threshold, norms)
