"""Which place of which recording each clip of a bench is cut from.

Recordings are opened once, looked at for places of every duration, and kept as 16-bit WAV of 16 kHz in a work folder until the bench is done.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from audiograft.audio import is_silent
from audiograft.bulk import spread
from audiograft.data.clips import write_wav
from audiograft.data.detection.grid import Design, Slot, generator, samples_of
from audiograft.data.detection.origins import Entry, Origin, rows_of
from audiograft.data.detection.speech import find_cuts, sound_weight, speech_weight, utterances
from audiograft.data.examine import Examiner, unwritable
from audiograft.data.filters import Filters
from audiograft.data.options import PrepareOptions
from audiograft.data.sources.base import SourceRow
from audiograft.data.synthetic.voices import Delivery, Voice, speak
from audiograft.types import SAMPLE_RATE_HZ, DataError, Rejection

Waveform = npt.NDArray[np.float32]
Utterance = tuple[int, tuple[str, Voice, Delivery]]

TRIES = 50
"""Places of each duration that are looked at in a recording."""
_SPARE = 1.2
"""Recordings that are opened for each that would do if all had room for all durations."""
_GROWTH = 4
"""A batch of recordings has at least one for each so many that were opened before."""
_MAX_FRUITLESS = 3
"""Sentences in a row, in units of what was wanted, that may turn out to be of no use."""
_SHOWN_CELLS = 5
_MARGIN_SAMPLES = SAMPLE_RATE_HZ // 10
"""How far clips stay away from the ends of a turn: who annotates them does not hear to the sample."""
_STEADY_SHARE = 1e-3
"""Of the samples' power, that has to be left without their mean."""


@dataclass(frozen=True)
class Recording:
    """A recording with the places that clips can be cut from.

    Attributes:
        file: in the work folder.
        speaker: who speaks; None in sounds, and where nobody knows.
        name: of the recording.
        kind: of a sound; None of speech.
        source: its corpus.
        starts: by duration in ms, first samples of clips.
    """

    file: str
    speaker: str | None
    name: str
    kind: str | None
    source: str
    starts: Mapping[int, Sequence[int]]


@dataclass(frozen=True)
class Cut:
    """A clip in a recording: its first sample."""

    recording: Recording
    start: int


class Demand:
    """Slots of one split, class and origin that wait for a place in a recording.

    Attributes:
        cuts: the places, by id of the slot.
        files: of all recordings that were looked at and are of use.

    Args:
        slots: that wait.
        clips_per_recording: at most.
        seed: of the order in which they are served, so that no recording has all clips of one ratio.
        least_recordings: wanted, even where fewer would do.
    """

    def __init__(self, slots: Sequence[Slot], clips_per_recording: int, seed: int, least_recordings: int = 0) -> None:
        self.cuts: dict[str, Cut] = {}
        self.files: list[str] = []
        self._most = clips_per_recording
        self._least = least_recordings
        self._waiting: dict[int, list[Slot]] = defaultdict(list)
        for number in generator(seed, "demand", *(slot.id for slot in slots[:1])).permutation(len(slots)):
            self._waiting[slots[number].duration_ms].append(slots[number])

    @property
    def left(self) -> list[Slot]:
        """Slots without a place."""
        return [slot for slots in self._waiting.values() for slot in slots]

    @property
    def recordings(self) -> int:
        """That are still wanted, at least."""
        return max(math.ceil(len(self.left) / self._most), self._least - len(self.files))

    def serve(self, recording: Recording) -> None:
        """Give places in a recording to slots, first of the durations that wait most."""
        self.files.append(recording.file)
        starts = {duration_ms: list(places) for duration_ms, places in recording.starts.items()}
        for _ in range(self._most):
            open_ms = [duration_ms for duration_ms, slots in self._waiting.items() if slots and starts.get(duration_ms)]
            if not open_ms:
                return
            chosen_ms = max(open_ms, key=lambda duration_ms: (len(self._waiting[duration_ms]), duration_ms))
            slot = self._waiting[chosen_ms].pop()
            self.cuts[slot.id] = Cut(recording, starts[chosen_ms].pop(0))


