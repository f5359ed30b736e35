"""The options that all sources of `audiograft prepare` share. Loads nothing, so that `--help` answers at once."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from audiograft.data.filters import Filters
from audiograft.data.sources.base import option
from audiograft.data.text import TextCase
from audiograft.types import ConfigError


@dataclass(frozen=True)
class PrepareOptions:
    """What is done with the rows of a source."""

    out: Path = option("folder of the corpus: manifest, rejected rows, data card and audio/")
    limit: int | None = option("rows of the source to read at most; rejected ones count", None)
    skip: int = option("rows of the source to pass over first", 0)
    audio: Literal["link", "copy", "flac"] = option(
        "clips that are files of their own are linked (hard, else symbolic), copied, or written as FLAC of 16 kHz as all others are", "link"
    )
    text_case: TextCase = option("sentence: texts in capitals or in small letters alone begin with a capital and go on in small letters", "as-is")
    prompts: Path | None = option("file of instructions, one a line, of which rows without one draw theirs; instructions: 16 in the package", None)
    augment: Path | None = option("YAML file of what clips go through, with the keys of a recipe's augment; each row says what was done", None)
    splits: tuple[str, ...] = option("write several manifests: train=0.8,dev=0.1,test=0.1 are shares of the duration", ())
    group_by: tuple[str, ...] = option("rows that share one of these keys never part; by default speaker and recording, where a row has them", ())
    stratify_by: str | None = option("spread the values of this key, such as label, evenly over the splits", None)
    seed: int = option("of splits and of the instructions that are drawn", 0)
    max_rejected: float = option("stop where a larger share of the rows than this is rejected; 1 never stops", 0.2)
    skip_missing: bool = option("rows whose file is missing are listed, but don't count towards --max-rejected", False)
    overwrite: bool = option("replace what an earlier run left in the folder", False)
    workers: int | None = option("rows decoded at once; one a core by default", None)
    engine: Literal["local", "ray"] = option("local: threads of this process; ray: a cluster, which has to share the folders", "local")
    address: str | None = option("of a Ray cluster that runs already; without, one is started on this machine", None)
    filters: Filters = option("which rows stay", Filters())

    def __post_init__(self) -> None:
        for name, least in (("limit", 1), ("skip", 0), ("workers", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} {value}: give {least} or more")
        if not 0 <= self.max_rejected <= 1:
            raise ConfigError(f"max_rejected {self.max_rejected:g}: give a share from 0 to 1")
        if self.stratify_by is not None and not self.splits:
            raise ConfigError(f"stratify_by {self.stratify_by}: it needs splits, such as train=0.9,test=0.1")


RUNNING = ("out", "overwrite", "workers", "engine", "address", "max_rejected", "skip_missing")
"""Options which decide how a run goes and not what it writes."""
AT_THE_END = ("splits", "group_by", "stratify_by")
"""Options that are not read before all rows are written down, so that they may still change when a run goes on."""


def plain(declared: Any) -> dict[str, Any]:
    """A dataclass of options as JSON holds it: paths are text, tuples lists, and a dataclass in it comes apart into its options."""
    found: dict[str, Any] = {}
    for item in fields(declared):
        value = getattr(declared, item.name)
        found |= plain(value) if hasattr(value, "__dataclass_fields__") else {item.name: value}
    result: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return result
