"""Rows of several clips, of none, and conversations, mixed in one batch: each is learnt as it would be alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import WhisperFeatureExtractor

from audiograft.data.shuffling import shuffle_clips
from audiograft.inference.caching import fill_cache, open_cache
from audiograft.messages import place_media
from audiograft.model import AudioGraftProcessor, audio_messages
from audiograft.train.collator import Collator
from audiograft.train.dataset import SpeechDataset
from audiograft.train.deafness import check_deafness, require_clips
from audiograft.train.preview import draw_batch
from audiograft.train.recipe import DataRecipe, Recipe, load_recipe
from audiograft.train.rows import Row, index_rows, read_samples
from audiograft.types import ConfigError, DataError, Sample

TURNS = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "who is <audio>"},
    {"role": "assistant", "content": "one"},
    {"role": "user", "content": "and <audio></audio>"},
    {"role": "assistant", "content": "two"},
]
ROWS: list[dict[str, Any]] = [
    {"id": "plain", "audio": "0.wav", "text": "one two"},
    {"id": "text", "prompt": "hello", "response": "hello world"},
    {"id": "pair", "audio": ["1.wav", "2.wav"], "prompt": "is <audio> like <audio>", "response": "three"},
    {"id": "turns", "audio": ["2.wav", "0.wav"], "messages": TURNS},
    {"id": "talk", "audio": "1.wav", "prompt": "", "response": "five six"},
]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    for number, (length_s, hz) in enumerate(((0.4, 300), (0.9, 700), (0.2, 1200))):
        soundfile.write(tmp_path / f"{number}.wav", builders.tone(length_s, hz, number), 16_000, subtype="FLOAT")
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


@pytest.fixture
def rows(graft: Any, manifest: Path) -> list[Row]:
    rows, rejected = index_rows(read_samples([str(manifest)]), graft[1])
    assert not rejected
    return rows


def losses(model: Any, batch: dict[str, Any]) -> list[float]:
    """Mean loss of each row."""
    inputs = {name: tensor for name, tensor in batch.items() if isinstance(tensor, torch.Tensor)}
    with torch.no_grad():
        logits = model(**inputs).logits
    carrying = batch["labels"] != -100
    each = torch.nn.functional.cross_entropy(logits, batch["labels"][carrying], reduction="none")
    return [float(own.mean()) for own in each.split(carrying.sum(1).tolist())]


def test_rows_in_a_mixed_batch_are_learnt_as_alone(graft: Any, rows: list[Row]) -> None:
    model, processor = graft
    dataset, collate = SpeechDataset(rows, processor), Collator(processor)
    together = collate([dataset[index] for index in range(len(rows))])
    assert together["feature_lengths"].tolist() == [frames for row in rows for frames in row.feature_frames]
    assert len(together["input_features"]) == 6
    alone = [losses(model, collate([dataset[index]]))[0] for index in range(len(rows))]
    assert losses(model, together) == pytest.approx(alone, abs=1e-5)
    for index, row in enumerate(rows):
        assert len(dataset[index]["input_ids"]) == row.positions


def test_swapped_clips_are_another_question(graft: Any, rows: list[Row]) -> None:
    model, processor = graft
    item = SpeechDataset(rows, processor)[2]
    [loss] = losses(model, Collator(processor)([item]))
    swapped = {**item, "features": item["features"][::-1], "feature_frames": item["feature_frames"][::-1]}
    assert losses(model, Collator(processor)([swapped])) != pytest.approx([loss], abs=1e-4)


def test_a_batch_of_text_has_the_language_models_own_loss_and_gradients_for_all_that_is_trained(graft: Any, rows: list[Row]) -> None:
    model, processor = builders.graft()
    batch = Collator(processor)([SpeechDataset(rows, processor)[1]])
    assert not {"input_features", "encoder_states", "feature_lengths"} & set(batch)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    own = model.language_model(**inputs).loss
    model.requires_grad_(False)
    model.projector.requires_grad_(True)
    assert not model.eval()(**inputs).loss.requires_grad
    loss = model.train()(**inputs).loss
    torch.testing.assert_close(loss, own, rtol=1e-6, atol=0)
    assert loss.item() == model.eval()(**inputs).loss.item()
    loss.backward()
    gradients = [parameter.grad for parameter in model.projector.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
    assert all(parameter.grad is None for parameter in model.audio_tower.parameters())


def test_cached_features_of_several_clips_give_the_same_batch(rows: list[Row], tmp_path: Path) -> None:
    model, processor = builders.graft()
    computed: list[None] = []
    cache = open_cache(tmp_path / "cache", model, processor, torch.float32)
    clips = [(clip, row.padded) for row in rows for clip in row.sample.clips]
    fill_cache(cache, clips, lambda: (model, processor), torch.float32, on_clip=lambda: computed.append(None))
    assert len(computed) == 6
    collate = Collator(processor)
    usual, cached = SpeechDataset(rows, processor), SpeechDataset(rows, processor, cache)
    expected = losses(model, collate([usual[index] for index in range(len(rows))]))
    assert losses(model, collate([cached[index] for index in range(len(rows))])) == pytest.approx(expected, abs=2e-3)
    assert "encoder_states" not in collate([cached[1]])


@pytest.mark.parametrize("template", ["chatml", "llama3"])
def test_the_ids_of_several_turns_are_those_of_the_chat_template(template: str) -> None:
    llama3 = (
        "{{ '<|begin|>' }}{% for m in messages %}{{ '<|start|>' + m['role'] + '<|stop|>\n\n' + m['content'] | trim + '<|eot|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>assistant<|stop|>\n\n' }}{% endif %}"
    )
    made = {
        "chatml": builders.tokenizer(),
        "llama3": builders.tokenizer(llama3, ("<|pad|>", "<|begin|>", "<|start|>", "<|stop|>", "<|eot|>")),
    }[template]
    processor = AudioGraftProcessor(WhisperFeatureExtractor(), made)
    spans = [processor.audio_token * processor.front_end.audio_tokens(frames) for frames in (20, 40)]
    spoken = [{**turn, "content": turn["content"].replace("<audio></audio>", "<audio>")} for turn in TURNS]
    spoken[1]["content"] = spoken[1]["content"].replace("<audio>", spans[0])
    spoken[3]["content"] = spoken[3]["content"].replace("<audio>", spans[1])
    whole = processor.tokenizer.apply_chat_template(spoken, tokenize=False)
    row = processor.training_inputs(place_media(TURNS[:-1], clips=2), "two", [20, 40])
    ids, labels = row["input_ids"], row["labels"]
    # Behind the end of turn the template may write a line feed, which nothing learns from.
    assert processor.tokenizer(whole.rstrip("\n"), add_special_tokens=False)["input_ids"] == ids
    learnt = [label for label in labels if label != -100]
    assert processor.tokenizer.decode(learnt) == "two" + processor.end_of_turn
    assert labels[-len(learnt) :] == learnt


def test_a_clip_in_the_middle_of_a_text_stands_there(graft: Any) -> None:
    processor = graft[1]
    first, middle = (processor.training_inputs(audio_messages(prompt), "x", [20])["input_ids"] for prompt in ("hello world", "hello <audio> world"))
    token = processor.audio_token_id
    assert first.count(token) == middle.count(token) == processor.front_end.audio_tokens(20)
    before = processor.tokenizer.decode(middle[: middle.index(token)])
    assert before.endswith("user\nhello ")
    assert not processor.tokenizer.decode(first[: first.index(token)]).endswith("hello ")


def test_the_preview_draws_each_clip(graft: Any, rows: list[Row]) -> None:
    processor = graft[1]
    dataset = SpeechDataset(rows, processor)
    adjacent, _ = index_rows([Sample("both", rows[2].sample.clips, text="one", prompt="which")], processor)
    drawn = [rows[1], rows[2], adjacent[0]]
    items = [dataset[1], dataset[2], SpeechDataset(adjacent, processor)[0]]
    page = draw_batch(items, drawn, 7, processor, colour=False)
    spans = [f"<audio x {processor.front_end.audio_tokens(frames)}>" for frames in rows[2].feature_frames]
    assert "text: no audio\n" in page
    assert [line.split("  ")[-1].strip() for line in page.splitlines() if "<audio" in line] == spans * 2
    assert f"pair: {rows[2].sample.clips[0]} and {rows[2].sample.clips[1]}, 1.10 s" in " ".join(page.split())


def test_a_conversation_without_place_for_its_clips_is_rejected_by_name(graft: Any, manifest: Path) -> None:
    rows, rejected = index_rows(read_samples([str(manifest)], "hear <audio> and <audio>"), graft[1])
    assert {row.sample.id for row in rows} == {"text", "pair", "turns"}
    assert {item.id: item.reason.split(":")[0] for item in rejected} == dict.fromkeys(("plain", "talk"), "2 <audio> markers in the prompt but 1 clip")


def test_instructions_are_drawn_by_rows_without_one(manifest: Path, tmp_path: Path) -> None:
    templates = [f"template {number}" for number in range(5)]
    (tmp_path / "prompts.txt").write_text("\n".join(["", *templates, " "]), encoding="utf-8")
    with manifest.open("a") as file:
        file.writelines(json.dumps({"id": f"more-{number}", "audio": "0.wav", "text": "one"}) + "\n" for number in range(40))

    def prompts(seed: int) -> dict[str, str]:
        return {sample.id: sample.prompt for sample in read_samples([str(manifest)], prompts=str(tmp_path / "prompts.txt"), seed=seed)}

    drawn = prompts(0)
    assert drawn == prompts(0) != prompts(1)
    assert set(drawn.values()) == {*templates, "hello", "is <audio> like <audio>", "", "Transcribe the audio."}
    assert {drawn[name] for name in ("text", "pair", "talk")} == {"hello", "is <audio> like <audio>", ""}
    assert drawn["plain"] in templates


@pytest.mark.parametrize(("content", "expected"), [(b" \n\n", "no instructions: write one a line"), (b"\xff\xfe", "not UTF-8 text")])
def test_instructions_that_are_none_are_one_line(manifest: Path, tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "prompts.txt").write_bytes(content)
    with pytest.raises(DataError, match=expected):
        read_samples([str(manifest)], prompts=str(tmp_path / "prompts.txt"))
    with pytest.raises(DataError, match="No such file"):
        read_samples([str(manifest)], prompts=str(tmp_path / "none.txt"))


def test_the_fingerprint_of_a_row_knows_its_instruction(graft: Any, manifest: Path) -> None:
    checksums = [[row.checksum for row in index_rows(read_samples([str(manifest)], prompt), graft[1])[0]] for prompt in (None, "what", None)]
    assert checksums[0] == checksums[2]
    assert checksums[0][0] != checksums[1][0]


@given(counts=st.lists(st.integers(0, 3), min_size=8, max_size=30), seed=st.integers(0, 2**31))
def test_shuffled_clips_come_from_other_rows_and_keep_their_number(counts: list[int], seed: int) -> None:
    clips = [[(row, number) for number in range(count)] for row, count in enumerate(counts)]
    shuffled = shuffle_clips(clips, seed)
    assert [len(own) for own in shuffled] == counts
    assert sorted(clip for own in shuffled for clip in own) == sorted(clip for own in clips for clip in own)
    if 2 * max(counts) <= sum(counts):
        assert all(clip[0] != row for row, own in enumerate(shuffled) for clip in own)


def test_only_rows_with_clips_are_asked_whether_they_listen(graft: Any, tmp_path: Path) -> None:
    model, processor = graft
    manifest = builders.write_clips(tmp_path, [builders.tone(0.2 + 0.1 * number, 200.0 * (number + 1)) for number in range(8)], ["one"] * 8)
    with manifest.open("a") as file:
        file.write(json.dumps({"id": "pair", "audio": ["0.wav", "1.wav"], "prompt": "same", "response": "two"}) + "\n")
        file.write(json.dumps({"id": "text", "prompt": "hello", "response": "hello"}) + "\n")
    rows, _ = index_rows(read_samples([str(manifest)]), processor)
    heard = [row for row in rows if row.n_samples]
    require_clips(heard, "training")
    report = check_deafness(model, processor, heard, "training", permutations=100, seed=0)
    assert report.clips == 9
    assert np.isfinite([condition.loss for condition in report.conditions]).all()
    with pytest.raises(DataError, match="validation data has 7 usable rows with clips: the deafness check needs 8"):
        require_clips(heard[2:], "validation")


def test_a_run_learns_from_all_kinds_of_rows_and_a_cache_changes_nothing(
    recipe: Recipe, clips: Path, manifest: Path, tmp_path: Path, run_quietly: Callable[..., dict[str, Any]]
) -> None:
    (tmp_path / "prompts.txt").write_text("say it\nwrite it\n")
    data = DataRecipe(train=(str(clips), str(manifest)), prompts=str(tmp_path / "prompts.txt"))
    # A budget of one row: batches of text alone come too.
    options = {"data": data, "tokens_per_batch": 110, "max_steps": 14, "save_steps": 14}
    losses: list[float] = []
    result = run_quietly(recipe, lambda line: losses.append(line["loss"]) if "loss" in line else None, **options)
    assert result["rows"] == {"train": 13, "validation": 0, "rejected": 0, "lost": 0}
    assert result["deafness"]["clips"] == 8
    assert len(losses) == 14
    assert np.isfinite(losses).all()
    cached = run_quietly(recipe, **options, output_dir=str(tmp_path / "cached"), feature_cache=str(tmp_path / "cache"))
    assert [line["loss"] for line in cached["log"] if "loss" in line] == pytest.approx(losses, abs=0.02)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ("data: {train: m, prompts: nowhere.txt}", "data.prompts: nowhere.txt: no such file: write instructions into it, one a line"),
        ("prompt: Hear\ndata: {train: m, prompts: here.txt}", "prompt and data.prompts exclude each other"),
    ],
)
def test_a_recipe_without_its_instructions_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: str, expected: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here.txt").write_text("Hear\n")
    Path("r.yaml").write_text(f"stage: align\nmodel: tiny\noutput_dir: out\n{changes}\n")
    with pytest.raises(ConfigError, match=expected):
        load_recipe("r.yaml")
