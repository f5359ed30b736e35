"""What pictures look like: which show the same, be they coded anew, scaled or stretched.

A picture is remembered by itself at 24 x 24 pixels in colour ("80 million tiny images", Torralba, Fergus and Freeman, PAMI 2008, find near copies
by the distance of tiny images as well). Two look the same where no pixel of these is far off, and all together are near: the first sees one small
shape of another colour, the second tells dim pictures apart. Hashes of grey pictures, such as pHash (Zauner 2010), see neither: what that costs is
measured in benchmarks/picture_leakage.py.

What is not found, by design: copies that were cropped, turned, mirrored or recoloured. What may be taken for the same: pictures that differ in less
than some hundredths of their width, such as pages of one form, and frames of one film. Videos are compared by their files alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from audiograft.files import open_file
from audiograft.images import load_image
from audiograft.types import ImageError, Sample

if TYPE_CHECKING:
    from PIL import Image

_SIDE = 24
LOOK_BYTES = _SIDE * _SIDE * 3
"""Of a look: uint8 (24, 24, 3)."""
_DIGEST_BYTES = 16
_BLOCK_BYTES = 1 << 20
_FLAT = 2
"""Levels of 255 within which each colour of a blank picture stays."""
_MOST_OFF = 18
"""Levels of 255 by which one value of a look may be off. Coded at quality 50 or smoothly scaled, scenes and photographs are off by 17 at most; the
nearest of 20 million pairs of different scenes is by 20."""
_MEAN_OFF = 3.0
"""Likewise in the mean of all values. Those copies are off by 2.6 at most."""
_SHARE_OFF = 0.5
"""Likewise in the mean, as a share of how far the fainter of the two is from blank: thin lines on white are all within the limits above."""
_BLOCK = 6
"""Means of so many values on each side are compared first: they can't be farther apart than what they are means of."""
_MAX_PAIRS = 2_000_000
"""Of means, compared at once: bounds memory."""
_MAX_LOOKS = 4096
"""Pairs of whole looks, likewise."""


@dataclass(frozen=True)
class PictureTrace:
    """What is remembered of one image or video.

    Attributes:
        digest: of its file, in hexadecimal; None where it could not be read, and of a blank image, since that is nobody's.
        n_bytes: of its file; 0 where it could not be read.
        look: `LOOK_BYTES`; none of a video, and where there is no digest.
    """

    digest: str | None
    n_bytes: int
    look: bytes = b""


def find_look(image: Image.Image) -> bytes:
    """The picture at 24 x 24 pixels, each the mean of what is around it, weighted by a triangle so that edges may lie a little off.

    Args:
        image: RGB, of any size.
    """
    from PIL import Image

    return image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR).tobytes()


def is_blank(look: bytes) -> bool:
    """Whether a picture is of one colour everywhere."""
    colours = np.frombuffer(look, np.uint8).reshape(-1, 3)
    return bool((np.ptp(colours, axis=0) <= _FLAT).all())


def trace_image(path: str) -> PictureTrace:
    """What is remembered of an image.

    Raises:
        ConfigError: Pillow is not installed.
        ImageError: it can't be decoded.
    """
    look = find_look(load_image(path))
    found = trace_video(path)
    return PictureTrace(None, found.n_bytes) if is_blank(look) else PictureTrace(found.digest, found.n_bytes, look)


def trace_video(path: str) -> PictureTrace:
    """What is remembered of a video, which is not decoded.

    Raises:
        ImageError: its file can't be read.
    """
    with open_file(path, path, ImageError) as file:
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        try:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        except OSError as error:  # a disk that fails half way
            raise ImageError(f"{path}: can't be read ({error.strerror}): copy it again") from error
        return PictureTrace(digest.hexdigest(), file.tell())


def trace_pictures(sample: Sample) -> tuple[PictureTrace, ...]:
    """What is remembered of the images of a row, and then of its videos.

    Raises:
        ConfigError: Pillow is not installed.
        ImageError: one can't be read.
    """
    return (*map(trace_image, sample.images), *map(trace_video, sample.videos))


def trace_readable_pictures(sample: Sample) -> tuple[PictureTrace, ...]:
    """What `trace_pictures` gives; what can't be read has no bytes.

    Raises:
        ConfigError: Pillow is not installed.
    """
    found = []
    for trace, path in (*((trace_image, path) for path in sample.images), *((trace_video, path) for path in sample.videos)):
        try:
            found.append(trace(path))
        except ImageError:
            found.append(PictureTrace(None, 0))
    return tuple(found)


class LookIndex:
    """Pictures that can be searched for those that look the same. Takes 2.1 kB for each.

    Args:
        looks: of the pictures, from `find_look`.
    """

    def __init__(self, looks: Sequence[bytes]) -> None:
        self._looks = _levels(looks)
        self._means = _block_means(self._looks)
        self._contrasts = _contrasts(self._looks)

    def search(self, looks: Sequence[bytes]) -> Iterator[tuple[int, int]]:
        """(place in `looks`, place in the index) of each two that look the same; some hundreds at a time are fast."""
        if not len(self._looks):
            return
        from scipy.spatial.distance import cdist

        levels = _levels(looks)
        contrasts = _contrasts(levels)
        rows = max(1, _MAX_PAIRS // len(self._looks))
        for start in range(0, len(levels), rows):
            means = _block_means(levels[start : start + rows])
            queries, indexed = np.nonzero(cdist(means, self._means, "cityblock") <= _MEAN_OFF * means.shape[1] + 1e-6)
            queries += start
            for first in range(0, len(queries), _MAX_LOOKS):
                one, two = queries[first : first + _MAX_LOOKS], indexed[first : first + _MAX_LOOKS]
                off = np.abs(levels[one].astype(np.int16) - self._looks[two]).reshape(len(one), -1)
                mean_off = off.mean(axis=1)
                fainter = np.minimum(contrasts[one], self._contrasts[two])
                same = (off.max(axis=1) <= _MOST_OFF) & (mean_off <= _MEAN_OFF) & (mean_off <= _SHARE_OFF * fainter)
                yield from zip(one[same].tolist(), two[same].tolist(), strict=True)


def _levels(looks: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    """(n, 24, 24, 3)."""
    return np.frombuffer(b"".join(looks), np.uint8).reshape(-1, _SIDE, _SIDE, 3)


def _block_means(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """(n, 48) means of blocks."""
    n_blocks = _SIDE // _BLOCK
    means: npt.NDArray[np.float64] = levels.reshape(-1, n_blocks, _BLOCK, n_blocks, _BLOCK, 3).mean(axis=(2, 4), dtype=np.float64)
    return means.reshape(len(levels), n_blocks * n_blocks * 3)


def _contrasts(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """(n,) how far the values of each look are from the median of their colour, in the mean."""
    contrasts = np.empty(len(levels))
    for first in range(0, len(levels), _MAX_LOOKS):
        pixels = levels[first : first + _MAX_LOOKS].reshape(-1, _SIDE * _SIDE, 3)
        contrasts[first : first + _MAX_LOOKS] = np.abs(pixels - np.median(pixels, axis=1, keepdims=True)).mean(axis=(1, 2))
    return contrasts
