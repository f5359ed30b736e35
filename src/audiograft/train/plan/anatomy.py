"""A recipe's model without weights: built of the real classes on the meta device, prepared by the function that prepares training, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperConfig, WhisperFeatureExtractor

from audiograft.model import AudioGraftConfig, AudioGraftForConditionalGeneration
from audiograft.model.front_end import FrontEnd, build_front_end
from audiograft.model.lora import lora_modules, lora_parameters
from audiograft.model.quantise import decoder_linears
from audiograft.model.stock import StockAudioModel, is_stock
from audiograft.model.stock.families import FAMILIES
from audiograft.model.stock.mel import MelSpec
from audiograft.model.stock.processing import StockFrontEnd
from audiograft.model.towers import build_tower, waveform_convolutions
from audiograft.train.recipe import Recipe
from audiograft.train.stages import SCOPES, prepare_stage
from audiograft.types import WINDOW_FRAMES, WINDOW_SAMPLES, ConfigError

PLACEHOLDER = 0
"""Id of the audio token: any will do, since it changes no shape."""


@dataclass(frozen=True)
class Decoder:
    """Dimensions of the language model's decoder.

    Attributes:
        hidden: width of the residual stream.
        layers: how many.
        heads: of queries.
        query: heads times their width.
        key: key and value heads times their width.
        intermediate: width inside the feed-forward part.
        vocabulary: rows of the head.
        linear_params: weights of its linear layers, the head left out.
        largest_linear: weights of the largest one.
        head_norms: whether queries and keys are normalised, as Qwen3 does.
    """

    hidden: int
    layers: int
    heads: int
    query: int
    key: int
    intermediate: int
    vocabulary: int
    linear_params: int
    largest_linear: int
    head_norms: bool


@dataclass(frozen=True)
class Lora:
    """One scope's adapters.

    Attributes:
        params: in all of them.
        inputs: sum of the widths of what goes into them.
        ranks: sum of their ranks.
        targets: how many linear layers of each name got one.
    """

    params: int
    inputs: int
    ranks: int
    targets: dict[str, int]


class TowerFlops:
    """Forward FLOPs of one clip in the encoder, attention included, by torch's own counter on the meta device.

    They grow with the length and its square, so that two lengths tell all others; what rounding of frames leaves is below a hundredth.

    Args:
        tower: on the meta device, without adapters.
        features: feature frames -> the tower's input for one clip.
        window_frames: feature frames of 30 s.
        always_window: the tower is given 30 s whatever the clip's length.
    """

    def __init__(self, tower: Any, features: Callable[[int], Tensor], window_frames: int, always_window: bool) -> None:
        self._tower, self._features, self._window_frames, self._always_window = tower, features, window_frames, always_window

    def measure(self, frames: int) -> int:
        """Counted, for one clip of so many feature frames."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self._tower(self._features(frames))
        return int(counter.get_total_flops())

    @cached_property
    def _window(self) -> float:
        return float(self.measure(self._window_frames))

    @cached_property
    def _curve(self) -> tuple[float, float]:
        """(a, b) of flops = a * n + b * n^2."""
        half, whole = self._window_frames // 2, self._window_frames
        a_half, a_whole = self.measure(half) / half, self._window / whole
        b = (a_whole - a_half) / (whole - half)
        return a_half - b * half, b

    def __call__(self, frames: int) -> float:
        """FLOPs of one clip of so many feature frames."""
        if self._always_window or frames == self._window_frames:
            return self._window
        a, b = self._curve
        return a * frames + b * frames**2


