"""The one place that decodes pictures: any file -> an RGB image or the frames of a video, or an `ImageError` of one line.

Images go through Pillow and videos through FFmpeg (PyAV). Sizes are read from headers, before anything is decoded. Importing this module stays free
of all of them.
"""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from audiograft.files import file_name, image_format, opened
from audiograft.types import ConfigError, ImageError

if TYPE_CHECKING:
    import av
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    ImageInput = str | Path | bytes | BinaryIO | Image.Image
    """A path, the bytes of a file, an open binary file (read from its start), or an image that is open already."""
    VideoInput = str | Path | bytes | BinaryIO
    """A path, the bytes of a file, or an open binary file."""

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
_UNREAD = ("HEIC", "AVIF")
"""Images that Pillow may lack the decoder of, and FFmpeg takes for videos."""
_AS_A_CLIP = "give it as a clip, without {} (in Python as audio=)"
"""The mend for sound, with the option that it was given to."""
_HIGH_DEPTH = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_ORIENTATION = 0x0112
"""EXIF's tag; from 5 on the picture lies on its side."""


@dataclass(frozen=True)
class Video:
    """Frames of a video, at equal distances in time.

    Attributes:
        frames: (n, height, width, 3) uint8, RGB; at least one.
        fps: how many of them make a second.
        name: the video as the caller named it; `<bytes>` or `<file>` where it has no name.
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
    _check_pillow()
    from PIL import Image

    if isinstance(source, Image.Image):
        return _as_seen(source, "<image>")
    with _open_image(source) as image:
        return _as_seen(image, media_name(source))


def image_size(source: str | Path | bytes | BinaryIO) -> tuple[int, int]:
    """(width, height) that `load_image` would give, by the file's header: no pixel is decoded.

    Raises:
        ConfigError: Pillow is not installed.
        ImageError: as in `load_image`, as far as the header shows it.
    """
    _check_pillow()
    with _open_image(source) as image:
        width, height = image.size
        _checked(width, height, media_name(source))
        try:
            # A TIFF's size is turned already; and behind the pixels of a PNG, where no camera writes, Pillow would have to decode it to look.
            turned = "exif" in image.info and image.getexif().get(_ORIENTATION, 1) >= 5
        except Exception as error:  # see _open_image
            raise _damaged(media_name(source), error) from error
    return (height, width) if turned else (width, height)


def _check_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ConfigError("images need Pillow: pip install 'audiograft[vision]'") from error


@contextmanager
def _open_image(source: str | Path | bytes | BinaryIO) -> Iterator[Image.Image]:
    """The image with its header read. Raises ImageError as `load_image` does."""
    from PIL import Image, UnidentifiedImageError

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
            yield image


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
    with _open_video(source, name) as file:
        times, end = _frame_times(file, name)
        file.seek(0)
        with av.open(file, "r", options={"format_whitelist": _VIDEO_FORMATS}, metadata_errors="ignore") as container:
            stream = _pictures(container, name)
            limit = min(max_frames, max(1, _MAX_VIDEO_PIXELS // _checked(stream.width, stream.height, name)))
            wanted = _wanted(times, end, fps, limit)
            frames = _decode(container, stream, set(wanted), name)
    if frames is None:
        raise _no_frames(name)
    return Video(frames, float(len(wanted) / (end - times[0])) if end > times[0] else fps, name)


def check_video(source: VideoInput) -> None:
    """Refuse what `load_video` would, as far as the header shows it: no frame is decoded.

    Raises:
        ImageError: as in `load_video`.
    """
    name = media_name(source)
    with _open_video(source, name) as file, _open_any(file) as container:
        stream = _pictures(container, name)
        _checked(stream.width, stream.height, name)


@contextmanager
def _open_video(source: VideoInput, name: str) -> Iterator[BinaryIO]:
    """The source as a file; what FFmpeg says while it is read becomes an ImageError."""
    import av

    with _opened(source, name, "video") as file:
        try:
            yield file
        except av.error.EOFError:
            raise _no_frames(name) from None
        except av.FFmpegError:
            said = "not a video, or damaged: give MP4, WebM, MKV, MOV, AVI or GIF"
            if _is_image(file):
                said = "is an image: give it as an image, with --image or images="
            raise ImageError(f"{name}: {said}") from None


def _open_any(file: BinaryIO) -> av.container.InputContainer:
    """A container of pictures or of sound, which is to be told from what is damaged."""
    import av

    return av.open(file, "r", options={"format_whitelist": f"{_VIDEO_FORMATS},{_SOUND_FORMATS}"}, metadata_errors="ignore")


def _no_frames(name: str) -> ImageError:
    return ImageError(f"{name}: holds no frames: record or export it again", kind="empty")


def media_name(source: Any) -> str:
    """An image or video as the caller named it, for errors and results."""
    return file_name(source) if isinstance(source, str | Path | bytes) or hasattr(source, "read") else "<image>"


@contextmanager
def _opened(source: str | Path | bytes | BinaryIO, name: str, kind: str) -> Iterator[BinaryIO]:
    """The source as a binary file at its start, which is not its end."""
    refusal = f"{type(source).__name__} is no {kind}: give a path, the bytes of a file, or a binary file"
    with opened(source, ImageError, refusal) as file:
        if not file.read(1):
            raise ImageError(f"{name}: is empty (0 bytes): make or copy it again", kind="empty")
        file.seek(0)
        yield file


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
    except Exception as error:  # see _open_image
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> ImageError:
    said = " ".join(str(error).split()) or type(error).__name__
    return ImageError(f"{name}: damaged or cut off ({said}): copy or export it again")


def _what_else(file: BinaryIO) -> str:
    """What a file is that is no image, and the mend."""
    import av

    if (kind := image_format(file)) in _UNREAD:
        return f"is an image of a kind that is not read here ({kind}), or damaged: save it as JPEG or PNG"
    try:
        with _open_any(file) as container:
            stream = _picture_stream(container)
            if stream is not None and next(container.decode(stream), None) is not None:
                return "is a video, no image: give it as a video, with --video or videos="
            if container.streams.audio:
                return f"is sound, no image: {_AS_A_CLIP.format('--image')}"
    except av.FFmpegError:
        pass
    return "not an image, or damaged at its start: give PNG, JPEG, WebP, GIF, BMP or TIFF"


def _is_image(file: BinaryIO) -> bool:
    file.seek(0)
    try:
        from PIL import Image

        Image.open(file).close()
    except Exception:  # see _open_image
        return False
    return True


def _picture_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The first that is no cover of an album; None where there is none."""
    from av.stream import Disposition

    return next((stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic), None)


