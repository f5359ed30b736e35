"""Where the clips of a bench come from: synthetic ones, manifests, and the corpora that `audiograft prepare` reads."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiograft.data.declarations import build, declared_fields
from audiograft.data.detection.grid import Design
from audiograft.data.sources import SOURCES, find_source
from audiograft.data.sources.base import Source, SourceRow
from audiograft.data.splits import RowKeys, assign
from audiograft.data.text import name_key
from audiograft.types import ConfigError, DataError, Rejection, Sample

SYNTHETIC = "synthetic"
_CHOSEN: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("voxconverse", "SPEECH"): {"segments": "turns", "no_overlap": True},
    ("voxconverse", "NONSPEECH"): {"segments": "nonspeech"},
    ("esc50", "NONSPEECH"): {"non_speech": True},
    ("musan", "SPEECH"): {"part": "speech"},
    ("musan", "NONSPEECH"): {"no_vocals": True},
}
"""What a corpus is read with for a class, unless it is said otherwise."""
_OUTSIDE_LISTS = re.compile(r",(?![^\[\]]*\])")
"""Commas between options, and none of those within the brackets of a list."""
_KIND_KEYS = ("kind", "category", "part", "genre")
"""Of rows that tell what they are a sound of; else it is their corpus."""


@dataclass(frozen=True)
class Origin:
    """Where clips of one class come from.

    Attributes:
        spec: as it was given, without the share.
        label: of its clips.
        share: of the clips of its class, 0 to 1.
        source: that is read; None for synthetic clips.
    """

    spec: str
    label: str
    share: float
    source: Source | None

    @property
    def path(self) -> Path | None:
        """Of what is read, where that is on this machine."""
        path = getattr(self.source, "path", None)
        return Path(path) if path is not None else None


@dataclass(frozen=True)
class Entry:
    """A recording that clips may be cut from, or a part of one. It is not opened yet.

    Attributes:
        label: of its clips.
        origin: number of its `Origin` among those of its label.
        spec: of that.
        place: number of its row in the source, from 0.
        sample: what the source says about it.
    """

    label: str
    origin: int
    spec: str
    place: int
    sample: Sample

    @property
    def kind(self) -> str | None:
        """What a sound is of; None for speech."""
        if self.label == "SPEECH":
            return None
        extra = self.sample.extra
        return str(next((extra[key] for key in _KIND_KEYS if extra.get(key)), self.sample.source or "sound"))

    @property
    def recording(self) -> str:
        """What it was cut from, so far as is known; else all of one speaker counts as one."""
        return self.sample.recording or f"all of {self.sample.speaker}"


def parse_origins(specs: Sequence[str], label: str) -> list[Origin]:
    """What `--speech` or `--negatives` name.

    Args:
        specs: each `synthetic`, a manifest or its folder, or `NAME:PATH` of a source with options behind commas, lists in brackets, as in
            `esc50:corpora/esc50,classes=[rain,wind]`; each with @ and a share behind it, or none of them.
        label: of the clips.

    Raises:
        ConfigError: none is given, one is unknown, or the shares don't come to 1.
    """
    flag = "--speech" if label == "SPEECH" else "--negatives"
    if not specs:
        raise ConfigError(f"{flag}: nothing is given, so that there would be one class only: name synthetic, a manifest or a source")
    named = [_take_share(spec) for spec in specs]
    if len({name for name, _ in named}) < len(named):
        raise ConfigError(f"{flag} {' '.join(specs)}: one of them is given twice: name each once")
    shares = [share for _, share in named if share is not None]
    # In this form a share of nan is refused too.
    if shares and not (len(shares) == len(named) and min(shares) > 0 and abs(sum(shares) - 1) <= 1e-6):
        raise ConfigError(f"{flag} {' '.join(specs)}: give a share to all of them, 1 together, as in synthetic@0.5, or to none")
    return [Origin(name, label, share or 1 / len(named), _source(name, label, flag)) for name, share in named]


def list_entries(origins: Sequence[Origin]) -> tuple[list[Entry], list[Rejection]]:
    """The rows of all sources of one class, and those that can't be used, of another class for one. Clips are not opened.

    Raises:
        DataError: a source can't be read, has no row of this class, or one that names neither speaker nor recording.
    """
    entries: list[Entry] = []
    rejections: list[Rejection] = []
    for number, origin in enumerate(origins):
        if origin.source is None:
            continue
        labels = Counter[str]()
        found = len(entries)
        for place, row in enumerate(origin.source.rows()):
            if isinstance(row, Rejection):
                rejections.append(row)
                continue
            labels[row.sample.label or "without a label"] += 1
            fault = _fault(row.sample, origin)
            if fault is None:
                entries.append(Entry(origin.label, number, origin.spec, place, row.sample))
            else:
                rejections.append(Rejection(row.sample.id, row.sample.audio or row.sample.id, fault, "another class"))
        if len(entries) == found:
            seen = ", ".join(f"{count} {name}" for name, count in labels.most_common(3)) or "none at all"
            raise DataError(f"{origin.spec}: no row is labelled {origin.label} (there are {seen}): name another source, or give its rows a label")
    return entries, rejections


def divide(entries: Sequence[Entry], design: Design) -> dict[str, list[Entry]]:
    """Share rows out among the splits, so that none shares a speaker or a recording with another split; within a split their order is drawn.

    Raises:
        DataError: a class has fewer groups than there are splits.
    """
    keyed = [(entry, _keys(entry)) for entry in entries]
    parts: dict[str, list[Entry]] = {name: [] for name in design.counts}
    # Each class of each source has its own shares, unless some of its recordings are in another's too.
    for strata in _joined(keyed):
        chosen = [(entry, keys) for entry, keys in keyed if keys.stratum in strata]
        try:
            splits = assign((keys for _, keys in chosen), design.shares, seed=design.seed)
        except DataError as error:
            raise DataError(f"{' and '.join(sorted(strata))}: {error}") from error
        for entry, keys in chosen:
            parts[splits.of(keys)].append(entry)
    return {name: sorted(part, key=lambda entry: _order(entry, design.seed)) for name, part in parts.items()}


def _joined(keyed: Iterable[tuple[Entry, RowKeys]]) -> list[set[str]]:
    """Strata, those in one set that share a group."""
    strata_of: dict[tuple[str, str], set[str]] = defaultdict(set)
    for _, keys in keyed:
        for group in keys.groups:
            strata_of[group].add(keys.stratum)
    sets: list[set[str]] = []
    for strata in {tuple(sorted(found)): found for found in strata_of.values()}.values():
        touched = [other for other in sets if other & strata]
        sets = [other for other in sets if not other & strata] + [strata.union(*touched)]
    return sets


def rows_of(origin: Origin, wanted: Mapping[int, Entry]) -> Iterator[tuple[Entry, SourceRow]]:
    """Read rows of a source once more, with the bytes of their clips.

    Args:
        origin: whose source is read.
        wanted: by their number in the source.

    Raises:
        DataError: the source has changed since its rows were listed.
    """
    assert origin.source is not None
    left = len(wanted)
    for place, row in enumerate(origin.source.rows()):
        entry = wanted.get(place)
        if entry is None:
            continue
        if isinstance(row, Rejection) or row.sample.id != entry.sample.id:
            raise DataError(f"{origin.spec}: was changed while it was read: row {place + 1} is another now: leave it as it is and start again")
        yield entry, row
        left -= 1
        if not left:
            return


def _take_share(spec: str) -> tuple[str, float | None]:
    name, _, share = spec.rpartition("@")
    try:
        return (name, float(share)) if name else (spec, None)
    except ValueError:
        return spec, None  # an @ in a path


def _source(spec: str, label: str, flag: str) -> Source | None:
    if spec == SYNTHETIC:
        return None
    name, colon, rest = spec.partition(":")
    if not colon or name not in SOURCES:
        if not Path(spec).exists():
            raise ConfigError(
                f"{flag} {spec}: no such manifest, and no source either: give a path, NAME:PATH of one of {', '.join(SOURCES)}, or synthetic"
            )
        name, rest = "manifest", spec
    source_class = find_source(name)
    path, *pairs = [rest] if name == "manifest" and not colon else _OUTSIDE_LISTS.split(rest)
    own = [item.name for item in declared_fields(source_class)]
    settings: dict[str, Any] = {own[0]: path, **_CHOSEN.get((name, label), {})}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"{flag} {spec}: write options behind the path as key=value, not {pair!r}")
        settings[key.replace("-", "_")] = _value(value, f"{flag} {spec}")
    return build(source_class, settings, "", f"{flag} {name}")


def _value(text: str, origin: str) -> Any:
    """Of an option, in YAML: a number, true or false, text, or a list in brackets."""
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a ValueError comes from a date that can't be
        raise ConfigError(f"{origin}: {text!r} is not valid YAML: quote it, or close its brackets") from error


def _fault(sample: Sample, origin: Origin) -> str | None:
    """Why a row can't be used for a class; None where it can.

    Raises:
        DataError: nothing says which rows must not part.
    """
    if sample.label != origin.label and not (sample.label is None and origin.label == "SPEECH"):
        return f"is labelled {sample.label}, not {origin.label}: it is left out" if sample.label else f"has no label: give it {origin.label} if it is"
    if len(sample.clips) != 1:
        return f"has {len(sample.clips)} clips, not one: it is left out"
    if not sample.speaker and not sample.recording and not sample.extra.get("speakers"):
        raise DataError(
            f"{origin.spec}: row {sample.id} has neither speaker nor recording, so that nothing tells which clips must not part: "
            f'add the key "recording", what the clip was cut from'
        )
    return None


def _keys(entry: Entry) -> RowKeys:
    sample = entry.sample
    speakers = sample.extra.get("speakers") or ([sample.speaker] if sample.speaker else [])
    names = [("speaker", str(name)) for name in speakers] + ([("recording", sample.recording)] if sample.recording else [])
    # Speaker 19 of one corpus is nobody in another, as the leakage gate has it.
    groups = tuple((key, name_key(f"{sample.source or ''}:{name}")) for key, name in names)
    return RowKeys(sample.id, groups, f"{entry.label} of {entry.spec}")


def _order(entry: Entry, seed: int) -> bytes:
    name = f"{seed}/{entry.label}/{entry.origin}/{entry.place}"
    return hashlib.blake2b(name.encode(), digest_size=8).digest()
