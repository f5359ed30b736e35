"""The one place that decodes audio: any file or array becomes a mono float32 waveform at 16 kHz, or an `AudioError` of one line.

Decoding runs in blocks, so that a clip of hours needs the memory of its 16 kHz waveform and little more. WAV, AIFF, FLAC and Ogg go through
libsndfile, the rest through FFmpeg; MP3 too, since libsndfile's MP3 decoder writes its own complaints to stderr.

What is seen of a clip that was cut off: a WAV, AIFF, FLAC, MP4/M4A or WebM, or an MP3 with a Xing or Info header (nearly all), whose header
states more than there is (from 0.1 s on, where FFmpeg decodes); an Ogg whose last page is incomplete; a broken last packet of raw AAC. An
MP3 without such a header says nowhere how long it should be, so it is read as far as it goes.
"""

from __future__ import annotations

import glob
import io
import itertools
import math
import numbers
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, cast

import av
import av.container
import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from audiograft.types import SAMPLE_RATE_HZ, AudioError

AudioInput = str | Path | bytes | BinaryIO | tuple[npt.NDArray[Any], int]
"""A path, the bytes of a file, an open binary file (read from its start), or (samples of shape (n,) or (n, channels), rate in Hz)."""
AUDIO_SUFFIXES = frozenset((".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".mp4", ".aac", ".webm", ".aiff", ".aif", ".wma", ".mka"))
"""What counts as audio in a folder or glob. A file that is named by itself is always tried."""

Waveform = npt.NDArray[np.float32]
_Block = tuple[float, Waveform]
"""(rate in Hz, mono samples at that rate)."""

_BLOCK_SAMPLES = 1 << 18
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
_DURATION_SLACK_S = 0.1
"""Stated durations are rounded, and count the encoder's padding or don't."""
_FFMPEG_FORMATS = "aac,ac3,aiff,amr,asf,au,caf,eac3,flac,matroska,mov,mp3,mpegts,ogg,w64,wav"
"""The containers that FFmpeg may open: it would read text as subtitles, and follow the addresses in a playlist."""


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
    name = _name(source)
    with _opened(source, name) as file:
        return Clip(name, *_resample(_file_blocks(file, name), name))


def is_silent(waveform: Waveform) -> bool:
    """True where no sample of (n_samples,) reaches half a step of 16-bit audio: nothing was recorded, so nothing can be heard."""
    return max(float(waveform.max()), -float(waveform.min())) < _SILENT_PEAK


def find_audio(paths: Iterable[str | Path]) -> list[Path]:
    """The clips that files, folders and globs stand for, each once, in the order given; within a folder or glob, sorted.

    A file stays as it is given, even where it is missing, so that `load_audio` reports it by itself. Folders are searched to their depths
    for `AUDIO_SUFFIXES`; hidden files and folders are passed over.

    Raises:
        AudioError: a folder or glob without audio, or a folder that can't be read.
    """
    found: dict[str, Path] = {}
    for given in paths:
        if os.path.isdir(given):
            matches = _audio_in_folder(Path(given))
            if not matches:
                raise AudioError(f"{given}: no audio in this folder: looked for {_suffix_list()}")
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


def _name(source: str | Path | bytes | BinaryIO) -> str:
    if isinstance(source, bytes):
        return "<bytes>"
    if isinstance(source, str | Path):
        return str(source)
    name = getattr(source, "name", None)  # a number for a file without a path
    return name if isinstance(name, str) else "<file>"


def _open(path: str | Path, name: str) -> BinaryIO:
    try:
        # Unbuffered, so that decoders can be given the descriptor, and no buffer believes to know where it stands.
        return cast(BinaryIO, open(path, "rb", buffering=0))
    except FileNotFoundError:
        raise AudioError(f"{name}: no such file: check the path", kind="missing") from None
    except IsADirectoryError:
        raise AudioError(f"{name}: is a folder: name a file in it") from None
    except PermissionError:
        raise AudioError(f"{name}: permission denied: make the file readable (chmod +r)") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise AudioError(f"{name}: can't be opened ({getattr(error, 'strerror', error)}): check the path") from None


@contextmanager
def _opened(source: str | Path | bytes | BinaryIO, name: str) -> Iterator[BinaryIO]:
    """The source as a binary file that can seek, at its start. A caller's file stays open."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, str | Path):
        with _open(source, name) as file:
            yield file if file.seekable() else io.BytesIO(file.read())
    elif not hasattr(source, "read"):
        raise AudioError(f"{type(source).__name__} is no audio: give a path, bytes, a binary file or (array, rate)")
    elif isinstance(source, io.TextIOBase):
        raise AudioError(f"{name}: opened as text: open it in binary mode, 'rb'")
    elif source.seekable():
        source.seek(0)
        yield source
    else:
        yield io.BytesIO(source.read())


def _resample(blocks: Iterable[_Block], name: str) -> tuple[Waveform, float]:
    """Join blocks into one waveform (n_samples,) at 16 kHz; and their first rate, which may change on the way, as it does in chained streams."""
    native_rate_hz = 0.0
    result = bytearray()  # grows in place, where joining a list of blocks at the end would hold everything twice
    for rate_hz, run in itertools.groupby(blocks, key=itemgetter(0)):
        if not _MIN_RATE_HZ <= rate_hz < math.inf:
            raise AudioError(f"{name}: a sampling rate of {rate_hz:g} Hz: give the true one, {_MIN_RATE_HZ} Hz or more")
        native_rate_hz = native_rate_hz or rate_hz
        resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32") if rate_hz != SAMPLE_RATE_HZ else None
        n_samples = 0
        for _, block in run:
            if not np.isfinite(block).all():
                raise AudioError(f"{name}: holds NaN or infinite samples: write the file again from a sound source")
            n_samples += len(block)
            result += (resampler.resample_chunk(block) if resampler else block).tobytes()
        if resampler:
            # One or two samples at a high rate are less than one at 16 kHz and would vanish.
            padding = max(0, int(rate_hz / SAMPLE_RATE_HZ) - n_samples) if n_samples else 0
            result += resampler.resample_chunk(np.zeros(padding, np.float32), last=True).tobytes()
    if not result:
        raise AudioError(f"{name}: holds no samples: record or export it again", kind="empty")
    return np.frombuffer(result, dtype=np.float32), native_rate_hz


def _to_mono(samples: npt.NDArray[Any]) -> Waveform:
    """Samples of any numeric type, (n, channels), as float32 (n,) at full scale 1.0."""
    if samples.dtype == np.float32 and samples.shape[1] == 1:
        return samples[:, 0]
    if samples.dtype.kind in "iu":
        half_range = 2.0 ** (8 * samples.dtype.itemsize - 1)
        samples = samples / half_range - (1.0 if samples.dtype.kind == "u" else 0.0)
    with np.errstate(over="ignore", invalid="ignore"):  # what doesn't fit becomes infinite and is refused as such
        return np.asarray(samples.mean(axis=1), dtype=np.float32)


def _array_blocks(source: tuple[Any, ...]) -> Iterator[_Block]:
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
    for start in range(0, max(1, len(samples)), _BLOCK_SAMPLES):
        yield rate_hz, _to_mono(samples[start : start + _BLOCK_SAMPLES])


def _file_blocks(file: BinaryIO, name: str) -> Iterator[_Block]:
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
    yield from _ffmpeg_blocks(file, name, may_be_empty=magic in _SOUNDFILE_MAGIC)


def _soundfile_blocks(sound: soundfile.SoundFile, name: str) -> Iterator[_Block]:
    decoded_frames = 0
    try:
        while len(block := sound.read(_BLOCK_SAMPLES, dtype="float32", always_2d=True)):
            decoded_frames += len(block)
            yield float(sound.samplerate), _to_mono(block)
    except soundfile.SoundFileError:
        decoded_frames = 0  # some is missing, however much came before
    if decoded_frames < sound.frames:
        raise _cut_off(name, sound.frames / sound.samplerate)


def _ffmpeg_blocks(file: BinaryIO, name: str, may_be_empty: bool) -> Iterator[_Block]:
    stated_s: float | None = None
    decoded_s = 0.0
    broken = False
    try:
        with av.open(file, "r", options={"format_whitelist": _FFMPEG_FORMATS}, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise AudioError(f"{name}: holds no audio: name a file with a sound track")
            stream = container.streams.audio[0]
            stated_s = _stated_duration_s(container, stream, file)
            gathered = _Gathered()
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    broken = True  # and go on: a tag between two joined MP3s looks like this too
                    continue
                for frame in frames:
                    decoded_s = (decoded_s if frame.time is None else frame.time) + frame.samples / frame.sample_rate
                    yield from gathered.add(frame)
            yield from gathered.rest()
    except av.error.EOFError:
        pass
    except av.FFmpegError:
        broken = True
    if not decoded_s and (broken or not may_be_empty):  # FFmpeg takes any text that is called .flac for a FLAC without frames
        raise AudioError(f"{name}: not audio, or damaged at its start: give WAV, FLAC, OGG, MP3, M4A or WebM")
    # Where the whole stated length is there, a broken packet was a tag or junk.
    if (broken and stated_s is None) or (stated_s is not None and decoded_s < stated_s - _DURATION_SLACK_S):
        raise _cut_off(name, stated_s)


class _Gathered:
    """Frames of FFmpeg, joined into blocks: they are some ms long, and each block costs Python as much as any other."""

    def __init__(self) -> None:
        self._fifo = av.AudioFifo()
        self._kind: tuple[str, str, int] | None = None

    def add(self, frame: av.AudioFrame) -> Iterator[_Block]:
        """Take a frame; gives the block that it ends, if any."""
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        if kind != self._kind or self._fifo.samples >= _BLOCK_SAMPLES:
            yield from self.rest()
            self._kind, self._fifo = kind, av.AudioFifo()
        frame.pts = None  # gaps stay closed, as they are in the file
        self._fifo.write(frame)

    def rest(self) -> Iterator[_Block]:
        """What was not given yet."""
        frame = self._fifo.read() if self._fifo.samples else None
        if frame is not None:
            samples = frame.to_ndarray()  # planar (channels, n), else (1, n * channels)
            yield float(frame.sample_rate), _to_mono(samples.T if frame.format.is_planar else samples.reshape(frame.samples, -1))


def _stated_duration_s(container: av.container.InputContainer, stream: av.AudioStream, file: BinaryIO) -> float | None:
    """The length that the file's header states, or None: for other formats FFmpeg guesses it from the bit rate or from what there is."""
    kind = container.format.name
    if kind == "mp3":
        n_frames = _xing_frames(file)
        frame_samples = 1152 if stream.rate >= 32_000 else 576  # MPEG 1; MPEG 2 and 2.5
        return None if n_frames is None else n_frames * frame_samples / stream.rate
    if "matroska" in kind:
        # With a picture beside the sound, the duration is that of the longer one.
        return container.duration / av.time_base if len(container.streams) == 1 and container.duration is not None else None
    if "mov" in kind or kind == "flac":
        return float(stream.duration * stream.time_base) if stream.duration is not None and stream.time_base is not None else None
    return None


def _xing_frames(file: BinaryIO) -> int | None:
    """How many MPEG frames an MP3 states in its Xing or Info header, which is its first frame. Leaves the file's position as it was.

    FFmpeg reads the header too, but silently puts a guess in its place where the size of the file doesn't fit.
    """
    position = file.tell()
    file.seek(0)
    head = file.read(10)
    if head.startswith(b"ID3"):  # then the length of the tag that precedes the frames, seven bits a byte
        file.seek(10 + sum(byte << 7 * (3 - place) for place, byte in enumerate(head[6:10])))
        head = b""
    head += file.read(128)
    file.seek(position)
    place = max(head.find(b"Xing"), head.find(b"Info"))
    if place < 0 or not head[place + 7] & 1:  # the first flag says that the count is there
        return None
    return int.from_bytes(head[place + 8 : place + 12], "big")


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


def _cut_off(name: str, stated_s: float | None) -> AudioError:
    stated = "" if stated_s is None else f" before the end of its {stated_s:.2f} s"
    return AudioError(f"{name}: damaged or cut off{stated}: copy or record it again")
