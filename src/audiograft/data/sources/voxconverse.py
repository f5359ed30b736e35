"""The source `voxconverse`: debates and news with their turns of speech, from the official archives."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from audiograft.data.download import Download, download_option, fetch, mirror_option
from audiograft.data.sources.base import SourceRow, option
from audiograft.data.sources.cutting import Span, check_clip_s, pieces, stated_duration_s
from audiograft.data.sources.rttm import Turn, gaps, parse_rttm, single_turns, speech
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
                files = _Files(self.path, stack)
                annotations = {name.stem: name for name in files.names(".rttm") if name.parent.name == subset}
                if not annotations:
                    raise DataError(f"{self.path}: no {subset}/*.rttm below it, unpacked or in a .zip: correct the path, or fetch them with --download")
                audio = {name.stem: name for name in files.names(".wav")}
                for recording in sorted(annotations):
                    yield from self._recording(recording, files, annotations[recording], audio.get(recording))

    def _recording(self, recording: str, files: _Files, annotation: PurePosixPath, audio: PurePosixPath | None) -> Iterator[SourceRow | Rejection]:
        turns, broken = parse_rttm(files.read(annotation), recording, str(self.path / annotation))
        yield from broken
        name = str(self.path / (audio or f"{recording}.wav"))
        content = None if audio is None or files.is_file(audio) else files.read(audio)
        duration_s, fault = None, None
        try:
            duration_s = stated_duration_s(Path(name) if content is None else content, name)
        except AudioError as error:
            fault = error
        for segment in self._segments(recording, turns, bool(broken), duration_s):
            if isinstance(segment, Rejection):
                yield segment
            elif fault is not None:
                yield Rejection(segment.sample.id, name, str(fault), fault.kind)
            else:
                assert segment.span is not None
                yield SourceRow(_with_clip(segment.sample, name), content, segment.span)

    def _segments(self, recording: str, turns: list[Turn], broken: bool, duration_s: float | None) -> Iterator[SourceRow | Rejection]:
        raise NotImplementedError
