"""Corpora as they are published, and what each is read by. A source is loaded when it is asked for."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from importlib import import_module

from audiograft.data.sources.base import Source
from audiograft.types import ConfigError

_HOMES = {
    "huggingface": "hub:HuggingFace",
    "large-scale-asr": "hub:LargeScaleASR",
    "pseudo-labelled": "hub:PseudoLabelled",
    "librispeech": "librispeech:LibriSpeech",
    "common-voice": "common_voice:CommonVoice",
    "voxconverse": "voxconverse:VoxConverse",
    "esc50": "esc50:Esc50",
    "musan": "musan:Musan",
    "manifest": "manifests:Manifest",
    "csv": "csv_file:CsvFile",
    "kaldi": "kaldi:Kaldi",
    "nemo": "nemo:Nemo",
    "lhotse": "lhotse:Lhotse",
    "webdataset": "webdataset:WebDataset",
}
"""Name -> module in this package, and class in it."""


class _LazySources(Mapping[str, type[Source]]):
    """Loads the module of a source that is looked up."""

    def __getitem__(self, name: str) -> type[Source]:
        module, _, class_name = _HOMES[name].partition(":")
        source: type[Source] = getattr(import_module(f"{__name__}.{module}"), class_name)
        return source

    def __iter__(self) -> Iterator[str]:
        return iter(_HOMES)

    def __len__(self) -> int:
        return len(_HOMES)


SOURCES: Mapping[str, type[Source]] = _LazySources()
"""By their names on the command line and in recipes."""


def find_source(name: str) -> type[Source]:
    """The source of a name.

    Raises:
        ConfigError: there is none; names the closest.
    """
    if name not in SOURCES:
        close = difflib.get_close_matches(name, SOURCES, n=1, cutoff=0.0)
        raise ConfigError(f"source {name}: there is none of this name: the closest is {close[0]}")
    return SOURCES[name]
