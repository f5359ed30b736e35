"""`selftest`: what the first user with the real weights runs, and what goes into an issue where something is wrong.

Each check says what it measured. One that can't be made says why and does not count; one that fails makes the whole fail.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from audiograft import provenance
from audiograft.data.manifest import find_manifest
from audiograft.data.synthetic.generate import prepare_synthetic
from audiograft.data.synthetic.voices import require_engines
from audiograft.evaluate.subject import Subject, open_subject, text_ids
from audiograft.metrics.normalisers import get_normaliser
from audiograft.metrics.word_errors import corpus, word_errors
from audiograft.model.adapters import ADAPTER_FILE
from audiograft.model.gating import gate_open
from audiograft.model.lora import LoraSettings, inject_lora, lora_disabled, lora_modules, lora_parameters, merge_lora
from audiograft.model.merge import TOLERANCE, is_kept, probe
from audiograft.model.modeling import AudioGraftForConditionalGeneration
from audiograft.model.quantise import decoder_linears, left_alone, quantised_modules, summarise
from audiograft.train.deafness import check_deafness
from audiograft.train.plan.gpus import find_gpus
from audiograft.train.plan.report import Options, plan_recipe
from audiograft.train.recipe import MIN_DEAFNESS_CLIPS
from audiograft.train.rows import Row, index_rows, load_clips, read_samples, told
from audiograft.train.validation import score
from audiograft.types import SAMPLE_RATE_HZ, WINDOW_SAMPLES, AudiograftError, ConfigError

CLIPS = 20
"""Scored by default."""
_NORMALISER = "whisper-english"
"""Of the word error rate that is compared with the recipe's expected range, as on the Open ASR leaderboard."""
_SEED = 0
_PERMUTATIONS = 10_000
_SAME_TOWER = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.01}
"""Largest difference between our tower and the stock encoder that passes, in standard deviations of the states. On 30 s of Whisper it is 0."""
_DTYPE_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Check:
    """One check: what it is, how it went, and what was measured, or why it was not made."""

    name: str
    outcome: Outcome
    measured: str


@dataclass(frozen=True)
class Report:
    """All checks of one model.

    Attributes:
        target: recipe or model, as it was named.
        model: what was opened for it.
        checks: in the order in which they were made.
        environment: versions, commit, device, precision.
    """

    target: str
    model: str
    checks: list[Check]
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(check.outcome != "failed" for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"passed": self.passed}

    def markdown(self) -> str:
        """For an issue."""
        counts = {outcome: sum(check.outcome == outcome for check in self.checks) for outcome in ("passed", "failed", "skipped")}
        lines = [f"### audiograft selftest: {self.target}", "", f"Model: {self.model}  "]
        lines += [f"{name}: {value}  " for name, value in self.environment.items()]
        lines += ["", "| check | outcome | measured |", "|---|---|---|"]
        lines += [f"| {check.name} | {check.outcome} | {check.measured.replace('|', '/')} |" for check in self.checks]
        return "\n".join([*lines, "", ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)])


