"""The deafness check: does the model do better on a clip's own audio than on another clip's, or on silence?

A model can reach a fair loss by language alone. Only the difference between true and shuffled audio shows that it listens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from audiograft.data.shuffling import shuffle_clips, swap_classes
from audiograft.inference.choices import ClosedQuestion
from audiograft.metrics.permutation import permutation_p_value
from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor
from audiograft.train.recipe import DEAF_P, MIN_DEAFNESS_CLIPS
from audiograft.train.rows import Row, Waveform, load_clips
from audiograft.train.validation import asks, score
from audiograft.types import DataError


@dataclass(frozen=True)
class Condition:
    """One row of the table: mean loss per answer token in nats, averaged over clips; corpus WER, and accuracy on rows to be classified."""

    audio: str
    loss: float
    wer: float | None
    accuracy: float | None = None


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
        # Which of the two there is depends on the rows, which are the same in all conditions.
        better = ((shuffled.wer, true.wer), (true.accuracy, shuffled.accuracy))
        return self.p_value >= DEAF_P or any(more <= less for more, less in better if more is not None and less is not None)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"deaf": self.deaf}

    def verdict(self) -> str:
        """One line."""
        return f"{'deaf' if self.deaf else 'it listens'}: {self.clips} {self.source} clips, true against shuffled audio p = {self.p_value:.2g}"

    def table(self) -> Table:
        """For the terminal."""
        shares = {name: key for name, key in (("WER", "wer"), ("accuracy", "accuracy")) if getattr(self.conditions[0], key) is not None}
        table = Table("audio", "loss", *shares)
        for condition in self.conditions:
            table.add_row(condition.audio, f"{condition.loss:.3f}", *(f"{getattr(condition, key):.1%}" for key in shares.values()))
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
    question: ClosedQuestion | None = None,
) -> DeafnessReport:
    """Score rows on their own audio, on each other's, and on zeros of the same length.

    Rows that are answers to a closed question get the clip of a row with another answer: of clips that keep their answer, half of all where there are
    two, neither loss nor accuracy could show anything.

    Args:
        model: in any mode; it is put in evaluation mode meanwhile.
        processor: its processor.
        rows: at least 8, with clips.
        source: where they come from, for the report.
        permutations: draws of the permutation test.
        seed: of the shuffling and of the test.
        question: closed, that labels answer; see `audiograft.train.validation.score`.
    """
    true = [load_clips(row) for row in rows]
    shuffled = _shuffled(true, [row.label if asks(row, question) else None for row in rows], seed)
    silence = [[np.zeros_like(clip) for clip in clips] for clips in true]
    scores = {name: score(model, processor, rows, audio, question) for name, audio in (("true", true), ("shuffled", shuffled), ("silence", silence))}
    return DeafnessReport(
        conditions=tuple(Condition(name, float(np.mean(item.losses)), item.wer, item.accuracy) for name, item in scores.items()),
        p_value=permutation_p_value(scores["true"].losses, scores["shuffled"].losses, permutations, seed),
        clips=len(rows),
        source=source,
    )


def _shuffled(clips: Sequence[Sequence[Waveform]], labels: Sequence[str | None], seed: int) -> list[list[Waveform]]:
    """The clips of each row given to another one: rows with a label among themselves, so that the label is another, and the others likewise."""
    shuffled: dict[int, list[Waveform]] = {}
    named = [label for label in labels if label is not None]
    for classed in (True, False):
        rows = [number for number, label in enumerate(labels) if (label is not None) == classed]
        own = [clips[number] for number in rows]
        # Where there is one class alone, no clip has another answer.
        others = swap_classes(own, named, seed) if classed and len(set(named)) > 1 else shuffle_clips(own, seed)
        shuffled.update(zip(rows, others, strict=True))
    return [shuffled[number] for number in range(len(clips))]
