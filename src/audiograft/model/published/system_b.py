"""System B as it was published: a `checkpoint.pt` with projector and hand-written LoRA, on Llama and Whisper from elsewhere.

Nothing in the file is executed: it is read with `weights_only`, and a pickle that holds code is refused.
"""

from __future__ import annotations

import pickle
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audiograft.model.adapters import fill_projector, put_lora
from audiograft.model.checkpoint import one_line
from audiograft.model.graft import graft_in_memory, graft_processor
from audiograft.model.lora import LoraSettings
from audiograft.model.modeling import AudioGraftForConditionalGeneration
from audiograft.model.processing import AudioGraftProcessor
from audiograft.types import ConfigError

CHECKPOINT_FILE = "checkpoint.pt"
ALPHA = 16.0
"""Of its LoRA, fixed in its code: the update is scaled by 16 / rank."""
PROMPT = (
    "{% set text = namespace(all='', clips=0) %}{% for message in messages %}"
    "{% set text.clips = text.clips + message['content'].split('AUDIO') | length - 1 %}"
    "{% set text.all = text.all + message['content'] | replace('AUDIO', '') | trim %}{% endfor %}"
    "{{ 'AUDIO' * text.clips }}{{ bos_token }}{{ text.all }}"
)
"""Its sequence as a chat template, AUDIO in place of the placeholder: the clips first wherever they stand, then the beginning-of-sequence token and
the text, without any marks of turns."""
NOTE = (
    "system B's checkpoint: the rows of its <audio> and </audio> tokens were random and never saved, so that they are left out; "
    "its published training never showed it the answers it was to write, so that it may not listen at all"
)


def find_system_b(name: str | Path) -> Path | None:
    """The checkpoint.pt that a name means: a .pt file, or a folder that holds one and no configuration; None for anything else."""
    path = Path(name).expanduser()
    if path.is_file() and path.suffix == ".pt":
        return path
    if (path / CHECKPOINT_FILE).is_file() and not (path / "config.json").is_file():
        return path / CHECKPOINT_FILE
    return None


