"""Asks a model one closed question after another about the same clips, whose sound is encoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from audiograft.audio.samples import Waveform
from audiograft.inference.choices import ClosedQuestion, score_choices

if TYPE_CHECKING:
    from audiograft.inference.engine import Engine

_MAX_BYTES = 4 << 30
"""Of what is kept between two prompts; what is beyond is computed again."""


class ModelScorer:
    """Scores prompts on clips; the model is opened at the first.

    What does not depend on the prompt is kept from the first one on: the features of each clip, and what the encoder makes of each batch (of a
    stock model, what its projector makes of that). The scores are those without, bit for bit: batches are the same each time.
    """

    def __init__(
        self, open_engine: Callable[[], Engine], question: ClosedQuestion, load: Callable[[], Sequence[Waveform]], batch_size: int = 64
    ) -> None:
        """Prepare.

        Args:
            open_engine: gives the model.
            question: of which the prompt is replaced.
            load: gives the clips, (n_samples,) at 16 kHz each.
            batch_size: clips in one prefill.
        """
        self._open_engine = open_engine
        self._question = question
        self._load = load
        self._batch_size = batch_size
        self._opened: tuple[Engine, Sequence[Waveform], _Kept] | None = None

    def __call__(self, prompt: str) -> npt.NDArray[np.float64]:
        """(clips, labels) log-probabilities of the answers.

        Raises:
            AudioError: a clip can't be used.
            ConfigError: the model can't be opened, or has no token for an answer.
        """
        if self._opened is None:
            self._opened = self._open_engine(), self._load(), _Kept()
        engine, waveforms, kept = self._opened
        with kept.used_by(engine.model, engine.processor):
            return score_choices(engine.model, engine.processor, replace(self._question, prompt=prompt), waveforms, self._batch_size)


class _Kept:
    """Results of functions by the arrays that they were given."""

    def __init__(self) -> None:
        self._found: dict[bytes, Any] = {}
        self._n_bytes = 0

    @contextmanager
    def used_by(self, model: Any, processor: Any) -> Iterator[None]:
        """While this lasts, clips are not encoded that were encoded before."""
        import torch

        features = processor.features
        processor.features = lambda waveform, *padding: self._get([waveform], (*padding,), lambda: features(waveform, *padding))
        is_stock = hasattr(model, "family")
        name = "family" if is_stock else "encode_audio"
        own = model.family.audio_embeds if is_stock else model.encode_audio
        former = model.__dict__.get(name)

        def encoded(clips: torch.Tensor, lengths: Any, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
            told = None if lengths is None else tuple(int(length) for length in lengths)
            states: torch.Tensor = self._get([clips.float().cpu().numpy()], (told,), lambda: compute().cpu())
            return states.to(clips.device)

        try:
            if is_stock:
                model.family = replace(
                    former, audio_embeds=lambda stock, waves, lengths, spec: encoded(waves, lengths, lambda: own(stock, waves, lengths, spec))
                )
            else:
                model.encode_audio = lambda clips, lengths=None: encoded(clips, lengths, lambda: own(clips, lengths))
            yield
        finally:
            del processor.features
            if is_stock:
                model.family = former
            else:
                del model.encode_audio

    def _get(self, arrays: Sequence[npt.NDArray[Any]], settings: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        key = hashlib.blake2b(repr((settings, [array.shape for array in arrays])).encode(), digest_size=16)
        for array in arrays:
            key.update(np.ascontiguousarray(array).data)
        digest = key.digest()
        if digest not in self._found:
            found = compute()
            size = found.nbytes
            if self._n_bytes + size > _MAX_BYTES:
                return found
            self._found[digest] = found
            self._n_bytes += size
        return self._found[digest]
