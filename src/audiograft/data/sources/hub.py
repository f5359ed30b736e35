"""Data sets of the Hugging Face hub, and files in the formats that `datasets` reads: Parquet, JSON, CSV, Arrow, and folders of audio.

`datasets` finds the files, and no more than that for Parquet. It never decodes audio, for which its present version needs torchcodec.
"""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from audiograft.data.paths import OutsideError
from audiograft.data.sources.base import SourceRow, option
from audiograft.data.sources.columns import TableReader, name_columns
from audiograft.data.sources.parquet import arrow_schema, is_remote, parquet_rows
from audiograft.data.sources.rows import allow_outside_option, audio_root_option, keys_option
from audiograft.types import ConfigError, DataError, Rejection, Sample

LARGE_SCALE_ASR = "speechbrain/LargeScaleASR"

_ON_HUB = re.compile(r"(?P<root>hf://datasets/(?P<repository>[^@]+)@(?P<revision>[^/]+)/)(?P<path>.+)")
_MEMBER = re.compile(r"(zip|tar|gzip|bz2|xz|zstd)://")
"""An archive's member, named before the archive: `zip://a.wav::hf://...`."""
_RECORDINGS = (
    re.compile(r"(\d{8}-\d{4}-PLENARY-[^_]+)_\d{8}-.+"),  # VoxPopuli: an item of a sitting
    re.compile(r"(.{11,13})-\d{5}-\d{8}-\d{8}(?:\.wav)?"),  # YODAS: a video
    re.compile(r"(\d+_.+_librivox(?:_64kb)?_mp3)_.+"),  # Libriheavy: a reader and a book
)
_SAME_CORPUS = {"librispeech_asr": "librispeech", "common_voice": "common-voice"}
"""Parts of names on the hub, and what the sources that read the same corpora from folders call them: their speakers are the same people."""
_FORMAT_OF = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".arrow": "arrow"}
_Table = tuple[dict[str, str], dict[str, Sequence[str]], Iterator[Mapping[str, Any]]]
"""(columns as `name_columns` gives them, names of classes by column, rows)."""


