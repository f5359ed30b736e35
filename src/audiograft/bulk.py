"""Work on many items: in the threads of this process, or on a Ray cluster through Ray Data.

Both engines take the same worker and give the same results in the order of the items, each once, so that which of them ran can't be told from
what comes out.
"""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import socket
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from importlib import import_module
from typing import Any, Literal, TypeVar, get_args

from audiograft.types import AudiograftError, ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")
EngineName = Literal["local", "ray"]

_IN_FLIGHT_PER_WORKER = 3
"""Items read ahead of the workers, so that none waits for the reader, and memory stays bounded."""
_BLOCK_ITEMS = 8192
_BLOCK_BYTES = 1 << 28
"""What Ray is given at once, whichever comes first: its workers start anew for each block, so blocks are large."""
_ANSWER_S = 10
_TASK_ITEMS = 16
"""What a worker is given at once. All of it is done again where the worker is killed."""

_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # reports to Ray's makers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray announces that this will be the default
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what its C++ part writes to stderr
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # what it writes to stdout, into our results, of workers that were killed
}


def spread(
    make_worker: Callable[[], Callable[[Item], Result]],
    items: Iterable[Item],
    *,
    engine: EngineName = "local",
    address: str | None = None,
    workers: int | None = None,
    on_gpus: bool = False,
) -> Generator[Result, None, None]:
    """Do the same work on every item.

    Args:
        make_worker: called once in each worker, there to load what is dear; gives the function of one item. For `ray` it has to go through
            cloudpickle, as closures and partials do, and so have items, results and errors.
        items: read lazily, a bounded number ahead of the results.
        engine: `local`, threads of this process (they gain where the interpreter lock is released: reading, decoding, torch); or `ray`,
            processes on this machine or a cluster. Where one of these is killed, its items are done again by another.
        address: of a Ray cluster that runs already, as `ray.init` takes it; by default one is started here and shut down at the end.
        workers: how many; by default one a core, or one a GPU where `on_gpus` finds some. One local worker is the caller's own thread.
        on_gpus: for `ray`, give each worker a GPU of its own, where the cluster has any.

    Yields:
        One result an item, in their order. An exception of an item comes at its place and ends the work; so does one of reading the items,
        behind the results of those that were read. Closing the generator stops the workers.

    Raises:
        ConfigError: an engine that is none, an address without `ray`, or Ray is not installed or can't be reached.
    """
    check_engine(engine, address)
    if engine == "local":
        return _in_threads(make_worker, items, workers or available_cores())
    return _on_ray(make_worker, items, address, workers, on_gpus)


def check_engine(engine: EngineName, address: str | None) -> None:
    """Refuse at once what `spread` would refuse.

    Raises:
        ConfigError: an engine that is none, an address without `ray`, or Ray is not installed.
    """
    if engine not in get_args(EngineName):
        raise ConfigError(f"engine {engine}: choose {' or '.join(get_args(EngineName))}")
    if engine == "ray":
        _require_ray()
    elif address is not None:
        raise ConfigError(f"address {address}: it is that of a Ray cluster: set the engine to ray, or leave it out")


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_threads(make_worker: Callable[[], Callable[[Item], Result]], items: Iterable[Item], workers: int) -> Generator[Result, None, None]:
    if workers == 1:
        yield from map(make_worker(), items)
        return
    own = threading.local()

    def work(item: Item) -> Result:
        if not hasattr(own, "worker"):
            own.worker = make_worker()
        result: Result = own.worker(item)
        return result

    waiting: deque[Future[Result]] = deque()
    reader, broken = iter(items), None
    pool = ThreadPoolExecutor(workers, "bulk")
    try:
        while True:
            try:
                for item in itertools.islice(reader, workers * _IN_FLIGHT_PER_WORKER - len(waiting)):
                    waiting.append(pool.submit(work, item))
            except Exception as error:
                # What was read before is still delivered.
                broken, reader = error, iter(())
            if not waiting:
                break
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if broken is not None:
        raise broken


def _require_ray() -> None:
    # Ray reads some of these when it is imported.
    for name, value in _RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import_module("ray.data")
    except ImportError as error:
        raise ConfigError("engine ray: Ray Data is not installed: pip install 'audiograft[ray]'") from error


def _on_ray(
    make_worker: Callable[[], Callable[[Item], Result]], items: Iterable[Item], address: str | None, workers: int | None, on_gpus: bool
) -> Generator[Result, None, None]:
    """One data set a block of items: Ray Data reads no iterator, and a block bounds what is in memory."""
    import ray
    from ray import cloudpickle

    maker = cloudpickle.dumps(make_worker)
    reader = _Numbered(items)
    with _cluster(address, workers), _quiet_data():
        gpus = int(ray.cluster_resources().get("GPU", 0)) if on_gpus else 0
        n_workers = workers or gpus or int(ray.cluster_resources().get("CPU", 1))
        while block := reader.block():
            try:
                with closing(_run_block(block, maker, n_workers, bool(gpus))) as arriving:
                    yield from _results_in_order(arriving, block)
            except ray.exceptions.RayError as error:
                lines = [line for line in str(error).splitlines() if line.strip()]
                reason = lines[-1].strip() if lines else type(error).__name__
                raise AudiograftError(f"engine ray: the cluster gave up ({reason}): see its logs in /tmp/ray, or use the engine local") from error
    if reader.broken is not None:
        raise reader.broken


