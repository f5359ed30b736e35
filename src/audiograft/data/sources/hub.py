"""Data sets of the Hugging Face hub, and files in the formats that `datasets` reads: Parquet, JSON, CSV, Arrow, and folders of audio.

`datasets` finds the files, and no more than that for Parquet. It never decodes audio, for which its present version needs torchcodec.
"""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from audiograft.data.paths import OutsideError
from audiograft.data.sources.base import SourceRow, option
from audiograft.data.sources.columns import RowReader, name_columns
from audiograft.data.sources.parquet import arrow_schema, is_remote, parquet_rows
from audiograft.types import ConfigError, DataError, Rejection

LARGE_SCALE_ASR = "speechbrain/LargeScaleASR"

_ON_HUB = re.compile(r"(?P<root>hf://datasets/(?P<repository>[^@]+)@(?P<revision>[^/]+)/)(?P<path>.+)")
_MEMBER = re.compile(r"(zip|tar|gzip|bz2|xz|zstd)://")
"""An archive's member, named before the archive: `zip://a.wav::hf://...`."""
_RECORDINGS = (
    re.compile(r"(\d{8}-\d{4}-PLENARY-[^_]+)_\d{8}-.+"),  # VoxPopuli: an item of a sitting
    re.compile(r"(.{11,13})-\d{5}-\d{8}-\d{8}(?:\.wav)?"),  # YODAS: a video
    re.compile(r"(\d+_.+_librivox(?:_64kb)?_mp3)_.+"),  # Libriheavy: a reader and a book
)
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
        columns: see `name_columns`.
        audio_folder: where the clips lie, where the table has their paths; the data set's own folder by default.
    """

    name: str
    split: str
    config: str | None = None
    files: tuple[str, ...] = ()
    revision: str | None = None
    streaming: bool = True
    columns: tuple[str, ...] = ()
    audio_folder: Path | None = None

    def rows(self, skip: int, recording: Callable[[str, str | None, Mapping[str, Any]], str | None]) -> Iterator[SourceRow | Rejection]:
        """Rows from `skip` on; `recording` is that of `RowReader`."""
        builder, files = self._find()
        if isinstance(builder, _packaged_parquet()):
            names, classes, rows = self._parquet(files, skip)
        else:
            names, classes, rows = self._stream(builder, skip)
        source = Path(self.name).name if os.path.isdir(self.name) else self.name
        reader = RowReader(source, self.split, names, classes, self._folder(files), _fetcher(files), recording)
        for place, row in enumerate(rows, start=skip):
            yield reader.read(row, place)

    def _find(self) -> tuple[Any, list[str]]:
        """The builder of `datasets`, and the split's files: paths, or addresses."""
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
        if not splits:
            raise DataError(f"{self.name}: names no files: give them with --files, or the name of a data set")
        if self.split not in splits:
            raise DataError(f"{self.name}: no split {self.split!r}: it has {', '.join(splits)}")
        return splits[self.split]

    def _folder(self, files: Sequence[str]) -> Path | None:
        if self.audio_folder is not None:
            return self.audio_folder
        if os.path.isdir(self.name):
            return Path(self.name)
        local = [os.path.dirname(os.path.abspath(file)) for file in files if not is_remote(file)]
        return Path(os.path.commonpath(local)) if local else None

    def _parquet(self, files: Sequence[str], skip: int) -> _Table:
        schema = arrow_schema(files[0])
        names = name_columns(schema.names, self.columns, self.name)
        audio = next(theirs for theirs, ours in names.items() if ours == "audio")
        wanted = [column.name for column in schema if column.name == audio or not _holds_bytes(column.type)]
        given = {pair.partition("=")[0] for pair in self.columns}
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
        return name_columns(columns, self.columns, self.name), _classes(stream.features or {}), _guarded(stream.skip(skip), self.name)


@dataclass(frozen=True)
class HuggingFace:
    """A data set of the Hugging Face hub, or local files of the same formats.

    NAME is a name on the hub, a folder of Parquet files (or with metadata.csv and clips), or a format (parquet, json, csv, audiofolder) with
    --files. Columns with usual names are found; map others with --columns, as in --columns utterance=text,wer=wer_percent.

    audiograft prepare huggingface openslr/librispeech_asr --config clean --split test --out DIR
    """

    name: ClassVar[str] = "huggingface"

    dataset: str = option("name on the hub, local folder, or parquet, json, csv or audiofolder with --files", argument=True)
    config: str | None = option("part of the data set, such as clean", None)
    split: str = option("train, test, validation, ...", "train")
    files: tuple[str, ...] = option("read these files or patterns, within the data set or (of a format) from here", ())
    columns: tuple[str, ...] = option("theirs=ours: audio, id, text, prompt, response, speaker, recording, language, label, duration_s, or new", ())
    audio_folder: Path | None = option("where the clips lie, where the table has paths; they may not lead out of it", None)
    revision: str | None = option("branch, tag or commit on the hub", None)
    streaming: bool = option("read from the hub as it goes, rather than fetch the whole split into its cache first", True)

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """See `Source.rows`."""
        table = HubTable(self.dataset, self.split, self.config, self.files, self.revision, self.streaming, self.columns, self.audio_folder)
        return table.rows(skip, _reading)


