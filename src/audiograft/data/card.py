"""The data card: what a prepared corpus holds, what was dropped and why, as `card.json` and a page to read.

Everything is counted from the files that `prepare` leaves, in one pass and in memory that does not grow with the rows but for 18 to 36 bytes a
speaker, recording and distinct word.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from audiograft import __version__
from audiograft.data.counting import HashCounter, Spread, TopCounts
from audiograft.data.manifest import iterate_rows, replace_text
from audiograft.data.pages import render_page
from audiograft.types import SAMPLE_RATE_HZ, DataError

CARD_JSON, CARD_HTML = "card.json", "card.html"
_TOP_WORDS = 50
_MAX_CHARACTERS = 500
_MAX_GROUPS = 200
_OTHERS = "(others)"
_EXAMPLES = 5
_EXAMPLE_CHARACTERS = 300
_ABSENT = ("text", "speaker", "recording", "language", "duration_s")


def write_card(
    out: str | Path,
    manifests: Mapping[str, Path],
    rejected: Path | None,
    *,
    n_read: int | None = None,
    leakage: Mapping[str, Any] | None = None,
    made_by: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `card.json` and `card.html` into a folder.

    Args:
        out: the folder, which exists.
        manifests: by the name of the split; one alone may have any name.
        rejected: the rejections, one JSON object a line with `id`, `audio`, `reason` and `kind`; None where nothing was rejected.
        n_read: rows that were read; held against what was kept and rejected.
        leakage: what the splits share, as the leakage gate reports it.
        made_by: how the corpus was made, such as source and options; goes into the card as it is.

    Returns:
        What is in `card.json`.

    Raises:
        DataError: the rows don't add up, or a file can't be read or written.
    """
    card = make_card(manifests, rejected, n_read=n_read, leakage=leakage, made_by=made_by)
    folder = Path(out)
    replace_text(folder / CARD_JSON, json.dumps(card, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    replace_text(folder / CARD_HTML, render_card(card, folder.resolve().name))
    return card


def make_card(
    manifests: Mapping[str, Path],
    rejected: Path | None,
    *,
    n_read: int | None = None,
    leakage: Mapping[str, Any] | None = None,
    made_by: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Count what `write_card` writes; arguments and errors are the same."""
    whole = _Corpus()
    splits = {}
    for name, path in manifests.items():
        split = _Figures()
        for row in _rows(path):
            split.add(row)
            whole.add(row)
        splits[name] = split.summary()
    kinds = _rejections(rejected)
    n_rejected = sum(kind["rows"] for kind in kinds.values())
    if n_read is not None and n_read != whole.n_rows + n_rejected:
        raise DataError(
            f"{', '.join(map(str, manifests.values()))}: {whole.n_rows} rows kept and {n_rejected} rejected are not the {n_read} that were read: "
            "a file was changed from outside; prepare the corpus again"
        )
    return {
        "audiograft": __version__,
        "made_by": dict(made_by or {}),
        "rows": {"read": whole.n_rows + n_rejected, "kept": whole.n_rows, "rejected": n_rejected},
        **whole.summary(),
        "rejected": kinds,
        "splits": splits,
        "leakage": leakage,
    }


def render_card(card: Mapping[str, Any], title: str) -> str:
    """The card as one HTML page without scripts, and without anything to be fetched. All that comes from the corpus is escaped."""
    return render_page("card.html.jinja", card=card, title=title)


class _Figures:
    """What is told of each split."""

    def __init__(self) -> None:
        self.n_rows = 0
        self._n_samples = 0
        self._n_words = 0
        self._speakers, self._recordings = HashCounter(), HashCounter()

    def add(self, row: Mapping[str, Any]) -> None:
        self.n_rows += 1
        self._n_samples += _n_samples(row)
        self._n_words += len(_text(row).split())
        for key, seen in (("speaker", self._speakers), ("recording", self._recordings)):
            if row.get(key):
                seen.add(str(row[key]))

    def summary(self) -> dict[str, Any]:
        return {
            "rows": self.n_rows,
            "hours": self._n_samples / SAMPLE_RATE_HZ / 3600,
            "speakers": len(self._speakers),
            "recordings": len(self._recordings),
            "words": self._n_words,
        }


class _Corpus(_Figures):
    """What is told of the whole."""

    def __init__(self) -> None:
        super().__init__()
        self._absent = dict.fromkeys(_ABSENT, 0)
        self._groups: dict[str, dict[str, list[int]]] = {"language": {}, "source": {}, "label": {}}
        self._durations, self._paces, self._rates = Spread(0.01), Spread(0.01), Spread(0.1)
        self._words, self._characters = TopCounts(), TopCounts(_MAX_CHARACTERS)

    def add(self, row: Mapping[str, Any]) -> None:
        super().add(row)
        for key in _ABSENT:
            self._absent[key] += row.get(key) in (None, "")
        n_samples = _n_samples(row)
        if n_samples:
            self._durations.add(n_samples / SAMPLE_RATE_HZ)
        for key, groups in self._groups.items():
            self._count_group(groups, row.get(key), n_samples)
        text = _text(row)
        words = text.split()
        self._words.update([_bare(word) for word in words])
        self._characters.update(text)
        if n_samples and words and row.get("text"):
            self._paces.add(len(words) * SAMPLE_RATE_HZ / n_samples)
        stated = row.get("wer_percent")
        if isinstance(stated, int | float) and not isinstance(stated, bool) and 0 <= stated < math.inf:
            self._rates.add(stated)

    @staticmethod
    def _count_group(groups: dict[str, list[int]], name: Any, n_samples: int) -> None:
        if name in (None, ""):
            return
        key = str(name) if str(name) in groups or len(groups) < _MAX_GROUPS else _OTHERS
        group = groups.setdefault(key, [0, 0])
        group[0] += 1
        group[1] += n_samples

    def summary(self) -> dict[str, Any]:
        groups = {
            f"{key}s": [
                {"name": name, "rows": n_rows, "hours": n_samples / SAMPLE_RATE_HZ / 3600}
                for name, (n_rows, n_samples) in sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
            ]
            for key, found in self._groups.items()
        }
        return {
            **{key: value for key, value in super().summary().items() if key not in ("rows", "words")},
            "rows_without": self._absent,
            **groups,
            "duration_s": self._durations.summary(),
            "words_per_second": self._paces.summary(),
            "wer_percent": self._rates.summary(),
            "words": _of_strings(self._words, _TOP_WORDS),
            "characters": _of_strings(self._characters, _MAX_CHARACTERS),
        }


def _of_strings(counts: TopCounts, n_top: int) -> dict[str, Any]:
    return {"total": counts.total, "distinct": counts.distinct, "top": counts.top(n_top), "top_is_exact": counts.exact}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file that may be empty, as a split or the rejections can be."""
    try:
        if not path.stat().st_size:
            return
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}): correct the path or its permissions") from error
    for _, _, row in iterate_rows(path):
        yield row


def _rejections(path: Path | None) -> dict[str, dict[str, Any]]:
    """By kind, the most frequent first: how many rows, and the first few of them."""
    kinds: dict[str, dict[str, Any]] = {}
    for row in _rows(path) if path else ():
        kind = kinds.setdefault(str(row.get("kind") or "unusable"), {"rows": 0, "examples": []})
        kind["rows"] += 1
        if len(kind["examples"]) < _EXAMPLES:
            kind["examples"].append({key: _short(row.get(key)) for key in ("id", "audio", "reason")})
    return dict(sorted(kinds.items(), key=lambda item: (-item[1]["rows"], item[0])))


def _n_samples(row: Mapping[str, Any]) -> int:
    """Whole samples add up without rounding, where seconds would not."""
    return round((row.get("duration_s") or 0) * SAMPLE_RATE_HZ)


def _text(row: Mapping[str, Any]) -> str:
    """What is said; in a row without a transcript, what is to be answered."""
    text = row.get("text")
    return str((row.get("response") if text is None else text) or "")


def _bare(word: str) -> str:
    """A word in small letters, without the punctuation around it; punctuation alone stays."""
    if word.isalnum():
        return word.casefold()
    start, end = 0, len(word)
    while start < end and unicodedata.category(word[start])[0] in "PS":
        start += 1
    while end > start and unicodedata.category(word[end - 1])[0] in "PS":
        end -= 1
    return (word[start:end] or word).casefold()


def _short(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _EXAMPLE_CHARACTERS else text[: _EXAMPLE_CHARACTERS - 1] + "…"
