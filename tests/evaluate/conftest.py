"""What several tests of this folder compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from compared import Row, write


@pytest.fixture
def runs(tmp_path: Path) -> Callable[..., list[Path]]:
    def runs(*rows: Sequence[Row]) -> list[Path]:
        return [write(tmp_path, name, some) for name, some in zip("abcdef", rows, strict=False)]

    return runs
