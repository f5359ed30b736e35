"""Clips as a browser plays them: as they are where it can, else as WAV."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import av
import soundfile

from audiograft.audio import load_audio
from audiograft.types import SAMPLE_RATE_HZ

_FORMATS = {
    ".wav": ("wav", "audio/wav"),
    ".mp3": ("mp3", "audio/mpeg"),
    ".ogg": ("ogg", "audio/ogg"),
    ".oga": ("ogg", "audio/ogg"),
    ".opus": ("ogg", "audio/ogg"),
    ".flac": ("flac", "audio/flac"),
    ".m4a": ("mov", "audio/mp4"),
    ".webm": ("matroska", "audio/webm"),
}
"""By suffix: FFmpeg's name of the container, and the type that browsers know it by."""
_CODECS = frozenset(("aac", "flac", "mp3", "opus", "vorbis", "pcm_alaw", "pcm_f32le", "pcm_mulaw", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_u8"))
"""What today's browsers play in these containers; lossless M4A or ADPCM in a WAV, for instance, they do not."""
_WAVS_KEPT = 4
"""Players ask for one clip again and again, in parts."""


@lru_cache(maxsize=4096)
def media_type(path: Path) -> str | None:
    """The type under which a browser plays the file as it is; None where it does not, or where the content is not what the suffix says."""
    container, kind = _FORMATS.get(path.suffix.lower(), ("", ""))
    if not container:
        return None
    try:
        # The container is named, since some formats that FFmpeg would find by itself are lists of other files.
        with path.open("rb") as file, av.open(file, format=container) as opened:
            streams = opened.streams.audio
            return kind if streams and streams[0].codec_context.codec.canonical_name in _CODECS else None
    except (OSError, av.FFmpegError):
        return None


@lru_cache(maxsize=_WAVS_KEPT)
def wav_bytes(path: Path) -> bytes:
    """The clip decoded: WAV, 16 kHz, mono, 16 bits.

    Raises:
        AudioError: it can't be decoded.
    """
    buffer = io.BytesIO()
    soundfile.write(buffer, load_audio(path).waveform, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
