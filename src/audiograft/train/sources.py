"""Where the rows of a run come from: manifests and sources, mixed by weight, checked against held-out data, indexed once."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from audiograft import provenance
from audiograft.data.card import CARD_JSON
from audiograft.data.gate import Gate
from audiograft.data.leakage import check_training, hold_out, save_traces, shared_counts
from audiograft.data.manifest import find_manifest, replace_text
from audiograft.data.prepare import prepare_source, read_settings
from audiograft.data.traces import Trace, read_traces
from audiograft.train.batching import mixed
from audiograft.train.checkpoints import writing
from audiograft.train.deafness import require_clips
from audiograft.train.gated import Use, with_gate
from audiograft.train.index import ManifestFile, RowIndex, Rules, build_index
from audiograft.train.kept_index import index_key, load_index, save_index, unchanged
from audiograft.train.kl import can_be_taught
from audiograft.train.lost import lost_rows
from audiograft.train.parallel import is_main_process
from audiograft.train.recipe import Corpus, Recipe
from audiograft.train.rows import Row, Wording, told
from audiograft.train.streaming import Cursor, StreamSampler
from audiograft.train.taps import UNREAD, Streamed
from audiograft.train.validation import draw
from audiograft.types import HOP_SAMPLES, SAMPLE_RATE_HZ, TRAINING_TRACES, VALIDATION_TRACES, WINDOW_SAMPLES, ConfigError, DataError, Rejection

REJECTED = "rejected.jsonl"
"""In output_dir: rows that can't be used, one JSON object a line."""
_FOLDER = "index"
_GATE = "leakage.json"
_TRAIN = "train"
"""Name of the index of what is learnt."""


@dataclass(frozen=True)
class RunData:
    """Usable rows.

    Attributes:
        train: each row as often as its weight says.
        validation: those that are scored during the run.
        scored: those of the deafness check, from validation data or, where there is none, from training data.
        scored_source: which of the two.
        n_rejected: rows that can't be used.
        fingerprint: SHA-256 of what is learnt from.
        stream: where the rows come from that are read while they are learnt; `train` is empty then.
    """

    train: Sequence[Row]
    validation: Sequence[Row]
    scored: Sequence[Row]
    scored_source: str
    n_rejected: int
    fingerprint: str
    stream: StreamSampler | None = None

    def counts(self, n_lost: int) -> dict[str, int]:
        """For train.json; of a stream, what was read of it since the run began."""
        streamed = (0, 0) if self.stream is None else (self.stream.n_rows, self.stream.n_rejected)
        return {
            "train": len(self.train) + streamed[0],
            "validation": len(self.validation),
            "rejected": self.n_rejected + streamed[1],
            "lost": n_lost,
        }


