"""What becomes of one row: its text is checked, its clips decoded once, measured, filtered, and put into the corpus. Runs in workers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from audiograft.audio import Clip, Waveform, load_audio
from audiograft.data import clips
from audiograft.data.augment.chain import Augmenter
from audiograft.data.looks import PictureTrace, trace_pictures
from audiograft.data.measure import measure
from audiograft.data.options import PrepareOptions
from audiograft.data.prompts import with_drawn_prompt
from audiograft.data.sources.base import SourceRow
from audiograft.data.text import text_fault, with_case
from audiograft.data.traces import Trace, make_trace
from audiograft.images import load_video
from audiograft.messages import conversation
from audiograft.types import SAMPLE_RATE_HZ, TRANSCRIBE_PROMPT, AudioError, DataError, ImageError, Rejection, Sample

_SLACK_S = 0.1
_SLACK_SHARE = 0.01
"""Stated durations are rounded, and encoders pad: a clip is short where it lacks more than the larger of the two."""


@dataclass(frozen=True)
class Heard:
    """A row that passed all checks and filters.

    Attributes:
        sample: with its texts in their case, and its instruction.
        clips: decoded; of a part of a clip, that part.
        pictures: what the leakage gate remembers of its images and videos.
    """

    sample: Sample
    clips: list[Clip]
    pictures: tuple[PictureTrace, ...] = ()


@dataclass(frozen=True)
class Kept:
    """A row that goes into the manifest.

    Attributes:
        sample: its clips and pictures are relative to the corpus, its duration is exact.
        trace: for the leakage gate.
        given: its first clip as the source names it; empty where it has none.
    """

    sample: Sample
    trace: Trace
    given: str


@dataclass(frozen=True)
class Rejected:
    """A row that doesn't, with its text where it has one."""

    rejection: Rejection
    text: str | None = None


class _RejectedError(Exception):
    """Carries the kind and the reason out of the checks."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class _NamedBytes(io.BytesIO):
    """Bytes of a file that errors call by its name."""

    def __init__(self, audio: bytes, name: str) -> None:
        super().__init__(audio)
        self.name = name


class Examiner:
    """Examines rows, one after the other; each worker has its own.

    Args:
        options: of the run.
        prompts: instructions to draw from; none leaves rows their own.
        augmenter: what clips go through before they are written; none leaves them as they are.
    """

    def __init__(self, options: PrepareOptions, prompts: Sequence[str] = (), augmenter: Augmenter | None = None) -> None:
        self._options = options
        self._prompts = prompts
        self._augmenter = augmenter
        self._whole: tuple[object, Clip] | None = None

    def __call__(self, item: tuple[int, SourceRow | Rejection]) -> Kept | Rejected:
        """Examine a row.

        Args:
            item: its number in the source, from 1, and what the source says of it.

        Raises:
            DataError: the corpus can't be written to.
        """
        number, row = item
        heard = self.listen(row)
        if isinstance(heard, Rejection):
            return Rejected(heard, None if isinstance(row, Rejection) else row.sample.target)
        assert isinstance(row, SourceRow)
        return self._kept(number, row, heard)

    def listen(self, row: SourceRow | Rejection) -> Heard | Rejection:
        """Check a row, decode its clips, and put it through the filters; nothing is written."""
        if isinstance(row, Rejection):
            return row
        try:
            return self._heard(row)
        except _RejectedError as rejected:
            return Rejection(row.sample.id, row.sample.audio or row.sample.id, str(rejected), rejected.kind)

    def _heard(self, row: SourceRow) -> Heard:
        sample = self._with_text(row.sample)
        decoded = self._decode(row)
        if decoded:
            _check_length(sum(len(clip.waveform) for clip in decoded), sample.duration_s)
        pictures = _look_at(sample)
        verdict = self._options.filters.reject(sample, *(measure(clip.waveform, clip.native_rate_hz) for clip in decoded))
        if verdict is not None:
            raise _RejectedError(*verdict)
        return Heard(sample, decoded, pictures)

    def _kept(self, number: int, row: SourceRow, heard: Heard) -> Kept:
        sample, waveforms = heard.sample, [clip.waveform for clip in heard.clips]
        if self._augmenter is not None and waveforms:
            waveforms, done = self._augmenter.waveforms(waveforms, sample.id)
            sample = replace(sample, extra=sample.extra | {"augmentation": done[0] if len(done) == 1 else done})
        n_samples = sum(map(len, waveforms))
        encoded = row.audio is not None or row.span is not None or self._options.audio == "flac" or self._augmenter is not None
        if encoded:
            waveforms = [clips.as_16_bit(waveform) for waveform in waveforms]
        names = [clips.clip_name(number, sample, place, ".flac" if encoded else Path(clip).suffix.lower()) for place, clip in enumerate(sample.clips)]
        for name, clip, waveform in zip(names, sample.clips, waveforms, strict=True):
            self._place(clip, self._options.out / name, waveform if encoded else None)
        trace = make_trace(sample, waveforms, heard.pictures)
        images, videos = (self._place_pictures(number, sample, kind) for kind in clips.PICTURE_FOLDERS)
        duration_s = n_samples / SAMPLE_RATE_HZ if waveforms else None
        kept = replace(sample, clips=tuple(names), images=images, videos=videos, duration_s=duration_s)
        return Kept(kept, trace, sample.audio)

    def _place_pictures(self, number: int, sample: Sample, kind: str) -> tuple[str, ...]:
        """Put the images or videos of a row into the corpus, as they are; their names there."""
        paths = getattr(sample, kind)
        names = tuple(clips.clip_name(number, sample, place, Path(path).suffix.lower(), kind) for place, path in enumerate(paths))
        for name, path in zip(names, paths, strict=True):
            self._place(path, self._options.out / name, None)
        return names

    def _with_text(self, sample: Sample) -> Sample:
        """The sample with its texts checked and in their case, and its instruction."""
        for key, text in (("text", sample.text), ("response", sample.response), ("prompt", sample.prompt)):
            if text is not None and (fault := text_fault(text)) is not None:
                raise _RejectedError("text", f"the {key} {fault}")
        if not sample.id:
            raise _RejectedError("row", "has no id: give it one")
        if not sample.clips and (sample.response is None or (sample.prompt == TRANSCRIBE_PROMPT and not sample.messages)):
            raise _RejectedError("row", "has no audio, and no prompt with a response either: give it one of these")
        case = self._options.text_case
        sample = replace(
            sample,
            text=None if sample.text is None else with_case(sample.text, case, sample.language),
            # Other answers than transcripts have a case of their own.
            response=with_case(sample.text, case, sample.language) if sample.text is not None and sample.response == sample.text else sample.response,
        )
        if self._prompts:
            sample = with_drawn_prompt(sample, self._prompts, self._options.seed)
        try:
            conversation(sample)
        except DataError as error:
            raise _RejectedError("row", str(error)) from error
        return sample

    def _decode(self, row: SourceRow) -> list[Clip]:
        """The clips of a row, or the part of one."""
        if row.span is not None:
            return [_cut(self._whole_clip(row), row.span)]
        if row.audio is not None:
            return [_load(_NamedBytes(row.audio, row.sample.audio))]
        return [_load(clip) for clip in row.sample.clips]

    def _whole_clip(self, row: SourceRow) -> Clip:
        """The clip that a row is a part of. Parts of one clip follow each other, so the last one is kept."""
        key = (row.sample.audio, hash(row.audio))
        if self._whole is None or self._whole[0] != key:
            self._whole = None  # two whole broadcasts need not be in memory
            self._whole = (key, _load(row.sample.audio if row.audio is None else _NamedBytes(row.audio, row.sample.audio)))
        return self._whole[1]

    def _place(self, clip: str, target: Path, waveform: Waveform | None) -> None:
        try:
            if waveform is not None:
                clips.write_flac(waveform, target)
            elif self._options.audio == "copy":
                clips.copy(clip, target)
            else:
                clips.link(clip, target)
        except OSError as error:
            raise unwritable(target, error) from error


def unwritable(path: Path, error: OSError) -> DataError:
    """The error for a corpus that can't be written to."""
    mend = "free some space or correct its permissions, then run the same command again, and it goes on from here"
    return DataError(f"{path}: can't be written ({error.strerror}): {mend}")


