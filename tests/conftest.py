"""What holds for all tests: nothing is fetched from the network, and nothing is skipped in silence where that was forbidden."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
# Examples vary in cost by the machine's load, which no test is about.
settings.register_profile("audiograft", deadline=None)
settings.load_profile("audiograft")


@pytest.fixture(scope="session", autouse=True)
def clips_of_the_repository_stay_as_they_are() -> Iterator[None]:
    """Traces, for one, are written beside manifests: a test that may do so copies the clips first."""
    folder = Path(__file__).parent / "data" / "clips"
    before = sorted(folder.rglob("*"))
    yield
    assert sorted(folder.rglob("*")) == before


def pytest_collection_finish() -> None:
    """What is imported by now stays; each training run collects garbage several times, and would spend a third of its time on modules."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `needs_engines` where they are missing; with AUDIOGRAFT_REQUIRE_ENGINES set it fails instead."""
    if item.get_closest_marker("needs_engines") is None:
        return
    missing = [engine for engine in ("espeak-ng", "flite") if shutil.which(engine) is None]
    if missing and os.environ.get("AUDIOGRAFT_REQUIRE_ENGINES"):
        pytest.fail(f"AUDIOGRAFT_REQUIRE_ENGINES is set, but {' and '.join(missing)} can't be found", pytrace=False)
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}")
