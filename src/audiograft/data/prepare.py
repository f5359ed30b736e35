"""A source becomes a corpus: manifest, rejected rows, traces and data card in one folder, from which an interrupted run goes on.

Each row that is read becomes one line, either of the manifest or of the rejected rows, and nothing has its final name before all of it is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from audiograft.bulk import spread
from audiograft.data.augment.chain import Augmenter, read_augment
from audiograft.data.declarations import build, declared_fields, unknown_key
from audiograft.data.examine import Examiner
from audiograft.data.filters import Filters
from audiograft.data.finish import finish, parse_shares
from audiograft.data.folder import Folder, made_by
from audiograft.data.ledger import Ledger
from audiograft.data.options import PrepareOptions
from audiograft.data.prompts import read_prompts
from audiograft.data.sources import find_source
from audiograft.data.sources.base import Source, SourceRow, missing_package
from audiograft.data.text import with_case
from audiograft.types import AudiograftError, DataError, Rejection, Sample

_CHECK_EVERY_ROWS = 200
_NOT_IN_RECIPES = ("out", "overwrite", "augment", "splits", "group_by", "stratify_by")
_SWITCHES = {"missing": "--skip-missing leaves them out of the share"}

OnRow = Callable[[Rejection | None], None]


class TooManyRejectedError(DataError):
    """More rows are rejected than the options allow.

    Attributes:
        headline: how many, and how to go on.
        reasons: for each kind, the most frequent first, its count, its first example and what lets it through.
    """

    def __init__(self, headline: str, reasons: list[str]) -> None:
        super().__init__("; ".join([headline, *reasons]))
        self.headline = headline
        self.reasons = reasons


@dataclass(frozen=True)
class Summary:
    """What a preparation came to.

    Attributes:
        manifests: by the name of the split; `manifest` alone where there are none.
        rows: read.
        kept: rows in the manifests.
        rejected: rows by kind, the most frequent first.
        duration_s: of the rows kept.
        card: the content of `card.json`.
    """

    manifests: dict[str, Path]
    rows: int
    kept: int
    rejected: dict[str, int]
    duration_s: float
    card: dict[str, Any]


def prepare(source: Source, options: PrepareOptions, on_row: OnRow = lambda rejection: None) -> Summary:
    """Make a corpus of a source, or go on where an earlier run with the same options ended.

    Args:
        source: what is read.
        options: what is done with it.
        on_row: called for each row, with its rejection or None.

    Raises:
        ConfigError: options that don't fit the source, or each other.
        DataError: nothing can be read, the reading breaks off, the folder can't be written to or was made with other options. What was done is kept,
            and the same call goes on from there.
        TooManyRejectedError: the share of rejected rows is above `options.max_rejected`. The same call with a higher one goes on.
    """
    prompts = read_prompts(options.prompts) if options.prompts else []
    shares = parse_shares(options.splits)
    folder = Folder(options.out, shares)
    made = made_by(source, options, prompts)
    with folder.opened(made, source, options.overwrite):
        with Ledger(folder.whole, folder.rejected, folder.traces, options.skip, options.filters.max_repeats) as ledger:
            _read(source, options, prompts, ledger, on_row)
        card = finish(folder, options, shares, ledger.rows, made)
    return Summary(folder.manifests, ledger.rows, ledger.kept, dict(ledger.rejected.most_common()), ledger.duration_s, card)


def _read(source: Source, options: PrepareOptions, prompts: Sequence[str], ledger: Ledger, on_row: OnRow) -> None:
    """Write down all rows that are not in the ledger yet."""
    left = None if options.limit is None else options.limit - ledger.rows
    rows = _Rows(source, options, ledger, left)
    augmenter = Augmenter(read_augment(options.augment), options.seed) if options.augment else None
    make_worker = partial(Examiner, replace(options, out=options.out.absolute()), prompts, augmenter)
    with closing(spread(make_worker, rows, engine=options.engine, address=options.address, workers=options.workers)) as outcomes:
        for outcome in outcomes:
            on_row(ledger.append(outcome, options.out))
            if ledger.rows % _CHECK_EVERY_ROWS == 0:
                _refuse_too_many(ledger, options)
    if rows.number != options.skip + ledger.rows:
        raise DataError(f"{options.out}: {rows.number - options.skip} rows were read and {ledger.rows} written down: start anew with --overwrite")
    if not ledger.rows:
        raise DataError(f"{source.name}: no rows: the source is empty, or --skip {options.skip} passes over all of it")
    _refuse_too_many(ledger, options)
    ledger.make_durable()


def prepare_source(name: str, settings: Mapping[str, Any], out: Path, on_row: OnRow = lambda rejection: None) -> Path:
    """The manifest of a source that a recipe names; prepared where the folder does not hold it yet.

    Args:
        name: of the source, as in `audiograft prepare NAME`.
        settings: see `read_settings`.
        out: the folder, for this source and these settings alone.
        on_row: called for each row that is prepared, with its rejection or None.

    Raises:
        ConfigError: what `read_settings` raises.
        DataError: what `prepare` raises, or the folder was made with other settings.
    """
    source, options = read_settings(name, settings, out)
    folder = Folder(out)
    if not folder.finished_by(made_by(source, options, read_prompts(options.prompts) if options.prompts else [])):
        prepare(source, options, on_row)
    return folder.manifests["manifest"]


def read_settings(name: str, settings: Mapping[str, Any], out: Path) -> tuple[Source, PrepareOptions]:
    """A source as a recipe declares it, and what is to be done with its rows.

    Args:
        name: of the source, as in `audiograft prepare NAME`.
        settings: options of the source, of `Filters`, and those of `PrepareOptions` that choose and change rows.
        out: the folder that it would be prepared in.

    Raises:
        ConfigError: an unknown source or key (with the closest valid one), or a value of the wrong type.
    """
    source_class = find_source(name)
    origin = f"source {name}"
    shared = {item.name for item in fields(PrepareOptions) if item.name not in (*_NOT_IN_RECIPES, "filters")}
    own, filters = ({item.name for item in declared_fields(declared)} for declared in (source_class, Filters))
    for key in settings:
        if key not in own | shared | filters:
            raise unknown_key(key, dict.fromkeys([*own, *shared, *filters]), "", origin)
    source = build(source_class, {key: value for key, value in settings.items() if key in own}, "", origin)
    limits = build(Filters, {key: value for key, value in settings.items() if key in filters - own}, "", origin)
    chosen = {key: value for key, value in settings.items() if key in shared - own}
    return source, replace(build(PrepareOptions, {"out": out, **chosen}, "", origin), filters=limits)


class _Rows:
    """The rows of a source behind the first ones, numbered from 1.

    Attributes:
        number: of the last row that was read.

    Args:
        source: read behind the rows that are in the ledger.
        options: of the run. With the engine ray the paths of clips are made absolute, for workers that run in other folders.
        ledger: of which the last row is read once more, to see that the source is still the same.
        count: of the rows; None for all.
    """

    def __init__(self, source: Source, options: PrepareOptions, ledger: Ledger, count: int | None) -> None:
        self.number = options.skip + ledger.rows
        self._source = source
        self._options = options
        self._last = ledger.last
        self._count = count

    def __iter__(self) -> Iterator[tuple[int, SourceRow | Rejection]]:
        if self._count is not None and self._count <= 0:
            return
        try:
            rows = self._source.rows(skip=self.number - (self._last is not None))
            if self._last is not None:
                self._refuse_another(next(rows, None), *self._last)
            for row in islice(rows, self._count):
                self.number += 1
                yield self.number, _absolute(row) if self._options.engine == "ray" else row
        except AudiograftError:
            raise
        except ImportError as error:
            raise missing_package(self._source, error) from error
        except Exception as error:  # whatever a network or a library may raise
            reason = f"{type(error).__name__}: {error}"
            raise DataError(
                f"{self._source.name}: broke off behind row {self.number} ({reason}): run the same command again, and it goes on from here"
            ) from error

    def _refuse_another(self, row: SourceRow | Rejection | None, row_id: str, text: str | None) -> None:
        """Stop where the last row that was written down, with this id and text, is not the one that the source has in its place now."""
        found = row.sample if isinstance(row, SourceRow) else row
        now = None
        if isinstance(found, Sample) and found.text is not None:
            now = with_case(found.text, self._options.text_case, found.language)
        if found is None or found.id != row_id or (None not in (text, now) and text != now):
            what = "is gone" if found is None else f"is {found.id!r} now" if found.id != row_id else "has another text now"
            raise DataError(
                f"{self._source.name}: was changed since {self._options.out} was begun: row {self.number}, {row_id!r}, {what}: "
                "undo the change, or start anew with --overwrite"
            )


def _absolute(row: SourceRow | Rejection) -> SourceRow | Rejection:
    if isinstance(row, Rejection) or row.audio is not None:
        return row
    clips, images, videos = (tuple(map(os.path.abspath, paths)) for paths in (row.sample.clips, row.sample.images, row.sample.videos))
    return replace(row, sample=replace(row.sample, clips=clips, images=images, videos=videos))


def _refuse_too_many(ledger: Ledger, options: PrepareOptions) -> None:
    """Stop where the share of rejected rows is too large.

    Raises:
        TooManyRejectedError: it is.
    """
    counted = ledger.rejected.total() - (ledger.rejected["missing"] if options.skip_missing else 0)
    if not ledger.rows or counted / ledger.rows <= options.max_rejected:
        return
    headline = (
        f"{options.out}: {counted} of {ledger.rows} rows ({counted / ledger.rows:.1%}) are rejected, more than --max-rejected "
        f"{options.max_rejected:g}: mend them and start anew (--overwrite, or delete the folder), or go on with --max-rejected 1; "
        "all are in rejected.jsonl.part"
    )
    reasons = []
    for kind, count in ledger.rejected.most_common():
        switch = f" ({_SWITCHES[kind]})" if kind in _SWITCHES else ""
        reasons.append(f"{count} {kind}, such as: {ledger.examples[kind]}{switch}")
    raise TooManyRejectedError(headline, reasons)
