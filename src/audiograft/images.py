"""The one place that decodes pictures: any file -> an RGB image or the frames of a video, or an `ImageError` of one line.

Images go through Pillow and videos through FFmpeg (PyAV). Sizes are read from headers, before anything is decoded. Importing this module stays free
of all of them.
"""

from __future__ import annotations

import io
import warnings
from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from audiograft.types import ConfigError, ImageError

if TYPE_CHECKING:
    import av
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    ImageInput = str | Path | bytes | Image.Image
    """A path, the bytes of a file, or an image that is open already."""
    VideoInput = str | Path | bytes
    """A path, or the bytes of a file."""

MAX_PIXELS = 64_000_000
"""Of an image, or a frame: more than any camera that people carry, and 200 MB in memory."""
VIDEO_FPS = 2.0
"""Frames a second that are looked at, as Qwen2-VL does."""
MAX_FRAMES = 768
"""Of a video, likewise."""
_MAX_VIDEO_PIXELS = 768_000_000
"""Of all frames of a video together: 2.3 GB in memory. A larger video gives fewer frames."""
_VIDEO_FORMATS = "apng,asf,avi,flv,gif,h264,hevc,ivf,m4v,matroska,mov,mpeg,mpegts,mpegvideo,ogg,webp,yuv4mpegpipe"
"""The containers that FFmpeg may open: it would read text as subtitles, and follow the addresses in a playlist."""
_SOUND_FORMATS = "aac,ac3,aiff,amr,au,caf,eac3,flac,mp3,w64,wav"
_PROGRAMS = ("EPS", "WMF")
"""Formats that Pillow gives to other programs, which do what the file says."""
_HIGH_DEPTH = ("I;16", "I;16B", "I;16L", "I;16N", "I")


@dataclass(frozen=True)
class Video:
    """Frames of a video, at equal distances in time.

    Attributes:
        frames: (n, height, width, 3) uint8, RGB; at least one.
        fps: how many of them make a second.
        name: the video as the caller named it; `<bytes>` where it has no name.
    """

    frames: npt.NDArray[np.uint8]
    fps: float
    name: str


def load_image(source: ImageInput) -> Image.Image:
    """Decode an image as it is meant to be seen: RGB, turned as its EXIF orientation says, what is transparent on white; of several frames the first.

    Raises:
        ConfigError: Pillow is not installed.
        ImageError: missing, unreadable, no picture, cut off, without pixels, or of more than 64 megapixels.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ConfigError("images need Pillow: pip install 'audiograft[vision]'") from error
    if isinstance(source, Image.Image):
        return _as_seen(source, "<image>")
    name = media_name(source)
    with _opened(source, name, "image") as file:
        try:
            with warnings.catch_warnings():
                # Pillow's own limit is higher, and it warns of what is refused here.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                image = Image.open(file)
        except Image.DecompressionBombError:
            raise ImageError(f"{name}: more than {MAX_PIXELS // 10**6} megapixels: make it smaller", kind="giant") from None
        except UnidentifiedImageError:
            raise ImageError(f"{name}: {_what_else(file)}") from None
        except Exception as error:  # decoders of forty formats raise whatever they stumble over
            raise _damaged(name, error) from error
        with image:
            if image.format in _PROGRAMS:
                raise ImageError(f"{name}: is a drawing ({image.format}) and no picture: save it as PNG")
            return _as_seen(image, name)


def load_video(source: VideoInput, fps: float = VIDEO_FPS, max_frames: int = MAX_FRAMES) -> Video:
    """Decode some frames of a video, at equal distances from its first one on.

    Args:
        source: the video; a GIF with several frames is one too.
        fps: frames a second to take, never more than there are.
        max_frames: so many at most, and fewer of a video whose frames are so large that they would fill the memory.

    Raises:
        ImageError: missing, unreadable, not a video, without frames, or with frames of more than 64 megapixels.
    """
    import av

    name = media_name(source)
    with _opened(source, name, "video") as file:
        try:
            times, end = _frame_times(file, name)
            file.seek(0)
            with av.open(file, "r", options={"format_whitelist": _VIDEO_FORMATS}, metadata_errors="ignore") as container:
                stream = _pictures(container, name)
                limit = min(max_frames, max(1, _MAX_VIDEO_PIXELS // _checked(stream.width, stream.height, name)))
                wanted = _wanted(times, end, fps, limit)
                frames = _decode(container, stream, set(wanted))
        except av.error.EOFError:
            frames = []
        except av.FFmpegError:
            said = "is an image: give it as an image" if _is_image(file) else "not a video, or damaged: give MP4, WebM, MKV, MOV, AVI or GIF"
            raise ImageError(f"{name}: {said}") from None
    if not frames:
        raise ImageError(f"{name}: holds no frames: record or export it again", kind="empty")
    import numpy as np

    if len({frame.shape for frame in frames}) > 1:
        raise ImageError(f"{name}: its frames change their size on the way: convert it to one size")
    return Video(np.stack(frames), float(len(wanted) / (end - times[0])) if end > times[0] else fps, name)


def media_name(source: Any) -> str:
    """An image or video as the caller named it, for errors and results."""
    if isinstance(source, str | Path):
        return str(source)
    return "<bytes>" if isinstance(source, bytes) else "<image>"


def _opened(source: str | Path | bytes, name: str, kind: str) -> BinaryIO:
    """The source as a binary file at its start."""
    if isinstance(source, bytes):
        file: BinaryIO = io.BytesIO(source)
    elif isinstance(source, str | Path):
        file = _open(source, name)
        if not file.seekable():
            with file:
                file = io.BytesIO(file.read())
    else:
        raise ImageError(f"{type(source).__name__} is no {kind}: give a path or the bytes of a file")
    if not file.read(1):
        file.close()
        raise ImageError(f"{name}: is empty (0 bytes): make or copy it again", kind="empty")
    file.seek(0)
    return file


def _open(path: str | Path, name: str) -> BinaryIO:
    try:
        return cast(BinaryIO, open(path, "rb"))
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file: check the path", kind="missing") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: is a folder: name a file in it") from None
    except PermissionError:
        raise ImageError(f"{name}: permission denied: make the file readable (chmod +r)") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise ImageError(f"{name}: can't be opened ({getattr(error, 'strerror', error)}): check the path") from None


def _checked(width: int, height: int, name: str) -> int:
    """The number of pixels, where there are some and not too many."""
    if width * height <= 0:
        raise ImageError(f"{name}: has no pixels ({width} x {height}): make or export it again", kind="empty")
    if width * height > MAX_PIXELS:
        size = f"{width} x {height} is {width * height / 1e6:.0f} megapixels"
        raise ImageError(f"{name}: {size}, and at most {MAX_PIXELS // 10**6} are taken: make it smaller", kind="giant")
    return width * height


def _as_seen(image: Image.Image, name: str) -> Image.Image:
    from PIL import Image, ImageOps

    _checked(*image.size, name)
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode in _HIGH_DEPTH:
            # 16 bits a pixel, of which Pillow's own conversion would show the dark ones alone.
            image = image.convert("I").point(lambda value: value / 256).convert("L")
        if image.has_transparency_data:
            colours = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
        return image.convert("RGB")
    except Exception as error:  # see load_image
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> ImageError:
    said = " ".join(str(error).split()) or type(error).__name__
    return ImageError(f"{name}: damaged or cut off ({said}): copy or export it again")


def _what_else(file: BinaryIO) -> str:
    """What a file is that is no image, and the mend."""
    import av

    file.seek(0)
    try:
        with av.open(file, "r", options={"format_whitelist": f"{_VIDEO_FORMATS},{_SOUND_FORMATS}"}, metadata_errors="ignore") as container:
            stream = _picture_stream(container)
            if stream is not None and next(container.decode(stream), None) is not None:
                return "is a video, no image: give it as a video"
            if container.streams.audio:
                return "is sound, no image: give it as a clip"
    except av.FFmpegError:
        pass
    return "not an image, or damaged at its start: give PNG, JPEG, WebP, GIF, BMP or TIFF"


def _is_image(file: BinaryIO) -> bool:
    file.seek(0)
    try:
        from PIL import Image

        Image.open(file).close()
    except Exception:  # see load_image
        return False
    return True


def _picture_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The first that is no cover of an album; None where there is none."""
    from av.stream import Disposition

    return next((stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic), None)


