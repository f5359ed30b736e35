"""Real processes that run `audiograft`, to be killed or to work in pairs; forked from one that has imported everything, which saves seconds each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["audiograft.train.run", "torch.distributed.tensor", "torch.distributed.fsdp"])
_WRITES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")
PATIENCE_S = 240
"""A process that is not done by then hangs; on a quiet machine they take seconds."""


@dataclass
class Running:
    """A process and the file that has its stdout and stderr."""

    process: ForkServerProcess
    log: Path

    def wait(self) -> int:
        """The exit code; -9 after a kill."""
        self.process.join(PATIENCE_S)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"it hangs: {self.log.read_text(encoding='utf-8')[-2000:]}")
        return self.process.exitcode

    def kill_at(self, text: str) -> None:
        """`kill -9` as soon as the text is printed."""
        while self.process.is_alive() and text not in self.log.read_text(encoding="utf-8"):
            self.process.join(0.002)
        self.process.kill()
        self.wait()


def _writes_to(event: str, arguments: tuple[object, ...], folder: str) -> bool:
    if not arguments or not str(arguments[0]).startswith(folder):
        return False
    if event == "open":
        return isinstance(arguments[1], str) and any(letter in arguments[1] for letter in "wax+")
    return event in _WRITES


def _run(
    arguments: Sequence[str], environment: dict[str, str], log: str, kill_before: tuple[str, str] | None, journal: tuple[str, str] | None
) -> None:
    """In the new process."""
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)

    def hook(event: str, values: tuple[object, ...]) -> None:
        if kill_before is not None and event == kill_before[0] and kill_before[1] in str(values[0]):
            os.kill(os.getpid(), signal.SIGKILL)
        if journal is not None and _writes_to(event, values, journal[0]):
            with os.fdopen(os.open(journal[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND), "w") as file:
                file.write(f"{event} {values[0]}\n")

    sys.addaudithook(hook)
    from audiograft.cli import main

    sys.exit(main(list(arguments)))


def start(
    arguments: Sequence[str],
    log: Path,
    environment: dict[str, str] | None = None,
    kill_before: tuple[str, str] | None = None,
    journal: tuple[Path, Path] | None = None,
) -> Running:
    """Start `audiograft ARGUMENTS`.

    Args:
        arguments: behind `audiograft`.
        log: gets stdout and stderr.
        environment: added to the process's own.
        kill_before: name and part of the path of one of Python's audit events ("open", "os.rename"): `kill -9` just before it happens.
        journal: a folder, and the file that is told of what Python code writes in it.
    """
    log.touch()
    told = None if journal is None else (str(journal[0]), str(journal[1]))
    process = _CONTEXT.Process(target=_run, args=(list(arguments), environment or {}, str(log), kill_before, told))
    process.start()
    return Running(process, log)


def start_pair(arguments: Sequence[str], folder: Path, journal: Path | None = None) -> list[Running]:
    """Start two processes that work together, as torchrun does; `folder/0.log` and `folder/1.log` have what they print."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    watched = None if journal is None else (journal, folder / "written-by-1")
    return [
        start(arguments, folder / f"{rank}.log", {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, journal=watched if rank == 1 else None)
        for rank in range(2)
    ]
