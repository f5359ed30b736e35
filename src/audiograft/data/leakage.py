"""The leakage gate: what training data and test data share, from the traces of both.

Shared are speakers, recordings, texts, and audio: the same samples, or near copies by their fingerprints. Speakers and recordings are the same where
their names are, unless both rows name a corpus and these differ: speaker 19 of one corpus is nobody in another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from audiograft.data.fingerprint import Index
from audiograft.data.manifest import find_manifest
from audiograft.data.traces import SHORT_TEXT_BYTES, ClipTrace, Trace, TraceWriter, are_complete, read_traces, traces_of
from audiograft.types import DataError

LEAKAGE_KINDS = ("speakers", "recordings", "texts", "audio")
"""What may be allowed to be shared. `audio` is the same samples or a near copy."""
TRAINING_TRACES = "training.traces"
"""The record of what a model was trained on, in its folder."""
NOT_RECORDED = "the model has no record of what it was trained on"

_KINDS = {
    "speakers": ("speakers",),
    "recordings": ("recordings",),
    "texts": ("texts",),
    "audio": ("same_audio", "near_audio"),
}
"""The counts of a report that make up each of `LEAKAGE_KINDS`. Short texts are counted, and are no leakage."""
_MAX_EXAMPLES = 5
_BLOCK_PEAKS = 100_000
_INDEX_CLIPS = 4096
"""Clips indexed at once: bounds what sorting needs."""


@dataclass(frozen=True)
class Touch:
    """Two rows that share something.

    Attributes:
        test: id of the row in the test data.
        train: id of the row in the training data.
        origin: where that is.
        name: of the speaker or recording that they share.
        overlap_s: length of the sound that they share.
    """

    test: str
    train: str
    origin: str
    name: str | None = None
    overlap_s: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if value is not None}

    def __str__(self) -> str:
        shared = f" ({self.name})" if self.name is not None else f" ({self.overlap_s:.1f} s)" if self.overlap_s is not None else ""
        return f"{self.test} and {self.train} of {self.origin}{shared}"


@dataclass
class Side:
    """What was compared of training or test data.

    Attributes:
        rows: rows that were read.
        clips: their clips.
        refused: rows that do not fit, and so were not compared.
        unreadable: clips that could not be decoded, and so were not compared by sound.
        silent: clips without sound, of which there is nothing to compare.
        without_speaker: rows that name no speaker, so that a shared one can't be seen.
        without_recording: likewise.
        without_text: likewise.
        examples: the first of the rows refused and the clips unreadable.
    """

    rows: int = 0
    clips: int = 0
    refused: int = 0
    unreadable: int = 0
    silent: int = 0
    without_speaker: int = 0
    without_recording: int = 0
    without_text: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, trace: Trace) -> None:
        """Count a row."""
        self.rows += 1
        self.clips += len(trace.clips)
        unreadable = sum(clip.n_samples == 0 for clip in trace.clips)
        self.unreadable += unreadable
        self.silent += sum(clip.digest is None for clip in trace.clips) - unreadable
        self.without_speaker += trace.speaker is None
        self.without_recording += trace.recording is None
        self.without_text += trace.text is None
        if unreadable and len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(f"row {trace.id}: a clip can't be read")

    def refuse(self, error: DataError) -> None:
        """Count a row that does not fit."""
        self.refused += 1
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(str(error))


@dataclass(frozen=True)
class LeakageReport:
    """What training and test data share.

    Attributes:
        train: what was compared of the training data.
        test: what was compared of the test data.
        counts: by kind. `speakers`, `recordings`, `texts` and `short_texts` (under 16 bytes of letters: many people say "yes") are those
            shared; `same_audio` and `near_audio` are test clips of which the samples, or else the sound, are in the training data.
        rows: by kind, test rows that are touched.
        examples: by kind, the first few.
    """

    train: Side
    test: Side
    counts: dict[str, int]
    rows: dict[str, int]
    examples: dict[str, list[Touch]]

    @property
    def touches(self) -> tuple[str, ...]:
        """Those of `LEAKAGE_KINDS` that training and test data share."""
        return tuple(kind for kind in LEAKAGE_KINDS if self.count(kind))

    def count(self, kind: str) -> int:
        """How many of one of `LEAKAGE_KINDS` are shared."""
        return sum(self.counts[name] for name in _KINDS[kind])

    def first(self, kind: str) -> Touch:
        """An example of one of `LEAKAGE_KINDS` that is shared."""
        return next(touch for name in _KINDS[kind] for touch in self.examples[name])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        shared = {
            name: {"shared": self.counts[name], "test_rows": self.rows[name], "examples": [touch.as_dict() for touch in self.examples[name]]}
            for name in self.counts
        }
        return {"touches": list(self.touches), "shared": shared, "train": vars(self.train), "test": vars(self.test)}


class _Shared:
    """What of one kind was found to be shared."""

    def __init__(self) -> None:
        self.things: set[Any] = set()
        self.rows: set[int] = set()
        self.examples: list[Touch] = []

    def add(self, thing: Any, rows: Iterable[int], touch: Callable[[], Touch]) -> None:
        if thing not in self.things:
            self.things.add(thing)
            self.rows.update(rows)
            if len(self.examples) < _MAX_EXAMPLES:
                self.examples.append(touch())


class Gate:
    """Test data, to which training data is compared piece by piece. Training data is not kept; test data takes some 30 kB a clip of 10 s.

    Args:
        test: the traces of the test data.
        side: what of it was not compared, where that is known.
    """

    def __init__(self, test: Iterable[Trace], side: Side | None = None) -> None:
        self._test, self._train = side or Side(), Side()
        self._ids: list[str] = []
        self._named: dict[str, dict[str, dict[str | None, list[int]]]] = {"speakers": {}, "recordings": {}}
        self._texts: dict[str, list[int]] = defaultdict(list)
        self._digests: dict[str, list[int]] = defaultdict(list)
        self._owners: list[int] = []
        self._found = {kind: _Shared() for kind in ("speakers", "recordings", "texts", "short_texts", "same_audio", "near_audio")}
        clips = chain.from_iterable(map(self._add_test, test))
        self._indexes = []
        while part := list(islice(clips, _INDEX_CLIPS)):
            self._indexes.append(Index([clip.peaks for clip in part]))

    def _add_test(self, trace: Trace) -> Sequence[ClipTrace]:
        row = len(self._ids)
        self._ids.append(trace.id)
        self._test.add(trace)
        for kind, name in (("speakers", trace.speaker), ("recordings", trace.recording)):
            if name is not None:
                self._named[kind].setdefault(name, {}).setdefault(trace.source, []).append(row)
        if trace.text is not None:
            self._texts[trace.text].append(row)
        for place, clip in enumerate(trace.clips, start=len(self._owners)):
            if clip.digest is not None:
                self._digests[clip.digest].append(place)
        self._owners += [row] * len(trace.clips)
        return trace.clips

    def add(self, train: Iterable[Trace], origin: str) -> Callable[[DataError], None]:
        """Compare training data with the test data.

        Args:
            train: its traces.
            origin: what it is called in the report.
        """
        clips: list[tuple[str, ClipTrace]] = []
        n_peaks = 0
        for trace in train:
            self._train.add(trace)
            self._compare_names(trace, origin)
            for clip in trace.clips:
                self._compare_samples(trace.id, clip, origin)
                clips.append((trace.id, clip))
                n_peaks += len(clip.peaks)
            if n_peaks > _BLOCK_PEAKS:
                self._compare_sound(clips, origin)
                clips, n_peaks = [], 0
        self._compare_sound(clips, origin)
        return self._train.refuse

    @property
    def refuse(self) -> Callable[[DataError], None]:
        """What to call for a row of the training data that does not fit."""
        return self._train.refuse

    def _compare_names(self, trace: Trace, origin: str) -> None:
        for kind, name in (("speakers", trace.speaker), ("recordings", trace.recording)):
            for source, rows in self._named[kind].get(name, {}).items() if name is not None else ():
                if source is None or trace.source is None or source == trace.source:
                    self._found[kind].add((name, source), rows, lambda rows=rows: Touch(self._ids[rows[0]], trace.id, origin, name))  # type: ignore[misc]
        if trace.text is not None and (rows := self._texts.get(trace.text, [])):
            kind = "texts" if trace.text_bytes >= SHORT_TEXT_BYTES else "short_texts"
            self._found[kind].add(trace.text, rows, lambda: Touch(self._ids[rows[0]], trace.id, origin))

    def _compare_samples(self, train: str, clip: ClipTrace, origin: str) -> None: ...
