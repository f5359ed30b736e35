"""The recipe of one training stage: YAML plus `--set key=value` -> frozen dataclasses, every key and type checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from audiograft.data.augment.chain import AugmentRecipe
from audiograft.data.declarations import OpenSection, build, convert, unknown_key, wrong_value
from audiograft.data.prompts import find_prompts
from audiograft.data.sources import find_source
from audiograft.train.detection import DetectionRecipe, check_detection
from audiograft.types import ConfigError

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Names of all linear layers in a decoder block of Qwen, Llama, Mistral, Gemma and their kin."""
MIN_DEAFNESS_CLIPS = 8
"""With fewer paired clips no sign-flip permutation test can reach p < 0.01: the smallest possible p is 1 / 2^n."""
DEAF_P = 0.01
"""A model is taken for deaf unless true audio beats shuffled audio at this level."""


@dataclass(frozen=True)
class Corpus(OpenSection):
    """An entry of `data.train` that is more than a path: a manifest or a source, and how often its rows are learnt."""

    manifest: str | None = None
    """A manifest; or else"""
    source: str | None = None
    """the name of a source, as in `audiograft prepare NAME`."""
    weight: float = 1.0
    """How many times each row is in an epoch; of 0.5, half of the rows are, drawn by the seed."""
    options: dict[str, Any] = field(default_factory=dict)
    """All other keys: those of the source."""

    @classmethod
    def from_mapping(cls, tree: Mapping[Any, Any], key: str, origin: str) -> Self:
        """See `OpenSection`."""
        own = {name: convert(tree[name], hint, f"{key}.{name}", origin) for name, hint in _CORPUS_KEYS.items() if name in tree}
        options = {name: value for name, value in tree.items() if name not in _CORPUS_KEYS}
        corpus = cls(**own, options=options)
        if (corpus.manifest is None) == (corpus.source is None):
            raise ConfigError(f"{origin}: {key}: give either a manifest or a source")
        if corpus.source is not None:
            find_source(corpus.source)
        elif options:
            raise unknown_key(next(iter(options)), dict.fromkeys(("manifest", "weight")), f"{key}.", origin)
        if corpus.weight <= 0:
            raise wrong_value(f"{key}.weight", "above 0", corpus.weight, origin)
        return corpus

    def as_dict(self) -> dict[str, Any]:
        """As it stands in a recipe."""
        own: dict[str, Any] = {"source": self.source} if self.manifest is None else {"manifest": self.manifest}
        return own | {"weight": self.weight} | self.options


_CORPUS_KEYS = {"manifest": str, "source": str, "weight": float}


@dataclass(frozen=True)
class DataRecipe:
    """Which manifests are read. Paths are relative to the current directory."""

    train: tuple[str | Corpus, ...]
    """What to learn from, one or a list: paths of manifests, or mappings {manifest: PATH, weight: 2} or {source: NAME, weight: 0.5, ...}."""
    streaming: bool = False
    """Read the rows while they are learnt, without an index: for corpora that are too large for one. Needs max_steps and validation."""
    validation: str | None = None
    """Manifest for validation during the run and for the deafness check."""
    validation_clips: int = 100
    """Clips of it that are scored at each validation, drawn by the seed."""
    prompts: str | None = None
    """Text file of instructions, one a line; a row with clips and without an instruction of its own draws one, by the seed and its id."""
    held_out: tuple[str, ...] = ()
    """Manifests of test data. The run does not begin where training or validation data share what `allow_leakage` does not allow."""
    allow_leakage: tuple[Literal["speakers", "recordings", "texts", "audio", "pictures"], ...] = ("speakers", "texts")
    """What held-out data may share with the others."""
    allow_outside: bool = False
    """Take clips too that do not lie below the folder of their manifest."""
    max_rejected: float = 0.2
    """Share of rows that can't be used, or not any more, above which the run stops; 1 never stops."""

    @property
    def corpora(self) -> list[Corpus]:
        """The entries of `train`, all in one form."""
        return [Corpus(manifest=entry) if isinstance(entry, str) else entry for entry in self.train]


@dataclass(frozen=True)
class GraftRecipe:
    """What the model is made of. Where the recipe names no `model`, it is made of these parts in memory, with a fresh projector."""

    audio_encoder: str
    """Folder, hub id or shipped name of the encoder."""
    language_model: str
    """Folder, hub id or shipped name of the language model."""
    projector: str = "swiglu"
    """One of swiglu, linear, mlp, pool-mlp, pool-linear."""
    frame_stack: int = 4
    """Encoder frames in one audio token."""
    pad_to_window: bool = False
    """Pad every clip to 30 s."""
    match_rms: bool = True
    """Scale the fresh projector so that its output is as loud as text embeddings; false leaves the initialisation that was published with it."""