def read_system_b(file: Path) -> dict[str, Any]:
    """What the file holds: `projector` (tensors by name), `lora` (module name -> A (rank, in), B (out, rank)) and `args`.

    Raises:
        ConfigError: it can't be read, holds code, or is no such checkpoint.
    """
    try:
        # Its training wrote args as argparse made them; a Namespace holds values alone.
        with torch.serialization.safe_globals([Namespace]):
            stored = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(f"{file} holds more than tensors and plain values, which could be code: it is not opened") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ConfigError(f"{file} can't be read as a checkpoint ({one_line(error)}): download it again") from error
    try:
        args = stored.get("args") or {}
        model = stored["model"]
        lora = {name: (_tensor(pair["lora_A"]), _tensor(pair["lora_B"])) for name, pair in model["lora_layers"].items()}
        projector = {name: _tensor(value) for name, value in model["projector"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} is no checkpoint of system B, which holds model.projector and model.lora_layers: {one_line(error)}") from error
    return {"projector": projector, "lora": lora, "args": dict(vars(args) if isinstance(args, Namespace) else args)}


def _tensor(value: Any) -> Tensor:
    """A tensor, also where it was stored as the state of a module that holds nothing else."""
    if isinstance(value, Mapping) and len(value) == 1:
        value = next(iter(value.values()))
    if not isinstance(value, Tensor):
        raise TypeError(f"a {type(value).__name__} stands where a tensor should")
    return value.detach()


def system_b_sources(name: str | Path, language_model: str | Path | None = None, audio_encoder: str | Path | None = None) -> dict[str, str]:
    """Where language model and encoder of a checkpoint come from: as given, else as its training's arguments say.

    Raises:
        ConfigError: it can't be read, or neither says so.
    """
    file = _file(name)
    return _sources(file, read_system_b(file)["args"], language_model, audio_encoder)


def _file(name: str | Path) -> Path:
    file = find_system_b(name)
    if file is None:
        raise ConfigError(f"{name} is no {CHECKPOINT_FILE} and no folder that holds one")
    return file


def _sources(file: Path, args: Mapping[str, Any], language_model: str | Path | None, audio_encoder: str | Path | None) -> dict[str, str]:
    found = {}
    for part, given, key in (("language_model", language_model, "llama_path"), ("audio_encoder", audio_encoder, "whisper_path")):
        source = given or args.get(key)
        if not source:
            raise ConfigError(f"{file} does not say which {part} it was trained on: give it with --{part.replace('_', '-')} to audiograft merge")
        found[part] = str(source)
    return found


def load_system_b(
    name: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    language_model: str | Path | None = None,
    audio_encoder: str | Path | None = None,
    lora_dtype: torch.dtype | None = None,
    **kwargs: Any,
) -> tuple[AudioGraftForConditionalGeneration, AudioGraftProcessor]:
    """Open a checkpoint.pt; its LoRA stays unmerged.

    Args:
        name: the file or its folder.
        device: where the weights go.
        dtype: of the weights in memory.
        language_model: folder or hub id, in place of the `llama_path` of its training.
        audio_encoder: folder or hub id, in place of its `whisper_path`.
        lora_dtype: of the adapters; as `dtype` by default.
        **kwargs: for the language model's `from_pretrained`.

    Raises:
        ConfigError: it can't be read, or a base is missing or another one.
    """
    file = _file(name)
    stored = read_system_b(file)
    sources = _sources(file, stored["args"], language_model, audio_encoder)
    with _naming_bases(name, sources):
        model, processor = graft_in_memory(
            sources["audio_encoder"], sources["language_model"], projector="mlp", frame_stack=1, pad_to_window=True, match_rms=False,
            dtype=dtype, device=device, language_model_options=kwargs,
        )  # fmt: skip
    fill_projector(model.projector, _name_projector(stored["projector"], str(file)), str(file))
    put_lora_of_b(model.language_model, stored["lora"], str(file), lora_dtype)
    use_prompt(processor)
    model.config.note = NOTE
    return model.eval(), processor


def load_system_b_processor(
    name: str | Path, language_model: str | Path | None = None, audio_encoder: str | Path | None = None
) -> AudioGraftProcessor:
    """The processor that `load_system_b` gives, without the bases' weights. Raises what that raises."""
    sources = system_b_sources(name, language_model, audio_encoder)
    with _naming_bases(name, sources):
        processor = graft_processor(**sources, frame_stack=1, pad_to_window=True)
    use_prompt(processor)
    return processor


@contextmanager
def _naming_bases(name: str | Path, sources: Mapping[str, str]) -> Iterator[None]:
    """Say which bases a checkpoint needs, and how others are given, where one can't be loaded."""
    try:
        yield
    except ConfigError as error:
        mend = f"give where they are: audiograft merge {name} --language-model DIR --audio-encoder DIR --out DIR"
        raise ConfigError(f"{name} was trained on {' and '.join(sources.values())}: {error}; {mend}") from error


def _name_projector(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Linear, Linear, LayerNorm by our names: theirs depend on how the modules were put together, their order does not."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in tensors))
    if [sorted(name.rpartition(".")[2] for name in tensors if name.rpartition(".")[0] == layer) for layer in layers] != [["bias", "weight"]] * 3:
        raise ConfigError(f"{source} is a checkpoint of another projector: it holds {', '.join(tensors)}, not two linear layers and a norm")
    ours = dict(zip(layers, ("linear_1", "linear_2", "layer_norm"), strict=True))
    return {f"{ours[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": tensor for name, tensor in tensors.items()}


def put_lora_of_b(language_model: nn.Module, lora: Mapping[str, tuple[Tensor, Tensor]], source: str, dtype: torch.dtype | None) -> None:
    """Its hand-written adapters as PEFT's; A and B have the same shapes and the same places in the product, only their start was swapped."""
    if not lora:
        return
    ranks = {a.shape[0] for a, _ in lora.values()}
    if len(ranks) > 1:
        raise ConfigError(
            f"{source} holds adapters of the ranks {', '.join(map(str, sorted(ranks)))}: they have one rank in every checkpoint of system B"
        )
    own = dict(language_model.named_modules())
    tensors: dict[str, Tensor] = {}
    for theirs, (a, b) in lora.items():
        # Named from whatever object its training wrapped around the language model.
        name = theirs
        while name not in own and "." in name:
            name = name.partition(".")[2]
        name = name if name in own else theirs
        tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
    put_lora(language_model, tensors, LoraSettings(ranks.pop(), ALPHA), source, "language_model", dtype)


def use_prompt(processor: AudioGraftProcessor) -> None:
    """Write prompts as system B did, in place of the language model's chat template."""
    template = PROMPT.replace("AUDIO", processor.audio_token)
    processor.tokenizer.chat_template = processor.chat_template = template
