"""The folder of a prepared corpus: which files it has, what made them, and whether they are whole."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from audiograft import __version__
from audiograft.data.augment.chain import read_augment
from audiograft.data.card import CARD_HTML, CARD_JSON
from audiograft.data.clips import AUDIO_FOLDER, PICTURE_FOLDERS
from audiograft.data.declarations import declared_fields
from audiograft.data.examine import unwritable
from audiograft.data.ledger import in_progress
from audiograft.data.manifest import MANIFEST_NAME, replace_text
from audiograft.data.options import AT_THE_END, RUNNING, PrepareOptions, plain
from audiograft.data.sources.base import Source
from audiograft.data.traces import traces_path
from audiograft.types import DataError

STATE_NAME, REJECTED_NAME = "prepare.json", "rejected.jsonl"
_FOLDERS = (AUDIO_FOLDER, *PICTURE_FOLDERS)
_REACHING = ("download", "mirror", "streaming")
"""Options of sources which decide how their files are reached and not what is read in them."""


class Folder:
    """A folder that holds a corpus, is about to, or will.

    Attributes:
        path: of the folder.
        manifests: final paths by the name of the split; `manifest` alone where there are none.
        whole: manifest of all rows; where there are splits, it never has its final name.
        rejected: of the rejected rows.
        traces: of all rows.

    Args:
        path: the folder, which need not exist.
        splits: their names; none for one manifest.
    """

    def __init__(self, path: Path, splits: Iterable[str] = ()) -> None:
        self.path = path
        self.whole = path / MANIFEST_NAME
        self.rejected = path / REJECTED_NAME
        self.traces = traces_path(self.whole)
        names = list(splits)
        self.manifests = dict(zip(names, self._manifests_of(names), strict=True)) or {"manifest": self.whole}

    def finished_by(self, made_by: Mapping[str, Any]) -> bool:
        """Whether the corpus is here, made with these options.

        Raises:
            DataError: another is.
        """
        state = self._state()
        if state is None or not state["finished"]:
            return False
        self._require_same(state["made_by"], made_by)
        return True

    @contextmanager
    def opened(self, made_by: Mapping[str, Any], source: Any, overwrite: bool) -> Iterator[None]:
        """Have the folder for oneself, ready to be written to or to be gone on with.

        Args:
            made_by: from `made_by`.
            source: a dataclass of options; what its paths name must not lie in the folder where it is cleared.
            overwrite: clear the folder of an earlier corpus first.

        Raises:
            DataError: it holds a finished corpus, one that was begun with other options, or files of somebody else; or another run has it.
        """
        with self._locked():
            state = self._state()
            if state is not None and overwrite:
                self._clear(state, source)
                state = None
            if state is None:
                self._refuse_strangers()
            elif state["finished"]:
                raise DataError(f"{self.path}: holds a finished corpus: name another folder, or replace it with --overwrite")
            else:
                if self._has_rows():  # without any, as of a path that was mistyped, nothing has to fit
                    self._require_same(state["made_by"], made_by, AT_THE_END)
                self._take_back(state["splits"])
            self._write_state(made_by, finished=False)
            yield

    def publish(self, made_by: Mapping[str, Any]) -> None:
        """Give all files their final names. The last step says that they have them; before it, the next run starts from the same point."""
        outputs = [path for manifest in self.manifests.values() for path in (traces_path(manifest), manifest)]
        for path in (self.rejected, *outputs):
            in_progress(path).replace(path)
        self._write_state(made_by, finished=True)
        for path in (self.whole, self.traces):
            in_progress(path).unlink(missing_ok=True)

    def _take_back(self, splits: Iterable[str]) -> None:
        """Undo a `publish` that was interrupted. Splits are made anew, perhaps other ones."""
        for manifest in self._manifests_of(splits):
            for path in (manifest, traces_path(manifest)):
                path.unlink(missing_ok=True)
                in_progress(path).unlink(missing_ok=True)
        for path in (self.rejected, self.traces, self.whole):
            if path.exists() and not in_progress(path).exists():
                path.replace(in_progress(path))

    def _has_rows(self) -> bool:
        """Whether an unfinished run wrote any row down."""
        files = [path for final in (self.whole, self.rejected) for path in (final, in_progress(final)) if path.exists()]
        return any(path.stat().st_size for path in files)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDONLY)
        except (FileExistsError, NotADirectoryError) as error:
            raise DataError(f"{self.path}: is a file, or lies below one: name a folder") from error
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise DataError(f"{self.path}: another run is preparing a corpus here: wait for it, or choose another folder") from error
        except OSError:
            pass  # some network file systems have no locks
        try:
            yield
        finally:
            os.close(handle)

    def _refuse_strangers(self) -> None:
        """Refuse a folder with files that no preparation made, which one would write over."""
        finals = {self.whole, self.rejected, self.traces, *self.manifests.values(), *map(traces_path, self.manifests.values())}
        for path in sorted({*finals, *map(in_progress, finals), *(self.path / name for name in _FOLDERS)}):
            if path.exists():
                raise DataError(f"{path}: is there already, and `audiograft prepare` did not write it: choose another folder")

    def _clear(self, state: Mapping[str, Any], source: Any) -> None:
        """Remove what an earlier run wrote, its state last, so that this can be interrupted too."""
        inside = self.path.resolve()
        for item in declared_fields(source):
            value = getattr(source, item.name)
            if isinstance(value, str | Path) and str(value) and Path(value).exists() and Path(value).resolve().is_relative_to(inside):
                raise DataError(f"{value}: the source lies in {self.path}, which --overwrite would remove: choose another folder")
        manifests = {self.whole, *self._manifests_of(state["splits"])}
        files = {self.rejected, *manifests, *map(traces_path, manifests), self.path / CARD_JSON, self.path / CARD_HTML}
        try:
            for name in _FOLDERS:
                shutil.rmtree(self.path / name, ignore_errors=True)
            for path in {*files, *map(in_progress, files)}:
                path.unlink(missing_ok=True)
            (self.path / STATE_NAME).unlink()
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _manifests_of(self, splits: Iterable[str]) -> list[Path]:
        return [self.path / f"{name}.jsonl" for name in splits]

    def _require_same(self, before: Mapping[str, Any], now: Mapping[str, Any], may_differ: Collection[str] = ()) -> None:
        for key in (*now, *before):
            old, new = before.get(key), now.get(key)
            if old != new and key not in may_differ:
                raise DataError(
                    f"{self.path}: was begun with {key} {json.dumps(old)}, not {json.dumps(new)}: give that again, choose another folder, "
                    "or start anew with --overwrite"
                )

    def _state(self) -> dict[str, Any] | None:
        path = self.path / STATE_NAME
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            return {key: state[key] for key in ("finished", "splits", "made_by")}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DataError(f"{path}: can't be read as the state of a preparation: remove the folder, or choose another") from error

    def _write_state(self, made_by: Mapping[str, Any], finished: bool) -> None:
        splits = [name for name, path in self.manifests.items() if path != self.whole]
        state = {"audiograft": __version__, "finished": finished, "splits": splits, "made_by": made_by}
        replace_text(self.path / STATE_NAME, json.dumps(state, indent=1, ensure_ascii=False) + "\n")


def made_by(source: Source, options: PrepareOptions, prompts: Sequence[str]) -> dict[str, Any]:
    """What a corpus is made with and of: a run goes on only where this is the same."""
    chosen = {key: value for key, value in plain(options).items() if key not in RUNNING}
    if prompts:
        chosen["prompts"] = hashlib.sha256("\n".join(prompts).encode()).hexdigest()
    if options.augment:
        chosen["augment"] = plain(read_augment(options.augment))
    read = {f"{source.name}.{key}": value for key, value in plain(source).items() if key not in _REACHING}
    return {"source": source.name, **read, **chosen}
