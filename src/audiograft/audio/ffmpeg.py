"""Decoding through FFmpeg, for what libsndfile doesn't read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

import av
import av.container
import av.filter

from audiograft.audio.samples import BLOCK_SAMPLES, Block, cut_off, to_mono
from audiograft.files import image_format
from audiograft.types import AudioError

_DURATION_SLACK_S = 0.1
"""Stated durations are rounded, and count the encoder's padding or don't."""
_FFMPEG_FORMATS = "aac,ac3,aiff,amr,asf,au,caf,eac3,flac,matroska,mov,mp3,mpegts,ogg,w64,wav"
"""The containers that FFmpeg may open: it would read text as subtitles, and follow the addresses in a playlist."""
_AT_ONCE_FRAMES = 2500
"""A minute at 48 kHz. Longer MP3s are decoded packet by packet, since all of it is held until it is certain that it is whole."""
_FRAME_SAMPLES = 1152
"""Of an MPEG 1 frame; MPEG 2 and 2.5, of lower rates, have half."""


def ffmpeg_blocks(file: BinaryIO, name: str, may_be_empty: bool) -> Iterator[Block]:
    """Decode the first sound track of a file.

    Args:
        file: at its start; can seek.
        name: of the clip, for errors.
        may_be_empty: a file without samples is no error.

    Raises:
        AudioError: no sound track, not audio, damaged or cut off.
    """
    whole_mp3 = _whole_mp3(file)
    if whole_mp3 is not None:
        yield from whole_mp3
        return
    stated_s: float | None = None
    decoded_s = 0.0
    broken = False
    gathered = _Gathered()
    try:
        with av.open(file, "r", options={"format_whitelist": _FFMPEG_FORMATS}, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise _no_audio(file, name, "holds no audio: name a file with a sound track")
            stream = container.streams.audio[0]
            stated_s = _stated_duration_s(container, stream, file)
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    broken = True  # and go on: a tag between two joined MP3s looks like this too
                    continue
                for frame in frames:
                    decoded_s = (decoded_s if frame.time is None else frame.time) + frame.samples / frame.sample_rate
                    yield from gathered.add(frame)
    except av.error.EOFError:
        pass
    except av.FFmpegError:
        broken = True
    yield from gathered.rest()
    if not decoded_s and (broken or not may_be_empty):  # FFmpeg takes any text that is called .flac for a FLAC without frames
        raise _no_audio(file, name, "not audio, or damaged at its start: give WAV, FLAC, OGG, MP3, M4A or WebM")
    # Where the whole stated length is there, a broken packet was a tag or junk.
    if (broken and stated_s is None) or (stated_s is not None and decoded_s < stated_s - _DURATION_SLACK_S):
        raise cut_off(name, stated_s)


def _no_audio(file: BinaryIO, name: str, said: str) -> AudioError:
    """Why nothing can be heard; of an image where it belongs."""
    kind = image_format(file)
    return AudioError(f"{name}: {said if kind is None else f'is an image ({kind}), no audio: give it as an image, with --image or images='}")


def _whole_mp3(file: BinaryIO) -> list[Block] | None:
    """An MP3 of up to a minute that has just what its header states; None where it hasn't, and for all else.

    FFmpeg does here in a call a block what takes two calls a packet otherwise, of which there are 40 a second, and leaves the interpreter to
    other threads meanwhile. The samples are the same.
    """
    n_frames = _xing_frames(file) if isinstance(file, io.FileIO) and isinstance(file.name, str) else None
    if n_frames is None or n_frames > _AT_ONCE_FRAMES:
        return None
    blocks: list[Block] = []
    try:
        graph = av.filter.Graph()
        movie = graph.add("amovie", filename=f"file:{file.name}", format_name="mp3")
        joined = graph.add("asetnsamples", nb_out_samples=str(BLOCK_SAMPLES), pad="0")
        sink = graph.add("abuffersink")
        movie.link_to(joined)
        joined.link_to(sink)
        graph.configure()
        for _ in range(2 + n_frames * _FRAME_SAMPLES // BLOCK_SAMPLES):
            frame = sink.pull()
            assert isinstance(frame, av.AudioFrame)
            blocks.append(_block(frame))
    except av.error.EOFError:
        stated_s = _mp3_duration_s(n_frames, blocks[0][0]) if blocks else 0.0
        decoded_s = sum(len(samples) / rate_hz for rate_hz, samples in blocks)
        return blocks if abs(decoded_s - stated_s) <= _DURATION_SLACK_S else None
    except (av.FFmpegError, UnicodeEncodeError):
        pass
    return None


class _Gathered:
    """Frames of FFmpeg, joined into blocks: they are some ms long, and each block costs Python as much as any other."""

    def __init__(self) -> None:
        self._fifo = av.AudioFifo()
        self._kind: tuple[str, str, int] | None = None

    def add(self, frame: av.AudioFrame) -> Iterator[Block]:
        """Take a frame; gives the block that it ends, if any."""
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        if kind != self._kind or self._fifo.samples >= BLOCK_SAMPLES:
            yield from self.rest()
            self._kind, self._fifo = kind, av.AudioFifo()
        frame.pts = None  # gaps stay closed, as they are in the file
        self._fifo.write(frame)

    def rest(self) -> Iterator[Block]:
        """What was not given yet."""
        frame = self._fifo.read() if self._fifo.samples else None
        if frame is not None:
            yield _block(frame)


def _block(frame: av.AudioFrame) -> Block:
    samples = frame.to_ndarray()  # planar (channels, n), else (1, n * channels)
    return float(frame.sample_rate), to_mono(samples.T if frame.format.is_planar else samples.reshape(frame.samples, -1))


def _stated_duration_s(container: av.container.InputContainer, stream: av.AudioStream, file: BinaryIO) -> float | None:
    """The length that the file's header states, or None: for other formats FFmpeg guesses it from the bit rate or from what there is."""
    kind = container.format.name
    if kind == "mp3":
        n_frames = _xing_frames(file)
        return None if n_frames is None else _mp3_duration_s(n_frames, stream.rate)
    if "matroska" in kind:
        # With a picture beside the sound, the duration is that of the longer one.
        return container.duration / av.time_base if len(container.streams) == 1 and container.duration is not None else None
    if "mov" in kind or kind == "flac":
        return float(stream.duration * stream.time_base) if stream.duration is not None and stream.time_base is not None else None
    return None


def _mp3_duration_s(n_frames: int, rate_hz: float) -> float:
    return n_frames * (_FRAME_SAMPLES if rate_hz >= 32_000 else _FRAME_SAMPLES // 2) / rate_hz


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
