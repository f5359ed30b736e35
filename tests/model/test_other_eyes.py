"""Other language models with eyes: a clip is to them what text of its embeddings would be, in a forward pass, in generation, and with beams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import builders
import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    WhisperFeatureExtractor,
)

from audiograft.model import AudioGraftProcessor, assemble

TEXT: dict[str, Any] = {
    "vocab_size": builders.VOCABULARY_ROWS, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
EYES: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32}
IDS = {"image_token_id": 416, "video_token_id": 417, "vision_start_token_id": 418, "vision_end_token_id": 419}
SPOKEN_TOKENS, SPOKEN = 4, 10


def rope(*section: int) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "mrope_section": list(section), "rope_theta": 10000.0}}


def qwen2_5_vl() -> Any:
    eyes = EYES | {"depth": 1, "num_heads": 2, "out_hidden_size": 32, "patch_size": 14, "fullatt_block_indexes": [0]}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=TEXT | rope(1, 1, 2), vision_config=eyes, **IDS))


def qwen3_vl() -> Any:
    eyes = EYES | {
        "depth": 2, "num_heads": 2, "out_hidden_size": 32, "patch_size": 14, "deepstack_visual_indexes": [0], "num_position_embeddings": 16
    }  # fmt: skip
    text = TEXT | {"head_dim": 8} | rope(2, 1, 1)
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=eyes, **IDS))


def llava() -> Any:
    eyes = CLIPVisionConfig(num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14, projection_dim=16, **EYES)
    config = LlavaConfig(text_config=LlamaConfig(**TEXT), vision_config=eyes, image_token_index=416, image_seq_length=4)
    return LlavaForConditionalGeneration(config)


def gemma3() -> Any:
    eyes = EYES | {"num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    text = TEXT | {"head_dim": 8, "sliding_window": 64}
    ids = {"image_token_id": 416, "boi_token_index": 418, "eoi_token_index": 419}
    return Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=eyes, mm_tokens_per_image=4, **ids))


@pytest.mark.parametrize("make", [builders.qwen2_vl, qwen2_5_vl, qwen3_vl, llava, gemma3])
def test_a_clip_between_pictures_is_heard_where_it_stands(make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    stock = make().eval()
    for parameter in stock.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.5)  # Gemma 3 begins blind
    processor = AudioGraftProcessor(WhisperFeatureExtractor(), builders.tokenizer())
    model = assemble(builders.audio_tower(), stock, processor)
    picture = [418, *[416] * 4, 419]
    ids = torch.tensor([[5, 6, *picture, 7, *[processor.audio_token_id] * SPOKEN_TOKENS, 8, *picture, 9]])
    read = ids.masked_fill(ids == processor.audio_token_id, SPOKEN)
    seen: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(2, 3, 28, 28)}
    if "qwen" in stock.config.model_type:
        seen |= {"pixel_values": torch.randn(32, 3 * 2 * 14 * 14), "image_grid_thw": torch.tensor([[1, 4, 4], [1, 4, 4]])}
        seen |= {"mm_token_type_ids": (ids == 416).int()}
    elif stock.config.model_type == "gemma3":
        seen |= {"token_type_ids": (ids == 416).int()}
    monkeypatch.setattr(model, "project_audio", lambda *args: model.get_input_embeddings()(torch.full((SPOKEN_TOKENS,), SPOKEN)))
    heard = {"input_ids": ids, "input_features": torch.zeros(1, 80, 40)}
    with torch.no_grad():
        assert torch.equal(model(**heard, **seen).logits, stock(input_ids=read, **seen).logits)
        blind = {name: tensor for name, tensor in seen.items() if "pixel" not in name}
        assert not torch.equal(model(**heard, **seen).logits, stock(input_ids=read, **blind | {"pixel_values": -seen["pixel_values"]}).logits)
    for options in ({}, {"num_beams": 3, "num_return_sequences": 2}, {"cache_implementation": "static"}):
        options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, **options}
        expected = stock.generate(input_ids=read, **seen, **options)[:, ids.shape[1] :]
        assert torch.equal(model.generate(**heard, **seen, **options)[:, ids.shape[1] :], expected)


def test_a_model_that_never_looks_its_prompt_up_is_no_silent_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = builders.graft("qwen2_vl")
    batch = processor([processor.build_prompt([{"role": "user", "content": [{"type": "audio"}]}])], audio=[builders.tone(0.3)])
    monkeypatch.setattr(type(model.language_model), "forward", lambda self, **inputs: {"logits": torch.zeros(1, 1, 1)})
    with pytest.raises(RuntimeError, match="did not look up its prompt as a whole"):
        model(**batch)
