"""What a prompt is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from audiograft.prompt_search.optimisers import Scored

CONDITION_WEIGHT, LENGTH_WEIGHT = 0.25, 0.05
"""System C's."""


@dataclass(frozen=True)
class Reward:
    """Balanced accuracy per clip, that averaged over conditions times a weight, less a weight for each 100 characters.

    Balanced accuracy is the mean of the classes' recalls; in a condition without clips of some class, of those that it has. The likeliest answer
    counts, whatever threshold was fitted for another prompt.

    Attributes:
        labels: of the columns of the scores.
        truths: the label of each clip.
        conditions: of each clip, anything by which equal ones are told, such as duration and SNR.
        condition_weight: of the average over conditions.
        length_weight: of 100 characters.
    """

    labels: Sequence[str]
    truths: Sequence[str]
    conditions: Sequence[str]
    condition_weight: float = CONDITION_WEIGHT
    length_weight: float = LENGTH_WEIGHT
    _truths: npt.NDArray[np.int64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_truths", np.array([self.labels.index(label) for label in self.truths]))

    def score(self, prompt: str, scores: npt.NDArray[np.float64], round_number: int) -> Scored:
        """What a prompt reached.

        Args:
            prompt: that was tried.
            scores: (clips, labels), the higher the likelier.
            round_number: in which it was proposed.
        """
        right = scores.argmax(axis=1) == self._truths
        recalls = self._recalls(right)
        cells = np.array(self.conditions)
        by_condition = [float(np.mean(list(self._recalls(right, cells == cell).values()))) for cell in np.unique(cells)]
        balanced, average = float(np.mean(list(recalls.values()))), float(np.mean(by_condition))
        reward = balanced + self.condition_weight * average - self.length_weight * len(prompt) / 100
        return Scored(prompt, reward, balanced, average, recalls, round_number)

    def _recalls(self, right: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_] | None = None) -> Mapping[str, float]:
        """By label, the share of its clips that are right, of the labels that there are."""
        chosen = np.ones(len(right), dtype=bool) if among is None else among
        present = {label: chosen & (self._truths == column) for column, label in enumerate(self.labels)}
        return {label: float(right[clips].mean()) for label, clips in present.items() if clips.any()}