@dataclass(frozen=True)
class LoraRecipe:
    """Low-rank adapters of the stage `finetune`.

    Each scope names linear layers of one component: by the end of their name, or as the groups attention, mlp and all.
    """

    rank: int = 16
    """Rank of the two matrices."""
    alpha: float = 32.0
    """The update is scaled by alpha / rank, or by alpha / sqrt(rank) with rslora."""
    dropout: float = 0.0
    """Share of the adapter's inputs dropped in training, 0 to 1."""
    language_model: tuple[str, ...] = ALL_LINEAR
    """Linear layers of the language model's decoder, such as attention or [q_proj, v_proj]; [] for none."""
    audio_tower: tuple[str, ...] = ()
    """Linear layers of the encoder likewise; none by default."""
    projector: tuple[str, ...] = ()
    """Linear layers of the projector, for train_projector: false."""
    rslora: bool = False
    """Rank-stabilised scale (Kalajdzievski 2023, arXiv:2312.03732)."""
    dora: bool = False
    """Weight-decomposed adapters (Liu et al. 2024, arXiv:2402.09353)."""


@dataclass(frozen=True)
class DeafnessRecipe:
    """The check at the end of each run that the model listens."""

    clips: int = 100
    """Clips scored on true audio, on shuffled audio and on silence."""
    permutations: int = 10_000
    """Draws of the permutation test."""


@dataclass(frozen=True)
class Recipe:
    """One stage of training."""

    stage: Literal["align", "finetune"]
    """align trains the projector; finetune trains projector and LoRA, merged at the end."""
    output_dir: str
    """Folder of the trained model, its checkpoints and its log, relative to the current directory."""
    data: DataRecipe
    """Manifests."""
    model: str | None = None
    """What to start from: a graft, the output of an earlier stage, a stock audio language model; folder, name or hub id. Or see graft."""
    graft: GraftRecipe | None = None
    """The parts that the model is made of; where `model` is named too, it has to be made of these."""
    prompt: str | None = None
    """Instruction for all rows; each row's own where it is left out."""
    detection: DetectionRecipe | None = None
    """How rows that have a label and no text are learnt."""
    epochs: float = 1.0
    """Passes over the training rows."""
    max_steps: int | None = None
    """Optimiser steps; wins over epochs."""
    tokens_per_batch: int = 2048
    """Positions in the language model, pads included, in one batch."""
    gradient_accumulation_steps: int = 1
    """Batches in one optimiser step."""
    learning_rate: float = 1e-3
    """Peak of the schedule."""
    lr_scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """Shape of the schedule behind the warm-up."""
    warmup_ratio: float = 0.03
    """Share of the steps over which the learning rate rises, 0 to 1."""
    weight_decay: float = 0.0
    """AdamW's."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; 0 leaves them as they are."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What is computed in; weights and optimiser stay in fp32."""
    frozen_precision: Literal["fp32", "bf16", "fp16"] | None = None
    """What frozen weights are held in; as `precision` where it is left out."""
    quantisation: Literal["nf4"] | None = None
    """nf4 holds the language model's linear layers, without its head, in 4 bits (QLoRA, Dettmers et al. 2023, arXiv:2305.14314)."""
    loss: Literal["cross_entropy", "kl"] = "cross_entropy"
    """cross_entropy learns the answers; kl learns from the same language model reading the transcript (as Ultravox does)."""
    kl_temperature: float = 2.0
    """Softens both distributions of the loss kl."""
    train_projector: bool = True
    """Whether the projector learns."""
    lora: LoraRecipe = field(default_factory=LoraRecipe)
    """Adapters, read by the stage finetune."""
    lora_gate: Literal["audio", "always"] = "always"
    """Under audio the language model's adapters act on rows whose prompt holds audio, and leave all others as the base has them, bit for bit."""
    gradient_checkpointing: bool = False
    """Compute the language model's activations again in the backward pass: less memory, about a third more time."""
    attention: Literal["auto", "sdpa", "flash_attention_2", "eager"] = "auto"
    """auto takes FlashAttention 2 where it is installed and there is a GPU, else SDPA."""
    compile: bool = False
    """torch.compile the language model's decoder layers."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """What several processes do: ddp copies the model, fsdp2 shards it."""
    save: Literal["adapter", "merged"] = "merged"
    """adapter saves what was trained and how to find the rest; merged saves a whole model."""
    expected_wer: tuple[float, ...] = ()
    """Range of the word error rate, lowest and highest, that `selftest` takes for healthy: [0.0, 0.08]."""
    augment: AugmentRecipe | None = None
    """What training clips go through before they are heard; validation and the deafness check hear them as they are."""
    feature_cache: str | None = None
    """Folder in which the frozen tower's outputs are kept as float16, computed once per clip; both stages can share it. None computes them anew."""
    pad_to_window_share: float = 0.0
    """Share of training clips padded to 30 s, 0 to 1; which ones is fixed by the seed and the row's id."""
    eval_steps: int = 500
    """Optimiser steps between validations; there is one at the end too."""
    save_steps: int = 500
    """Optimiser steps between checkpoints; there is one at the end too."""
    logging_steps: int = 10
    """Optimiser steps between log lines."""
    save_total_limit: int = 2
    """Checkpoints that are kept."""
    sample_transcripts: int = 3
    """Pairs of reference and hypothesis printed at each validation."""
    report_to: tuple[str, ...] = ()
    """Trackers that get the log: tensorboard, wandb and whatever else transformers knows."""
    seed: int = 0
    """Decides batches, their order, the adapters' start and dropout."""
    dataloader_workers: int = 0
    """Processes that read and tokenise; 0 does it in the main process."""
    save_dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Precision of the weights that are saved at the end."""
    deafness: DeafnessRecipe = field(default_factory=DeafnessRecipe)
    """The check at the end."""

    @property
    def stretch(self) -> float:
        """By how much augmentation may make a row longer."""
        return self.augment.stretch if self.augment else 1.0

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dict, as it stands in train.json."""
        recipe = asdict(self)
        recipe["data"]["train"] = tuple(entry.as_dict() if isinstance(entry, Corpus) else entry for entry in self.data.train)
        return recipe