@dataclass(frozen=True)
class Anatomy:
    """What there is to count.

    Attributes:
        params: of each component; tied ones once.
        tensors: in a merged checkpoint.
        projector_trains: whether the projector learns.
        projector_is_new: whether it is made by the recipe, and so belongs into its adapter.
        projector_linears: weights of its linear layers.
        projector_widths: sum of the widths of what goes into and comes out of them.
        decoder: dimensions of the language model's.
        lora: adapters of each scope.
        front_end: counts lengths.
        pad_to_window: whether every clip is padded to 30 s.
        tower_flops: forward FLOPs of a clip by its feature frames.
        window_frames: frames inside the tower for every clip, where it is given 30 s whatever the clip's length; else None.
        tower_width: of the encoder's frames.
        tower_layers: how many.
        tower_intermediate: width inside its feed-forward parts.
    """

    params: dict[str, int]
    tensors: int
    projector_trains: bool
    projector_is_new: bool
    projector_linears: int
    projector_widths: int
    decoder: Decoder
    lora: dict[str, Lora]
    front_end: FrontEnd
    pad_to_window: bool
    tower_flops: TowerFlops
    window_frames: int | None
    tower_width: int
    tower_layers: int
    tower_intermediate: int

    @property
    def lora_params(self) -> int:
        return sum(lora.params for lora in self.lora.values())

    @property
    def trainable_params(self) -> int:
        return self.lora_params + (self.params["projector"] if self.projector_trains else 0)

    @property
    def total_params(self) -> int:
        return sum(self.params.values())

    def feature_frames(self, n_samples: int, padded: bool = False) -> int:
        """Feature frames that the tower is given for a clip, which is padded to 30 s or not."""
        return self.front_end.feature_frames(n_samples, self.pad_to_window or padded)

    def tower_frames(self, feature_frames: int) -> int:
        """Frames that the tower's layers compute for a clip."""
        return self.window_frames or self.front_end.encoder_frames(feature_frames)

    @property
    def tokens_per_window(self) -> int:
        """Audio tokens of 30 s."""
        return self.front_end.audio_tokens(self.feature_frames(WINDOW_SAMPLES))


@dataclass(frozen=True)
class _Parts:
    """A model on the meta device, and what else is counted with."""

    model: Any
    text_config: Any
    audio_config: Any
    front_end: FrontEnd
    tower_flops: TowerFlops
    window_frames: int | None
    pad_to_window: bool


def count(config: Any, recipe: Recipe, is_new: bool) -> Anatomy:
    """Build the model of a configuration without weights, prepare it for the recipe's stage, and count.

    Args:
        config: `AudioGraftConfig`, or that of a stock audio language model.
        recipe: of one stage.
        is_new: whether the recipe makes the projector.

    Raises:
        ConfigError: parts that don't fit, a LoRA scope that matches nothing, a mixture of experts.
    """
    parts = _stock_parts(config) if is_stock(config) else _graft_parts(config)
    model = parts.model
    params, tensors, decoder = _component_params(model), _n_tensors(model), _decoder(model, parts.text_config)
    linears = [layer for layer in model.projector.modules() if isinstance(layer, nn.Linear)]
    prepare_stage(model, recipe)
    audio = parts.audio_config
    return Anatomy(
        params=params,
        tensors=tensors,
        projector_trains=recipe.train_projector,
        projector_is_new=is_new,
        projector_linears=sum(layer.weight.numel() for layer in linears),
        projector_widths=sum(layer.in_features + layer.out_features for layer in linears),
        decoder=decoder,
        lora={scope: _lora(getattr(model, scope)) for scope in SCOPES},
        front_end=parts.front_end,
        pad_to_window=parts.pad_to_window,
        tower_flops=parts.tower_flops,
        window_frames=parts.window_frames,
        tower_width=getattr(audio, "hidden_size", None) or audio.hidden_dim,
        tower_layers=getattr(audio, "num_hidden_layers", None) or audio.num_layers,
        tower_intermediate=_intermediate(audio),
    )


def _intermediate(audio: Any) -> int:
    """Width inside the encoder's feed-forward parts, by whichever name its configuration has for it."""
    for name in ("encoder_ffn_dim", "intermediate_size"):
        if (width := getattr(audio, name, None)) is not None:
            return int(width)
    return int(audio.hidden_dim * audio.feedforward_mult)


def _graft_parts(config: AudioGraftConfig) -> _Parts:
    with torch.device("meta"):
        model = AudioGraftForConditionalGeneration(config)
        bare_tower = build_tower(config.audio_config)
    front_end = _front_end(config, bare_tower.channels)
    flops = TowerFlops(
        bare_tower,
        lambda frames: torch.empty(1, bare_tower.channels, frames, device="meta"),
        front_end.feature_frames(WINDOW_SAMPLES),
        always_window=config.pad_to_window,
    )
    window = front_end.encoder_frames(front_end.feature_frames(WINDOW_SAMPLES)) if config.pad_to_window else None
    return _Parts(model, config.get_text_config(), config.audio_config, front_end, flops, window, config.pad_to_window)


