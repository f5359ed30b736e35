"""The two models of a retention run: opened alike, fed alike, and asked for the same things."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature

from audiograft.evaluate.retention_figures import KINDS
from audiograft.images import load_image, load_video
from audiograft.inference.decoding import GREEDY, Request, write_answers
from audiograft.inference.transcribing import room_behind
from audiograft.messages import Message, conversation
from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor, load_model, load_processor
from audiograft.model.checkpoint import load_config, load_part, resolve_model
from audiograft.model.configuration import AudioGraftConfig
from audiograft.model.graft import graft_processor
from audiograft.model.load import find_adapter
from audiograft.model.modeling import language_model_class
from audiograft.model.outputs import IGNORE_INDEX, call
from audiograft.model.published.system_a import is_system_a
from audiograft.model.published.system_b import find_system_b
from audiograft.model.stock import StockProcessor, is_stock
from audiograft.types import ConfigError, DataError, Sample

SPARE_TOKENS = 32
"""How many tokens an answer may be longer than the reference before it is cut: it is wrong by then, and the answers of both are still compared."""
_ANY_EARS = "tiny-encoder"
"""What a bare language model's processor is built with here; nothing is heard with it."""


@dataclass(frozen=True)
class Item:
    """A row of a manifest, read.

    Attributes:
        sample: the row.
        messages: its conversation, pictures in their places.
        images: decoded.
        videos: likewise.
        request: for an answer, made ready.
        inputs: of `AudioGraftProcessor.training_inputs` with the reference as the answer.
    """

    sample: Sample
    messages: list[Message]
    images: tuple[Any, ...]
    videos: tuple[Any, ...]
    request: Request
    inputs: dict[str, Any]


@dataclass(frozen=True)
class Observed:
    """What a model makes of a row.

    Attributes:
        text: its greedy answer.
        logits: (tokens, vocabulary) at each token of the reference and its end of turn, in the model's own precision.
    """

    text: str
    logits: Tensor


def kind_of(sample: Sample) -> str:
    """One of `KINDS`."""
    return KINDS[2] if sample.videos else KINDS[1] if sample.images else KINDS[0]


def open_listener_processor(name: str) -> AudioGraftProcessor:
    """The processor of a graft, or of an adapter on one.

    Raises:
        ConfigError: it can't be opened, or is a stock audio model's.
    """
    processor: AudioGraftProcessor = load_processor(name)
    if isinstance(processor, StockProcessor):
        raise _stock(name)
    return processor


def open_base_processor(name: str) -> AudioGraftProcessor:
    """The processor of what a model is held against, from its own files: tokenizer, chat template, image processor.

    Raises:
        ConfigError: it can't be opened, or is a stock audio model's.
    """
    return graft_processor(_ANY_EARS, name) if _is_bare(name) else open_listener_processor(name)


def _is_bare(name: str) -> bool:
    """Whether a model has no ears."""
    if find_system_b(name) is not None or find_adapter(name) is not None:
        return False
    config = load_config(name, resolve_model(name))
    if is_stock(config):
        raise _stock(name)
    return not (isinstance(config, AudioGraftConfig) or is_system_a(config))


def _stock(name: str) -> ConfigError:
    return ConfigError(f"{name} is a stock audio model, which was never without ears: --retention compares a graft with the model before grafting")


def check_same_tokens(base: AudioGraftProcessor, base_name: str, model: AudioGraftProcessor, name: str) -> None:
    """Raise `ConfigError` where a token of the first has another id in the second, which may have more."""
    theirs = model.tokenizer.get_vocab()
    for token, id_ in sorted(base.tokenizer.get_vocab().items(), key=lambda item: item[1]):
        # The placeholder is never in a prompt here: rows with audio are left out.
        if token != base.audio_token and theirs.get(token) != id_:
            found = f"is {theirs[token]} in {name}" if token in theirs else f"is missing in {name}"
            raise ConfigError(f"{base_name} has another vocabulary: its token {token!r}, {id_}, {found}: name the model that it was grafted onto")


def open_listener(name: str, device: torch.device, dtype: torch.dtype) -> AudioGraftForConditionalGeneration:
    """A graft with its LoRA unmerged, if it has one.

    Raises:
        ConfigError: it can't be opened, or is a stock audio model.
    """
    model, _ = load_model(name, device, dtype)
    if not isinstance(model, AudioGraftForConditionalGeneration):
        raise _stock(name)
    return model