@dataclass(frozen=True)
class HubTable:
    """One split of a data set, with which each of the sources here does its reading.

    Attributes:
        name: on the hub, a local folder, or a format such as `parquet`.
        split: which; of a format, what its files are to be called.
        config: the part of the data set that has the split, where there are several.
        files: names or patterns, in place of what the data set says of its files.
        revision: of the data set on the hub.
        streaming: read from the hub, rather than from a copy in its cache on this machine.
        keys: see `name_columns`.
        audio_root: where the clips lie, where the table has their paths; the data set's own folder by default.
        allow_outside: also take clips that do not lie below it.
        corpus: its name, where that is known whatever its folder is called; else the name on the hub.
    """

    name: str
    split: str
    config: str | None = None
    files: tuple[str, ...] = ()
    revision: str | None = None
    streaming: bool = True
    keys: tuple[str, ...] = ()
    audio_root: Path | None = None
    allow_outside: bool = False
    corpus: str | None = None

    def rows(self, skip: int, add: Callable[[Sample, Mapping[str, Any]], Sample]) -> Iterator[SourceRow | Rejection]:
        """Rows from `skip` on; `add` is that of `TableReader`."""
        builder, files = self._find()
        if isinstance(builder, _packaged_parquet()):
            names, classes, rows = self._parquet(files, skip)
        else:
            names, classes, rows = self._stream(builder, skip)
        is_local = os.path.isdir(self.name) or self.name in _formats()
        corpus = self.corpus or (None if is_local else corpus_on_hub(self.name))
        shown = os.path.basename(files[0]) if self.name in _formats() else self.name
        reader = TableReader(shown, self.split, names, classes, self._folder(files), self.allow_outside, _fetcher(files), corpus, add)
        for place, row in enumerate(rows, start=skip):
            yield reader.read(row, place)

    def _find(self) -> tuple[Any, list[str]]:
        """The builder of `datasets`, and the split's files: paths, or addresses."""
        if self.name in _formats() and not self.files:  # `datasets` would take whatever lies in the working directory
            raise DataError(f"{self.name}: a format, of which the files are missing: name them with --files")
        if os.path.isfile(self.name):
            kind = _FORMAT_OF.get(os.path.splitext(self.name)[1].lower(), "FORMAT")
            raise DataError(f"{self.name}: a file, and no data set: read it with `audiograft prepare huggingface {kind} --files {self.name}`")
        builder = self._builder(self.name, self.config, self.files)
        files = self._files(builder)
        on_hub = [found for file in files if (found := _ON_HUB.fullmatch(file))]
        if self.streaming or not on_hub:
            return builder, files
        from huggingface_hub import snapshot_download

        patterns = ["README.md", *(glob.escape(found["path"]) for found in on_hub)]
        with _one_line(self.name):
            folder = snapshot_download(on_hub[0]["repository"], repo_type="dataset", revision=on_hub[0]["revision"], allow_patterns=patterns)
        local = self._builder(folder, None, [found["path"] for found in on_hub])
        return local, self._files(local)

    def _builder(self, name: str, config: str | None, files: Sequence[str]) -> Any:
        data_files = {self.split: list(files)} if files else None
        with _one_line(self.name):
            return _datasets().load_dataset_builder(name, config, data_files=data_files, revision=self.revision)

    def _files(self, builder: Any) -> list[str]:
        splits = {str(name): [str(file) for file in files] for name, files in (builder.config.data_files or {}).items()}
        if self.split not in splits:
            raise DataError(f"{self.name}: no split {self.split!r}: it has {', '.join(splits) or 'none'}")
        return splits[self.split]

    def _folder(self, files: Sequence[str]) -> Path | None:
        if self.audio_root is not None:
            return self.audio_root
        if os.path.isdir(self.name):
            return Path(os.path.realpath(self.name))  # as `datasets` names the clips that it finds
        local = [os.path.dirname(os.path.abspath(file)) for file in files if not is_remote(file)]
        return Path(os.path.commonpath(local)) if local else None

    def _parquet(self, files: Sequence[str], skip: int) -> _Table:
        schema = arrow_schema(files[0])
        names = name_columns(schema.names, self.keys, self.name)
        audio = next(theirs for theirs, ours in names.items() if ours == "audio")
        wanted = [column.name for column in schema if column.name == audio or not _holds_bytes(column.type)]
        given = {pair.partition("=")[0] for pair in self.keys}
        needed = [theirs for theirs, ours in names.items() if ours in ("audio", "text") or theirs in given]
        features = _datasets().Features.from_arrow_schema(schema)
        return names, _classes(features), parquet_rows(files, wanted, needed, skip)

    def _stream(self, builder: Any, skip: int) -> _Table:
        with _one_line(self.name):
            stream = builder.as_streaming_dataset(split=self.split)
            if stream.features is None:
                columns = list(next(iter(stream.take(1)), {}))
            else:
                columns = list(stream.features)
                stream.info.features = _datasets().Features({name: _undecoded(feature) for name, feature in stream.features.items()})
        if not columns:
            raise DataError(f"{self.name}: the split {self.split} has no rows: name another")
        return name_columns(columns, self.keys, self.name), _classes(stream.features or {}), _guarded(stream.skip(skip), self.name)


def corpus_on_hub(name: str) -> str:
    """The corpus that a name on the hub stands for, so that its speakers are known again in a copy that was read from elsewhere."""
    return next((corpus for part, corpus in _SAME_CORPUS.items() if part in name), name)


def _dataset_option() -> Any:
    return option("name on the hub, local folder, or a format (parquet, json, csv, audiofolder) with --files", argument=True)


def _files_option() -> Any:
    return option("read these files or patterns: of a data set from within it, of a format from here; repeatable", ())


def _revision_option() -> Any:
    return option("branch, tag or commit on the hub", None)


def _streaming_option() -> Any:
    return option("read from the hub as it goes, rather than fetch the whole split into its cache first", True)


