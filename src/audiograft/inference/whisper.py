"""A stock Whisper where an engine stands, so that a graft can be compared with the decoder that its own encoder came with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from audiograft.audio import AudioInput, Clip, load_audio
from audiograft.inference.batching import in_flight
from audiograft.inference.decoding import Decoding, DecodingOptions, TokenRecorder, Waveform, Written, seeded, token_names, up_to_the_end
from audiograft.inference.engine import Engine, find_device
from audiograft.inference.transcribing import Job, a_second_of_noise
from audiograft.model.checkpoint import load_config, load_part, loading, resolve_model
from audiograft.types import SAMPLE_RATE_HZ, TRANSCRIBE_PROMPT, AudioError, ConfigError, Transcript

_CLASS = "WhisperForConditionalGeneration"


class WhisperEngine:
    """Whisper's encoder with Whisper's decoder, by transformers' own `generate` without timestamps.

    Clips are read and cut into chunks as `Engine` does it, and each chunk is padded to 30 s, as Whisper was trained.

    Attributes:
        model: of transformers.
        processor: its feature extractor and tokenizer.
        name: as it was asked for; stands in every transcript.
        language: as an ISO 639-1 code; None lets the model find out, chunk by chunk.
        note: None: there is nothing that a user should know.
    """

    def __init__(self, model: Any, processor: Any, name: str = "whisper", language: str | None = None) -> None:
        """Raises ConfigError where the model does not know the language, or does not say how it is to be prompted."""
        settings = model.generation_config
        if getattr(settings, "no_timestamps_token_id", None) is None:
            raise ConfigError(f"{name}: generation_config.json is missing or outdated: download the model again")
        self._choices: dict[str, str | None] = {}
        if getattr(settings, "is_multilingual", True):
            if language is not None and f"<|{language}|>" not in settings.lang_to_id:
                raise ConfigError(f"{name} knows no language {language!r}: give an ISO 639-1 code such as en, or none to let the model find out")
            self._choices = {"language": language, "task": "transcribe"}
        elif language not in (None, "en"):
            raise ConfigError(f"{name} knows English alone, not {language!r}: leave the language out")
        self.model = model
        self.processor = processor
        self.name = name
        self.language = language
        self.note: str | None = None

    @classmethod
    def load(cls, model: str | Path, device: str = "auto", dtype: torch.dtype | None = None, language: str | None = None) -> WhisperEngine:
        """Open a folder or a hub id.

        Args:
            model: which one.
            device: `auto` takes CUDA where there is one, else the CPU.
            dtype: of the weights in memory; float32 on a CPU and bfloat16 elsewhere by default.
            language: as for the class.

        Raises:
            ConfigError: the model, the device or the language can't be used.
        """
        target = find_device(device)
        path = resolve_model(model)
        loaded = load_part(
            WhisperForConditionalGeneration, str(model), path, dtype=dtype or (torch.float32 if target.type == "cpu" else torch.bfloat16)
        )
        with loading(f"the processor of {model}", path):
            processor = WhisperProcessor.from_pretrained(path)
        return cls(loaded.to(target).eval(), processor, str(model), language)

    def transcribe_many(
        self,
        sources: Sequence[AudioInput],
        *,
        batch_size: int = 8,
        prompt: str = TRANSCRIBE_PROMPT,
        on_result: Callable[[int, Transcript | AudioError], None] = lambda index, result: None,
        **decoding: Unpack[DecodingOptions],
    ) -> list[Transcript | AudioError]:
        """What `Engine.transcribe_many` does.

        Args:
            sources: clips, as there.
            batch_size: chunks decoded at once.
            prompt: of no effect: Whisper takes no instructions, and its only task here is the transcript.
            on_result: as there.
            **decoding: as there; the length limit is the model's own (448 tokens) by default.

        Returns:
            One result per source, in order.

        Raises:
            ConfigError: options of decoding that are out of range or exclude each other.
        """
        options = Decoding(**decoding)
        return in_flight(
            len(sources),
            lambda index: Job.of(load_audio(sources[index]), _chunk),
            lambda jobs: self._transcribe(jobs, batch_size, options),
            lambda job: len(job.chunks),
            batch_size,
            AudioError,
            on_result,
        )

    def warm_up(self) -> None:
        """Hear a second of noise, so that no clip pays for what is set up at the first call."""
        self._write([a_second_of_noise()], Decoding(max_new_tokens=1))

    def _transcribe(self, jobs: list[Job[Waveform]], batch_size: int, options: Decoding) -> Iterator[Transcript]:
        # All are padded to 30 s: there is nothing to be gained by sorting them.
        todo = [(job, number) for job in jobs for number in job.requests]
        with seeded(options.seed, self.model.device):
            for start in range(0, len(todo), batch_size):
                batch = todo[start : start + batch_size]
                written = self._write([job.requests[number] for job, number in batch], options)
                for (job, number), part in zip(batch, written, strict=True):
                    job.written[number] = part
        for job in jobs:
            yield job.transcript(self.name)

    def _write(self, waveforms: Sequence[Waveform], options: Decoding) -> list[Written]:
        """What is said in chunks that share a batch."""
        start_s = time.perf_counter()
        features = self.processor.feature_extractor(list(waveforms), sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt").input_features
        recorder = TokenRecorder()
        with torch.no_grad():
            # Once, where `generate` would encode again to find out the language.
            states = self.model.get_encoder()(features.to(self.model.device, self.model.dtype))
            limit = {} if options.max_new_tokens is None else {"max_new_tokens": options.max_new_tokens}
            keywords = {**options.generation(), **limit, **self._choices}
            output = self.model.generate(
                encoder_outputs=states, return_timestamps=False, return_dict_in_generate=True, logits_processor=[recorder], **keywords
            )
        new_tokens = output.sequences[:, recorder.prompt_positions :]
        noted = options.num_beams == 1
        logprobs = recorder.logprobs(new_tokens).tolist() if noted else [[]] * len(waveforms)
        ends = {self.model.generation_config.eos_token_id}
        parts = []
        for row, own in zip(new_tokens.tolist(), logprobs, strict=True):
            tokens, ended = up_to_the_end(row, ends)
            text = self.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
            names = token_names(self.processor.tokenizer, tokens) if noted else ()
            parts.append((text, None if ended else len(tokens), names, tuple(own[: len(tokens)])))
        decode_s = (time.perf_counter() - start_s) / len(waveforms)
        return [Written(*part, decode_s) for part in parts]


def _chunk(clip: Clip, waveform: Waveform) -> Waveform:
    return waveform


def open_engine(name: str | Path, device: str = "auto", dtype: torch.dtype | None = None, language: str | None = None) -> Engine | WhisperEngine:
    """Open whatever can write transcripts: all that `Engine.load` takes, and a stock Whisper.

    Args:
        name: as for `Engine.load`.
        device: likewise.
        dtype: likewise.
        language: of a stock Whisper; others take instructions.

    Raises:
        ConfigError: the model, the device or the language can't be used.
    """
    if _is_whisper(name):
        return WhisperEngine.load(name, device, dtype, language)
    if language is not None:
        raise ConfigError(f"{name} is no stock Whisper: name the language in the prompt")
    return Engine.load(name, device, dtype)


def _is_whisper(name: str | Path) -> bool:
    """Whether it is a whole Whisper: an encoder alone has its model_type too. Of what can't be opened, `Engine.load` says why."""
    folder = Path(name).expanduser()
    if folder.exists():
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(config, dict) and _CLASS in (config.get("architectures") or ())
    try:
        return _CLASS in (getattr(load_config(str(name), resolve_model(name)), "architectures", None) or ())
    except ConfigError:
        return False
