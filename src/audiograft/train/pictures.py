"""What is to be seen in a row: decoded when it is checked and again when it is learnt, and never kept."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from audiograft.images import load_image, load_video
from audiograft.types import DataError, ImageError, Sample


@dataclass(frozen=True)
class Pictures:
    """The decoded images and videos of a row, each kind in its order; see `audiograft.images`."""

    images: tuple[Any, ...] = ()
    videos: tuple[Any, ...] = ()

    @classmethod
    def of(cls, sample: Sample) -> Pictures:
        """Those of a row.

        Raises:
            ImageError: one is missing or broken.
        """
        return cls(tuple(map(load_image, sample.images)), tuple(map(load_video, sample.videos)))

    @property
    def checksum(self) -> int:
        """CRC-32 of the pixels and of their arrangement; 0 where there are none."""
        found = 0
        for frames in (*map(np.asarray, self.images), *(video.frames for video in self.videos)):
            found = zlib.crc32(np.ascontiguousarray(frames).data, zlib.crc32(repr(frames.shape).encode(), found))
        return found


NOTHING_SEEN = Pictures()


def has_pictures(sample: Sample) -> bool:
    """Whether there is anything to be seen in a row."""
    return bool(sample.images or sample.videos)


def load_pictures(sample: Sample) -> Pictures:
    """The pictures of a row that passed `check_row`.

    Raises:
        DataError: one can't be read any more.
    """
    try:
        return Pictures.of(sample)
    except ImageError as error:
        raise DataError(f"row {sample.id}: the picture was readable when the run began and is not now: {error}") from error


def changed_pictures(sample: Sample, why: str = "") -> DataError:
    """Of a row whose pictures are there, and not as they were when it was checked: they take another number of positions, or none."""
    names = " or ".join((*sample.images, *sample.videos))
    return DataError(f"row {sample.id}: {names} changed during the run{why}: start it again")
