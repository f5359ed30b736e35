"""Does a model still do what it did before grafting? Rows without audio, answered by both models from the same inputs."""

from __future__ import annotations

import gc
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiograft import provenance
from audiograft.data.manifest import find_manifest, pictures_as_given, read_manifest, read_rows, write_manifest
from audiograft.evaluate.folder import RUN_NAME, model_fingerprint, write_json
from audiograft.evaluate.predictions import PREDICTIONS_NAME
from audiograft.evaluate.retention_figures import KINDS
from audiograft.evaluate.retention_folder import clear, is_done, tell, tell_again
from audiograft.evaluate.retention_models import (
    Item,
    Observed,
    check_same_tokens,
    generation_options,
    kind_of,
    observe,
    open_base,
    open_base_processor,
    open_listener,
    open_listener_processor,
    read_item,
    same_prompt,
    vocabulary_rows,
)
from audiograft.inference.batching import BATCHES_IN_FLIGHT, similar_batches
from audiograft.inference.engine import find_device
from audiograft.metrics.divergence import divergence
from audiograft.model import AudioGraftProcessor
from audiograft.model.gating import gate_of
from audiograft.model.lora import lora_modules
from audiograft.types import AudiograftError, ConfigError, DataError, ImageError, Sample


@dataclass(frozen=True)
class _Before:
    """What the base made of a row; its logits are on disk."""

    text: str
    same_prompt: bool


