"""Clips and pictures put into a prepared corpus: linked, copied, or written as FLAC, each whole or not at all."""

from __future__ import annotations

import io
import os
import re
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from audiograft.audio import AUDIO_SUFFIXES, Waveform
from audiograft.types import SAMPLE_RATE_HZ, Sample

AUDIO_FOLDER = "audio"
PICTURE_FOLDERS = ("images", "videos")
"""Named as what a `Sample` has of each kind."""
_CLIPS_IN_FOLDER = 1000
_HALF_RANGE = 1 << 15
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
_NAME_CHARACTERS = 60


def clip_name(number: int, sample: Sample, place: int, suffix: str, folder: str = AUDIO_FOLDER) -> str:
    """Where a clip goes, relative to the corpus: its row's number and id, so that no two meet and a row done again gives the same.

    Args:
        number: of the row in its source, from 1.
        sample: the row.
        place: of the clip in its row, from 0.
        suffix: with its dot.
        folder: within the corpus; of an image or a video one of `PICTURE_FOLDERS`.
    """
    n_files = len(sample.clips if folder == AUDIO_FOLDER else getattr(sample, folder))
    stem, dot, ending = sample.id.rpartition(".")
    name = stem if f"{dot}{ending.lower()}" in AUDIO_SUFFIXES else sample.id  # rows without an id are called by their clip
    words = _NOT_IN_NAMES.sub("_", name)[-_NAME_CHARACTERS:].strip("._-")
    several = f"-{place + 1}" if n_files > 1 else ""
    return f"{folder}/{number // _CLIPS_IN_FOLDER:04d}/{number:07d}_{words}{several}{suffix}"


def row_number(clip: str) -> int:
    """The number of the row in a name of `clip_name`."""
    return int(clip.rpartition("/")[2].partition("_")[0])


def as_16_bit(waveform: Waveform) -> Waveform:
    """The waveform (n_samples,) as it comes back from 16-bit FLAC."""
    return (_pcm(waveform) / np.float32(_HALF_RANGE)).astype(np.float32)


def write_flac(waveform: Waveform, target: Path) -> None:
    """Write (n_samples,) at 16 kHz as 16-bit FLAC.

    Raises:
        OSError: it can't be written.
    """
    _write_whole(flac_bytes(waveform), target)


def write_wav(waveform: Waveform, target: Path) -> None:
    """Write (n_samples,) at 16 kHz as 16-bit WAV: larger than FLAC, and quicker to write and to read a part of.

    Raises:
        OSError: it can't be written.
    """
    _write_whole(_encoded(waveform, "WAV"), target)


def flac_bytes(waveform: Waveform) -> bytes:
    """(n_samples,) at 16 kHz as the bytes of a 16-bit FLAC."""
    return _encoded(waveform, "FLAC")


def _encoded(waveform: Waveform, container: str) -> bytes:
    """In memory, since soundfile meets a full disk with an assertion, and waits for the disk after each file."""
    encoded = io.BytesIO()
    soundfile.write(encoded, _pcm(waveform), SAMPLE_RATE_HZ, format=container, subtype="PCM_16")
    return encoded.getvalue()


def _write_whole(encoded: bytes, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(target.name + ".part")
    staged.write_bytes(encoded)
    staged.replace(target)


def link(clip: str, target: Path) -> None:
    """Put a hard link to a clip at `target`; where that can't be, as between two disks, a symbolic one.

    Raises:
        OSError: neither can be.
    """
    true_path = os.path.realpath(clip)  # else a symbolic link would be linked, which may be relative
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(true_path, target)
    except OSError:
        target.symlink_to(true_path)


def copy(clip: str, target: Path) -> None:
    """Copy a clip.

    Raises:
        OSError: it can't be read or written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(target.name + ".part")
    shutil.copyfile(clip, staged)
    staged.replace(target)


def _pcm(waveform: Waveform) -> npt.NDArray[np.int16]:
    return np.asarray(np.clip(np.rint(waveform * np.float32(_HALF_RANGE)), -_HALF_RANGE, _HALF_RANGE - 1), dtype=np.int16)
