"""Rows of Parquet files, local or remote, of which those to be passed over are never read.

`datasets` streams Parquet too, but passes over rows by reading them: a resumed run would fetch every clip again that it has already. The footer
of a file says how many rows each of its row groups has, so here the reading begins in the right one.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from audiograft.types import DataError

_BATCH_ROWS = 32
"""Rows in memory at once from a local file; audio makes each of them large."""
_BUFFER_BYTES = 1 << 20
_TRIES = 5
"""How often a remote file is opened again without one more row, before the run gives up."""
_FIRST_WAIT_S = 1.0


def is_remote(file: str) -> bool:
    """Whether a file is an address, such as `hf://datasets/...`, and no local path."""
    return "://" in file


class _BrokenError(DataError):
    """A file that can't be read on; a remote one may be readable again soon."""


def arrow_schema(file: str) -> Any:
    """The `pyarrow.Schema` of a file.

    Raises:
        DataError: it can't be opened, or is no Parquet file.
    """
    with _errors(file), _opened(file) as parquet:
        return parquet.schema_arrow


def parquet_rows(files: Sequence[str], columns: Sequence[str], needed: Collection[str] = (), skip: int = 0) -> Iterator[dict[str, Any]]:
    """Rows of all files, in order.

    Args:
        files: paths or addresses. An address that fails is tried again, from the row that it failed at.
        columns: to be read, from the files that have them.
        needed: those of them that each file must have.
        skip: rows to pass over.

    Yields:
        Column to value. Text that is not UTF-8 stays bytes.

    Raises:
        DataError: a file that can't be read, when its rows are reached; those before it were given.
    """
    for file in files:
        n_rows, passed, tries = 0, skip, 0
        while True:
            before = passed
            try:
                with _errors(file), _opened(file) as parquet:
                    n_rows = parquet.metadata.num_rows
                    for row in _rows(parquet, file, columns, needed, passed):
                        passed += 1
                        yield row
                break
            except _BrokenError:
                tries = 1 if passed > before else tries + 1
                if not is_remote(file) or tries >= _TRIES:
                    raise
                time.sleep(_FIRST_WAIT_S * 2 ** (tries - 1))
        skip = max(0, skip - n_rows)


def _rows(parquet: Any, file: str, columns: Sequence[str], needed: Collection[str], skip: int) -> Iterator[dict[str, Any]]:
    there = parquet.schema_arrow.names
    lacking = sorted(set(needed).difference(there))
    if lacking:
        raise DataError(f"{file}: has no column {lacking[0]!r}, as the files before it do: it has {', '.join(there)}")
    columns = [column for column in columns if column in there]
    for group in range(parquet.metadata.num_row_groups):
        n_rows = parquet.metadata.row_group(group).num_rows
        if skip >= n_rows:
            skip -= n_rows
            continue
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=columns):
            passed = min(skip, batch.num_rows)
            skip -= passed
            yield from _dicts(batch.slice(passed))


def _dicts(batch: Any) -> Iterator[dict[str, Any]]:
    for place in range(batch.num_rows):
        yield {name: _value(column[place]) for name, column in zip(batch.schema.names, batch.columns, strict=True)}


def _value(cell: Any) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError:  # Parquet does not check that what is called a string is UTF-8
        return {name: _value(part) for name, part in cell.items()} if hasattr(cell, "items") else cell.as_buffer().to_pybytes()


@contextmanager
def _opened(file: str) -> Iterator[Any]:
    """The file as `pyarrow.parquet.ParquetFile`."""
    import pyarrow.parquet

    if not is_remote(file):
        with pyarrow.parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES) as parquet:
            yield parquet
        return
    import fsspec

    files, path = fsspec.url_to_fs(file)
    # Arrow asks for the columns of a row group in as few pieces as it can, so that a cache would only fetch what nobody wants.
    with files.open(path, "rb", cache_type="none") as stream, pyarrow.parquet.ParquetFile(stream, pre_buffer=True) as parquet:
        yield parquet


@contextmanager
def _errors(file: str) -> Iterator[None]:
    """What Arrow and the network raise, as one line."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file: correct the name") from error
    except Exception as error:  # each kind of address has errors of its own, of no common class
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise _BrokenError(
            f"{file}: broken or cut off Parquet, or out of reach ({said}): fetch it again and run again, which goes on behind the rows before it"
        ) from error
