"""Any file or array -> a mono float32 waveform at 16 kHz, or an `AudioError` of one line.

Decoding runs in blocks, so that a clip of hours needs the memory of its 16 kHz waveform and little more. WAV, AIFF, FLAC and Ogg go through
libsndfile, the rest through FFmpeg; MP3 too, since libsndfile's MP3 decoder writes its own complaints to stderr.

What is seen of a clip that was cut off: a WAV, AIFF, FLAC, MP4/M4A or WebM, or an MP3 with a Xing or Info header (nearly all), whose header
states more than there is (from 0.1 s on, where FFmpeg decodes); an Ogg whose last page is incomplete; a broken last packet of raw AAC. An
MP3 without such a header says nowhere how long it should be, so it is read as far as it goes.
"""

from __future__ import annotations

import io
import itertools
import math
import numbers
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from audiograft.audio.ffmpeg import ffmpeg_blocks
from audiograft.audio.samples import BLOCK_SAMPLES, Block, Waveform, cut_off, to_mono
from audiograft.files import file_name, opened
from audiograft.types import SAMPLE_RATE_HZ, AudioError

AudioInput = str | Path | bytes | BinaryIO | tuple[npt.NDArray[Any], int]
"""A path, the bytes of a file, an open binary file (read from its start), or (samples of shape (n,) or (n, channels), rate in Hz)."""

_MIN_RATE_HZ = 1000
"""Lower rates are mistakes (16 for 16,000), and resampling from them would need a thousand times the memory."""
_MAX_CHANNELS = 64
"""More channels than this means that an array came as (channels, samples)."""
_SILENT_PEAK = 2.0**-16
"""Half a step of 16-bit audio."""

_IFF_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"FORM")
_SOUNDFILE_MAGIC = (*_IFF_MAGIC, b"fLaC", b"OggS")
_STREAMED_BYTES = 0x7FFF_0000
"""Programs that write a WAV to a pipe can't know its length and state this much or more (or 0)."""
_UNKNOWN_FRAMES = 2**63 - 1
"""libsndfile's count for a FLAC stream that states no length."""
_OGG_PAGE_MAX_BYTES = 27 + 255 + 255 * 255


@dataclass(frozen=True)
class Clip:
    """One decoded clip.

    Attributes:
        name: the clip as the caller named it; `<bytes>`, `<file>` or `<array>` where it has no name.
        waveform: float32 (n_samples,), mono, 16 kHz, full scale 1.0; at least one sample, all finite.
        native_rate_hz: the rate at which it was stored; where it changes on the way, the first.
    """

    name: str
    waveform: Waveform
    native_rate_hz: float = float(SAMPLE_RATE_HZ)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.waveform) / SAMPLE_RATE_HZ


def load_audio(source: AudioInput) -> Clip:
    """Decode, mix down to mono (mean of the channels) and resample to 16 kHz.

    Integer samples are divided by the range of their type; floats are taken as they are.

    Raises:
        AudioError: the clip is missing, unreadable, not audio, cut off, empty, not finite, or has an impossible rate.
    """
    if isinstance(source, tuple):
        return Clip("<array>", *_resample(_array_blocks(source), "<array>"))
    name = file_name(source)
    refusal = f"{type(source).__name__} is no audio: give a path, bytes, a binary file or (array, rate)"
    # Unbuffered, so that decoders can be given the descriptor, and no buffer believes to know where it stands.
    with opened(source, AudioError, refusal, buffering=0) as file:
        return Clip(name, *_resample(_file_blocks(file, name), name))


def is_silent(waveform: Waveform) -> bool:
    """True where no sample of (n_samples,) reaches half a step of 16-bit audio: nothing was recorded, so nothing can be heard."""
    return max(float(waveform.max()), -float(waveform.min())) < _SILENT_PEAK


def _resample(blocks: Iterable[Block], name: str) -> tuple[Waveform, float]:
    """Join blocks into one waveform (n_samples,) at 16 kHz; and their first rate, which may change on the way, as it does in chained streams."""
    blocks = iter(blocks)
    first = next(blocks, None)
    if first is not None:
        runs = itertools.groupby(itertools.chain([first], blocks), key=itemgetter(0))
        pieces = itertools.chain.from_iterable(_at_16_khz(rate_hz, (block for _, block in run), name) for rate_hz, run in runs)
        waveform = _join(pieces)
        if len(waveform):
            return waveform, first[0]
    raise AudioError(f"{name}: holds no samples: record or export it again", kind="empty")


def _at_16_khz(rate_hz: float, blocks: Iterator[Waveform], name: str) -> Iterator[Waveform]:
    """Blocks of one rate at 16 kHz."""
    if not _MIN_RATE_HZ <= rate_hz < math.inf:
        raise AudioError(f"{name}: a sampling rate of {rate_hz:g} Hz: give the true one, {_MIN_RATE_HZ} Hz or more")
    blocks = (_finite(block, name) for block in blocks)
    if rate_hz == SAMPLE_RATE_HZ:
        yield from blocks
        return
    first, second = next(blocks), next(blocks, None)
    if second is None:
        # One or two samples at a high rate are less than one at 16 kHz and would vanish.
        padding = max(0, int(rate_hz / SAMPLE_RATE_HZ) - len(first)) if len(first) else 0
        yield soxr.resample(np.pad(first, (0, padding)) if padding else first, rate_hz, SAMPLE_RATE_HZ)
        return
    resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
    for block in itertools.chain([first, second], blocks):
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _finite(block: Waveform, name: str) -> Waveform:
    if not np.isfinite(block).all():
        raise AudioError(f"{name}: holds NaN or infinite samples: write the file again from a sound source")
    return block


