"""The deafness check: does the model do better on a clip's own audio than on another clip's, or on silence?

A model can reach a fair loss by language alone. Only the difference between true and shuffled audio shows that it listens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from audiograft.data.shuffling import shuffle_clips
from audiograft.metrics.permutation import permutation_p_value
from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor
from audiograft.train.recipe import DEAF_P, MIN_DEAFNESS_CLIPS
from audiograft.train.rows import Row, load_clips
from audiograft.train.validation import score
from audiograft.types import DataError


@dataclass(frozen=True)
class Condition:
    """One row of the table: mean loss per answer token in nats, averaged over clips, and corpus WER."""

    audio: str
    loss: float
    wer: float


@dataclass(frozen=True)
class DeafnessReport:
    """What the check found.

    Attributes:
        conditions: true, shuffled, silence.
        p_value: of the permutation test that clips' losses on true audio are no lower than on shuffled audio.
        clips: number of clips.
        source: where they come from: validation or training.
    """

    conditions: tuple[Condition, ...]
    p_value: float
    clips: int
    source: str

    @property
    def deaf(self) -> bool:
        true, shuffled, _ = self.conditions
        return self.p_value >= DEAF_P or shuffled.wer <= true.wer

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"deaf": self.deaf}

    def verdict(self) -> str:
        """One line."""
        return f"{'deaf' if self.deaf else 'it listens'}: {self.clips} {self.source} clips, true against shuffled audio p = {self.p_value:.2g}"

    def table(self) -> Table:
        """For the terminal."""
        table = Table("audio", "loss", "WER")
        for condition in self.conditions:
            table.add_row(condition.audio, f"{condition.loss:.3f}", f"{condition.wer:.1%}")
        return table


def require_clips(heard: Sequence[Row], source: str) -> None:
    """Called before any time goes into training.

    Args:
        heard: rows with clips, of which some will be drawn.
        source: where they come from.

    Raises:
        DataError: they are too few for the check.
    """
    if len(heard) < MIN_DEAFNESS_CLIPS:
        raise DataError(
            f"{source} data has {len(heard)} usable rows with clips: the deafness check needs {MIN_DEAFNESS_CLIPS}; add some or set data.validation"
        )


def check_deafness(
    model: AudioGraftForConditionalGeneration,
    processor: AudioGraftProcessor,
    rows: Sequence[Row],
    source: str,
    permutations: int,
    seed: int,
) -> DeafnessReport:
    """Score rows on their own audio, on each other's, and on zeros of the same length.

    Args:
        model: in any mode; it is put in evaluation mode meanwhile.
        processor: its processor.
        rows: at least 8, with clips.
        source: where they come from, for the report.
        permutations: draws of the permutation test.
        seed: of the shuffling and of the test.
    """
    true = [load_clips(row) for row in rows]
    shuffled = shuffle_clips(true, seed)
    silence = [[np.zeros_like(clip) for clip in clips] for clips in true]
    scores = {name: score(model, processor, rows, audio) for name, audio in (("true", true), ("shuffled", shuffled), ("silence", silence))}
    return DeafnessReport(
        conditions=tuple(Condition(name, float(np.mean(item.losses)), item.wer) for name, item in scores.items()),
        p_value=permutation_p_value(scores["true"].losses, scores["shuffled"].losses, permutations, seed),
        clips=len(rows),
        source=source,
    )