def selftest(
    target: str,
    *,
    overrides: Sequence[str] = (),
    data: str | None = None,
    clips: int = CLIPS,
    allow_outside: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    on_check: Callable[[Check], None] = lambda check: None,
) -> Report:
    """Test a recipe's model (what it trained, or else what it starts from), or a model.

    Args:
        target: a recipe's file, or whatever `load_model` opens.
        overrides: `key=value` for the recipe.
        data: manifest of clips with references; by default the recipe's validation data, and for `tiny` clips made with espeak-ng and flite.
        clips: so many of them.
        allow_outside: also take clips that do not lie below the manifest's folder, as a recipe's `data.allow_outside` does.
        device: where a model is opened. A recipe's start is opened where it would be trained.
        dtype: of its weights.
        on_check: called after each check.

    Raises:
        AudiograftError: the recipe, the model or the clips can't be used.
    """
    subject = open_subject(target, overrides, torch.device(device), dtype)
    allow_outside = allow_outside or (subject.recipe is not None and subject.recipe.data.allow_outside)
    checks: list[Check] = []

    def add(check: Check) -> None:
        checks.append(check)
        on_check(check)

    with torch.no_grad():
        for make in (_parameters, _tower, _without_audio, _quantised):
            add(make(subject))
        for check in _listening(subject, data, clips, allow_outside):
            add(check)
        # Last, since it changes the weights.
        add(_merging(subject))
    first = next(subject.model.parameters())
    environment = {
        "audiograft": provenance.commit() or "released",
        "Versions": ", ".join(f"{name} {version}" for name, version in provenance.versions().items()),
        "Device": torch.cuda.get_device_name(first.device) if first.device.type == "cuda" else str(first.device),
        "Precision": str(first.dtype).removeprefix("torch."),
    }
    return Report(target, subject.name, checks, environment)


def _counts(model: Any) -> dict[str, int]:
    """Parameters of each component, without LoRA; those in 4 bits as what they stand for."""
    lora = {id(parameter) for parameter in lora_parameters(model)}
    counts = {}
    for part in ("audio_tower", "projector", "language_model"):
        component = getattr(model, part)
        packed = {id(layer.weight): layer.in_features * layer.out_features for layer in component.modules() if _is_packed(layer)}
        counts[part] = sum(packed.get(id(p), p.numel()) for p in component.parameters() if id(p) not in lora)
    return counts


def _is_packed(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) and layer.weight.numel() != layer.in_features * layer.out_features


def _parameters(subject: Subject) -> Check:
    """Against the plan, which counts on the meta device without any weights."""
    found = _counts(subject.model)
    shown = ", ".join(f"{part} {count:,}" for part, count in found.items())
    if subject.recipe_file is None:
        return Check(
            "parameters", "passed" if all(found.values()) else "failed", f"{shown}; every tensor of the checkpoint was used, none was missing"
        )
    planned = plan_recipe(subject.recipe_file, subject.overrides, Options(find_gpus(None)))["components"]
    wrong = [f"{part} {found[part]:,} against {planned[part]:,}" for part in found if found[part] != planned[part]]
    return Check("parameters", "failed" if wrong else "passed", f"{shown}; against `plan`: {'; '.join(wrong) or 'equal'}")


def _sound(n_samples: int) -> npt.NDArray[np.float32]:
    """A rising tone whose loudness beats four times a second, with a little noise."""
    times = np.arange(n_samples) / SAMPLE_RATE_HZ
    noise = np.random.default_rng(0).standard_normal(n_samples)
    sound: npt.NDArray[np.float64] = 0.2 * np.sin(2 * np.pi * (200 + 20 * times) * times) * (1 + np.sin(8 * np.pi * times)) + 0.01 * noise
    return sound.astype(np.float32)


def _tower(subject: Subject) -> Check:
    """Our forward pass of the encoder against transformers' own class with the same weights, on 30 s."""
    name, model = "tower parity", subject.model
    if not isinstance(model, AudioGraftForConditionalGeneration):
        return Check(name, "skipped", f"the tower is transformers' own {type(model.audio_tower).__name__}")
    if any(layer in set(model.audio_tower.modules()) for layer in lora_modules(model).values()):
        return Check(name, "skipped", "the tower carries LoRA")
    if quantised_modules(model.audio_tower):
        return Check(name, "failed", "the tower has layers in 4 bits")
    tower: Any = model.audio_tower
    stock_class: Any = next(base for base in type(tower).__mro__ if base.__module__.startswith("transformers.models."))
    with torch.device("meta"):
        stock = stock_class(tower.config)
    stock.load_state_dict(tower.state_dict(), assign=True)
    features = torch.from_numpy(subject.processor.features(_sound(WINDOW_SAMPLES)))[None].to(model.device, tower.dtype)
    inputs = {"input_values": features[:, 0]} if stock.main_input_name == "input_values" else {"input_features": features}
    if tower.config.model_type == "wav2vec2-bert":
        inputs = {"input_features": features.transpose(1, 2)}
    expected = stock.eval()(**inputs).last_hidden_state.float()
    share = float((tower(features).float() - expected).abs().max() / expected.std())
    allowed = _SAME_TOWER[tower.dtype]
    outcome: Outcome = "passed" if share <= allowed else "failed"
    return Check(name, outcome, f"largest difference from {stock_class.__name__} {share:.2g} standard deviations (allowed {allowed:g})")


