"""Lengths of what is trained on: from manifests, without opening clips whose duration they state, or assumed where there is no manifest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import soundfile

from audiograft.audio import load_audio
from audiograft.data.prompts import drawn
from audiograft.train.batching import mixed, partition
from audiograft.train.pictures import has_pictures
from audiograft.train.plan.anatomy import Anatomy
from audiograft.train.plan.eyes import Eyes
from audiograft.train.plan.flops import Example
from audiograft.train.plan.memory import Batch
from audiograft.train.recipe import Recipe
from audiograft.train.rows import read_samples
from audiograft.types import SAMPLE_RATE_HZ, WINDOW_SAMPLES, ConfigError, DataError, MediaError, Sample

ASSUMED_CLIP_S = 10.0
ASSUMED_TOKENS_PER_S = 3.3
"""Of a transcript: some 2.5 words of English a second, 1.3 tokens a word."""
ASSUMED_PROMPT_TOKENS = 33
"""A short instruction in a chat template."""
_TEMPLATE_TOKENS = 20
_CHARACTERS_PER_TOKEN = 4
"""Of English in the vocabularies of today's language models."""


@dataclass(frozen=True)
class Workload:
    """What a run goes through.

    Attributes:
        examples: rows with their lengths; one, typical, where they are assumed.
        batch: largest amounts in any batch.
        rows_per_step: mean number of rows in an optimiser step.
        steps: of the run; None where neither data nor max_steps tell.
        n_left_out: rows that training would leave out.
        source: where the lengths come from, in words.
    """

    examples: list[Example]
    batch: Batch
    rows_per_step: float
    steps: int | None
    n_left_out: int
    source: str


def assume(anatomy: Anatomy, recipe: Recipe, clip_s: float | None = None) -> Workload:
    """Batches full of equal rows: clips of 10 s, or as long as fits into tokens_per_batch.

    Raises:
        ConfigError: tokens_per_batch does not hold one row.
    """
    wanted_s = clip_s or ASSUMED_CLIP_S
    prompt_tokens = ASSUMED_PROMPT_TOKENS if recipe.prompt is None else _TEMPLATE_TOKENS + _tokens(recipe.prompt)
    example = _assumed(anatomy, wanted_s, prompt_tokens)
    while clip_s is None and example.positions > recipe.tokens_per_batch and example.audio_s > 0.1:
        example = _assumed(anatomy, example.audio_s / 2, prompt_tokens)
    rows = recipe.tokens_per_batch // example.positions
    if rows == 0:
        raise ConfigError(
            f"tokens_per_batch: {recipe.tokens_per_batch} does not hold one clip of {example.audio_s:g} s: set {example.positions} or more"
        )
    batch = Batch(
        rows * example.positions,
        rows * example.response_tokens,
        rows * example.audio_tokens,
        rows * sum(map(anatomy.tower_frames, example.feature_frames)),
    )
    source = f"assumed: clips of {example.audio_s:g} s, {example.prompt_tokens} prompt and {example.response_tokens} answer tokens"
    return Workload([example], batch, rows * recipe.gradient_accumulation_steps, recipe.max_steps, 0, source)


def _assumed(anatomy: Anatomy, clip_s: float, prompt_tokens: int) -> Example:
    n_samples = round(clip_s * SAMPLE_RATE_HZ)
    if not 1 <= n_samples <= WINDOW_SAMPLES:
        raise ConfigError(f"--clip-s {clip_s:g}: training clips have up to {WINDOW_SAMPLES // SAMPLE_RATE_HZ} s")
    response = max(1, round(clip_s * ASSUMED_TOKENS_PER_S))
    return _example(anatomy, [n_samples], False, prompt_tokens, response)


def _example(anatomy: Anatomy, n_samples: Sequence[int], padded: bool, prompt_tokens: int, response_tokens: int, picture_tokens: int = 0) -> Example:
    frames = tuple(anatomy.feature_frames(n, padded) for n in n_samples)
    tokens = sum(map(anatomy.front_end.audio_tokens, frames))
    return Example(frames, tokens, prompt_tokens, response_tokens, sum(n_samples) / SAMPLE_RATE_HZ, picture_tokens)


