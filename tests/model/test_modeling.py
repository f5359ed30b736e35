"""What the grafted model promises: inert without audio, equal in batches, equal to stepping by hand."""

from __future__ import annotations

from typing import Any

import builders
import numpy as np
import pytest
import torch

from audiograft.model import audio_messages
from audiograft.model.configuration import PROJECTORS

CLIPS = [builders.tone(0.7, 300, 1), builders.tone(1.3, 500, 2), builders.tone(0.25, 900, 3)]
ALL_FAMILIES = (*builders.FAMILIES, "qwen2_vl")


def prompt(processor: Any, n_clips: int = 1) -> str:
    return processor.build_prompt(audio_messages("Transcribe the audio.", n_clips))


def answer(model: Any, batch: Any, **kwargs: Any) -> torch.Tensor:
    output = model.generate(**batch, max_new_tokens=6, do_sample=False, eos_token_id=2, pad_token_id=0, **kwargs)
    return output[:, batch["input_ids"].shape[1] :]


def until_end(tokens: torch.Tensor) -> list[int]:
    ids = tokens.tolist()
    return ids[: ids.index(2)] if 2 in ids else ids


@pytest.mark.parametrize("family", ALL_FAMILIES)
@pytest.mark.parametrize("projector", PROJECTORS)
def test_batch_of_n_equals_n_single_runs(family: str, projector: str) -> None:
    model, processor = builders.graft(family, projector, frame_stack=2)
    text = prompt(processor)
    together = answer(model, processor([text] * 3, audio=CLIPS))
    for row, clip in enumerate(CLIPS):
        assert until_end(together[row]) == until_end(answer(model, processor([text], audio=[clip]))[0])


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_logits_of_a_padded_batch_equal_those_of_each_clip(family: str) -> None:
    model, processor = builders.graft(family)
    text = prompt(processor)
    with torch.no_grad():
        together = model(**processor([text] * 3, audio=CLIPS, padding_side="right")).logits
        for row, clip in enumerate(CLIPS):
            alone = model(**processor([text], audio=[clip])).logits[0]
            torch.testing.assert_close(together[row, : len(alone)], alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_generation_equals_stepping_by_hand_without_a_cache(family: str) -> None:
    model, processor = builders.graft(family)
    batch = processor([prompt(processor)], audio=CLIPS[:1])
    generated = answer(model, batch)[0].tolist()
    ids = batch["input_ids"]
    for expected in generated:
        with torch.no_grad():
            logits = model(ids, input_features=batch["input_features"], feature_lengths=batch["feature_lengths"]).logits[0, -1]
        assert int(logits.argmax()) == expected
        ids = torch.cat([ids, torch.tensor([[expected]])], dim=1)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_without_audio_the_logits_are_the_originals_bit_for_bit(family: str) -> None:
    model, processor = builders.graft(family)
    original = builders.qwen2_vl() if family == "qwen2_vl" else builders.language_model(family)
    batch = processor([processor.build_prompt([{"role": "user", "content": "hello"}]), "hello world"])
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, original(**batch).logits)
    mine = model.generate(**batch, max_new_tokens=5, do_sample=False)
    assert torch.equal(mine, original.generate(**batch, max_new_tokens=5, do_sample=False, eos_token_id=2))