@contextmanager
def counting(console: Console, what: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A progress bar; yields what to call after each item."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def training_manifests(recipe: Recipe, console: Console) -> list[Path]:
    """The manifests of `data.train`; sources are prepared first, each in a folder of output_dir that is named by its options.

    Of a stream there are none: it leaves its sources as they are.

    Raises:
        AudiograftError: a manifest that is not there, a source that can't be prepared, or keys that don't fit one.
    """
    found: list[Path] = []
    if recipe.data.streaming:
        for entry in recipe.data.corpora:  # keys that don't fit are refused before a model is loaded
            _streamed(entry, recipe)
        return found
    for entry in recipe.data.corpora:
        if entry.manifest is not None:
            found.append(find_manifest(entry.manifest))
            continue
        digest = hashlib.sha256(json.dumps(entry.options, sort_keys=True, default=str).encode()).hexdigest()[:8]
        folder = Path(recipe.output_dir) / "data" / f"{entry.source}-{digest}"
        with counting(console, f"preparing {entry.source}", None) as advance:
            found.append(_prepared(entry, folder, advance))
        rows = json.loads((folder / CARD_JSON).read_text(encoding="utf-8"))["rows"]
        if rows["rejected"]:
            what = f"{entry.source}: {rows['rejected']} of {rows['read']} rows are rejected, see {folder / REJECTED}"
            console.print(what, soft_wrap=True, markup=False)
    return found


def _prepared(corpus: Corpus, folder: Path, on_row: Callable[[], None]) -> Path:
    assert corpus.source is not None
    return prepare_source(corpus.source, corpus.options, folder, lambda rejection: on_row())


def check_leakage(recipe: Recipe, manifests: Sequence[Path], console: Console) -> dict[str, Any]:
    """The leakage gate: stops where held-out data share too much, and writes the record of the training data into output_dir.

    A run that is resumed finds both as they were, and decodes nothing again.

    Args:
        recipe: of the run.
        manifests: of its training data.
        console: where progress is shown.

    Returns:
        For train.json, see `audiograft.data.leakage.check_training`.

    Raises:
        DataError: held-out data share what is not allowed, or something can't be read.
    """
    output_dir, data = Path(recipe.output_dir), recipe.data
    stored = output_dir / _FOLDER / _GATE
    others = [find_manifest(path) for path in (*([data.validation] if data.validation else ()), *data.held_out)]
    files = [ManifestFile.open(path, data.allow_outside) for path in (*manifests, *others)]
    key = index_key(files, [len(manifests), bool(data.validation), data.allow_leakage, recipe.model, provenance.versions()])
    try:
        found = json.loads(stored.read_text(encoding="utf-8"))
        if found["key"] == key and all((output_dir / record).is_file() for record in (TRAINING_TRACES, VALIDATION_TRACES)):
            leakage: dict[str, Any] = found["leakage"]
            return leakage
    except (OSError, ValueError, KeyError):
        pass
    with counting(console, "looking for leakage", sum(file.n_lines for file in files) if others else None) as advance:
        leakage = check_training(manifests, data.validation, data.held_out, data.allow_leakage, allow_outside=data.allow_outside, on_row=advance)
        _save_traces(recipe, manifests)
    with writing(output_dir, "what the leakage gate found"):
        stored.parent.mkdir(exist_ok=True)
        replace_text(stored, json.dumps({"key": key, "leakage": leakage}, ensure_ascii=False) + "\n")
    return leakage


def _save_traces(recipe: Recipe, manifests: Sequence[Path]) -> None:
    """Leave the records of what was trained on and of what was validated on."""
    validated = [recipe.data.validation] if recipe.data.validation else []
    for record, files in ((TRAINING_TRACES, manifests), (VALIDATION_TRACES, validated)):
        base = Path(recipe.model) if recipe.model else None
        save_traces(Path(recipe.output_dir), files, base, record=record, allow_outside=recipe.data.allow_outside)


def tell_touches(leakage: Mapping[str, Any], console: Console) -> None:
    """Print what training and validation data share, by `check_leakage`: nothing forbids it, but no score says then how well a model generalises."""
    found = leakage["validation"]
    if found is None or not found["touches"]:
        return
    counts = (f"{kind} {count}" for kind, count in shared_counts(found).items() if count)
    console.print(f"training and validation data share: {', '.join(counts)}; see leakage in train.json", soft_wrap=True)


class _Indexer:
    """Opens the indices of a run: those that it left behind when it was interrupted, or new ones.

    Attributes:
        n_rejected: rows that can't be used, so far.
    """

    def __init__(self, recipe: Recipe, processor: Any, console: Console, keep: bool, resuming: bool) -> None:
        self._recipe = recipe
        self._processor = processor
        self._console = console
        self._keep = keep
        self._resuming = resuming
        self._folder = Path(recipe.output_dir) / _FOLDER
        self._settings = [recipe.prompt, recipe.seed, recipe.loss, recipe.lora_gate, provenance.versions(), _settings_of(processor)] if keep else []
        if keep and recipe.detection is not None:
            self._settings += [dict(recipe.detection.answers), recipe.detection.system]
        self.n_rejected = 0
        self.rejected: list[Path] = []

    def open(self, name: str, paths: Sequence[Path], pad_share: float) -> RowIndex:
        """The index of some manifests.

        Raises:
            ConfigError: the recipe's prompt holds the audio token.
            DataError: no row is usable, or too few are.
        """
        recipe = self._recipe
        system = None if recipe.detection is None else recipe.detection.system
        for key, written in (("prompt", recipe.prompt), ("detection.system", system)):
            if written is not None and self._processor.audio_token in written:
                raise ConfigError(f"{key} contains {self._processor.audio_token}, which stands for a clip: take it out of the recipe")
        manifests = [ManifestFile.open(path, recipe.data.allow_outside) for path in paths]
        wording = Wording.read(recipe.prompt, recipe.data.prompts, recipe.seed, recipe.detection)
        useless: Use = can_be_taught if recipe.loss == "kl" else lambda row: None
        if name == _TRAIN:
            useless = with_gate(recipe, useless)
        rules = Rules(self._processor, wording, pad_share, recipe.seed, useless)
        if not self._keep:
            return self._build(manifests, rules, None)
        key = index_key(manifests, [*self._settings, pad_share, wording.prompts])
        path, rejected = self._folder / f"{name}.npz", self._folder / f"{name}.{REJECTED}"
        self.rejected.append(rejected)
        stored = load_index(path, key, manifests, wording)
        if stored is not None and rejected.is_file() and (self._resuming or not stored[1]):
            index = unchanged(stored[0], rules, keep_lost=self._resuming)
            if index is not None:
                self.n_rejected += stored[1]
                if index is not stored[0] and is_main_process():
                    save_index(path, index, key, stored[1])
                return index
        if not is_main_process():
            return self._build(manifests, rules, None)
        before = self.n_rejected
        with writing(self._folder, "the index of rows"):
            self._folder.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
            index = self._build(manifests, rules, rejected)
            save_index(path, index, key, self.n_rejected - before)
        return index

    def _build(self, manifests: Sequence[ManifestFile], rules: Rules, rejected: Path | None) -> RowIndex:
        with counting(self._console, "checking rows", sum(manifest.n_lines for manifest in manifests)) as advance:
            index, n_rejected, first = build_index(manifests, rules, rejected, self._recipe.data.max_rejected, advance)
        self.n_rejected += n_rejected
        if not len(index):
            names = ", ".join(str(manifest.path) for manifest in manifests)
            reason = "" if first is None else f"; the first of {n_rejected}: {told(first)}"
            raise DataError(f"{names}: no usable clip{reason}")
        return index


def _settings_of(processor: Any) -> str:
    """SHA-256 of what decides which ids a text becomes, and how many frames a clip."""
    tokenizer, front_end = processor.tokenizer, processor.front_end
    backend = getattr(tokenizer, "backend_tokenizer", None)
    frames = [front_end.feature_frames(n_samples) for n_samples in (1, HOP_SAMPLES, SAMPLE_RATE_HZ, WINDOW_SAMPLES)]
    parts = [
        type(processor).__name__,
        backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items()),
        tokenizer.chat_template,
        getattr(processor.vision_processor, "chat_template", None),
        [processor.audio_token, processor.end_of_turn, processor.response_prefix, processor.pad_to_window],
        [(n_frames, front_end.audio_tokens(n_frames)) for n_frames in frames],
    ]
    if processor.vision_processor is not None:
        parts.append([str(getattr(processor.vision_processor, name, None)) for name in ("image_processor", "video_processor")])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def index_training_rows(recipe: Recipe, processor: Any, manifests: Sequence[Path], console: Console) -> RowIndex:
    """The rows of an epoch, with nothing kept on the disk."""
    index = _Indexer(recipe, processor, console, keep=False, resuming=False).open(_TRAIN, manifests, recipe.pad_to_window_share)
    return index.take(mixed(index.rows["manifest"], [corpus.weight for corpus in recipe.data.corpora], recipe.seed))


