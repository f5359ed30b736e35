"""`merge`: an adapter and its base become one whole model, in 16 or 32 bits, and the two are compared by their logits."""

from __future__ import annotations

import gc
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiograft import provenance
from audiograft.messages import audio_messages
from audiograft.model.adapters import ADAPTER_FILE, read_adapter
from audiograft.model.checkpoint import load_config, resolve_model, save_graft
from audiograft.model.gating import gate_of, gate_open
from audiograft.model.load import Bases, find_adapter, load_model, locate_bases
from audiograft.model.lora import lora_disabled, merge_lora
from audiograft.model.published.system_b import find_system_b, system_b_sources
from audiograft.model.records import MERGE_NAME
from audiograft.types import DETECTION_FILE, SAMPLE_RATE_HZ, TRAINING_TRACES, TRANSCRIBE_PROMPT, VALIDATION_TRACES, ConfigError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCE = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.3}
"""Largest difference of a logit that passes, in standard deviations of the unmerged logits. In 16 bits each merged weight is rounded, by up to 1 part
in 2048 (fp16) or 256 (bf16), and the activations are too, which no exact merge can avoid."""
_KEPT = 0.5
"""Largest difference that passes, in RMS, as a share of what LoRA does to the logits at all. A forgotten merge has 1, and so has an update that is
smaller than the rounding of the weights it is merged into."""
GATE_GIVEN_UP = "merging gives lora_gate: audio up: LoRA acts on rows without audio too from now on"
"""What is said where an adapter had a gate."""
_CLIP_S = 2.0
_ANSWER = "one two three four five six seven eight"


@dataclass(frozen=True)
class MergeReport:
    """What merging changed, on a synthetic clip with an answer and on the answer alone.

    Attributes:
        folder: what was merged.
        out: the whole model.
        dtype: of its weights.
        merged_layers: linear layers whose LoRA was merged.
        max_abs_logit_difference: of merged and unmerged model, over all positions.
        rms_logit_difference: likewise, root mean square.
        lora_rms_effect: root mean square of what LoRA does to the logits, unmerged; 0 where there is none.
        logit_std: standard deviation of the unmerged logits, the unit of `tolerance`.
        tolerance: largest difference that was allowed, in standard deviations.
        top1_agreement: share of positions where both have the same most likely token, 0 to 1.
        positions: compared.
        gate_given_up: whether LoRA acted on rows with audio alone before; the comparison is with the gate open.
        passed: whether the largest difference is within the tolerance, and that in RMS below half of LoRA's effect.
    """

    folder: str
    out: str
    dtype: str
    merged_layers: int
    max_abs_logit_difference: float
    rms_logit_difference: float
    lora_rms_effect: float
    logit_std: float
    tolerance: float
    top1_agreement: float
    positions: int
    gate_given_up: bool
    passed: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def merge_adapter(folder: str | Path, out: Path, dtype: str | None = None, bases: Bases | None = None) -> MergeReport:
    """Write an adapter, or system B's checkpoint, as a whole model, and open what was written to compare it.

    The base is opened without quantisation, whatever the adapter was trained on: merging rounds to the base's own precision, and not to 4 bits.

    Args:
        folder: an adapter's folder, a hub id of one, or system B's checkpoint.
        out: folder of the whole model.
        dtype: fp32, bf16 or fp16; the base's own by default.
        bases: where the bases are, in place of where they were.

    Returns:
        The comparison, which is in out/merge.json too. The caller decides what a failure means.

    Raises:
        ConfigError: there is nothing to merge, the adapter or its base can't be opened, or `out` is the folder of either or of another adapter.
        AudiograftError: the model can't be written.
    """
    bases = bases or Bases()
    if find_system_b(folder) is None and find_adapter(folder) is None:
        load_config(str(folder), resolve_model(folder))
        raise ConfigError(f"{folder} is a whole model, in which nothing is left to merge: give the folder of an adapter")
    _check_out(folder, out, bases)
    dtype = dtype or _base_dtype(folder, bases)
    model, processor = load_model(folder, dtype=DTYPES[dtype], bases=bases, lora_dtype=torch.float32)
    gated = gate_of(model) == "audio"
    with gate_open():
        before = probe(model, processor)
    with lora_disabled(model):
        without = probe(model, processor)
    merged_layers = merge_lora(model)
    save_graft(model, processor, out)
    # Only one of the two is ever in memory.
    del model
    gc.collect()
    after = probe(*load_model(out, dtype=DTYPES[dtype]))
    report = _compare(without, before, after, folder=str(folder), out=str(out), dtype=dtype, merged_layers=merged_layers, gate_given_up=gated)
    record = report.as_dict() | {"versions": provenance.versions(), "commit": provenance.commit()} | _training(folder)
    (out / MERGE_NAME).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    _carry_traces(folder, out)
    return report


def _carry_traces(folder: str | Path, out: Path) -> None:
    """The records of the training go along, so that test data can still be compared with them; those of an earlier merge into `out` do not stay.

    So does the question that was taught.
    """
    adapter_folder = find_adapter(folder)
    for record in (TRAINING_TRACES, VALIDATION_TRACES, DETECTION_FILE):
        (out / record).unlink(missing_ok=True)
        if adapter_folder is not None and (adapter_folder / record).is_file():
            shutil.copyfile(adapter_folder / record, out / record)


