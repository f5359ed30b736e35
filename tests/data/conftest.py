"""Sources of rows that are written down in tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from listed import Listed, write_clip

from audiograft.data.sources.base import SourceRow
from audiograft.types import Rejection, Sample


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Listed]:
    def listed(*rows: SourceRow | Rejection | Sample) -> Listed:
        found = [SourceRow(row) if isinstance(row, Sample) else row for row in rows]
        for name, value in (("found", found), ("read", []), ("fail_at", {})):
            monkeypatch.setattr(Listed, name, value)
        return Listed(tmp_path)

    return listed


@pytest.fixture
def mixed(tmp_path: Path, listed: Callable[..., Listed]) -> Listed:
    """Fourteen rows of every fate, of which five can't be used."""
    good = [Sample(f"good-{n}", (str(write_clip(tmp_path / f"{n}.wav", 3200 + n, n)),), text=f"text {n % 3}", speaker=f"s{n % 4}") for n in range(8)]
    raw = (tmp_path / "3.wav").read_bytes()
    return listed(
        *good[:3],
        Sample("gone", (str(tmp_path / "gone.wav"),), text="gone"),
        SourceRow(Sample("bytes", ("table#1",), text="bytes", recording="r"), audio=raw),
        Rejection("line-6", "line-6", "broken line", "row"),
        good[3],
        Sample("good-1", (good[4].audio,), text="same id as another"),
        SourceRow(Sample("span", (good[5].audio,), text="span", recording="r"), span=(0.05, 0.15)),
        *good[4:6],
        Sample("null", (good[6].audio,)),
        Sample("binary", (good[6].audio,), text="a\0b"),
        good[7],
    )