def open_data(recipe: Recipe, processor: Any, manifests: Sequence[Path], console: Console, checkpoint: Path | None) -> RunData:
    """The rows of a run, or the stream that they come from.

    Args:
        recipe: of the run.
        processor: of its model.
        manifests: of its training data; none for a stream.
        console: where progress is shown.
        checkpoint: that the run goes on from; None where it begins.

    Raises:
        AudiograftError: data that can't be used.
    """
    if recipe.data.streaming:
        return _open_stream(recipe, processor, console, checkpoint)
    return _read_data(recipe, processor, manifests, console, resuming=checkpoint is not None)


def _read_data(recipe: Recipe, processor: Any, manifests: Sequence[Path], console: Console, resuming: bool) -> RunData:
    """Index training and validation data, or open the indices of the run that is resumed; what can't be used is named in rejected.jsonl.

    Where it is resumed, no row may come or go.
    """
    indexer = _Indexer(recipe, processor, console, keep=True, resuming=resuming)
    rows = indexer.open(_TRAIN, manifests, recipe.pad_to_window_share)
    numbers = mixed(rows.rows["manifest"], [corpus.weight for corpus in recipe.data.corpora], recipe.seed)
    if not len(numbers):
        raise DataError("data.train: its weights leave no row: raise them")
    validation = indexer.open("validation", [find_manifest(recipe.data.validation)], 0.0) if recipe.data.validation else None
    if is_main_process():
        _name_rejected(Path(recipe.output_dir) / REJECTED, indexer, console)
    # Of training rows each but once: a clip that came twice would be shuffled with itself.
    source, candidates = ("training", rows.take(np.unique(numbers))) if validation is None else ("validation", validation)
    heard = candidates.take(np.flatnonzero(candidates.n_clips))
    require_clips(heard, source)
    train = rows.take(numbers)
    return RunData(
        train=train,
        validation=[] if validation is None else draw(validation, recipe.data.validation_clips, recipe.seed),
        scored=draw(heard, recipe.deafness.clips, recipe.seed),
        scored_source=source,
        n_rejected=indexer.n_rejected,
        fingerprint=train.fingerprint(),
    )


