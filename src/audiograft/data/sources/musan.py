"""The source `musan`: music, speech and noise, in long recordings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

from audiograft.data.download import Download, download_option, fetch, mirror_option
from audiograft.data.languages import language_code
from audiograft.data.sources.base import SourceRow, option
from audiograft.data.sources.cutting import Span, check_clip_s, pieces, stated_duration_s
from audiograft.types import AudioError, DataError, Rejection, Sample

ARCHIVE = Download("https://www.openslr.org/resources/17/musan.tar.gz", "musan.tar.gz", "md5:0c472d4fc0c5141eca47ad1ffeb2a7df")
PARTS = ("music", "speech", "noise")
_GENDERS = {"f": "female", "m": "male"}


@dataclass(frozen=True)
class Musan:
    """MUSAN: music, speech and noise, each file whole or cut into clips of one length.

    PATH holds the folders music, speech and noise, or the folder musan with them. Speech is labelled SPEECH; noise, and music without vocals,
    NONSPEECH; music with vocals VOCALS, since a singer is neither.

    Example: audiograft prepare musan corpora/musan --no-vocals --clip-s 10 --out musan
    """

    name: ClassVar[str] = "musan"

    path: Path = option("The corpus's folder.", argument=True)
    part: Literal["all", "music", "speech", "noise"] = option("Which of its three parts.", "all")
    no_vocals: bool = option("Leave out music with vocals, by what its ANNOTATIONS say.", False)
    clip_s: float | None = option("Cut files into clips of this length in seconds.", None)
    download: bool = download_option()
    mirror: str | None = mirror_option()

    def __post_init__(self) -> None:
        check_clip_s(self.clip_s, self.name)

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """Part by part, within each by path and time."""
        return islice(self._rows(), skip, None)

    def _rows(self) -> Iterator[SourceRow | Rejection]:
        if self.download:
            fetch(ARCHIVE, self.path, self.mirror)
        roots = [root for root in (self.path, self.path / "musan") if any((root / part).is_dir() for part in PARTS)]
        if not roots:
            raise DataError(f"{self.path}: none of the folders {', '.join(PARTS)} in it: correct the path, or fetch the corpus with --download")
        for part in PARTS if self.part == "all" else (self.part,):
            folders = [path for path in sorted((roots[0] / part).glob("*")) if path.is_dir() and not path.name.startswith(".")]
            if not folders:
                raise DataError(
                    f"{roots[0] / part}: no folders with recordings in it: unpack or fetch the corpus again, or name other parts with --part"
                )
            for folder in folders:
                yield from self._folder(part, folder)

    def _folder(self, part: str, folder: Path) -> Iterator[SourceRow | Rejection]:
        annotations = _annotations(folder / "ANNOTATIONS")
        for path in sorted(folder.rglob("*.wav")):
            if path.name.startswith("."):
                continue
            known = annotations.get(path.stem, ())
            if part == "music" and self.no_vocals:
                if len(known) < 2 or known[1] not in ("Y", "N"):
                    yield Rejection(path.stem, str(path), f"{folder / 'ANNOTATIONS'}: does not say Y or N for vocals of {path.stem}: add it", "row")
                    continue
                if known[1] == "Y":
                    continue
            yield from self._clips(_sample(part, path, known), path)

    def _clips(self, sample: Sample, path: Path) -> Iterator[SourceRow | Rejection]:
        if self.clip_s is None:
            yield SourceRow(sample)
            return
        try:
            duration_s = stated_duration_s(path, str(path))
        except AudioError as error:
            yield Rejection(sample.id, str(path), str(error), error.kind)
            return
        spans = list(pieces(0.0, duration_s, self.clip_s))
        for span in spans:
            yield SourceRow(_piece(sample, span), span=span)
        if not spans:
            yield Rejection(sample.id, str(path), f"lasts {duration_s:.2f} s, too short for {self.clip_s:g} s: lower --clip-s", "duration")


def _piece(sample: Sample, span: Span) -> Sample:
    return replace(sample, id=f"{sample.id}-{round(span[0] * 1000):07d}")


def _sample(part: str, path: Path, known: tuple[str, ...]) -> Sample:
    """A recording as its folder and its line in ANNOTATIONS describe it."""
    extra: dict[str, Any] = {"part": part, "collection": path.parent.name}
    label: str | None = "SPEECH" if part == "speech" else "NONSPEECH"
    language = None
    if part == "music":
        vocals = known[1] if len(known) > 1 else ""
        label = {"Y": "VOCALS", "N": "NONSPEECH"}.get(vocals)
        if known:
            extra["genres"] = known[0].split(",")
        if len(known) > 2:
            extra["artist"] = known[2]
    elif part == "speech" and known:
        extra["gender"] = _GENDERS.get(known[0], known[0])
        language = language_code(known[1]) if len(known) > 1 else None
    return Sample(id=path.stem, clips=(str(path),), recording=path.stem, language=language, label=label, source="musan", extra=extra)


def _annotations(path: Path) -> dict[str, tuple[str, ...]]:
    """What a folder says of its files: of music `name genres Y|N artist`, of speech `name f|m language`; of noise nothing."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}): correct its permissions") from error
    return {words[0].removesuffix(".wav"): tuple(words[1:]) for words in map(str.split, lines) if words}