class _Numbered:
    """Cuts items into blocks of (number, pickled item).

    Attributes:
        broken: what reading the items raised; the items before it come first.
    """

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = enumerate(items)
        self.broken: Exception | None = None

    def block(self) -> list[tuple[int, bytes]]:
        """The next items; none at the end."""
        block: list[tuple[int, bytes]] = []
        n_bytes = 0
        try:
            while self.broken is None and len(block) < _BLOCK_ITEMS and n_bytes < _BLOCK_BYTES:
                number, item = next(self._items)
                block.append((number, pickle.dumps(item, pickle.HIGHEST_PROTOCOL)))
                n_bytes += len(block[-1][1])
        except StopIteration:
            pass
        except Exception as error:
            self.broken = error
        return block


class _RayWorker:
    """What Ray Data keeps in each of its worker processes."""

    def __init__(self, maker: bytes) -> None:
        self._maker = maker
        self._work: Callable[[Any], Any] | None = None

    def __call__(self, table: Any) -> Iterator[Any]:
        """A table of items -> tables of one result each: (number, pickled (result, None) or (None, error))."""
        import pyarrow

        for number, item in zip(table["number"].to_pylist(), table["item"].to_pylist(), strict=True):
            yield pyarrow.table({"number": [number], "result": pyarrow.array([self._done(item)], pyarrow.large_binary())})

    def _done(self, item: bytes) -> bytes:
        # Errors travel as results: Ray would wrap them in its own, with a page of traceback.
        from ray import cloudpickle

        try:
            if self._work is None:
                self._work = cloudpickle.loads(self._maker)()
            return bytes(cloudpickle.dumps((self._work(pickle.loads(item)), None)))
        except Exception as error:
            try:
                return bytes(cloudpickle.dumps((None, error)))
            except Exception:  # an error that holds what can't be sent
                return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))


def _run_block(block: list[tuple[int, bytes]], maker: bytes, workers: int, on_gpus: bool) -> Generator[tuple[int, bytes], None, None]:
    """(number, pickled result) of a block's items, as they come."""
    import pyarrow
    import ray.data

    # Several tasks a worker, so that all end at about the same time.
    size = max(1, min(_TASK_ITEMS, len(block) // (workers * 4)))
    tables = []
    for start in range(0, len(block), size):
        numbers, items = zip(*block[start : start + size], strict=True)
        tables.append(pyarrow.table({"number": numbers, "item": pyarrow.array(items, pyarrow.large_binary())}))
    results = ray.data.from_arrow(tables).map_batches(
        _RayWorker,
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(tables))),
        fn_constructor_args=(maker,),
        num_cpus=0 if on_gpus else 1,
        num_gpus=1 if on_gpus else 0,
    )
    # Closed in time: threads that Ray Data leaves behind would start another cluster.
    batches: Any = iter(results.iter_batches(batch_size=None, batch_format="pyarrow"))
    with closing(batches):
        for table in batches:
            yield from zip(table["number"].to_pylist(), table["result"].to_pylist(), strict=True)


def _results_in_order(arriving: Iterator[tuple[int, bytes]], block: list[tuple[int, bytes]]) -> Iterator[Any]:
    """Each result once, in the order of the items, whatever was done twice on the way."""
    early: dict[int, bytes] = {}
    place, end = block[0][0], block[-1][0] + 1
    for number, payload in arriving:
        if number >= place:
            early.setdefault(number, payload)
        while place in early:
            result, error = pickle.loads(early.pop(place))
            if error is not None:
                raise error
            place += 1
            yield result
    if place != end:
        raise AudiograftError(f"engine ray: {end - place - len(early)} of {len(block)} results never came: run it again, or use the engine local")


@contextmanager
def _cluster(address: str | None, workers: int | None) -> Iterator[None]:
    """Be connected to a cluster: the one that this process has, the one at an address, or one of our own that ends with us."""
    import ray

    if ray.is_initialized():
        yield
        return
    if address is not None:
        _require_answer(address)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        with _silent_stderr():
            if address is None:
                ray.init("local", num_cpus=workers or available_cores(), include_dashboard=False, **quiet)
            else:
                ray.init(address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        reason = str(error).strip().split("\n")[0]
        if address is None:
            raise ConfigError(f"engine ray: Ray does not start here ({reason}): use the engine local") from error
        mend = "set RAY_AUTH_MODE=token where it asks for one, or start one with ray start --head"
        raise ConfigError(f"engine ray: no cluster at {address} ({reason}): {mend}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Ray itself would wait for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"engine ray: nothing answers at {address} ({error}): correct the address, or start one with ray start --head"
            ) from error


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drop what is written to the file descriptor itself: Ray's C++ part says there, each time, that it was asked to be quiet."""
    with open(os.devnull, "wb") as nowhere:
        kept = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def _quiet_data() -> Iterator[None]:
    """Results in order, which bounds how many wait, and no banners and bars of Ray Data."""
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # It warns of its own settings when they are copied.
        warnings.simplefilter("ignore")
        context = DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with DataContext.current(context):
        yield