class Surveyor:
    """Opens recordings, writes them into the work folder, and finds places in them.

    Args:
        work: the folder.
        design: whose durations are looked for.
        workers: processes for what is spoken, threads for what is decoded.
        on_recording: called after each.
    """

    def __init__(self, work: Path, design: Design, workers: int, on_recording: Callable[[], None]) -> None:
        self._work, self._design, self._workers, self._on_recording = work, design, workers, on_recording
        self.rejections: list[Rejection] = []

    def speak(self, demand: Demand, split: str) -> None:
        """Have synthetic voices speak until the demand is met, or sentences are of no use any more."""
        spoken: Iterator[Utterance] = enumerate(utterances(split, self._design.seed))
        work = partial(_speak, work=self._work, design=self._design, split=split)
        allowed = _MAX_FRUITLESS * demand.recordings + _MAX_FRUITLESS
        with ProcessPoolExecutor(self._workers) as pool:
            while demand.recordings > 0 and allowed > 0:
                count = math.ceil(_SPARE * demand.recordings)
                wanted = len(demand.left)
                self._serve(demand, pool.map(work, islice(spoken, count), chunksize=4))
                allowed -= count if len(demand.left) == wanted else 0

    def decode(self, demand: Demand, origin: Origin, entries: Sequence[Entry]) -> None:
        """Decode rows of a source, one behind the other, until the demand is met or there are no more."""
        place = 0
        examiner = partial(_RowSurvey, self._work, self._design, origin)
        while demand.recordings > 0 and place < len(entries):
            # Every batch reads the source from its beginning: where the last places are hard to find, batches grow with what was read in vain.
            count = max(math.ceil(_SPARE * demand.recordings), place // _GROWTH)
            batch = {entry.place: entry for entry in entries[place : place + count]}
            place += count
            with closing(spread(examiner, rows_of(origin, batch), workers=self._workers)) as surveyed:
                found = list(surveyed)
            # Rows come in the order of the source; they are used in the order that was drawn.
            order = {entry_place: number for number, entry_place in enumerate(batch)}
            self._serve(demand, [recording for _, recording in sorted(found, key=lambda item: order[item[0]])])

    def _serve(self, demand: Demand, found: Iterable[Recording | Rejection]) -> None:
        for recording in found:
            self._on_recording()
            if isinstance(recording, Rejection):
                self.rejections.append(recording)
            else:
                demand.serve(recording)


def refuse_unfilled(demands: Iterable[tuple[str, Demand]]) -> None:
    """Say which cells of the grid have too few clips.

    Args:
        demands: each with the source that was to meet it, as it was given.

    Raises:
        DataError: some have.
    """
    left = [(spec, slot) for spec, demand in demands for slot in demand.left]
    if not left:
        return
    cells = Counter(slot.cell for _, slot in left)
    sources = ", ".join(f"{count} of {spec}" for spec, count in Counter(spec for spec, _ in left).items())
    shown = "; ".join(f"{cell} lacks {count}" for cell, count in sorted(cells.items())[:_SHOWN_CELLS])
    more = f"; and {len(cells) - _SHOWN_CELLS} cells more" if len(cells) > _SHOWN_CELLS else ""
    raise DataError(
        f"the sources can't fill the grid, clips are missing, {sources}: {shown}{more}: add recordings, ask for fewer --clips-per-cell or other "
        "--durations-ms, or allow more --clips-per-recording"
    )


def _speak(utterance: Utterance, work: Path, design: Design, split: str) -> Recording | Rejection:
    row, (text, voice, delivery) = utterance
    name = f"spoken-{split}-{design.seed}-{row:06d}"
    file = work / f"{_digest(text, voice, delivery)}.wav"
    if not file.exists():
        _write(file, speak(text, voice, delivery))
    return _survey(file, design, name, voice.speaker, name, None, "synthetic")


class _RowSurvey:
    """Decodes rows of a source; each worker has its own, which keeps the last file that rows are parts of.

    Args:
        work: the folder.
        design: of the bench.
        origin: of the rows.
    """

    def __init__(self, work: Path, design: Design, origin: Origin) -> None:
        self._work, self._design, self._origin = work, design, origin
        self._examiner = Examiner(PrepareOptions(out=work, filters=Filters(min_duration_s=0.0, max_duration_s=None)))

    def __call__(self, item: tuple[Entry, SourceRow]) -> tuple[int, Recording | Rejection]:
        """Number of the row, and what came of it."""
        entry, row = item
        file = self._work / f"{_digest(self._origin.spec, entry.place, row.sample.id, row.span)}.wav"
        sample = row.sample
        if not file.exists():
            heard = self._examiner.listen(row)
            if isinstance(heard, Rejection):
                return entry.place, heard
            waveform = heard.clips[0].waveform
            if row.span is not None:
                waveform = waveform[_MARGIN_SAMPLES:-_MARGIN_SAMPLES]
            if not len(waveform):
                return entry.place, Rejection(sample.id, sample.audio, "has nothing left without 0.1 s at both ends: leave it out", "duration")
            if (fault := _fault(waveform)) is not None:
                return entry.place, Rejection(sample.id, sample.audio, *fault)
            _write(file, waveform)
        source = sample.source or self._origin.spec
        return entry.place, _survey(file, self._design, sample.id, sample.speaker, entry.recording, entry.kind, source)


def _survey(file: Path, design: Design, row_id: str, speaker: str | None, name: str, kind: str | None, source: str) -> Recording | Rejection:
    waveform, _ = soundfile.read(file, dtype="float32")
    weight, least = speech_weight(waveform) if kind is None else sound_weight(waveform)
    starts = {
        duration_ms: find_cuts(weight, least, samples_of(duration_ms), TRIES, generator(design.seed, "cuts", source, row_id, duration_ms))
        for duration_ms in design.durations_ms
    }
    if any(starts.values()):
        return Recording(file.name, speaker, name, kind, source, starts)
    what = "speech" if kind is None else "sound"
    reason = f"holds no clip of {min(design.durations_ms)} ms or more with {what} in it, in {TRIES} tries: leave it out, or ask for shorter ones"
    return Rejection(row_id, row_id, reason, f"no {what}")


def _fault(waveform: Waveform) -> tuple[str, str] | None:
    """Why a clip can't be used, and the kind of that; None where it can."""
    if is_silent(waveform):
        return "is silent: leave it out", "silent"
    moving = waveform - waveform.mean(dtype=np.float64)
    if np.mean(np.square(moving)) < _STEADY_SHARE * np.mean(np.square(waveform, dtype=np.float64)):
        return "is a constant (DC) and holds no sound: leave it out", "constant"
    return None


def _write(file: Path, waveform: Waveform) -> None:
    """Write a recording without its mean, which no ear hears and every power counts."""
    try:
        write_wav(np.asarray(waveform - waveform.mean(dtype=np.float64), dtype=np.float32), file)
    except OSError as error:
        raise unwritable(file, error) from error


def _digest(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(errors="backslashreplace"), digest_size=12).hexdigest()