def open_base(name: str, device: torch.device, dtype: torch.dtype) -> Any:
    """What a model is held against: a language model as transformers opens it, or a graft.

    Raises:
        ConfigError: it can't be opened, or is a stock audio model.
    """
    if not _is_bare(name):
        return open_listener(name, device, dtype)
    path = resolve_model(name)
    return load_part(language_model_class(load_config(name, path)), name, path, dtype=dtype).to(device).eval()


def language_model_of(model: Any) -> Any:
    """A graft's; any other model is one."""
    return model.language_model if isinstance(model, AudioGraftForConditionalGeneration) else model


def vocabulary_rows(model: Any) -> int:
    """Logits at each position."""
    return int(model.config.get_text_config().vocab_size)


def generation_options(base: Any, processor: AudioGraftProcessor) -> dict[str, Any]:
    """Keywords for the `generate` of both models: greedy, up to what ends an answer for the base, or the chat template's end of turn."""
    ends = language_model_of(base).generation_config.eos_token_id
    end_of_turn = processor.tokenizer.convert_tokens_to_ids(processor.end_of_turn)
    stops = {*(ends if isinstance(ends, list) else [ends]), end_of_turn} - {None}
    return {**GREEDY, "eos_token_id": sorted(stops), "pad_token_id": processor.tokenizer.pad_token_id or 0}


def read_item(sample: Sample, processor: AudioGraftProcessor, room: Any) -> Item:
    """Decode what is to be seen in a row, and write its prompt and reference as tokens.

    Args:
        sample: without clips, with a target.
        processor: of the model that is measured.
        room: a model, whose context has to hold prompt and reference.

    Raises:
        ConfigError: the model has no eyes for a kind of pictures.
        DataError: the chat template refuses the conversation, or the row is too long for the model's context.
        ImageError: a picture can't be used.
    """
    images, videos = tuple(map(load_image, sample.images)), tuple(map(load_video, sample.videos))
    messages, target = conversation(sample), sample.target
    assert target is not None
    inputs = processor.training_inputs(messages, target, [], images=images, videos=videos)
    answer = sum(label != IGNORE_INDEX for label in inputs["labels"])
    left = room_behind(room, len(inputs["input_ids"]))
    if left is not None and left < 0:
        raise DataError(f"row {sample.id}: prompt and reference take {len(inputs['input_ids'])} positions, {-left} too many: shorten it")
    budget = answer + (SPARE_TOKENS if left is None else min(SPARE_TOKENS, left))
    request = Request(messages, [], budget, images=images, videos=videos).made_ready(processor)
    return Item(sample, messages, images, videos, request, inputs)


def same_prompt(item: Item, base: AudioGraftProcessor, model: AudioGraftProcessor) -> bool:
    """Whether two processors make the same of a row's prompt: token ids, pixels, and whatever else goes in."""
    ours, theirs = (processor.prompt_inputs(item.messages, [], images=item.images, videos=item.videos) for processor in (base, model))
    seen, also_seen = ours["vision"], theirs["vision"]
    return (
        ours["input_ids"] == theirs["input_ids"]
        and seen.keys() == also_seen.keys()
        and all(torch.equal(torch.as_tensor(seen[key]), torch.as_tensor(also_seen[key])) for key in seen)
    )


@torch.no_grad()
def observe(model: Any, processor: AudioGraftProcessor, items: Sequence[Item], generation: dict[str, Any]) -> Iterator[Observed]:
    """What a model makes of the rows of one batch, in order: first all answers, then all logits, teacher-forced behind the prompt.

    Args:
        model: a graft, or a language model by itself.
        processor: of the model that is measured, for both: both get the same tensors.
        items: the batch.
        generation: of `generation_options`.
    """
    answers = write_answers(model, processor, [item.request for item in items], batch_size=len(items), generation=generation)
    batch = BatchFeature(processor.collate([item.inputs for item in items], [], "right")).to(model.device)
    labels = batch.pop("labels")
    is_graft = isinstance(model, AudioGraftForConditionalGeneration)
    output: Any = model(**batch, labels=labels) if is_graft else call(model, batch, labels, None)
    counts = [sum(label != IGNORE_INDEX for label in item.inputs["labels"]) for item in items]
    for answer, own in zip(answers, output.logits.split(counts), strict=True):
        yield Observed(answer.text, own.cpu())
