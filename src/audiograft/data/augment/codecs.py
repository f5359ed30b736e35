"""A clip through a codec and back, as it would come from a telephone, a messenger or an archive. libsndfile does the coding."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from audiograft.audio import load_audio
from audiograft.data.augment.effects import TELEPHONE_HZ, limit_band
from audiograft.types import SAMPLE_RATE_HZ

Waveform = npt.NDArray[np.float32]

_TELEPHONE_RATE_HZ = 8_000


@dataclass(frozen=True)
class _Coding:
    """How libsndfile is asked for a codec; `level` is its compression, 0 to 1, where it has one."""

    container: str
    subtype: str
    rate_hz: int = SAMPLE_RATE_HZ
    level: float | None = None


CODECS = {
    "mp3": _Coding("MP3", "MPEG_LAYER_III", level=0.9),
    "vorbis": _Coding("OGG", "VORBIS", level=0.9),
    "opus": _Coding("OGG", "OPUS", level=0.95),
    "gsm": _Coding("WAV", "GSM610", _TELEPHONE_RATE_HZ),
    "ulaw": _Coding("WAV", "ULAW", _TELEPHONE_RATE_HZ),
    "alaw": _Coding("WAV", "ALAW", _TELEPHONE_RATE_HZ),
}
"""By name; those of 8 kHz are heard through the band of a telephone."""


def through_codec(waveform: Waveform, name: str) -> Waveform:
    """Encode and decode (n_samples,) at 16 kHz; the length is kept.

    Raises:
        KeyError: no such codec in `CODECS`.
    """
    coding = CODECS[name]
    telephone = coding.rate_hz != SAMPLE_RATE_HZ
    sent = np.asarray(soxr.resample(limit_band(waveform, *TELEPHONE_HZ), SAMPLE_RATE_HZ, coding.rate_hz)) if telephone else waveform
    # A codec needs some samples to begin with, and one of blocks drops what does not fill one.
    coded = io.BytesIO()
    padded = np.concatenate([np.clip(sent, -1, 1), np.zeros(coding.rate_hz // 10, np.float32)])
    options = {} if coding.level is None else {"compression_level": coding.level}
    soundfile.write(coded, padded, coding.rate_hz, format=coding.container, subtype=coding.subtype, **options)
    heard = load_audio(coded.getvalue()).waveform[: len(waveform)]
    return np.pad(heard, (0, len(waveform) - len(heard)))