def _load(clip: str | _NamedBytes) -> Clip:
    try:
        return load_audio(clip)
    except AudioError as error:
        raise _RejectedError(error.kind, str(error)) from error
    except OSError as error:  # a disk that fails half way through a file
        raise _RejectedError("unreadable", f"{clip if isinstance(clip, str) else clip.name}: can't be read ({error.strerror})") from error


def _look_at(sample: Sample) -> tuple[PictureTrace, ...]:
    """Decode the pictures of a row: broken ones show no earlier."""
    try:
        for path in sample.videos:
            load_video(path)
        return trace_pictures(sample)
    except ImageError as error:
        raise _RejectedError(error.kind, str(error)) from error


def _cut(clip: Clip, span: tuple[float, float]) -> Clip:
    start_s, end_s = span
    _check_length(len(clip.waveform), end_s)
    waveform = clip.waveform[max(0, round(start_s * SAMPLE_RATE_HZ)) : round(end_s * SAMPLE_RATE_HZ)]
    if not len(waveform):
        raise _RejectedError("empty", f"the part from {start_s:g} s to {end_s:g} s holds no samples: correct its times")
    return replace(clip, waveform=waveform)


def _check_length(n_samples: int, stated_s: float | None) -> None:
    if (fault := short_fault(n_samples, stated_s)) is not None:
        raise _RejectedError("short", fault)


def short_fault(n_samples: int, stated_s: float | None) -> str | None:
    """What is said of clips of so many samples at 16 kHz that lack some of the length which their row states; None where they don't."""
    duration_s = n_samples / SAMPLE_RATE_HZ
    if stated_s is None or duration_s >= stated_s - max(_SLACK_S, _SLACK_SHARE * stated_s):
        return None
    return f"lasts {duration_s:.2f} s where {stated_s:.2f} s are declared: copy it again, or correct its duration"