def test_audio_changes_the_output() -> None:
    model, processor = builders.graft()
    text = prompt(processor)
    with torch.no_grad():
        one = model(**processor([text], audio=CLIPS[:1])).logits[0, -1]
        other = model(**processor([text], audio=[CLIPS[0][::-1].copy()])).logits[0, -1]
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("projector", PROJECTORS)
def test_several_clips_in_one_prompt_keep_their_order(projector: str) -> None:
    model, processor = builders.graft(projector=projector, frame_stack=2)
    batch = processor([prompt(processor, 2), prompt(processor, 1)], audio=CLIPS, padding_side="right")
    with torch.no_grad():
        together = model(**batch).logits
        first = model(**processor([prompt(processor, 2)], audio=CLIPS[:2])).logits[0]
        second = model(**processor([prompt(processor, 1)], audio=CLIPS[2:])).logits[0]
        swapped = model(**processor([prompt(processor, 2)], audio=CLIPS[1::-1])).logits[0]
    torch.testing.assert_close(together[0, : len(first)], first, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(together[1, : len(second)], second, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(first[-1], swapped[-1], atol=1e-4)


def test_clips_and_text_only_rows_mix_in_one_batch() -> None:
    model, processor = builders.graft()
    texts = [prompt(processor), prompt(processor, 0)]
    together = answer(model, processor(texts, audio=CLIPS[:1]))
    assert until_end(together[1]) == until_end(answer(model, processor(texts[1:]))[0])


@pytest.mark.parametrize("change", [-1, 1])
def test_a_count_mismatch_raises_with_both_counts(change: int) -> None:
    model, processor = builders.graft()
    batch = processor([prompt(processor)], audio=CLIPS[:1])
    placeholders = int((batch["input_ids"] == processor.audio_token_id).sum())
    ids = batch["input_ids"][0].tolist()
    at = ids.index(processor.audio_token_id)
    ids = ids[:at] + [processor.audio_token_id] * (placeholders + change) + ids[at + placeholders :]
    with pytest.raises(ValueError, match=rf"{placeholders + change} audio placeholders in the prompt but {placeholders} audio embeddings"):
        model(torch.tensor([ids]), input_features=batch["input_features"], feature_lengths=batch["feature_lengths"])


def test_placeholders_without_clips_are_refused() -> None:
    model, processor = builders.graft()
    ids = processor([prompt(processor)], audio=CLIPS[:1])["input_ids"]
    with pytest.raises(ValueError, match=r"audio placeholders in the prompt but 0 audio embeddings"):
        model(ids)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_loss_from_labelled_positions_equals_the_loss_from_all_logits(family: str) -> None:
    model, processor = builders.graft(family)
    examples = [
        processor.training_inputs(audio_messages("hi"), text, [processor.features(clip).shape[1]])
        for text, clip in (("hello world", CLIPS[0]), ("one two", CLIPS[1]))
    ]
    rows = [(example["input_ids"], example["labels"]) for example in examples]
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([i + [0] * (longest - len(i)) for i, _ in rows])
    mask = torch.tensor([[1] * len(i) + [0] * (longest - len(i)) for i, _ in rows])
    labels = torch.tensor([lab + [-100] * (longest - len(lab)) for _, lab in rows])
    audio = processor.pad_features([processor.features(clip) for clip in CLIPS[:2]])
    with torch.no_grad():
        output = model(ids, mask, labels=labels, **audio)
        logits = model(ids, mask, **audio).logits
        doubled = model(ids, mask, labels=labels, num_items_in_batch=2 * int((labels != -100).sum()), **audio)
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1))
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(doubled.loss, expected / 2)
    assert output.logits.shape == (int((labels[:, 1:] != -100).sum()), logits.shape[-1])


def test_cached_tower_states_give_the_same_loss() -> None:
    for projector in ("swiglu", "pool-mlp"):
        model, processor = builders.graft(projector=projector)
        batch = processor([prompt(processor)] * 2, audio=CLIPS[:2], padding_side="right")
        with torch.no_grad():
            states = model.encode_audio(batch["input_features"], batch["feature_lengths"])
            cached = model(batch["input_ids"], batch["attention_mask"], encoder_states=states, feature_lengths=batch["feature_lengths"])
            assert torch.equal(cached.logits, model(**batch).logits)


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"do_sample": True, "temperature": 0.7}, {"cache_implementation": "static"}])
def test_the_language_models_own_ways_of_generating_work(options: dict[str, Any]) -> None:
    model, processor = builders.graft()
    batch = processor([prompt(processor)] * 2, audio=CLIPS[:2])
    output = model.generate(**batch, max_new_tokens=5, **{"do_sample": False, **options})
    assert torch.equal(output[:, : batch["input_ids"].shape[1]], batch["input_ids"])
    assert output.shape[1] > batch["input_ids"].shape[1]


def test_static_cache_gives_the_greedy_tokens() -> None:
    model, processor = builders.graft()
    batch = processor([prompt(processor)], audio=CLIPS[:1])
    assert until_end(answer(model, batch)[0]) == until_end(answer(model, batch, cache_implementation="static")[0])