def _pictures(container: av.container.InputContainer, name: str) -> av.VideoStream:
    stream = _picture_stream(container)
    if stream is None:
        said = "holds no video: name a file with pictures"
        if container.streams.audio:
            said = f"is sound without pictures: {_AS_A_CLIP.format('--video')}"
        raise ImageError(f"{name}: {said}")
    return stream


def _frame_times(file: BinaryIO, name: str) -> tuple[list[Fraction], Fraction]:
    """When each frame is shown and when the last one ends, in seconds, from the packets alone: nothing is decoded."""
    with _open_any(file) as container:
        stream = _pictures(container, name)
        # Not the packets themselves, which are all of the file.
        packets = [(packet.pts, packet.duration) for packet in container.demux(stream) if packet.size]
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        if not packets:
            raise _no_frames(name)
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


def _decode(container: av.container.InputContainer, stream: av.VideoStream, wanted: set[int], name: str) -> npt.NDArray[np.uint8] | None:
    """The frames with these numbers, (n, height, width, 3), turned as the file says; None where none of them comes."""
    import numpy as np

    stream.thread_type = "AUTO"
    frames: npt.NDArray[np.uint8] | None = None
    count = 0
    for number, frame in enumerate(container.decode(stream)):
        if number in wanted:
            array = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
            if frame.rotation % 90 == 0:
                # Phones store what they filmed upright lying on its side.
                array = np.rot90(array, k=frame.rotation // 90 % 4)
            if frames is None:
                # All at once: what is joined at the end is in memory twice.
                frames = np.empty((len(wanted), *array.shape), dtype=np.uint8)
            elif array.shape != frames.shape[1:]:
                raise ImageError(f"{name}: its frames change their size on the way: convert it to one size")
            frames[count] = array
            count += 1
            if count == len(wanted):
                break
    return None if frames is None else frames[:count]
