"""Loss that weighs rows by their class, and those that are right already less: class weights and focal loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from audiograft.model.outputs import IGNORE_INDEX
from audiograft.train.detection import DetectionRecipe
from audiograft.train.rows import Row
from audiograft.types import DataError


def focal_loss(logits: Tensor, targets: Tensor, weights: Tensor, gamma: float) -> Tensor:
    """Sum of -weight (1 - p)^gamma log p over tokens, p being the probability of the target: Lin et al. 2017, arXiv:1708.02002, eq. 5.

    Args:
        logits: (tokens, vocabulary).
        targets: (tokens,) ids.
        weights: (tokens,), the alpha of the paper.
        gamma: 0 or more; 0 is cross-entropy.
    """
    nats = nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    if gamma:
        # 1 - p without the rounding of p near 1, and off 0, where a gamma below 1 has no gradient.
        nats = (-torch.expm1(-nats)).clamp(min=torch.finfo(nats.dtype).tiny) ** gamma * nats
    return (weights * nats).sum()


def weighed(model: Any, classes: Sequence[str | None], weights: Mapping[str, float], gamma: float) -> Callable[..., Any]:
    """The model with this loss in place of its own, divided as its own is: by the number of labelled tokens.

    Args:
        model: as the Trainer calls it.
        classes: the label of each row of the batch. A row of None weighs 1, without the focal factor.
        weights: of each label; 1 where one has none.
        gamma: see `focal_loss`.
    """

    def weighing(num_items_in_batch: Tensor | int | None = None, **batch: Any) -> Any:
        output = model(**batch, num_items_in_batch=num_items_in_batch)
        shifted = batch["labels"][:, 1:]
        row_of, _ = torch.where(shifted != IGNORE_INDEX)
        targets = shifted[shifted != IGNORE_INDEX]
        of_row = torch.tensor([1.0 if name is None else weights.get(name, 1.0) for name in classes], device=targets.device)[row_of]
        classed = torch.tensor([name is not None for name in classes], device=targets.device)[row_of]
        parts = ((classed, gamma), (~classed, 0.0))
        loss = torch.stack([focal_loss(output.logits[part], targets[part], of_row[part], own) for part, own in parts]).sum()
        output["loss"] = loss / (max(len(targets), 1) if num_items_in_batch is None else num_items_in_batch)
        return output

    return weighing


def class_weights(detection: DetectionRecipe, rows: Iterable[Row]) -> dict[str, float]:
    """The weight of each label.

    Args:
        detection: of the recipe.
        rows: of an epoch, for `balanced`: a label with n of N rows then weighs N / (labels x n), so that the mean over rows is 1.

    Raises:
        DataError: no row has one of the labels.
    """
    if detection.class_weights is None:
        return {}
    if not isinstance(detection.class_weights, str):
        return dict(detection.class_weights)
    counts = Counter(row.label for row in rows if row.label is not None)
    for label in detection.answers:
        if not counts[label]:
            raise DataError(f"data.train has no row with the label {label}, which detection.class_weights: balanced would weigh: add some")
    total = sum(counts[label] for label in detection.answers)
    return {label: total / (len(detection.answers) * counts[label]) for label in detection.answers}
