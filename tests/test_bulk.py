from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiograft import bulk
from audiograft.bulk import spread
from audiograft.types import ConfigError, DataError


def squares() -> Callable[[int], int]:
    return lambda item: item * item


def drained(results: Iterator[int]) -> tuple[list[int], str]:
    """What came before the error, and the error."""
    seen: list[int] = []
    try:
        for result in results:
            seen.append(result)
    except DataError as error:
        return seen, str(error)
    return seen, ""


@given(items=st.lists(st.integers(), max_size=60), workers=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_results_come_in_the_order_of_the_items(items: list[int], workers: int) -> None:
    assert list(spread(squares, items, workers=workers)) == [item * item for item in items]


def test_slow_items_hold_up_nothing_but_their_place() -> None:
    def make() -> Callable[[int], int]:
        def work(item: int) -> int:
            time.sleep(0.02 if item % 7 == 0 else 0)
            return item

        return work

    assert list(spread(make, range(50), workers=4)) == list(range(50))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_worker_is_made_once_in_each_thread(workers: int) -> None:
    made: list[int] = []

    def make() -> Callable[[int], int]:
        made.append(threading.get_ident())
        return lambda item: (time.sleep(0.001), threading.get_ident())[1]

    threads = set(spread(make, range(40), workers=workers))
    assert len(made) == len(set(made)) == len(threads)
    assert (threads == {threading.get_ident()}) is (workers == 1)


@pytest.mark.parametrize("workers", [1, 3])
def test_endless_items_are_read_a_little_ahead(workers: int) -> None:
    read = 0

    def endless() -> Iterator[int]:
        nonlocal read
        while True:
            read += 1
            yield read

    results = spread(squares, endless(), workers=workers)
    for number in range(1, 101):
        assert next(results) == number * number
        assert read <= number + 4 * workers
    results.close()


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_comes_at_its_place(workers: int) -> None:
    def make() -> Callable[[int], int]:
        def work(item: int) -> int:
            if item == 5:
                raise DataError("row 5: bad")
            return item

        return work

    assert drained(spread(make, range(1000), workers=workers)) == ([0, 1, 2, 3, 4], "row 5: bad")


def breaking() -> Iterator[int]:
    yield from range(5)
    raise DataError("line 6: broken")


@pytest.mark.parametrize("workers", [1, 3])
def test_what_was_read_before_the_items_broke_is_done(workers: int) -> None:
    assert drained(spread(squares, breaking(), workers=workers)) == ([0, 1, 4, 9, 16], "line 6: broken")


def test_closing_stops_the_workers() -> None:
    before = threading.active_count()
    done: list[int] = []

    def make() -> Callable[[int], None]:
        return lambda item: (time.sleep(0.005), done.append(item))[1]

    results = spread(make, range(10_000), workers=3)
    next(results)
    results.close()
    assert threading.active_count() == before
    n_done = len(done)
    time.sleep(0.05)
    assert len(done) == n_done < 20


def test_what_can_not_be_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="engine spark: choose local or ray"):
        spread(squares, [], engine="spark")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="address 10.0.0.1:6379: .*set the engine to ray"):
        spread(squares, [], address="10.0.0.1:6379")


def test_without_ray_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(ConfigError, match=r"pip install 'audiograft\[ray\]'"):
        spread(squares, [], engine="ray")


RAY_SCRIPT = """
import os, signal, sys
from pathlib import Path
from audiograft.bulk import spread
from audiograft.types import DataError

def make():
    print("noise of a worker")
    def work(item):
        if item == 7 and not (marker := Path(sys_argv[1])).exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if item == 70:
            raise DataError("row 70: bad")
        return item, bytes([item]) + b"\\0", os.getpid()
    return work

sys_argv = sys.argv
seen = []
try:
    for result in spread(make, iter(range(1000)), engine="ray", workers=2):
        seen.append(result)
except DataError as error:
    print(error)
assert [(item, data) for item, data, _ in seen] == [(item, bytes([item]) + b"\\0") for item in range(70)], seen
assert len({pid for _, _, pid in seen} | {os.getpid()}) >= 3
import ray
assert not ray.is_initialized()
"""


@pytest.mark.slow
def test_on_ray_a_killed_worker_costs_nothing_and_errors_stay_one_line(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", RAY_SCRIPT, str(tmp_path / "killed")], capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout, done.stderr) == (0, "row 70: bad\n", "")
    assert (tmp_path / "killed").exists()


def test_an_address_where_nothing_is_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for scheme in ("", "ray://"):
        with pytest.raises(ConfigError, match=f"nothing answers at {scheme}127.0.0.1:{port} .*ray start --head"):
            next(spread(squares, [1], engine="ray", address=f"{scheme}127.0.0.1:{port}"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_on_a_cluster_with_gpus_each_worker_has_one_where_it_asks() -> None:
    import ray

    bulk._require_ray()
    ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:

        def make() -> Callable[[int], tuple[int, list[int]]]:
            return lambda item: (item, ray.get_gpu_ids())

        assert list(spread(make, range(6), engine="ray", on_gpus=True)) == [(item, [0]) for item in range(6)]
        assert list(spread(make, range(6), engine="ray")) == [(item, []) for item in range(6)]
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Any]:
    """One small cluster, to which `spread` connects as it finds it."""
    import ray

    with bulk._cluster(None, 2):
        yield ray


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
class TestOnRay:
    def test_the_same_results_as_local_over_several_blocks(self, ray_here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bulk, "_BLOCK_ITEMS", 30)
        power = 3
        made = {engine: list(spread(lambda: lambda item: item**power, range(70), engine=engine, workers=2)) for engine in ("local", "ray")}
        assert made["ray"] == made["local"] == [item**3 for item in range(70)]
        assert ray_here.is_initialized()

    def test_items_are_read_a_block_ahead(self, ray_here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bulk, "_BLOCK_ITEMS", 10)
        read = 0

        def endless() -> Iterator[int]:
            nonlocal read
            while True:
                read += 1
                yield read

        results = spread(lambda: lambda item: item, endless(), engine="ray", workers=1)
        assert [next(results) for _ in range(15)] == list(range(1, 16))
        assert read == 20
        results.close()

    def test_what_was_read_before_the_items_broke_is_done(self, ray_here: Any) -> None:
        results = spread(lambda: lambda item: item, breaking(), engine="ray", workers=1)
        assert drained(results) == ([0, 1, 2, 3, 4], "line 6: broken")

    def test_a_worker_that_can_not_start_is_named(self, ray_here: Any) -> None:
        def make() -> Any:
            raise ConfigError("no model: name one")

        with pytest.raises(ConfigError, match="no model: name one"):
            list(spread(make, range(9), engine="ray", workers=2))


def test_duplicates_are_dropped_and_gaps_are_seen() -> None:
    block = [(number, b"") for number in range(4, 8)]

    def arriving(numbers: list[int]) -> Iterator[tuple[int, bytes]]:
        import pickle

        return ((number, pickle.dumps((f"{number}", None))) for number in numbers)

    assert list(bulk._results_in_order(arriving([5, 4, 5, 4, 7, 6, 7]), block)) == ["4", "5", "6", "7"]
    with pytest.raises(Exception, match="engine ray: 1 of 4 results never came"):
        list(bulk._results_in_order(arriving([4, 5, 7]), block))
