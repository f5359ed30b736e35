"""What training data and test data share, found from the traces of both.

Shared are speakers, recordings, texts, audio: the same samples, or near copies by their fingerprints, and pictures: the same files, or images that
look the same. Speakers and recordings are the same where their names are, in any case and with any spaces, unless both rows name a corpus and these
differ: speaker 19 of one corpus is nobody in another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from audiograft.data.fingerprint import Index
from audiograft.data.looks import LookIndex
from audiograft.data.text import name_key
from audiograft.data.traces import SHORT_TEXT_BYTES, ClipTrace, Trace
from audiograft.types import DataError

LEAKAGE_KINDS = ("speakers", "recordings", "texts", "audio", "pictures")
"""What may be allowed to be shared. `audio` is the same samples or a near copy, `pictures` the same file or an image that looks the same."""
COUNTS_OF = {
    "speakers": ("speakers",),
    "recordings": ("recordings",),
    "texts": ("texts",),
    "audio": ("same_audio", "near_audio"),
    "pictures": ("same_pictures", "near_pictures"),
}
"""The counts of a report that make up each of `LEAKAGE_KINDS`. Short texts are counted, and are no leakage."""

COUNTED = ("speakers", "recordings", "texts", "short_texts", "same_audio", "near_audio", "same_pictures", "near_pictures")
"""The counts of a report."""
MAX_EXAMPLES = 5
"""Of each kind, unless more are asked for."""
_BLOCK_PEAKS = 100_000
_INDEX_CLIPS = 4096
"""Clips indexed at once: bounds what sorting needs."""
_BLOCK_PICTURES = 1024
_Names = dict[str, dict[str | None, list[int]]]
"""Rows by name and corpus."""


@dataclass(frozen=True)
class Touch:
    """Two rows that share something.

    Attributes:
        test: id of the row in the test data.
        train: id of the row in the training data.
        origin: where that is.
        name: of the speaker or recording that they share.
        overlap_s: length of the sound that they share, of near copies.
    """

    test: str
    train: str
    origin: str
    name: str | None = None
    overlap_s: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without what there is not."""
        return {key: value for key, value in vars(self).items() if value}

    def __str__(self) -> str:
        shared = f" ({self.name})" if self.name is not None else f" ({self.overlap_s:.1f} s)" if self.overlap_s else ""
        return f"{self.test}, training row {self.train} of {self.origin}{shared}"


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
        partial_records: of models that were trained from one without a record.
        pictures: images and videos of these rows, each as often as it comes.
        unreadable_pictures: those that could not be read, and so were not compared.
        blank_pictures: images of one colour everywhere, of which there is nothing to compare.
        pictures_unknown: rows of a record that is older than the comparison of pictures.
        examples: the first of the rows refused, and the clips and pictures unreadable.
    """

    rows: int = 0
    clips: int = 0
    refused: int = 0
    unreadable: int = 0
    silent: int = 0
    without_speaker: int = 0
    without_recording: int = 0
    without_text: int = 0
    partial_records: int = 0
    pictures: int = 0
    unreadable_pictures: int = 0
    blank_pictures: int = 0
    pictures_unknown: int = 0
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
        pictures = trace.pictures or ()
        self.pictures += len(pictures)
        unseen = sum(picture.n_bytes == 0 for picture in pictures)
        self.unreadable_pictures += unseen
        self.blank_pictures += sum(picture.digest is None for picture in pictures) - unseen
        self.pictures_unknown += trace.pictures is None
        for what in ["clip"] * bool(unreadable) + ["picture"] * bool(unseen):
            if len(self.examples) < MAX_EXAMPLES:
                self.examples.append(f"row {trace.id}: a {what} can't be read")

    def refuse(self, error: DataError) -> None:
        """Count a row that does not fit."""
        self.refused += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(str(error))


@dataclass(frozen=True)
class LeakageReport:
    """What training and test data share.

    Attributes:
        train: what was compared of the training data.
        test: what was compared of the test data.
        counts: by kind. `speakers`, `recordings`, `texts` and `short_texts` (under 16 bytes of letters: many people say "yes") are those
            shared; `same_audio` and `near_audio` are test clips of which the samples, or else the sound, are in the training data;
            `same_pictures` and `near_pictures` are different files of test pictures of which the file, or else the look, is.
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
        return sum(self.counts[name] for name in COUNTS_OF[kind])

    def first(self, kind: str) -> Touch:
        """An example of one of `LEAKAGE_KINDS` that is shared."""
        return next(touch for name in COUNTS_OF[kind] for touch in self.examples[name])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        shared = {
            name: {"shared": self.counts[name], "test_rows": self.rows[name], "examples": [touch.as_dict() for touch in self.examples[name]]}
            for name in self.counts
        }
        return {"touches": list(self.touches), "shared": shared, "train": vars(self.train), "test": vars(self.test)}