def _open_stream(recipe: Recipe, processor: Any, console: Console, checkpoint: Path | None) -> RunData:
    """What `_read_data` does for a run whose rows are read while they are learnt: validation data, and the stream.

    Rows that share with held-out data what is not allowed are left out as they come.
    """
    data, output_dir = recipe.data, Path(recipe.output_dir)
    assert data.validation is not None
    assert recipe.max_steps is not None
    streams = [_streamed(corpus, recipe) for corpus in data.corpora]
    indexer = _Indexer(recipe, processor, console, keep=True, resuming=checkpoint is not None)
    validation = indexer.open("validation", [find_manifest(data.validation)], 0.0)
    heard = validation.take(np.flatnonzero(validation.n_clips))
    require_clips(heard, "validation")
    if checkpoint is None and is_main_process():
        _name_rejected(output_dir / REJECTED, indexer, console)
        _save_traces(recipe, [])
    traces = output_dir / TRAINING_TRACES
    cursor = Cursor(n_traces=sum(1 for _ in read_traces(traces))) if checkpoint is None else Cursor.read(checkpoint)
    wording = Wording.read(recipe.prompt, data.prompts, recipe.seed, recipe.detection)
    gates = {path: hold_out(path, allow_outside=data.allow_outside) for path in data.held_out}
    sampler = StreamSampler(
        streams,
        Rules(processor, wording, recipe.pad_to_window_share, recipe.seed, with_gate(recipe, lambda row: None)),
        partial(_forbidden, gates, data.allow_leakage),
        tokens_per_batch=recipe.tokens_per_batch,
        stretch=recipe.stretch,
        seed=recipe.seed,
        n_batches=recipe.max_steps * recipe.gradient_accumulation_steps,
        rejected=output_dir / REJECTED if is_main_process() else None,
        max_rejected=data.max_rejected,
        traces=traces if is_main_process() else None,
        cursor=cursor,
    )
    scored, kept = draw(heard, recipe.deafness.clips, recipe.seed), draw(validation, data.validation_clips, recipe.seed)
    # A stream can't be hashed; each of its windows has a checksum in the cursor.
    fingerprint = hashlib.sha256(repr([(item.source, item.options.filters, item.weight) for item in streams]).encode()).hexdigest()
    return RunData([], kept, scored, "validation", indexer.n_rejected, fingerprint, sampler)


def _streamed(corpus: Corpus, recipe: Recipe) -> Streamed:
    settings = corpus.options if corpus.manifest is None else {"path": corpus.manifest, "allow_outside": recipe.data.allow_outside}
    source, options = read_settings(corpus.source or "manifest", settings, Path(recipe.output_dir))
    for key in settings:
        if key in UNREAD and not hasattr(source, key):
            mend = "set data.max_rejected" if key == "max_rejected" else "take it out"
            raise ConfigError(f"source {corpus.source}: {key}: data.streaming does not read it: {mend}")
    return Streamed(source, options, corpus.weight)


def _forbidden(gates: Mapping[str, Gate], allowed: Collection[str], trace: Trace) -> str | None:
    for path, gate in gates.items():
        if kinds := [kind for kind in gate.kinds(trace) if kind not in allowed]:
            return f"shares its {' and '.join(kinds)} with {path}, which is held out"
    return None


def _name_rejected(path: Path, indexer: _Indexer, console: Console) -> None:
    """Put all rejected rows into one file. What is behind them there, rows that were lost during the run, stays."""
    lost = lost_rows(path)
    with writing(path.parent, REJECTED):
        staged = path.with_name(f"{path.name}.part")
        with staged.open("wb") as file:
            for part in indexer.rejected:
                with part.open("rb") as rejected:
                    shutil.copyfileobj(rejected, file)
            for line in lost.values():
                file.write(line)
        staged.replace(path)
    if indexer.n_rejected:
        with path.open("rb") as file:
            first = Rejection(**json.loads(file.readline()))
        console.print(f"{indexer.n_rejected} rows are left out, see {path}; the first: {told(first)}")
