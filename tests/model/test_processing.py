"""Prompts, placeholders and the loss mask."""

from __future__ import annotations

from typing import Any

import builders
import pytest
from transformers import WhisperFeatureExtractor

from audiograft.model import AudioGraftProcessor, audio_messages
from audiograft.types import ConfigError, DataError

LLAMA3 = (
    "{{ '<|begin|>' }}{% for m in messages %}{{ '<|start|>' + m['role'] + '<|stop|>\n\n' + m['content'] | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|stop|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ '<bos>' }}{% for m in messages %}{{ '<turn>' + ('model' if m['role'] == 'assistant' else 'user') + '\n' + m['content'] | trim + "
    "'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
NO_END = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
TEMPLATES = {
    "chatml": (builders.CHATML, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "<|im_end|>"),
    "llama3": (LLAMA3, ("<|pad|>", "<|begin|>", "<|start|>", "<|stop|>", "<|eot|>"), "<|eot|>"),
    "gemma": (GEMMA, ("<pad>", "<bos>", "<turn>", "<end_of_turn>", "<eos>"), "<end_of_turn>"),
    "qwen3-thinking": (THINKING, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "<|im_end|>"),
    "no-end-marker": (NO_END, ("<pad>", "</s>"), "</s>"),
}


def make(name: str) -> tuple[AudioGraftProcessor, str]:
    template, special, end = TEMPLATES[name]
    return AudioGraftProcessor(WhisperFeatureExtractor(), builders.tokenizer(template, special)), end


@pytest.mark.parametrize("name", TEMPLATES)
def test_loss_mask_covers_the_response_and_the_end_of_turn_alone(name: str) -> None:
    processor, end = make(name)
    row = processor.training_inputs(audio_messages("Transcribe the audio."), "hello world", [73])
    ids, labels = row["input_ids"], row["labels"]
    carries = [label != -100 for label in labels]
    first = carries.index(True)
    assert all(carries[first:])
    assert not any(carries[:first])
    assert [i for i, c in zip(ids, carries, strict=True) if c] == [label for label in labels if label != -100]
    assert processor.tokenizer.decode(ids[first:]) == f"hello world{end}"
    assert labels[-1] == processor.tokenizer.convert_tokens_to_ids(end)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_trained_prompt_is_the_prompt_of_generation(name: str) -> None:
    processor, _ = make(name)
    clip = builders.tone(0.73)
    messages = audio_messages("Transcribe the audio.")
    row = processor.training_inputs(messages, "hello", [processor.features(clip).shape[1]])
    ids, labels = row["input_ids"], row["labels"]
    generation = processor([processor.build_prompt(messages)], audio=[clip])["input_ids"][0].tolist()
    assert ids[: labels.count(-100)] == generation


def test_thinking_is_off_and_not_part_of_the_loss() -> None:
    processor, _ = make("qwen3-thinking")
    assert processor.build_prompt(audio_messages("x")).endswith("<think>\n\n</think>\n\n")


def test_audio_stands_where_the_message_puts_it() -> None:
    processor, _ = make("chatml")
    content = [{"type": "text", "text": "first "}, {"type": "audio"}, {"type": "text", "text": " then "}, {"type": "audio"}]
    text = processor.build_prompt([{"role": "user", "content": content}])
    assert f"first {processor.audio_token} then {processor.audio_token}<|im_end|>" in text


@pytest.mark.parametrize(("prompts", "clips", "counts"), [(1, 2, "1 .* but 2 clips"), (2, 1, "2 .* but 1 clips"), (1, 0, "1 .* but 0 clips")])
def test_placeholders_and_clips_must_agree(prompts: int, clips: int, counts: str) -> None:
    processor, _ = make("chatml")
    text = processor.build_prompt(audio_messages("x", prompts))
    with pytest.raises(ValueError, match=counts):
        processor([text], audio=[builders.tone(0.2)] * clips)


def test_the_callers_list_is_left_alone() -> None:
    processor, _ = make("chatml")
    texts = [processor.build_prompt(audio_messages("x"))]
    before = list(texts)
    processor(texts, audio=[builders.tone(0.2)])
    assert texts == before


def test_images_without_eyes_are_refused() -> None:
    processor, _ = make("chatml")
    with pytest.raises(ConfigError, match="no eyes"):
        processor(["hello"], images=[object()])


def test_a_tokenizer_without_chat_template_is_refused() -> None:
    tokenizer: Any = builders.tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="no chat template"):
        AudioGraftProcessor(WhisperFeatureExtractor(), tokenizer)


def test_the_placeholder_is_one_token_looked_up_by_name() -> None:
    processor, _ = make("llama3")
    assert processor.tokenizer("<|audio|>", add_special_tokens=False)["input_ids"] == [processor.audio_token_id]


@pytest.mark.parametrize("content", ["a <|audio|> b", [{"type": "audio"}, {"type": "text", "text": "a <|audio|> b"}]])
def test_a_placeholder_in_somebodys_text_is_one_line(content: Any) -> None:
    processor, _ = make("chatml")
    with pytest.raises(DataError, match=r"contains <\|audio\|>, which stands for a clip: take it out"):
        processor.build_prompt([{"role": "user", "content": content}])


def test_a_placeholder_in_a_response_is_one_line() -> None:
    processor, _ = make("chatml")
    with pytest.raises(DataError, match=r"contains <\|audio\|>"):
        processor.training_inputs(audio_messages("x"), "well <|audio|>", [73])