def retain(
    model: str,
    base: str,
    manifest: str | Path,
    out: Path,
    *,
    batch_size: int = 8,
    device: str = "auto",
    slice_by: Sequence[str] = (),
    allow_outside: bool = False,
    overwrite: bool = False,
    on_row: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Hold a model with ears against the model before grafting, on rows without audio; write `predictions.jsonl`, `retention.json` and the reports.

    Both models are given the same tensors in the same batches at the same precision, the one after the other, so that one at a time is in memory.
    Until the second is through, the logits of the first lie in `out`: tokens of the references x vocabulary, 2 or 4 bytes each.

    The same call again computes the figures anew, without opening a model; an interrupted one begins anew.

    Args:
        model: a graft, or an adapter on one, whose LoRA stays unmerged: a gate is measured as it is.
        base: a language model with eyes or without, as it was before grafting; or another graft, such as the one before it was finetuned.
        manifest: a file, or a folder with `manifest.jsonl`. Rows with audio are left out, since the base can't hear.
        out: the run folder; made where it does not exist.
        batch_size: rows in a batch.
        device: as for `find_device`. In float32 on a CPU, in bfloat16 elsewhere.
        slice_by: keys of the rows by whose values the figures are told too.
        allow_outside: also take pictures that do not lie below the manifest's folder.
        overwrite: give up what another run left in the folder.
        on_row: called after each row and model: twice a row, also of what is done already.

    Returns:
        What is in retention.json, see `retention_figures`.

    Raises:
        ConfigError: a model that can't be opened or does not fit, such as one without eyes where there is an image.
        DataError: a manifest, row or folder that can't be used, or no row without audio.
        AudiograftError: logits that are not finite.
    """
    manifest = find_manifest(manifest)
    samples, given, left_out = _read(manifest, slice_by, allow_outside)
    target = find_device(device)
    dtype = torch.float32 if target.type == "cpu" else torch.bfloat16
    about = _settings(model, base, manifest, batch_size, str(target), dtype)
    if is_done(out, about, overwrite):
        for _ in range(2 * len(samples)):
            on_row()
        return tell_again(out, slice_by)
    processors = open_base_processor(base), open_listener_processor(model)
    check_same_tokens(processors[0], base, processors[1], model)
    _check_eyes(samples, dict(zip((base, model), processors, strict=True)), manifest)
    run = _Run(samples, processors[1], batch_size, on_row)
    found, lora = _ask_both(run, model, base, processors[0], out, target, dtype)
    clear(out)
    write_manifest(out / PREDICTIONS_NAME, [_row(sample, given[sample.id], found, run.failed) for sample in samples])
    write_json(out / RUN_NAME, about)
    return tell(out, about | {"lora": lora, "left_out": left_out}, slice_by)


def _ask_both(
    run: _Run, model: str, base: str, processor: AudioGraftProcessor, out: Path, target: torch.device, dtype: torch.dtype
) -> tuple[dict[str, dict[str, Any]], str | None]:
    """What a row of the predictions says of both models, by id; and where the LoRA of the second acts. `processor` is the base's own."""
    with tempfile.TemporaryDirectory(dir=out, prefix="incomplete-logits-") as folder:
        before, generation, rows_of_vocabulary = _ask_base(run, open_base(base, target, dtype), processor, Path(folder))
        gc.collect()
        listener = open_listener(model, target, dtype)
        if (rows := vocabulary_rows(listener)) != rows_of_vocabulary:
            raise ConfigError(f"{base} has another vocabulary: {rows_of_vocabulary} rows, and {model} has {rows}")
        return _ask_model(run, listener, before, Path(folder), generation, model), _lora(listener)


def _read(manifest: Path, slice_by: Sequence[str], allow_outside: bool) -> tuple[list[Sample], dict[str, dict[str, Any]], int]:
    """The rows without audio; their pictures as the manifest names them, by id; and how many rows have audio."""
    samples = read_manifest(manifest, allow_outside)
    given = {sample.id: pictures_as_given(row) for sample, (_, row) in zip(samples, read_rows(manifest), strict=True)}
    silent = [sample for sample in samples if not sample.clips]
    if not silent:
        raise DataError(f"{manifest}: each row has audio, which the model before grafting can't hear: name rows of text, images or videos")
    if missing := [sample.id for sample in silent if sample.target is None]:
        raise DataError(f'{manifest}: row {missing[0]!r} has no "response" and no "text": add the right answer, or leave the row out')
    if unknown := [key for key in slice_by if all(_facts(sample).get(key) is None for sample in silent)]:
        raise DataError(f"{manifest}: no row without audio has the key {unknown[0]!r}: take it out of --slice-by, or correct it")
    return silent, given, len(samples) - len(silent)


def _facts(sample: Sample) -> dict[str, Any]:
    """What a row says beside question and answer."""
    known = {"source": sample.source, "language": sample.language, "label": sample.label}
    return sample.extra | {key: value for key, value in known.items() if value is not None}


def _check_eyes(samples: Sequence[Sample], processors: Mapping[str, AudioGraftProcessor], manifest: Path) -> None:
    seen = next((sample for sample in samples if kind_of(sample) != KINDS[0]), None)
    blind = next((name for name, processor in processors.items() if processor.vision_processor is None), None)
    if seen is not None and blind is not None:
        raise ConfigError(f"{manifest}: row {seen.id!r} has {'images' if seen.images else 'videos'}, and {blind} has no eyes: leave such rows out")


class _Run:
    """The rows on their way through two models: the same batches for both.

    Attributes:
        failed: why rows can't be used, by id.
        on_row: called after each row.
    """

    def __init__(self, samples: Sequence[Sample], processor: AudioGraftProcessor, batch_size: int, on_row: Callable[[], None]) -> None:
        self.failed: dict[str, str] = {}
        self.on_row = on_row
        self.processor = processor
        self._samples = samples
        self._batch_size = batch_size

    def batches(self, model: Any) -> Iterator[list[Item]]:
        """Rows of one kind and of similar length, of some batches at a time, so that few pictures are in memory.

        Args:
            model: whose context has to hold them.
        """
        step = self._batch_size * BATCHES_IN_FLIGHT
        for start in range(0, len(self._samples), step):
            items = []
            for sample in self._samples[start : start + step]:
                if sample.id in self.failed:  # for the first model
                    self.on_row()
                    continue
                try:
                    items.append(read_item(sample, self.processor, model))
                except (DataError, ImageError) as error:
                    self.failed[sample.id] = str(error)
                    self.on_row()
            kinds = [(KINDS.index(kind_of(item.sample)), False) for item in items]
            lengths, values = [len(item.inputs["input_ids"]) for item in items], [item.request.n_values for item in items]
            for numbers in similar_batches(kinds, lengths, self._batch_size, values):
                yield [items[number] for number in numbers]

    def observed(self, model: Any, generation: dict[str, Any]) -> Iterator[tuple[Item, Observed]]:
        """What a model makes of each row."""
        for batch in self.batches(model):
            for item, seen in zip(batch, observe(model, self.processor, batch, generation), strict=True):
                yield item, seen
                self.on_row()


def _ask_base(run: _Run, base: Any, processor: AudioGraftProcessor, folder: Path) -> tuple[dict[str, _Before], dict[str, Any], int]:
    """What the base makes of each row, how it was asked, and the rows of its vocabulary. Its logits go into files."""
    generation = generation_options(base, run.processor)
    before = {}
    for item, seen in run.observed(base, generation):
        before[item.sample.id] = _Before(seen.text, same_prompt(item, processor, run.processor))
        torch.save(seen.logits.clone(), _logits_file(folder, item.sample))
    return before, generation, vocabulary_rows(base)


def _ask_model(run: _Run, model: Any, before: dict[str, _Before], folder: Path, generation: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """What a row of the predictions says of both models, by id."""
    found = {}
    for item, seen in run.observed(model, generation):
        of_base = before[item.sample.id]
        logits: Tensor = torch.load(_logits_file(folder, item.sample), weights_only=True)
        try:
            compared = divergence(logits.float().numpy(), seen.logits.float().numpy())
        except ValueError as error:
            raise AudiograftError(f"{name}: row {item.sample.id!r}: {error} in {seen.logits.dtype}: use a device with another precision") from error
        found[item.sample.id] = {
            "hypothesis": seen.text,
            "base_hypothesis": of_base.text,
            "kl": list(compared.kl),
            "top1": list(compared.top1),
            "equal": compared.equal,
            "same_prompt": of_base.same_prompt,
        }
    return found


def _logits_file(folder: Path, sample: Sample) -> Path:
    """Ids may be no file names."""
    return folder / f"{hashlib.sha256(sample.id.encode(errors='surrogatepass')).hexdigest()}.pt"


def _row(sample: Sample, pictures: dict[str, Any], found: dict[str, dict[str, Any]], failed: dict[str, str]) -> dict[str, Any]:
    """A row of the predictions file; other tools read it as an answer."""
    asked: dict[str, Any] = {"messages": list(sample.messages)} if sample.messages else {"prompt": sample.prompt}
    row = {"id": sample.id, "audio": None, "task": "answer", "kind": kind_of(sample), **pictures, **asked, "reference": sample.target}
    if sample.id in failed:
        return _facts(sample) | row | {"hypothesis": "", "error": failed[sample.id]}
    return _facts(sample) | row | found[sample.id]


def _settings(model: str, base: str, manifest: Path, batch_size: int, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """What the figures come from."""
    return {
        "model": model,
        "model_fingerprint": model_fingerprint(model),
        "base": base,
        "base_fingerprint": model_fingerprint(base),
        "manifest": str(manifest.resolve()),
        "manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
        "batch_size": batch_size,
        "device": device,
        "precision": str(dtype).removeprefix("torch."),
        "continuation": "reference",
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _lora(model: Any) -> str | None:
    """Where the unmerged LoRA of a model acts: `audio` or `always`; None without LoRA."""
    return gate_of(model) if lora_modules(model) else None
