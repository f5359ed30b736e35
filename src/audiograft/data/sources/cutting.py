"""Long recordings as pieces: how long a file is, by its header alone, and the spans that are cut from it."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

from audiograft.types import AudioError, ConfigError

Span = tuple[float, float]
"""(start, end) in seconds."""

_ROUNDING_S = 1e-6
"""Times in text and products of seconds are not exact: three clips of 0.1 s fit into 0.3 s."""


def stated_duration_s(audio: Path | bytes, name: str) -> float:
    """How long a file is, in seconds, as its header states. Nothing is decoded.

    Raises:
        AudioError: missing, or no audio.
    """
    import soundfile  # heavy, and `audiograft prepare --help` loads all sources

    try:
        info = soundfile.info(str(audio) if isinstance(audio, Path) else io.BytesIO(audio))
    except soundfile.SoundFileError as error:
        if isinstance(audio, Path) and not audio.exists():
            raise AudioError(f"{name}: no such file: unpack or fetch it again", kind="missing") from error
        raise AudioError(f"{name}: not audio, or damaged at its start: unpack or fetch it again") from error
    return float(info.frames) / float(info.samplerate)


def pieces(start_s: float, end_s: float, clip_s: float) -> Iterator[Span]:
    """As many spans of one length as fit, one behind the other; what is left at the end belongs to none."""
    for number in range(int((end_s - start_s + _ROUNDING_S) / clip_s)):
        yield start_s + number * clip_s, start_s + (number + 1) * clip_s


def check_clip_s(clip_s: float | None, source: str) -> None:
    """Refuse a length that no clip can have.

    Raises:
        ConfigError: not above 0.
    """
    if clip_s is not None and not 0 < clip_s < math.inf:
        raise ConfigError(f"{source}: clip_s must be above 0 seconds, not {clip_s:g}: leave it out for whole segments")