@dataclass(frozen=True)
class LargeScaleASR:
    """English speech of six corpora, 25,000 hours: speechbrain/LargeScaleASR.

    Its texts are in capitals without punctuation: see --text-case. With --split test --limit 200, it is the unseen test set of system A.

    audiograft prepare large-scale-asr --split test --limit 200 --out DIR
    """

    name: ClassVar[str] = "large-scale-asr"

    dataset: str = option("where it is: on the hub, or a folder of its Parquet files", LARGE_SCALE_ASR)
    config: Literal["large", "clean", "medium", "small"] = option("how much of the training data; dev and test are the same in all", "small")
    split: str = option("train, dev or test", "train")
    revision: str | None = option("branch, tag or commit on the hub", None)
    streaming: bool = option("read from the hub as it goes, rather than fetch the whole split into its cache first", True)

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """See `Source.rows`."""
        columns = ("wav=audio", "ID=id", "text=text", "spk_id=speaker", "duration=duration_s")
        # A folder of files without a README has no configurations.
        config = None if os.path.isdir(self.dataset) and not os.path.isfile(os.path.join(self.dataset, "README.md")) else self.config
        table = HubTable(self.dataset, self.split, config, (), self.revision, self.streaming, columns)
        for row in table.rows(skip, _recording_in_id):
            # All of its corpora are English, and no column says so.
            yield row if isinstance(row, Rejection) else replace(row, sample=replace(row.sample, language="en"))


@dataclass(frozen=True)
class PseudoLabelled:
    """Speech with a recogniser's transcripts beside the corpus's own, and the word error rate between them in percent (column wer).

    The layout of bofenghuang/stt-pseudo-labeled-whisper-large-v3-multilingual, from which system B learnt. --max-wer drops what differs more.

    audiograft prepare pseudo-labelled NAME --config en-ls --text-column whisper_transcript --max-wer 5 --out DIR
    """

    name: ClassVar[str] = "pseudo-labelled"

    dataset: str = option("name on the hub, local folder, or parquet with --files", argument=True)
    text_column: Literal["text", "text_norm", "whisper_transcript", "whisper_transcript_norm"] = option("which transcript to learn", "text")
    config: str | None = option("part of the data set, such as en-ls", None)
    split: str = option("train, test, validation, ...", "train")
    files: tuple[str, ...] = option("read these files or patterns, within the data set or (of a format) from here", ())
    columns: tuple[str, ...] = option("theirs=ours, where other columns have unusual names", ())
    audio_folder: Path | None = option("where the clips lie, where the table has paths; they may not lead out of it", None)
    revision: str | None = option("branch, tag or commit on the hub", None)
    streaming: bool = option("read from the hub as it goes, rather than fetch the whole split into its cache first", True)

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """See `Source.rows`."""
        columns = (f"{self.text_column}=text", "wer=wer_percent", *self.columns)
        table = HubTable(self.dataset, self.split, self.config, self.files, self.revision, self.streaming, columns, self.audio_folder)
        return table.rows(skip, _reading)


def _reading(row_id: str, speaker: str | None, row: Mapping[str, Any]) -> str | None:
    """What must not part in tables of read books. They give the chapter, and chapters of one book by one speaker are one reading."""
    return speaker if row.get("chapter_id") is not None else None


def _recording_in_id(row_id: str, speaker: str | None, row: Mapping[str, Any]) -> str | None:
    """The recording that an id of LargeScaleASR names, by the manner of the corpus that the row comes from."""
    return next((found[1] for pattern in _RECORDINGS if (found := pattern.fullmatch(row_id))), None)


@cache
def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError("Hugging Face data sets need `datasets`: pip install 'audiograft[datasets]'") from error
    datasets.logging.set_verbosity(logging.CRITICAL)  # what it says of broken files is raised too, and said by us in a line
    return datasets


def _packaged_parquet() -> type:
    from datasets.packaged_modules.parquet.parquet import Parquet

    found: type = Parquet
    return found


def _undecoded(feature: Any) -> Any:
    """A feature of `datasets` that gives files as bytes or paths."""
    if isinstance(feature, _datasets().Audio):
        return _encoded_audio()()
    return replace(feature, decode=False) if getattr(feature, "decode", False) else feature


@cache
def _encoded_audio() -> type:
    """A feature for audio that neither decodes nor asks for torchcodec, as that of `datasets` does even where it only notes a path."""
    audio: Any = _datasets().Audio

    @dataclass
    class EncodedAudio(audio):  # type: ignore[misc]
        decode: bool = False

        def encode_example(self, value: Any) -> dict[str, Any]:
            if isinstance(value, Mapping):
                return {"bytes": value.get("bytes"), "path": value.get("path")}
            return {"bytes": value if isinstance(value, bytes) else None, "path": value if isinstance(value, str) else None}

    return EncodedAudio


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
            raise OutsideError(f"{address}: lies outside of the data set")
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
        said = " ".join(str(cause).split())[:200] or type(cause).__name__
        mend = "correct the name; or, if the network broke off, run it again, and it goes on from there"
        if said.startswith("Dataset scripts are no longer supported"):
            mend = "try --revision refs/convert/parquet"
        raise DataError(f"{place}: {said}: {mend}") from error
