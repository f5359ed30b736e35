"""An optimiser on this machine: any causal language model of transformers with a chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from audiograft.inference.decoding import seeded
from audiograft.inference.engine import find_device
from audiograft.model.checkpoint import load_part, loading, resolve_model
from audiograft.prompt_search.optimisers import OptimiserError, Scored, optimiser_messages

_MAX_NEW_TOKENS = 512


class LocalOptimiser:
    """A language model that is opened at its first turn, and draws its replies in one batch."""

    def __init__(
        self, model: str, answers: Mapping[str, str], temperature: float = 0.9, device: str = "auto", max_new_tokens: int = _MAX_NEW_TOKENS
    ) -> None:
        """Name the model.

        Args:
            model: a folder or a hub id.
            answers: of the closed question, by label.
            temperature: of the sampling.
            device: as for `Engine.load`.
            max_new_tokens: length limit of a reply.
        """
        self._name = model
        self._answers = answers
        self._temperature = temperature
        self._device = device
        self._max_new_tokens = max_new_tokens
        self._opened: tuple[Any, Any] | None = None

    @property
    def description(self) -> Mapping[str, Any]:
        return {"kind": "local", "model": self._name, "temperature": self._temperature, "max_new_tokens": self._max_new_tokens}

    def propose(self, history: Sequence[Scored], n: int, seed: int) -> list[str]:
        if self._opened is None:
            self._opened = self._open()
        model, tokenizer = self._opened
        messages = optimiser_messages(history, self._answers)
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)
        inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(model.device)
        room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        n_tokens = inputs["input_ids"].shape[1]
        if room is not None and n_tokens + self._max_new_tokens > room:
            raise OptimiserError(f"{self._name}: its context of {room} tokens has no room for {n_tokens} and a reply: lower --memory")
        with seeded(seed, model.device), torch.no_grad():
            written = model.generate(
                **inputs,
                do_sample=True,
                temperature=self._temperature,
                top_k=0,
                num_return_sequences=n,
                max_new_tokens=self._max_new_tokens,
                pad_token_id=tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
            )
        replies: list[str] = tokenizer.batch_decode(written[:, n_tokens:], skip_special_tokens=True)
        return replies

    def _open(self) -> tuple[Any, Any]:
        """Model and tokenizer."""
        device = find_device(self._device)
        path = resolve_model(self._name)
        with loading(f"the tokenizer of {self._name}", path):
            tokenizer = AutoTokenizer.from_pretrained(path)
        if tokenizer.chat_template is None:
            raise OptimiserError(f"{self._name}: its tokenizer has no chat template: use the model's instruct variant as --optimiser")
        model = load_part(AutoModelForCausalLM, self._name, path, dtype=torch.float32 if device.type == "cpu" else torch.bfloat16)
        return model.to(device).eval(), tokenizer
