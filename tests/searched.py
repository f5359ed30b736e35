"""A model that is all ears for one word, for searches of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass
class WordScorer:
    """Has six clips in ten of each class right, and nine in ten where the prompt has the word.

    Attributes:
        truths: label of each clip, SPEECH or not.
        word: that helps.
        asked: the prompts that were scored.
        die_after: prompts after which the process dies; None for never.
    """

    truths: Sequence[str]
    word: str = "carefully"
    asked: list[str] = field(default_factory=list)
    die_after: int | None = None

    def __call__(self, prompt: str) -> npt.NDArray[np.float64]:
        if len(self.asked) == self.die_after:
            raise KeyboardInterrupt
        self.asked.append(prompt)
        is_first = np.array([truth == "SPEECH" for truth in self.truths])
        places = np.array([sum(other == truth for other in self.truths[:place]) for place, truth in enumerate(self.truths)])
        says_first = is_first ^ (places % 10 >= (9 if self.word in prompt else 6))
        return np.log(np.where(says_first[:, None], [0.8, 0.2], [0.2, 0.8]))