def _pictures(container: av.container.InputContainer, name: str) -> av.VideoStream:
    stream = _picture_stream(container)
    if stream is None:
        sound = "is sound without pictures: give it as a clip" if container.streams.audio else "holds no video: name a file with pictures"
        raise ImageError(f"{name}: {sound}")
    return stream


def _frame_times(file: BinaryIO, name: str) -> tuple[list[Fraction], Fraction]:
    """When each frame is shown and when the last one ends, in seconds, from the packets alone: nothing is decoded."""
    import av

    with av.open(file, "r", options={"format_whitelist": f"{_VIDEO_FORMATS},{_SOUND_FORMATS}"}, metadata_errors="ignore") as container:
        stream = _pictures(container, name)
        # Not the packets themselves, which are all of the file.
        packets = [(packet.pts, packet.duration) for packet in container.demux(stream) if packet.size]
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        if not packets:
            raise ImageError(f"{name}: holds no frames: record or export it again", kind="empty")
        known = sorted((pts, duration or 0) for pts, duration in packets if pts is not None)
        if len(known) < len(packets) or stream.time_base is None:
            return [number / rate for number in range(len(packets))], len(packets) / rate
        times = [pts * stream.time_base for pts, _ in known]
        last = known[-1][1] * stream.time_base
        return times, times[-1] + (last or 1 / rate)


def _wanted(times: list[Fraction], end: Fraction, fps: float, limit: int) -> list[int]:
    """Numbers of the frames that are on show at equal distances from the first one on, each once."""
    count = max(1, min(round((end - times[0]) * Fraction(fps)), len(times), limit))
    step = (end - times[0]) / count
    return sorted({bisect_right(times, times[0] + number * step) - 1 for number in range(count)})


def _decode(container: av.container.InputContainer, stream: av.VideoStream, wanted: set[int]) -> list[npt.NDArray[np.uint8]]:
    """The frames with these numbers, (height, width, 3) each, turned as the file says."""
    import numpy as np

    stream.thread_type = "AUTO"
    frames = []
    for number, frame in enumerate(container.decode(stream)):
        if number in wanted:
            array = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
            # Phones store what they filmed upright lying on its side.
            frames.append(np.rot90(array, k=frame.rotation // 90 % 4) if frame.rotation % 90 == 0 else array)
            if len(frames) == len(wanted):
                break
    return frames