def read(
    anatomy: Anatomy, recipe: Recipe, manifests: Sequence[tuple[str, float]], eyes: Eyes | None, on_row: Callable[[], None] = lambda: None
) -> Workload:
    """Rows of manifests, in batches as training makes them. Tokens of text are estimated from characters, since the tokenizer may not be here.

    Args:
        anatomy: of the model.
        recipe: of the stage.
        manifests: files or folders, and the weight of each.
        eyes: of the model; rows with pictures are left out where it has none.
        on_row: called after each row.

    Raises:
        DataError: a manifest that is missing, broken or empty, or none of whose rows can be used.
        ConfigError: tokens_per_batch is less than the longest row takes.
    """
    examples: list[Example] = []
    manifest_of: list[int] = []
    n_left_out = n_images = n_videos = 0
    for number, (manifest, _) in enumerate(manifests):
        for sample in read_samples([manifest], recipe.prompt, allow_outside=recipe.data.allow_outside, detection=recipe.detection):
            example = _measured(anatomy, recipe, sample, eyes)
            if example is None:
                n_left_out += 1
            else:
                examples.append(example)
                manifest_of.append(number)
                n_images += bool(sample.images)
                n_videos += bool(sample.videos)
            on_row()
    examples = [examples[row] for row in mixed(np.array(manifest_of), [weight for _, weight in manifests], recipe.seed)]
    if not examples:
        raise DataError(
            f"{', '.join(name for name, _ in manifests)}: no row can be trained on: clips of up to 30 s with a text or a response are needed"
        )
    batches = partition([example.positions for example in examples], recipe.tokens_per_batch, recipe.seed)
    steps_per_epoch = math.ceil(len(batches) / recipe.gradient_accumulation_steps)
    steps = recipe.max_steps or math.ceil(steps_per_epoch * recipe.epochs)
    uncounted = "" if eyes is None else eyes.told(n_images, n_videos)
    names = ", ".join(name for name, _ in manifests)
    source = f"{names}: {len(examples)} rows; tokens of text are estimated, {_CHARACTERS_PER_TOKEN} characters each{uncounted}"
    return Workload(examples, _largest(anatomy, examples, batches), len(examples) / steps_per_epoch, steps, n_left_out, source)


def _largest(anatomy: Anatomy, examples: Sequence[Example], batches: Sequence[Sequence[int]]) -> Batch:
    """The largest amounts in any batch, pads included."""
    largest = [0, 0, 0, 0]
    for batch in batches:
        rows = [examples[index] for index in batch]
        frames = [anatomy.tower_frames(frames) for row in rows for frames in row.feature_frames]
        amounts = (
            len(rows) * max(row.positions for row in rows),
            sum(row.response_tokens for row in rows),
            sum(row.audio_tokens for row in rows),
            len(frames) * max(frames, default=0),
        )
        largest = [max(pair) for pair in zip(largest, amounts, strict=True)]
    return Batch(*largest)


def _measured(anatomy: Anatomy, recipe: Recipe, sample: Sample, eyes: Eyes | None) -> Example | None:
    """A row's lengths; None where training would leave it out."""
    if sample.target is None or (eyes is None and has_pictures(sample)):
        return None
    try:
        lengths = _lengths(sample)
        picture_tokens = 0 if eyes is None else eyes.positions(sample)
    except MediaError:
        return None
    if not all(1 <= length <= WINDOW_SAMPLES for length in lengths):
        return None
    padded = drawn(recipe.seed, sample.id) < recipe.pad_to_window_share
    return _example(anatomy, lengths, padded, _prompt_tokens(sample), 1 + _tokens(sample.target), picture_tokens)


def _lengths(sample: Sample) -> list[int]:
    """Samples of each clip of a row. Raises AudioError where one can't be read."""
    stated = sample.duration_s if len(sample.clips) == 1 else None
    return [round((_duration_s(clip) if stated is None else stated) * SAMPLE_RATE_HZ) for clip in sample.clips]


def _duration_s(clip: str) -> float:
    """From the file's header where libsndfile can read it, else by decoding it."""
    try:
        return float(soundfile.info(clip).duration)
    except soundfile.SoundFileError:
        return load_audio(clip).duration_s


def _prompt_tokens(sample: Sample) -> int:
    written = sum(_tokens(str(message.get("content", ""))) for message in sample.messages) if sample.messages else _tokens(sample.prompt)
    return _TEMPLATE_TOKENS + written


def _tokens(text: str) -> int:
    return -(-len(text) // _CHARACTERS_PER_TOKEN)