@dataclass(frozen=True)
class HuggingFace:
    """A data set of the Hugging Face hub, or local files of the same formats.

    DATASET is a name on the hub, a folder of Parquet files (or of clips with a metadata.csv), or a format with --files. Columns with usual names
    are found; say of others what they are with --keys. All the rest is kept.

    Example: audiograft prepare huggingface openslr/librispeech_asr --config clean --split test --out corpus
    """

    name: ClassVar[str] = "huggingface"

    dataset: str = _dataset_option()
    config: str | None = option("part of the data set, such as clean", None)
    split: str = option("train, test, validation, ...", "train")
    files: tuple[str, ...] = _files_option()
    keys: tuple[str, ...] = keys_option()
    audio_root: Path | None = audio_root_option()
    allow_outside: bool = allow_outside_option()
    revision: str | None = _revision_option()
    streaming: bool = _streaming_option()

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """See `Source.rows`."""
        table = HubTable(
            self.dataset, self.split, self.config, self.files, self.revision, self.streaming, self.keys, self.audio_root, self.allow_outside
        )
        return table.rows(skip, _with_reading)


@dataclass(frozen=True)
class LargeScaleASR:
    """speechbrain/LargeScaleASR: 25,000 hours of English from six corpora, with texts in capitals and without punctuation.

    --split test --limit 200 is the unseen test set of system A; --skip 200 --limit 20000 of the small train split is what it learnt from.

    Example: audiograft prepare large-scale-asr --split test --limit 200 --out corpus
    """

    name: ClassVar[str] = "large-scale-asr"

    dataset: str = option("where it is: its name on the hub, or a folder with its files", LARGE_SCALE_ASR)
    config: Literal["large", "clean", "medium", "small"] = option("how much of the train split; dev and test are the same in all", "small")
    split: str = option("train, dev or test", "train")
    files: tuple[str, ...] = _files_option()
    revision: str | None = _revision_option()
    streaming: bool = _streaming_option()

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """See `Source.rows`."""
        keys = ("wav=audio", "ID=id", "text=text", "spk_id=speaker", "duration=duration_s")
        # Only its README says that there are configurations, and a folder may be without.
        plain = self.files or (os.path.isdir(self.dataset) and not os.path.isfile(os.path.join(self.dataset, "README.md")))
        table = HubTable(
            self.dataset, self.split, None if plain else self.config, self.files, self.revision, self.streaming, keys, corpus=LARGE_SCALE_ASR
        )
        return table.rows(skip, _of_large_scale_asr)


@dataclass(frozen=True)
class PseudoLabelled:
    """Speech with a recogniser's transcript beside its own, and the word error rate between the two in percent (column wer).

    The layout of bofenghuang/stt-pseudo-labeled-whisper-large-v3-multilingual, from which system B learnt. --max-wer drops the rows in which
    the two differ more, and those that do not state by how much.

    Example: audiograft prepare pseudo-labelled DATASET --config en-ls --text-column whisper_transcript --max-wer 5 --out corpus
    """

    name: ClassVar[str] = "pseudo-labelled"

    dataset: str = _dataset_option()
    text_column: Literal["text", "text_norm", "whisper_transcript", "whisper_transcript_norm"] = option("the transcript to be learnt", "text")
    config: str | None = option("part of the data set, such as en-ls", None)
    split: str = option("train, test, validation, ...", "train")
    files: tuple[str, ...] = _files_option()
    keys: tuple[str, ...] = keys_option()
    audio_root: Path | None = audio_root_option()
    allow_outside: bool = allow_outside_option()
    revision: str | None = _revision_option()
    streaming: bool = _streaming_option()

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """See `Source.rows`."""
        keys = (f"{self.text_column}=text", "wer=wer_percent", *self.keys)
        table = HubTable(self.dataset, self.split, self.config, self.files, self.revision, self.streaming, keys, self.audio_root, self.allow_outside)
        return table.rows(skip, _with_reading)


def _with_reading(sample: Sample, row: Mapping[str, Any]) -> Sample:
    """Tables of read books give the chapter. What must not part is the reading of a book, so all that its speaker read."""
    if sample.recording is not None or row.get("chapter_id") is None:
        return sample
    return replace(sample, recording=sample.speaker)