_AT_LEAST_ONE = (
    "data.validation_clips", "max_steps", "tokens_per_batch", "gradient_accumulation_steps", "eval_steps", "save_steps", "logging_steps",
    "save_total_limit", "lora.rank",
)  # fmt: skip
_POSITIVE = ("epochs", "learning_rate", "lora.alpha", "kl_temperature")
_NOT_NEGATIVE = ("weight_decay", "max_grad_norm", "sample_transcripts", "dataloader_workers")
_BELOW_ONE = ("warmup_ratio", "lora.dropout")
_NOT_EMPTY = ("data.train", "output_dir")


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: YAML file; paths in it are relative to the current directory, not to the file.
        overrides: `key=value` pairs that win over the file, keys dotted (`data.train=x`), values in YAML.

    Raises:
        ConfigError: an unreadable file, an unknown key (with the closest valid one), a missing key or a wrong type.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a recipe: {getattr(error, 'strerror', None) or error}") from error
    except (yaml.YAMLError, ValueError) as error:  # a ValueError comes from a date or a number that can't be
        raise ConfigError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a recipe is a list of `key: value` lines, such as `stage: align`")
    for override in overrides:
        _apply(tree, override)
    recipe = build(Recipe, tree, "", str(path), mend="add it, or pass --set {key}=...")
    _check_values(recipe, str(path))
    return recipe