def test_audio_is_encoded_once_per_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = builders.graft()
    calls = []
    encode = model.encode_audio
    monkeypatch.setattr(model, "encode_audio", lambda *args: calls.append(1) or encode(*args))
    answer(model, processor([prompt(processor)], audio=CLIPS[:1]), num_beams=2)
    assert len(calls) == 1


def test_placeholder_beyond_the_embedding_table_works() -> None:
    model, processor = builders.graft()
    small = builders.language_model("qwen2", vocab_size=processor.audio_token_id)
    from audiograft.model import assemble

    tight = assemble(builders.audio_tower(), small, processor)
    batch = processor([prompt(processor)], audio=CLIPS[:1])
    assert int(batch["input_ids"].max()) >= small.config.vocab_size
    output = tight.generate(**batch, max_new_tokens=4, do_sample=False, repetition_penalty=1.2)
    assert torch.equal(output[:, : batch["input_ids"].shape[1]], batch["input_ids"])


def test_image_and_audio_in_one_prompt() -> None:
    model, processor = builders.graft("qwen2_vl")
    clip, patches = CLIPS[0], torch.randn(16, 3 * 2 * 14 * 14)
    vision = {"pixel_values": patches, "image_grid_thw": torch.tensor([[1, 4, 4]])}
    image = [418, *[416] * 4, 419]
    words = processor.tokenizer("hello", add_special_tokens=False)["input_ids"]
    mel = processor.features(clip)
    span = [processor.audio_token_id] * processor.front_end.audio_tokens(mel.shape[1])
    rows = [[*image, *span, *words], [*span, *image, *words, *words]]
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    types = (ids == 416).int()
    both = {name: torch.cat([value, value]) for name, value in vision.items()}
    audio = processor.pad_features([mel, mel])
    together = model.generate(ids, mask, max_new_tokens=5, do_sample=False, mm_token_type_ids=types, **both, **audio)[:, longest:]
    for row, tokens in enumerate(rows):
        alone_ids = torch.tensor([tokens])
        alone = {"mm_token_type_ids": (alone_ids == 416).int(), **vision, **processor.pad_features([mel])}
        mask_one = torch.ones_like(alone_ids)
        generated = model.generate(alone_ids, mask_one, max_new_tokens=5, do_sample=False, **alone)[0, len(tokens) :]
        assert until_end(together[row]) == until_end(generated)
        with torch.no_grad():
            logits = model(alone_ids, mask_one, **alone).logits[0, -1]
        assert int(logits.argmax()) == int(generated[0])
        other = {**alone, "pixel_values": torch.randn_like(patches)}
        with torch.no_grad():
            assert not torch.allclose(logits, model(alone_ids, mask_one, **other).logits[0, -1], atol=1e-5)


def test_shuffled_features_change_the_answer_distribution() -> None:
    model, processor = builders.graft()
    batch = processor([prompt(processor)] * 2, audio=CLIPS[:2], padding_side="right")
    swapped = dict(batch, input_features=torch.flip(batch["input_features"], [0]))
    with torch.no_grad():
        assert float((model(**batch).logits - model(**swapped).logits).abs().max()) > 1e-4
    assert np.isfinite(CLIPS[0]).all()


def test_labels_win_over_use_cache() -> None:
    model, processor = builders.graft()
    batch = processor([prompt(processor)], audio=CLIPS[:1])
    with torch.no_grad():
        output = model(**batch, labels=batch["input_ids"], use_cache=True)
        assert output.past_key_values is None
        assert torch.equal(output.loss, model(**batch, labels=batch["input_ids"]).loss)


@pytest.mark.parametrize("family", ["qwen2", "qwen2_vl"])
def test_hidden_states_and_attentions_on_request(family: str) -> None:
    model, processor = builders.graft(family)
    model.language_model.set_attn_implementation("eager")
    batch = processor([prompt(processor)], audio=CLIPS[:1])
    with torch.no_grad():
        output = model(**batch, output_hidden_states=True, output_attentions=True)
    positions = batch["input_ids"].shape[1]
    assert [tuple(states.shape) for states in output.hidden_states] == [(1, positions, 32)] * 3
    assert [tuple(weights.shape) for weights in output.attentions] == [(1, 4, positions, positions)] * 2
    with torch.no_grad():
        assert model(**batch).hidden_states is None