def _join(pieces: Iterator[Waveform]) -> Waveform:
    first, second = next(pieces), next(pieces, None)
    if second is None:  # most clips are one piece, and need no copy
        return first
    result = bytearray(first.tobytes())  # grows in place, where joining a list of blocks at the end would hold everything twice
    for piece in itertools.chain([second], pieces):
        result += piece.tobytes()
    return np.frombuffer(result, dtype=np.float32)


def _array_blocks(source: tuple[Any, ...]) -> Iterator[Block]:
    """Blocks of (array, rate)."""
    if len(source) != 2 or not isinstance(source[0], np.ndarray) or not isinstance(source[1], numbers.Real):
        raise AudioError(f"<array>: got ({', '.join(type(part).__name__ for part in source)}): give (NumPy array, rate in Hz)")
    samples, rate_hz = source[0], float(source[1])
    if samples.dtype.kind not in "iuf":
        raise AudioError(f"<array>: samples of type {samples.dtype}: give integers or floats")
    if samples.ndim not in (1, 2):
        raise AudioError(f"<array>: has {samples.ndim} dimensions: give (n_samples,) or (n_samples, n_channels)")
    samples = samples.reshape(len(samples), -1) if samples.size else samples.reshape(0, 1)
    if samples.shape[1] > _MAX_CHANNELS:
        raise AudioError(f"<array>: shape {samples.shape} means {samples.shape[1]} channels: give (n_samples, n_channels), so transpose it")
    # At least one block, so that the rate of an empty array is checked too.
    step = BLOCK_SAMPLES // samples.shape[1]
    for start in range(0, max(1, len(samples)), step):
        yield rate_hz, to_mono(samples[start : start + step].copy())  # the caller's samples are not shared


def _file_blocks(file: BinaryIO, name: str) -> Iterator[Block]:
    """Decode a file: libsndfile where it knows the format and the length, else FFmpeg."""
    magic = file.read(4)
    if not magic:
        raise AudioError(f"{name}: is empty (0 bytes): record or copy it again", kind="empty")
    if magic in _IFF_MAGIC:
        _refuse_cut_iff(file, name)
    elif magic == b"OggS":
        _refuse_cut_ogg(file, name)
    file.seek(0)
    if magic in _SOUNDFILE_MAGIC:
        try:
            # By its descriptor libsndfile reads a file itself; by the object it would call back into Python for each piece, and so threads
            # would wait for each other. Windows has descriptors of several kinds.
            sound = soundfile.SoundFile(file.fileno() if isinstance(file, io.FileIO) and os.name == "posix" else file, closefd=False)
        except (soundfile.SoundFileError, TypeError):  # TypeError: soundfile believes the name of a WAV that is called .raw
            pass
        else:
            with sound:
                if 0 < sound.frames < _UNKNOWN_FRAMES:
                    yield from _soundfile_blocks(sound, name)
                    return
        file.seek(0)
    yield from ffmpeg_blocks(file, name, may_be_empty=magic in _SOUNDFILE_MAGIC)


def _soundfile_blocks(sound: soundfile.SoundFile, name: str) -> Iterator[Block]:
    decoded_frames = 0
    try:
        step = BLOCK_SAMPLES // sound.channels
        while decoded_frames < sound.frames and len(block := sound.read(step, dtype="float32", always_2d=True)):
            decoded_frames += len(block)
            yield float(sound.samplerate), to_mono(block)
    except soundfile.SoundFileError:
        decoded_frames = 0  # some is missing, however much came before
    if decoded_frames < sound.frames:
        raise cut_off(name, sound.frames / sound.samplerate)


def _refuse_cut_iff(file: BinaryIO, name: str) -> None:
    """Refuse a WAV or AIFF whose sample chunk is longer than the file; libsndfile reads what there is and says nothing."""
    file.seek(0)
    big_endian = file.read(12)[:4] in (b"FORM", b"RIFX")
    while len(chunk := file.read(8)) == 8:
        size_bytes = int.from_bytes(chunk[4:], "big" if big_endian else "little")
        start = file.tell()
        if chunk[:4] in (b"data", b"SSND"):
            present_bytes = file.seek(0, io.SEEK_END) - start
            if present_bytes < size_bytes < _STREAMED_BYTES:
                raise AudioError(f"{name}: cut off, {present_bytes} of {size_bytes} bytes of samples are there: copy or record it again")
            return
        file.seek(start + size_bytes + size_bytes % 2)  # chunks begin at even bytes


def _refuse_cut_ogg(file: BinaryIO, name: str) -> None:
    """Refuse an Ogg whose last page is incomplete (RFC 3533, section 6); decoders drop that page and say nothing."""
    size_bytes = file.seek(0, io.SEEK_END)
    file.seek(max(0, size_bytes - _OGG_PAGE_MAX_BYTES))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if page.startswith(b"OggS") and (len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])):
        raise AudioError(f"{name}: cut off within its last page: copy or record it again")
