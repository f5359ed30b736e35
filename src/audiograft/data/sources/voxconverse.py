"""The source `voxconverse`: debates and news with their turns of speech, from the official archives."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath
from typing import ClassVar, Literal

from audiograft.data.download import Download, download_option, fetch, mirror_option
from audiograft.data.sources.base import SourceRow, option
from audiograft.data.sources.cutting import Span, check_clip_s, pieces, stated_duration_s
from audiograft.data.sources.rttm import Stretch, Turn, gaps, parse_rttm, single_turns, speech
from audiograft.types import AudioError, ConfigError, DataError, Rejection, Sample

_AUDIO_ADDRESS = "https://www.robots.ox.ac.uk/~vgg/data/voxconverse/data"
ANNOTATIONS = Download("https://github.com/joonson/voxconverse/archive/refs/heads/master.zip", "voxconverse-master.zip")
AUDIO = {
    "dev": Download(f"{_AUDIO_ADDRESS}/voxconverse_dev_wav.zip", "voxconverse_dev_wav.zip", "md5:2a6e07e7473d9841abb132554a698a36"),
    "test": Download(f"{_AUDIO_ADDRESS}/voxconverse_test_wav.zip", "voxconverse_test_wav.zip", "md5:834558bbd9b1ffd2d4893181556ceddd"),
}
_SLACK_S = 0.1
"""Turns are annotated in frames of video, so that one at the very end may end this much after it."""


@dataclass(frozen=True)
class _File:
    """A file of the corpus.

    Attributes:
        name: its path; in an archive, behind that of the archive.
        archive: that it is still in.
        member: its name there.
    """

    name: Path
    archive: zipfile.ZipFile | None = None
    member: str = ""

    def read(self) -> bytes:
        try:
            return self.name.read_bytes() if self.archive is None else self.archive.read(self.member)
        except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            raise AudioError(f"{self.name}: can't be read ({error}): fetch it again") from error


@dataclass(frozen=True)
class VoxConverse:
    """VoxConverse: who speaks when in debates and news, as clips of speech and of none.

    PATH holds the archives as they are published, or what was unpacked of them: the folders dev and test with a .rttm file for each recording, and
    the .wav files, wherever they lie below it.

    Example: audiograft prepare voxconverse corpora/voxconverse --segments turns --no-overlap --out vox-turns
    """

    name: ClassVar[str] = "voxconverse"

    path: Path = option("The corpus's folder.", argument=True)
    subset: Literal["dev", "test", "all"] = option("Which of its two sets.", "dev")
    segments: Literal["speech", "turns", "nonspeech"] = option(
        "speech: where anyone speaks; turns: each speaker's turns; nonspeech: where nobody does.", "speech"
    )
    no_overlap: bool = option("Leave out speech during which more than one speaks.", False)
    clip_s: float | None = option("Cut segments into clips of this length in seconds.", None)
    margin_s: float = option("How far clips of one length, and non-speech, keep away from the ends of their segment, in seconds.", 1.0)
    download: bool = download_option()
    mirror: str | None = mirror_option()

    def __post_init__(self) -> None:
        check_clip_s(self.clip_s, self.name)
        if self.margin_s < 0:
            raise ConfigError(f"voxconverse: margin_s must be 0 seconds or more, not {self.margin_s:g}: correct it")

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """Recording by recording, within each by time; lines of RTTM that can't be used come before the rows of their recording."""
        return islice(self._rows(), skip, None)

    def _rows(self) -> Iterator[SourceRow | Rejection]:
        for subset in ("dev", "test") if self.subset == "all" else (self.subset,):
            if self.download:
                for archive in (ANNOTATIONS, AUDIO[subset]):
                    fetch(archive, self.path, self.mirror)
            with ExitStack() as stack:
                found = list(_files(self.path, stack))
                annotations = _by_recording(file for file in found if file.name.suffix == ".rttm" and file.name.parent.name == subset)
                audio = _by_recording(file for file in found if file.name.suffix == ".wav")
                if not annotations:
                    raise DataError(f"{self.path}: no {subset}/*.rttm below it or in its .zip files: correct the path, or fetch them with --download")
                for recording in sorted(annotations):
                    yield from self._recording(recording, annotations[recording], audio.get(recording))

    def _recording(self, recording: str, annotation: _File, audio: _File | None) -> Iterator[SourceRow | Rejection]:
        try:
            turns, broken = parse_rttm(annotation.read(), recording, str(annotation.name))
        except AudioError as error:
            yield Rejection(recording, recording, str(error), error.kind)
            return
        yield from broken
        content, duration_s, fault = None, None, None
        try:
            if audio is None:
                raise AudioError(f"{recording}.wav: neither below {self.path} nor in its .zip files: unpack or fetch it again", kind="missing")
            content = audio.read() if audio.archive is not None else None
            duration_s = stated_duration_s(Path(audio.name) if content is None else content, str(audio.name))
        except AudioError as error:
            fault = error
        clip = f"{recording}.wav" if audio is None else str(audio.name)
        for segment in self._segments(turns, duration_s):
            sample = self._sample(recording, clip, segment, turns)
            if fault is not None:
                yield Rejection(sample.id, clip, str(fault), fault.kind)
            elif broken and self.segments == "nonspeech":
                yield Rejection(sample.id, clip, f"{annotation.name}: someone may speak here, in a line that is broken: correct the line", "row")
            elif duration_s is not None and segment.end_s > duration_s + _SLACK_S:
                yield Rejection(sample.id, clip, f"ends at {segment.end_s:.2f} s, but {clip} lasts {duration_s:.2f} s: fetch it again", "short")
            else:
                end_s = segment.end_s if duration_s is None else min(segment.end_s, duration_s)
                yield from self._clips(recording, clip, content, Stretch(segment.start_s, end_s, segment.speakers), turns)

    def _segments(self, turns: Sequence[Turn], duration_s: float | None) -> Iterable[Stretch]:
        if self.segments == "nonspeech":
            return (Stretch(*gap, frozenset()) for gap in gaps(turns, duration_s or 0.0))
        return single_turns(turns, not self.no_overlap) if self.segments == "turns" else speech(turns, not self.no_overlap)

    def _clips(self, recording: str, clip: str, content: bytes | None, segment: Stretch, turns: Sequence[Turn]) -> Iterator[SourceRow | Rejection]:
        """The rows of one segment: itself, or clips of one length from inside of it."""
        spans: list[Span] = [(segment.start_s, segment.end_s)]
        if self.clip_s is not None or self.segments == "nonspeech":
            start_s, end_s = segment.start_s + self.margin_s, segment.end_s - self.margin_s
            spans = list(pieces(start_s, end_s, self.clip_s)) if self.clip_s is not None else [(start_s, end_s)] if end_s > start_s else []
        for span in spans:
            yield SourceRow(self._sample(recording, clip, Stretch(*span, segment.speakers), turns), content, span)
        if not spans and self.segments != "nonspeech":
            length_s = segment.end_s - segment.start_s
            reason = (
                f"lasts {length_s:.2f} s, too short for {self.clip_s:g} s with {self.margin_s:g} s before and after: lower --margin-s or --clip-s"
            )
            yield Rejection(self._sample(recording, clip, segment, turns).id, clip, reason, "duration")

    def _sample(self, recording: str, clip: str, part: Stretch, turns: Sequence[Turn]) -> Sample:
        """What is known of a part of a recording. Speakers have names within their recording alone, so they are told apart by it."""
        heard = part.speakers
        if self.segments == "speech":  # a clip from inside may have fewer of its segment's speakers
            heard = frozenset(turn.speaker for turn in turns if turn.start_s < part.end_s and turn.end_s > part.start_s)
        speakers = [f"voxconverse_{recording}_{speaker}" for speaker in sorted(heard)]
        what = "+".join(sorted(part.speakers)) if self.segments == "turns" else self.segments
        return Sample(
            id=f"{recording}-{what}-{round(part.start_s * 1000):07d}-{round(part.end_s * 1000):07d}",
            clips=(clip,),
            speaker=speakers[0] if len(speakers) == 1 else None,
            recording=recording,
            label="NONSPEECH" if self.segments == "nonspeech" else "SPEECH",
            source=self.name,
            extra={"speakers": speakers} if len(speakers) > 1 else {},
        )


def _files(folder: Path, stack: ExitStack) -> Iterator[_File]:
    """All files below the folder, then those in its archives. Hidden ones are none of the corpus's: macOS puts some into archives."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder: correct the path, or fetch the corpus with --download")
    for path in sorted(folder.rglob("*")):
        if not _is_hidden(path.relative_to(folder)):
            yield _File(path)
    for path in sorted(folder.glob("*.zip")):
        try:
            archive = stack.enter_context(zipfile.ZipFile(path))
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: can't be read as an archive ({error}): delete it and fetch it again") from error
        for member in archive.namelist():
            if not _is_hidden(PurePosixPath(member)):
                yield _File(path / member, archive, member)


def _is_hidden(path: PurePath) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)


def _by_recording(files: Iterable[_File]) -> dict[str, _File]:
    """Files by the name of their recording; of several the first."""
    found: dict[str, _File] = {}
    for file in files:
        found.setdefault(file.name.stem, file)
    return found