def bases_beneath(name: str | Path, bases: Bases | None = None) -> list[str]:
    """Where all is that an adapter or system B's checkpoint stands on, that of a base which is one itself too; nothing for a whole model.

    Args:
        name: as for `load_model`.
        bases: likewise.

    Raises:
        ConfigError: unknown, damaged, or a base is gone.
    """
    sources = _sources(name, bases or Bases())
    return [*sources.values(), *(bases_beneath(sources["model"]) if "model" in sources else [])]


def _sources(name: str | Path, bases: Bases) -> dict[str, str]:
    """Where each part is that an adapter or system B's checkpoint was trained on; empty for a whole model."""
    if find_system_b(name) is not None:
        return system_b_sources(name, bases.language_model, bases.audio_encoder)
    folder = find_adapter(name)
    return {} if folder is None else locate_bases(folder, read_adapter(folder), bases)


def _check_out(folder: str | Path, out: Path, bases: Bases) -> None:
    """Refuse to write over what is merged, and into a folder that would be opened as the adapter it holds."""
    wanted = out.expanduser().resolve()
    if Path(folder).expanduser().resolve() == wanted:
        raise ConfigError(f"{out} is the folder of the adapter: choose another one for the whole model")
    for source in bases_beneath(folder, bases):
        if Path(source).expanduser().resolve() == wanted:
            raise ConfigError(f"{out} is the folder of {source}, which {folder} was trained on: choose another one for the whole model")
    if (out / ADAPTER_FILE).is_file():
        raise ConfigError(f"{out} holds another adapter, which would be opened in place of the whole model: choose another folder")


def _training(folder: str | Path) -> dict[str, Any]:
    """What an adapter keeps of its training; system B's checkpoint keeps nothing."""
    adapter_folder = find_adapter(folder)
    if adapter_folder is None:
        return {}
    adapter = read_adapter(adapter_folder)
    return {"recipe": adapter.recipe, "provenance": adapter.provenance}


def _base_dtype(folder: str | Path, bases: Bases) -> str:
    """Precision in which the base's weights lie on the disk: of the language model, where it is made of parts."""
    sources = _sources(folder, bases)
    source = sources.get("model") or sources["language_model"]
    if find_system_b(source) is not None or ("model" in sources and find_adapter(source) is not None):
        return _base_dtype(source, Bases())
    config = load_config(source, resolve_model(source))
    stored = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    names = {str(value): name for name, value in DTYPES.items()}
    return names.get(f"torch.{stored}".replace("torch.torch.", "torch."), "fp32")


@torch.no_grad()
def probe(model: Any, processor: Any) -> Tensor:
    """Logits over a fixed answer, behind a fixed synthetic clip and behind text alone: (positions, vocabulary), float32, on the CPU.

    Args:
        model: a graft or a stock model.
        processor: its processor.
    """
    times = np.arange(int(_CLIP_S * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    noise = np.random.default_rng(0).standard_normal(len(times))
    # A rising tone whose loudness beats four times a second, as syllables do.
    waveform = (0.2 * np.sin(2 * np.pi * (200 + 400 * times) * times) * (1 + np.sin(8 * np.pi * times)) + 0.01 * noise).astype(np.float32)
    features = processor.features(waveform)
    logits = []
    for clips in ([features], []):
        messages = audio_messages(TRANSCRIBE_PROMPT, len(clips))
        row = processor.training_inputs(messages, _ANSWER, [clip.shape[1] for clip in clips])
        batch = processor.collate([row], clips, padding_side="right")
        output = model(**{key: value.to(model.device) for key, value in batch.items()})
        logits.append(output.logits.float().reshape(-1, output.logits.shape[-1]).cpu())
    return torch.cat(logits)


def is_kept(without: Tensor, before: Tensor, after: Tensor, dtype: str) -> bool:
    """Whether merging kept what LoRA does.

    Args:
        without: (positions, vocabulary) logits without LoRA.
        before: with LoRA, unmerged.
        after: with LoRA merged.
        dtype: fp32, bf16 or fp16, of the weights.
    """
    difference, effect = before - after, _rms(before - without)
    largest = float(difference.abs().max())
    # Where LoRA does nothing at all, there is nothing to keep.
    return largest <= TOLERANCE[dtype] * float(before.std()) and (effect == 0 or _rms(difference) <= _KEPT * effect)


def _compare(without: Tensor, before: Tensor, after: Tensor, **facts: Any) -> MergeReport:
    """Logits without LoRA, with it, and after merging -> the report."""
    difference, spread, tolerance = before - after, float(before.std()), TOLERANCE[facts["dtype"]]
    largest, rms, effect = float(difference.abs().max()), _rms(difference), _rms(before - without)
    return MergeReport(
        **facts,
        max_abs_logit_difference=largest,
        rms_logit_difference=rms,
        lora_rms_effect=effect,
        logit_std=spread,
        tolerance=tolerance,
        top1_agreement=float((before.argmax(-1) == after.argmax(-1)).float().mean()),
        positions=len(before),
        passed=is_kept(without, before, after, facts["dtype"]),
    )


def _rms(values: Tensor) -> float:
    return float(values.pow(2).mean().sqrt())