def _stock_parts(config: Any) -> _Parts:
    family = FAMILIES[config.model_type]
    spec = MelSpec(n_fft=400, window_samples=400, n_mels=80, scale=family.mel_scale)  # of no account: nothing is heard here
    with torch.device("meta"):
        model = StockAudioModel(family.model_class(config), family, spec)
    audio, front_end = _encoder_config(config), StockFrontEnd(family, config, {})
    if config.model_type != "granite_speech":
        flops = TowerFlops(_whisper_like(audio), lambda _: torch.empty(1, audio.num_mel_bins, WINDOW_FRAMES, device="meta"), WINDOW_SAMPLES, True)
        return _Parts(model, config.get_text_config(), audio, front_end, flops, WINDOW_FRAMES // 2, False)
    with torch.device("meta"):
        bare_tower: Any = getattr(family.model_class(config).model, family.audio_tower)

    def features(n_samples: int) -> Tensor:
        return torch.empty(1, front_end.encoder_frames(n_samples), audio.input_dim, device="meta", dtype=next(bare_tower.parameters()).dtype)

    return _Parts(model, config.get_text_config(), audio, front_end, TowerFlops(bare_tower, features, WINDOW_SAMPLES, False), None, False)


def _whisper_like(audio: Any) -> Any:
    """Whisper's encoder in the dimensions of a stock model's, which is the same but for a mean at its end, and insists on its window as well."""
    layers, heads = audio.num_hidden_layers, audio.num_attention_heads
    config = WhisperConfig(
        d_model=audio.hidden_size, encoder_layers=layers, encoder_attention_heads=heads, encoder_ffn_dim=_intermediate(audio),
        num_mel_bins=audio.num_mel_bins,
    )  # fmt: skip
    with torch.device("meta"):
        return build_tower(config)


def _encoder_config(config: Any) -> Any:
    return getattr(config, "audio_config", None) or config.encoder_config


def _component_params(model: Any) -> dict[str, int]:
    """The language model's with its head, which stands beside it in stock models."""
    params = {scope: sum(parameter.numel() for parameter in getattr(model, scope).parameters()) for scope in ("audio_tower", "projector")}
    return params | {"language_model": sum(parameter.numel() for parameter in model.parameters()) - sum(params.values())}


def _n_tensors(model: nn.Module) -> int:
    """Tensors that are saved: parameters, tied ones once, and buffers that belong to the state."""
    everything = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return len(list(model.parameters())) + len([name for name in model.state_dict() if name not in everything])


def _decoder(model: Any, config: Any) -> Decoder:
    linears = decoder_linears(model)
    if any(parameter.dim() > 2 for name, parameter in model.language_model.named_parameters() if "expert" in name):
        raise ConfigError(f"{config.model_type} is a mixture of experts, whose cost this plan can't tell: choose a dense language model")
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Decoder(
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=heads,
        query=heads * width,
        key=(getattr(config, "num_key_value_heads", None) or heads) * width,
        intermediate=config.intermediate_size,
        vocabulary=config.vocab_size,
        linear_params=sum(layer.weight.numel() for layer in linears.values()),
        largest_linear=max(layer.weight.numel() for layer in linears.values()),
        head_norms=any(name.endswith("q_norm") for name, _ in model.language_model.named_modules()),
    )


def _lora(component: nn.Module) -> Lora:
    layers = lora_modules(component)
    names = Counter(name.rpartition(".")[2] for name in layers)
    ranks = [next(iter(layer.r.values())) for layer in layers.values()]
    bases: list[Any] = [layer.get_base_layer() for layer in layers.values()]
    return Lora(sum(p.numel() for p in lora_parameters(component)), sum(base.in_features for base in bases), sum(ranks), dict(names))


def _front_end(config: AudioGraftConfig, channels: int) -> FrontEnd:
    """The front end of an encoder, from its configuration alone: lengths depend on nothing else."""
    audio = config.audio_config
    if hasattr(audio, "conv_kernel"):
        return build_front_end(Wav2Vec2FeatureExtractor(), config.frame_stack, waveform_convolutions(audio))
    extractor = WhisperFeatureExtractor(feature_size=channels) if audio.model_type == "whisper" else SeamlessM4TFeatureExtractor()
    return build_front_end(extractor, config.frame_stack)
