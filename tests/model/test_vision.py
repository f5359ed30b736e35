"""A vision-language model keeps its eyes: grafted, saved, loaded, with an image and a clip in one prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, WhisperFeatureExtractor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import is_torchvision_available

from audiograft.model import AudioGraftProcessor, graft, load_graft, vision
from audiograft.types import ConfigError

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONTENT = [{"type": "image"}, {"type": "audio"}, {"type": "text", "text": "hello"}]


def picture(level: int) -> Image.Image:
    return Image.fromarray(np.full((56, 56, 3), level, dtype=np.uint8))


@pytest.fixture(scope="module")
def grafted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vision")
    builders.audio_tower().save_pretrained(folder / "whisper")
    WhisperFeatureExtractor().save_pretrained(folder / "whisper")
    tokenizer = builders.tokenizer(TEMPLATE, SPECIAL)
    tokenizer.save_pretrained(folder / "lm")
    Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=56 * 56).save_pretrained(folder / "lm")
    model = builders.qwen2_vl(image_token_id=4, video_token_id=5, vision_start_token_id=2, vision_end_token_id=3)
    model.generation_config.eos_token_id = 6
    model.save_pretrained(folder / "lm")
    graft(folder / "whisper", folder / "lm", folder / "graft")
    return folder / "graft"


def inputs(processor: AudioGraftProcessor, level: int, hz: float) -> Any:
    text = processor.build_prompt([{"role": "user", "content": CONTENT}])
    assert text.count("<|image_pad|>") == text.count(processor.audio_token) == 1
    return processor([text], audio=[builders.tone(0.5, hz)], images=[picture(level)])


def test_it_sees_and_hears_after_saving_and_loading(grafted: Path) -> None:
    model, processor = load_graft(grafted)
    batch = inputs(processor, 200, 440)
    ids = batch["input_ids"][0].tolist()
    assert ids.count(4) == 4
    assert ids.count(processor.audio_token_id) == processor.front_end.audio_tokens(50)
    generated = model.generate(**batch, max_new_tokens=4, do_sample=False)
    assert torch.equal(generated[:, : len(ids)], batch["input_ids"])
    assert generated.shape[1] > len(ids)
    with torch.no_grad():
        logits = model(**batch).logits[0, -1]
        assert int(logits.argmax()) == int(generated[0, len(ids)])
        for other in (inputs(processor, 20, 440), inputs(processor, 200, 1000)):
            assert not torch.allclose(logits, model(**other).logits[0, -1], atol=1e-6)


def test_the_auto_class_opens_the_eyes_too(grafted: Path) -> None:
    processor = AutoProcessor.from_pretrained(grafted)
    assert type(processor.vision_processor).__name__ == processor.vision_class == "Qwen2VLProcessor"
    assert processor.vision_processor.tokenizer is processor.tokenizer


@pytest.mark.skipif(is_torchvision_available(), reason="with torchvision there are videos")
def test_videos_without_torchvision_are_one_line(grafted: Path) -> None:
    processor = AudioGraftProcessor.from_pretrained(grafted)
    with pytest.raises(ConfigError, match="pip install torchvision"):
        processor(["<|video_pad|>"], videos=[np.zeros((2, 56, 56, 3))])


def test_missing_pillow_is_one_line(grafted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vision, "is_vision_available", lambda: False)
    for load in (lambda: load_graft(grafted), lambda: graft(grafted.parent / "whisper", grafted.parent / "lm", grafted.parent / "again")):
        with pytest.raises(ConfigError, match=r"can't load the .*processor of .*pip install 'audiograft\[vision\]'") as error:
            load()
        assert "\n" not in str(error.value)


def test_what_else_a_processor_lacks_is_one_line(grafted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ImportError("\nThe processor requires the Torchvision library.\nSee elsewhere.\n")

    monkeypatch.setattr(vision.transformers.Qwen2VLProcessor, "from_pretrained", fail)
    with pytest.raises(ConfigError, match=r": The processor requires the Torchvision library$"):
        load_graft(grafted)