def _without_audio(subject: Subject) -> Check:
    """A text prompt through the graft, its LoRA off, against the language model by itself."""
    model, ids = subject.model, text_ids(subject.processor).to(subject.model.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with lora_disabled(model):
        found = model(**inputs).logits.float().cpu()
        if subject.source_text is not None:
            what, expected = f"{subject.source} opened by itself", subject.source_text
        elif isinstance(model, AudioGraftForConditionalGeneration):
            what, expected = "its language model called by itself", model.language_model(**inputs).logits.float().cpu()
        else:
            what, expected = "transformers' own class called by itself", model.stock(**inputs).logits.float().cpu()
    if found.shape != expected.shape:
        return Check("logits without audio", "failed", f"{tuple(found.shape)} against {tuple(expected.shape)} of {what}")
    difference = float((found - expected).abs().max())
    lora = ", LoRA off" if lora_modules(model) else ""
    return Check("logits without audio", "failed" if difference else "passed", f"largest difference from {what}{lora}: {difference:.2g}")


def _quantised(subject: Subject) -> Check:
    """4-bit layers, all of them in the decoder."""
    model, found = subject.model, quantised_modules(subject.model)
    wanted = subject.recipe is not None and subject.recipe.quantisation is not None and subject.is_start
    allowed = {name.removesuffix(".base_layer") for name in decoder_linears(model)}
    outside = [name for name in found if name not in allowed]
    if outside or (wanted and len(found) != len(allowed)):
        return Check(
            "quantised", "failed", f"{len(found)} of {len(allowed)} decoder layers in 4 bits; outside the decoder: {', '.join(outside) or 'none'}"
        )
    if not found:
        trained_on = _trained_in_4_bits(subject.name)
        shown = f"nothing here; trained on {len(trained_on)} layers in 4 bits: {summarise(trained_on)}" if trained_on else "nothing, as it should be"
        return Check("quantised", "passed", shown)
    others = ", ".join(f"{count} of {place}" for place, count in left_alone(model).items())
    return Check("quantised", "passed", f"{len(found)} layers: {summarise(found)}; not: {others}")


def _trained_in_4_bits(name: str) -> list[str]:
    """What was in 4 bits while a model was trained, by its own record."""
    for file in (ADAPTER_FILE, "train.json"):
        path = Path(name) / file
        if path.is_file():
            return list(json.loads(path.read_text(encoding="utf-8")).get("quantised", ()))
    return []


def _listening(subject: Subject, data: str | None, clips: int, allow_outside: bool) -> Iterator[Check]:
    """The deafness check and the word error rate, on the same clips."""
    if data is None and subject.is_start:
        why = "not trained yet: run the recipe first"
        yield from (Check(name, "skipped", why) for name in ("deafness", "word error rate"))
        return
    with tempfile.TemporaryDirectory() as scratch:
        manifest, what = _find_clips(subject, data, clips, Path(scratch))
        if manifest is None:
            yield from (Check(name, "skipped", what) for name in ("deafness", "word error rate"))
            return
        rows = _rows(subject, manifest, clips, allow_outside)
        report = check_deafness(subject.model, subject.processor, rows, what, _PERMUTATIONS, _SEED)
        shown = ", ".join(f"{row.audio} audio: loss {row.loss:.3f}, WER {row.wer:.1%}" for row in report.conditions)
        yield Check("deafness", "failed" if report.deaf else "passed", f"{report.verdict()}; {shown}")
        hypotheses = score(subject.model, subject.processor, rows, [load_clips(row) for row in rows]).hypotheses
    normalise = get_normaliser(_NORMALISER).apply
    rate = corpus(word_errors(normalise(row.target), normalise(text)) for row, text in zip(rows, hypotheses, strict=True)).rate
    expected = subject.recipe.expected_wer if subject.recipe is not None else ()
    inside = not expected or expected[0] <= rate <= expected[1]
    span = f"expected {expected[0]:.1%} to {expected[1]:.1%}" if expected else "no expected range is known"
    yield Check("word error rate", "passed" if inside else "failed", f"{rate:.1%} on {len(rows)} clips ({_NORMALISER} normaliser); {span}")


def _find_clips(subject: Subject, data: str | None, clips: int, scratch: Path) -> tuple[str | None, str]:
    """A manifest and what it is, or why there is none."""
    if data is not None:
        return str(find_manifest(data)), "given"
    validation = subject.recipe.data.validation if subject.recipe is not None else None
    if validation is not None and Path(validation).exists():
        return str(find_manifest(validation)), "validation"
    if subject.name != "tiny":
        return None, "no clips: name a manifest with --data"
    try:
        require_engines()
    except AudiograftError as error:
        return None, f"no clips: name a manifest with --data, or install what makes them ({error})"
    return str(prepare_synthetic(scratch, split="test", voices="training", rows=clips, seed=1)), "synthetic"


def _rows(subject: Subject, manifest: str, clips: int, allow_outside: bool) -> list[Row]:
    rows, rejected = index_rows(islice(read_samples([manifest], allow_outside=allow_outside), clips), subject.processor)
    heard = [row for row in rows if row.n_samples]
    if len(heard) < MIN_DEAFNESS_CLIPS:
        reason = f"; the first of {len(rejected)} that can't be used: {told(rejected[0])}" if rejected else ""
        raise ConfigError(f"{manifest}: {len(heard)} usable clips, and the deafness check needs {MIN_DEAFNESS_CLIPS}: raise --clips{reason}")
    return heard


def _merging(subject: Subject) -> Check:
    """Logits before and after merging LoRA in memory: the model's own, or, where it has none, random LoRA of rank 4 on its decoder."""
    name, model = "merge parity", subject.model
    if quantised_modules(model):
        return Check(name, "skipped", "4-bit weights: `audiograft merge` opens them in 16 bits, merges there, and makes this check")
    if getattr(model, "has_own_adapter", False):
        return Check(name, "skipped", "this model's own LoRA is on with audio and off without, and is never merged")
    own = bool(lora_modules(model))
    if not own:
        targets = list(decoder_linears(model))
        if not targets:
            return Check(name, "skipped", "the decoder has no plain linear layers that could carry LoRA")
        inject_lora(model, targets, LoraSettings(rank=4, alpha=4))
        generator = torch.Generator().manual_seed(_SEED)
        for parameter_name, parameter in model.named_parameters():
            if ".lora_B." in parameter_name:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    # Merged, it acts on rows without audio too.
    with gate_open():
        before = probe(model, subject.processor)
    with lora_disabled(model):
        without = probe(model, subject.processor)
    layers = merge_lora(model)
    after, dtype = probe(model, subject.processor), _DTYPE_NAMES[model.dtype]
    share = float((after - before).abs().max() / before.std())
    moved = float((without - before).abs().max() / before.std())
    what = f"{layers} layers of {'its own' if own else 'random'} LoRA"
    shown = f"{what}: logits differ by up to {share:.2g} standard deviations (allowed {TOLERANCE[dtype]:g}); LoRA itself moves them by {moved:.2g}"
    return Check(name, "passed" if is_kept(without, before, after, dtype) else "failed", shown)
