"""A source whose rows a test writes down, and what the tests of `prepare` share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import soundfile

from audiograft.data.filters import Filters
from audiograft.data.options import PrepareOptions
from audiograft.data.sources.base import SourceRow, option
from audiograft.types import Rejection


def write_clip(path: Path, n_samples: int = 3200, seed: int = 0, rate_hz: int = 16_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, n_samples).astype(np.float32)
    soundfile.write(path, samples, rate_hz, subtype="PCM_16")
    return path


@dataclass(frozen=True)
class Listed:
    """Rows that a test wrote down, of clips in a folder.

    Attributes:
        fail_at: row at which the reading breaks, which is no option: it is gone at the next try.
    """

    name: ClassVar[str] = "listed"
    found: ClassVar[list[SourceRow | Rejection]] = []
    read: ClassVar[list[int]] = []
    fail_at: ClassVar[dict[int, BaseException]] = {}

    folder: Path = option("Of the clips.", argument=True)
    scale: float = option("A number.", 1.0)
    tags: tuple[str, ...] = option("Several.", ())

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """See `Source.rows`."""
        for number, row in enumerate(self.found[skip:], start=skip):
            if number in self.fail_at:
                raise self.fail_at.pop(number)
            self.read.append(number)
            yield row


def options(out: Path, **chosen: Any) -> PrepareOptions:
    filters = {name: chosen.pop(name) for name in list(chosen) if name in Filters.__dataclass_fields__}
    return PrepareOptions(**{"out": out, "max_rejected": 1.0, "workers": 2, "filters": Filters(**filters), **chosen})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a finished corpus. The card's page has the name of the folder, so corpora that are compared need the same."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