def _of_large_scale_asr(sample: Sample, row: Mapping[str, Any]) -> Sample:
    """Its ids are those of the corpora that it was made of; some name the recording. No column says that all of it is English."""
    recording = next((found[1] for pattern in _RECORDINGS if (found := pattern.fullmatch(sample.id))), None)
    return replace(sample, recording=recording, language="en")


@cache
def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError("Hugging Face data sets need `datasets`: pip install 'audiograft[datasets]'") from error
    datasets.logging.set_verbosity(logging.CRITICAL)  # what it says of broken files is raised too, and said by us in a line
    return datasets


def _packaged_parquet() -> type:
    _datasets()
    from datasets.packaged_modules.parquet.parquet import Parquet

    found: type = Parquet
    return found


def _formats() -> Collection[str]:
    """The formats that `datasets` reads, whose names stand for no data set."""
    _datasets()
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    formats: Collection[str] = _PACKAGED_DATASETS_MODULES
    return formats


def _undecoded(feature: Any) -> Any:
    """A feature of `datasets` that gives files as bytes or paths."""
    if isinstance(feature, _datasets().Audio):
        return _encoded_audio()(decode=False)
    return replace(feature, decode=False) if getattr(feature, "decode", False) else feature


@cache
def _encoded_audio() -> type:
    """A feature for audio that neither decodes nor asks for torchcodec, as that of `datasets` does even where it only notes a path."""

    def encode_example(self: object, value: Any) -> dict[str, Any]:
        if isinstance(value, Mapping):
            return {"bytes": value.get("bytes"), "path": value.get("path")}
        return {"bytes": value if isinstance(value, bytes) else None, "path": value if isinstance(value, str) else None}

    return type("EncodedAudio", (_datasets().Audio,), {"encode_example": encode_example})


def _classes(features: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    return {name: feature.names for name, feature in features.items() if isinstance(feature, _datasets().ClassLabel)}


def _holds_bytes(kind: Any) -> bool:
    """Whether an Arrow type has bytes anywhere in it: pictures and other files, which no manifest can hold."""
    import pyarrow.types

    if pyarrow.types.is_nested(kind):
        return any(_holds_bytes(kind.field(place).type) for place in range(kind.num_fields))
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind) or pyarrow.types.is_fixed_size_binary(kind))


def _fetcher(files: Sequence[str]) -> Callable[[str], bytes]:
    """Reads clips by their address, which must be in the data set: a row could name any other, also `file://`."""
    roots = tuple({found["root"] if (found := _ON_HUB.fullmatch(file)) else file.rpartition("/")[0] + "/" for file in files if is_remote(file)})

    def fetch(address: str) -> bytes:
        *members, last = address.split("::")
        if not last.startswith(roots) or ".." in last.split("/") or not all(map(_MEMBER.match, members)):
            raise OutsideError(f"{address}: lies outside of the data set: put the clip into it")
        import fsspec

        with _one_line(address), fsspec.open(address, "rb") as file:
            return bytes(file.read())

    return fetch


def _guarded(rows: Any, place: str) -> Iterator[Mapping[str, Any]]:
    """Rows, with whatever `datasets` raises between them as one line."""
    iterator = iter(rows)
    while True:
        with _one_line(place):
            row = next(iterator, None)
        if row is None:
            return
        yield row


@contextmanager
def _one_line(place: str) -> Iterator[None]:
    """What `datasets`, the hub's client and the network raise, which have no class in common, as a `DataError` of one line."""
    try:
        yield
    except (DataError, ConfigError):
        raise
    except Exception as error:
        cause = error.__cause__ or error if type(error).__name__ == "DatasetGenerationError" else error
        said = " ".join(str(cause).split())[:200].rstrip(".") or type(cause).__name__
        mend = "correct the name; or, if the network broke off, run it again, and it goes on from there"
        if said.startswith("Dataset scripts are no longer supported"):
            mend = "try --revision refs/convert/parquet"
        raise DataError(f"{place}: {said}: {mend}") from error