class Gate:
    """Test data, to which training data is compared piece by piece.

    Training data is not kept; of test data, 10 s of speech take some 20 kB, and a picture 3 kB.

    Args:
        test: the traces of the test data.
        side: where rows are counted, those of the test data that did not fit among them.
    """

    def __init__(self, test: Iterable[Trace], side: Side | None = None) -> None:
        self.train, self._test = Side(), side or Side()
        self._ids: list[str] = []
        self._speakers: _Names = defaultdict(lambda: defaultdict(list))
        self._recordings: _Names = defaultdict(lambda: defaultdict(list))
        self._texts: dict[str, list[int]] = defaultdict(list)
        self._clips: dict[str, list[int]] = defaultdict(list)
        self._owners: list[int] = []
        self._pictures: dict[str, list[int]] = defaultdict(list)
        # One of each file: in some corpora each picture has many questions.
        looks: dict[str, bytes] = {}
        # What is shared, by kind: the rows of the test data that it touches, and an example.
        self._found: dict[str, dict[Any, tuple[list[int], Touch]]] = {kind: {} for kind in COUNTED}
        clips = chain.from_iterable(self._keep(trace, looks) for trace in test)
        self._indexes = [Index(first) for first in iter(lambda: [clip.peaks for clip in islice(clips, _INDEX_CLIPS)], [])]
        self._looks, self._looking = LookIndex(list(looks.values())), list(looks)

    def _keep(self, trace: Trace, looks: dict[str, bytes]) -> Sequence[ClipTrace]:
        """Keep all of a test row but its clips, which are handed on."""
        row = len(self._ids)
        self._ids.append(trace.id)
        self._test.add(trace)
        if trace.speaker is not None:
            self._speakers[name_key(trace.speaker)][trace.source].append(row)
        if trace.recording is not None:
            self._recordings[name_key(trace.recording)][trace.source].append(row)
        if trace.text is not None:
            self._texts[trace.text].append(row)
        for clip in trace.clips:
            if clip.digest is not None:
                self._clips[clip.digest].append(len(self._owners))
            self._owners.append(row)
        for picture in trace.pictures or ():
            if picture.digest is not None:
                self._pictures[picture.digest].append(row)
                if picture.look:
                    looks[picture.digest] = picture.look
        return trace.clips

    def add(self, train: Iterable[Trace], origin: str) -> None:
        """Compare training data with the test data.

        Args:
            train: its traces.
            origin: what it is called in the report.
        """
        heard: list[tuple[str, ClipTrace]] = []
        seen: dict[str, tuple[str, bytes]] = {}
        n_peaks = 0
        for trace in train:
            self.train.add(trace)
            self._compare_names("speakers", self._speakers, trace.speaker, trace, origin)
            self._compare_names("recordings", self._recordings, trace.recording, trace, origin)
            if trace.text in self._texts:
                kind = "texts" if trace.text_bytes >= SHORT_TEXT_BYTES else "short_texts"
                self._share(kind, trace.text, self._texts[trace.text], trace.id, origin)
            for clip in trace.clips:
                for same in self._clips.get(clip.digest or "", ()):
                    self._share("same_audio", same, [self._owners[same]], trace.id, origin)
                heard.append((trace.id, clip))
                n_peaks += len(clip.peaks)
            if n_peaks >= _BLOCK_PEAKS:
                self._compare_sound(heard, origin)
                heard, n_peaks = [], 0
            for picture in trace.pictures or ():
                if picture.digest in self._pictures:
                    self._share("same_pictures", picture.digest, self._pictures[picture.digest], trace.id, origin)
                if picture.digest is not None and picture.look:
                    seen.setdefault(picture.digest, (trace.id, picture.look))
            if len(seen) >= _BLOCK_PICTURES:
                self._compare_looks(seen, origin)
                seen = {}
        self._compare_sound(heard, origin)
        self._compare_looks(seen, origin)

    def kinds(self, trace: Trace) -> list[str]:
        """Those of `LEAKAGE_KINDS` that one row shares with the test data, for rows that come one at a time; nothing is counted."""
        pictures = trace.pictures or ()
        found = {
            "speakers": self._is_known(self._speakers, trace.speaker, trace.source),
            "recordings": self._is_known(self._recordings, trace.recording, trace.source),
            "texts": trace.text in self._texts and trace.text_bytes >= SHORT_TEXT_BYTES,
            "audio": any(clip.digest in self._clips for clip in trace.clips)
            or any(True for index in self._indexes for _ in index.search([clip.peaks for clip in trace.clips])),
            "pictures": any(picture.digest in self._pictures for picture in pictures)
            or any(True for _ in self._looks.search([picture.look for picture in pictures if picture.look])),
        }
        return [kind for kind in LEAKAGE_KINDS if found[kind]]

    @staticmethod
    def _is_known(names: _Names, name: str | None, source: str | None) -> bool:
        known = {} if name is None else names.get(name_key(name), {})
        return any(other is None or source is None or other == source for other in known)

    def _compare_names(self, kind: str, names: _Names, name: str | None, trace: Trace, origin: str) -> None:
        if name is not None and (key := name_key(name)) in names:
            for source, rows in names[key].items():
                if source is None or trace.source is None or source == trace.source:
                    self._share(kind, (key, source), rows, trace.id, origin, name)

    def _compare_sound(self, heard: Sequence[tuple[str, ClipTrace]], origin: str) -> None:
        peaks = [clip.peaks for _, clip in heard]
        for number, index in enumerate(self._indexes):
            for match in index.search(peaks):
                clip = number * _INDEX_CLIPS + match.indexed
                known = self._found["near_audio"].get(clip)
                if known is None or known[1].overlap_s < match.overlap_s:
                    self._found["near_audio"].pop(clip, None)
                    self._share("near_audio", clip, [self._owners[clip]], heard[match.query][0], origin, overlap_s=match.overlap_s)

    def _compare_looks(self, seen: Mapping[str, tuple[str, bytes]], origin: str) -> None:
        rows = [row for row, _ in seen.values()]
        for query, indexed in self._looks.search([look for _, look in seen.values()]):
            picture = self._looking[indexed]
            self._share("near_pictures", picture, self._pictures[picture], rows[query], origin)

    def _share(self, kind: str, thing: Any, rows: list[int], train: str, origin: str, name: str | None = None, overlap_s: float = 0.0) -> None:
        if thing not in self._found[kind]:
            self._found[kind][thing] = (rows, Touch(self._ids[rows[0]], train, origin, name, overlap_s))

    def report(self, n_examples: int = MAX_EXAMPLES) -> LeakageReport:
        """What was found to be shared so far, with at most so many examples of each kind."""
        found = dict(self._found)
        # A clip whose samples are there has its sound there too: it is told once. So it is with pictures.
        for kind in ("audio", "pictures"):
            same = found[f"same_{kind}"]
            found[f"near_{kind}"] = {thing: what for thing, what in found[f"near_{kind}"].items() if thing not in same}
        return LeakageReport(
            train=self.train,
            test=self._test,
            counts={kind: len(things) for kind, things in found.items()},
            rows={kind: len({row for rows, _ in things.values() for row in rows}) for kind, things in found.items()},
            examples={kind: [touch for _, touch in islice(things.values(), n_examples)] for kind, things in found.items()},
        )
