"""The clips that files, folders and globs stand for."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from audiograft.files import address_error, is_address
from audiograft.types import AudioError

AUDIO_SUFFIXES = frozenset((".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".mp4", ".aac", ".webm", ".aiff", ".aif", ".wma", ".mka"))
"""What counts as audio in a folder or glob. A file that is named by itself is always tried."""


def find_audio(paths: Iterable[str | Path]) -> list[Path]:
    """The clips that files, folders and globs stand for, each once, in the order given; within a folder or glob, sorted.

    A file stays as it is given, even where it is missing, so that `load_audio` reports it by itself. Folders are searched to their depths
    for `AUDIO_SUFFIXES`; hidden files and folders are passed over.

    Raises:
        AudioError: a folder or glob without audio, a folder that can't be read, or an address.
    """
    found: dict[str, Path] = {}
    for given in paths:
        if os.path.isdir(given):
            matches = _audio_in_folder(Path(given))
            if not matches:
                raise AudioError(f"{given}: no audio in this folder: looked for {_suffix_list()}")
        elif is_address(str(given)) and not os.path.exists(given):  # of which a path would drop a slash
            raise AudioError(address_error(str(given)), kind="missing")
        elif glob.has_magic(str(given)) and not os.path.exists(given):
            matches = _audio_in_glob(str(given))
            if not matches:
                raise AudioError(f"{given}: matches no audio file: looked for {_suffix_list()}")
        else:
            matches = [Path(given)]
        for match in matches:
            found.setdefault(os.path.abspath(match), match)
    return list(found.values())


def _suffix_list() -> str:
    return " ".join(sorted(AUDIO_SUFFIXES))


def _audio_in_folder(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise AudioError(f"{error.filename}: this folder can't be read ({error.strerror}): change its permissions or leave it out")

    found = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES]
    return sorted(found)


def _audio_in_glob(pattern: str) -> list[Path]:
    matches = [Path(match) for match in glob.glob(pattern, recursive=True)]
    files = {path for path in matches if os.path.isfile(path) and path.suffix.lower() in AUDIO_SUFFIXES}
    return sorted(files.union(*(_audio_in_folder(path) for path in matches if os.path.isdir(path))))