def _apply(tree: dict[str, Any], override: str) -> None:
    """Write one `key=value` into the tree."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: write key=value, such as learning_rate=1e-3")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML: quote it") from error
    *sections, last = key.split(".")
    for name in sections:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {override}: {name} is not a section with keys of its own")
    tree[last] = value


def _look_up(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _check_values(recipe: Recipe, source: str) -> None:
    """Ranges that types can't express."""
    for keys, expected, holds in (
        (_AT_LEAST_ONE, "1 or more", lambda value: value is None or value >= 1),
        (_POSITIVE, "above 0", lambda value: value > 0),
        (_NOT_NEGATIVE, "0 or more", lambda value: value >= 0),
        (_BELOW_ONE, "from 0 to below 1", lambda value: 0 <= value < 1),
        (("pad_to_window_share", "data.max_rejected"), "from 0 to 1", lambda value: 0 <= value <= 1),
        (("seed",), "from 0 to 4294967295", lambda value: 0 <= value < 2**32),  # numpy's range
        (_NOT_EMPTY, "given", len),
        (("deafness.permutations",), "100 or more, to be able to reach p < 0.01", lambda value: value >= 100),
        (("deafness.clips",), f"{MIN_DEAFNESS_CLIPS} or more, to be able to reach p < 0.01", lambda value: value >= MIN_DEAFNESS_CLIPS),
        (("expected_wer",), "a lowest and a highest rate, such as [0.0, 0.08]", _is_range),
    ):
        for key in keys:
            if not holds(_look_up(recipe, key)):
                raise wrong_value(key, expected, _look_up(recipe, key), source)
    if recipe.data.prompts is not None and not find_prompts(recipe.data.prompts).is_file():
        raise ConfigError(f"{source}: data.prompts: {recipe.data.prompts}: no such file: write instructions into it, one a line")
    _check_parts(recipe, source)
    _check_stage(recipe, source)
    check_detection(recipe, source)
    parts = () if recipe.graft is None else (recipe.graft.audio_encoder, recipe.graft.language_model)
    folders = {Path(name).expanduser().resolve() for name in (recipe.model, *parts) if name}
    if Path(recipe.output_dir).expanduser().resolve() in folders:
        raise ConfigError(f"{source}: output_dir is the folder of the model it starts from: choose another one")


def _is_range(values: tuple[float, ...]) -> bool:
    return not values or (len(values) == 2 and 0 <= values[0] <= values[1])


def _check_parts(recipe: Recipe, source: str) -> None:
    """What the model is made of."""
    if not recipe.model and recipe.graft is None:
        raise ConfigError(f"{source}: there is nothing to start from: give model, or graft with audio_encoder and language_model")
    if recipe.graft is None:
        return
    for key in ("audio_encoder", "language_model"):
        if not getattr(recipe.graft, key):
            raise wrong_value(f"graft.{key}", "given", "", source)


def _check_stage(recipe: Recipe, source: str) -> None:
    """Keys that exclude each other, or that the stage doesn't read."""
    lora, gated = recipe.lora, recipe.lora_gate == "audio"
    for wrong, message in (
        (recipe.prompt is not None and recipe.data.prompts is not None, "prompt and data.prompts exclude each other: take one out"),
        (recipe.stage == "align" and lora != LoraRecipe(), "lora is read by the stage finetune alone: take the section out, or use stage: finetune"),
        (recipe.stage == "align" and gated, "lora_gate is read by the stage finetune alone: take it out, or use stage: finetune"),
        (gated and lora.dora, "lora.dora and lora_gate: audio exclude each other, since DoRA scales the layer itself: take one out"),
        (gated and not lora.language_model, "lora_gate: audio without LoRA in the language model has nothing to gate: take it out"),
        (
            recipe.stage == "align" and not recipe.train_projector,
            "train_projector: false leaves the stage align nothing to train: use stage: finetune",
        ),
        (
            recipe.stage == "finetune" and recipe.train_projector and bool(lora.projector),
            "lora.projector adapts a frozen projector: set train_projector: false, or take it out",
        ),
        (recipe.data.streaming and recipe.max_steps is None, "data.streaming does not know when an epoch ends: set max_steps"),
        (recipe.data.streaming and recipe.data.validation is None, "data.streaming leaves nothing to validate with: set data.validation"),
        (recipe.data.streaming and recipe.loss == "kl", "data.streaming and loss: kl exclude each other: take one out"),
        (recipe.augment is not None and recipe.feature_cache is not None, "augment changes clips that feature_cache keeps: take one out"),
        (recipe.data.streaming and recipe.feature_cache is not None, "data.streaming and feature_cache exclude each other: take one out"),
        (recipe.feature_cache is not None and bool(lora.audio_tower), "feature_cache needs a frozen encoder: take it or lora.audio_tower out"),
        (
            recipe.compile and recipe.quantisation is not None,
            "compile and quantisation exclude each other: take one out",
        ),
        (
            recipe.parallel == "fsdp2" and recipe.quantisation is not None,
            "parallel: fsdp2 does not shard 4-bit weights: use ddp, or take quantisation out",
        ),
    ):
        if wrong:
            raise ConfigError(f"{source}: {message}")


def finetunes_alone(override: str) -> bool:
    """Whether the stage finetune alone can be given this `key=value`."""
    return override.partition("=")[0].partition(".")[0] in ("lora", "lora_gate", "train_projector")
