"""Rows with pictures are learnt: beside clips, alone and mixed with others, each as it would be by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console

from audiograft.data.augment.chain import Augmenter, AugmentRecipe
from audiograft.images import load_image
from audiograft.inference.caching import fill_cache, open_cache
from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor, load_graft
from audiograft.train import pictures, validation
from audiograft.train.collator import Collator
from audiograft.train.dataset import SpeechDataset
from audiograft.train.deafness import check_deafness
from audiograft.train.index import ManifestFile, Rules, build_index
from audiograft.train.kept_index import unchanged
from audiograft.train.kl import DistillationCollator, DistillationDataset, readable
from audiograft.train.plan.anatomy import count
from audiograft.train.plan.eyes import find_eyes
from audiograft.train.plan.gpus import find_gpus
from audiograft.train.plan.report import Options, plan_recipe
from audiograft.train.plan.workload import read
from audiograft.train.preview import draw_batch
from audiograft.train.recipe import DataRecipe, Recipe
from audiograft.train.rows import Row, Wording, index_rows, read_samples, told
from audiograft.train.sources import index_training_rows
from audiograft.train.streaming import StreamedDataset
from audiograft.train.validation import score
from audiograft.types import DataError

Graft = tuple[AudioGraftForConditionalGeneration, AudioGraftProcessor]
IMAGE_TOKEN = 4
TURNS = [
    {"role": "user", "content": "<image> is <audio>"},
    {"role": "assistant", "content": "one"},
    {"role": "user", "content": "and <image>"},
    {"role": "assistant", "content": "two"},
]
ROWS: list[dict[str, Any]] = [
    {"id": "heard", "audio": "0.wav", "text": "one two"},
    {"id": "seen", "image": "0.png", "prompt": "what", "response": "three"},
    {"id": "both", "audio": "1.wav", "image": "1.png", "prompt": "", "response": "hello world", "text": "two"},
    {"id": "text", "prompt": "hello", "response": "hello world"},
    {"id": "turns", "audio": "0.wav", "images": ["1.png", "2.png"], "messages": TURNS},
]
SIZES = ((56, 56), (84, 56), (56, 112))
"""Width and height of the pictures."""


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builders.vlm_graft(tmp_path_factory.mktemp("seeing"), initializer_range=0.3)


@pytest.fixture(scope="module")
def eyes(seeing: Path) -> Graft:
    return load_graft(seeing)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    for number, (length_s, hz) in enumerate(((0.4, 300), (0.9, 700))):
        soundfile.write(tmp_path / f"{number}.wav", builders.tone(length_s, hz, number), 16_000, subtype="FLOAT")
    for number, (width, height) in enumerate(SIZES):
        builders.picture(60 + 80 * number, width, height).save(tmp_path / f"{number}.png")
    return write(tmp_path, ROWS)


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def rows(eyes: Graft, manifest: Path) -> list[Row]:
    rows, rejected = index_rows(read_samples([str(manifest)]), eyes[1])
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


def image_tokens(item: dict[str, Any]) -> int:
    return item["input_ids"].count(IMAGE_TOKEN)


def test_positions_count_the_pictures(eyes: Graft, rows: list[Row]) -> None:
    dataset = SpeechDataset(rows, eyes[1])
    per_picture = [width * height // 28**2 for width, height in SIZES]
    assert [image_tokens(dataset[number]) for number in range(5)] == [0, per_picture[0], per_picture[1], 0, per_picture[1] + per_picture[2]]
    assert [len(dataset[number]["input_ids"]) for number in range(5)] == [row.positions for row in rows]


def test_rows_in_a_mixed_batch_are_learnt_as_alone(eyes: Graft, rows: list[Row]) -> None:
    model, processor = eyes
    dataset, collate = SpeechDataset(rows, processor), Collator(processor)
    together = collate([dataset[number] for number in range(5)])
    assert len(together["image_grid_thw"]) == 4
    assert together["mm_token_type_ids"].shape == together["input_ids"].shape
    alone = [losses(model, collate([dataset[number]]))[0] for number in range(5)]
    assert losses(model, together) == pytest.approx(alone, abs=1e-5)
    assert "pixel_values" not in collate([dataset[0], dataset[3]])


def test_what_is_seen_and_what_is_heard_both_change_the_loss(eyes: Graft, rows: list[Row], manifest: Path) -> None:
    model, processor = eyes
    collate = Collator(processor)
    own = losses(model, collate([SpeechDataset(rows, processor)[2]]))
    builders.picture(250, *SIZES[1]).save(manifest.with_name("1.png"))
    other = losses(model, collate([SpeechDataset(rows, processor)[2]]))
    assert other != pytest.approx(own, abs=1e-4)
    soundfile.write(manifest.with_name("1.wav"), builders.tone(0.9, 2000), 16_000, subtype="FLOAT")
    assert losses(model, collate([SpeechDataset(rows, processor)[2]])) != pytest.approx(other, abs=1e-4)


def test_cached_features_with_pictures_beside_give_the_same_batch(eyes: Graft, rows: list[Row], tmp_path: Path) -> None:
    model, processor = eyes
    cache = open_cache(tmp_path / "cache", model, processor, torch.float32)
    fill_cache(cache, [(clip, row.padded) for row in rows for clip in row.sample.clips], lambda: (model, processor), torch.float32)
    collate = Collator(processor)
    usual, cached = (
        collate([dataset[number] for number in range(5)]) for dataset in (SpeechDataset(rows, processor), SpeechDataset(rows, processor, cache))
    )
    assert "encoder_states" in cached
    assert torch.equal(usual["pixel_values"], cached["pixel_values"])
    assert losses(model, cached) == pytest.approx(losses(model, usual), abs=2e-3)


@pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [(None, "missing", "0.png"), (b"", "empty", "0.png"), (b"\x89PNG\r\n\x1a\nno more", "unreadable", "0.png")],
)
def test_rows_whose_pictures_cant_be_used_are_named_and_counted(eyes: Graft, manifest: Path, content: bytes | None, kind: str, expected: str) -> None:
    picture = manifest.with_name("0.png")
    picture.unlink()
    if content is not None:
        picture.write_bytes(content)
    rows, rejected = index_rows(read_samples([str(manifest)]), eyes[1])
    assert [row.sample.id for row in rows] == ["heard", "both", "text", "turns"]
    assert [(item.id, item.kind) for item in rejected] == [("seen", kind)]
    assert expected in rejected[0].reason
    assert "\n" not in rejected[0].reason


def test_a_fault_of_a_picture_is_not_said_of_the_clip(eyes: Graft, manifest: Path) -> None:
    picture = manifest.with_name("1.png")
    for content, said in ((b"", "is empty"), (None, "the model's processor refuses a picture")):
        if content is None:
            builders.picture(140, 1200, 4).save(picture)
        else:
            picture.write_bytes(content)
        _, rejected = index_rows(read_samples([str(manifest)]), eyes[1])
        (both,) = [item for item in rejected if item.id == "both"]
        assert told(both).startswith(f"both: {picture}: {said}")


def test_a_fault_of_a_clip_names_it_once(eyes: Graft, manifest: Path) -> None:
    _, rejected = index_rows(read_samples([str(manifest)]), eyes[1])
    assert rejected == []
    for clip in manifest.parent.glob("*.wav"):
        clip.write_bytes(b"")
    _, rejected = index_rows(read_samples([str(manifest)]), eyes[1])
    assert [told(item).count(".wav") for item in rejected if item.id in ("heard", "both")] == [1, 1]


def test_pictures_for_a_model_without_eyes_are_one_line_a_row(manifest: Path, graft: Any) -> None:
    rows, rejected = index_rows(read_samples([str(manifest)]), graft[1])
    assert [row.sample.id for row in rows] == ["heard", "text"]
    assert all("has no eyes" in item.reason and "\n" not in item.reason for item in rejected)


def test_the_fingerprint_knows_the_picture(eyes: Graft, rows: list[Row], manifest: Path) -> None:
    builders.picture(251, *SIZES[0]).save(manifest.with_name("0.png"))
    again, _ = index_rows(read_samples([str(manifest)]), eyes[1])
    assert [row.sample.id for row, old in zip(again, rows, strict=True) if row.checksum != old.checksum] == ["seen"]


def test_a_kept_index_sees_that_a_picture_has_changed(eyes: Graft, manifest: Path) -> None:
    rules = Rules(eyes[1], Wording(), 0.0, 0, lambda row: None)
    index, n_rejected, _ = build_index([ManifestFile.open(manifest)], rules, None, 0.0)
    assert (len(index), n_rejected) == (5, 0)
    assert index[4].sample.images == tuple(str(manifest.with_name(name)) for name in ("1.png", "2.png"))
    picture = manifest.with_name("2.png")
    content = picture.read_bytes()
    picture.write_bytes(content)
    touched = unchanged(index, rules, keep_lost=False)
    assert touched is not None
    assert touched.fingerprint() == index.fingerprint()
    builders.picture(10, *SIZES[2]).save(picture)
    assert unchanged(index, rules, keep_lost=False) is None
    picture.unlink()
    assert unchanged(index, rules, keep_lost=False) is None
    assert unchanged(index, rules, keep_lost=True) is not None


@pytest.mark.parametrize("cached", [False, True])
def test_a_picture_that_is_lost_leaves_a_muted_row_of_the_same_length(eyes: Graft, rows: list[Row], tmp_path: Path, cached: bool) -> None:
    model, processor = eyes
    cache = open_cache(tmp_path / "cache", model, processor, torch.float32)
    fill_cache(cache, [(clip, row.padded) for row in rows for clip in row.sample.clips], lambda: (model, processor), torch.float32)
    dataset, collate = SpeechDataset(rows, processor, cache if cached else None), Collator(processor)
    before = losses(model, collate([dataset[number] for number in range(5)]))
    Path(rows[2].sample.images[0]).unlink()  # the last row needs it too
    items = [dataset[number] for number in (2, 4, 0, 1, 3)]
    assert [(item["lost"].id, item["lost"].kind) for item in items[:2]] == [("both", "lost"), ("turns", "lost")]
    assert "1.png" in items[0]["lost"].reason
    assert [len(item["input_ids"]) for item in items[:2]] == [rows[2].positions, rows[4].positions]
    batch = collate(items)
    assert (batch["labels"][:2] == -100).all()
    assert len(batch["lost"]) == 2
    kept = {name: value for name, value in batch.items() if name != "lost"}
    carrying = kept["labels"] != -100
    with torch.no_grad():
        logits = model(**{name: value for name, value in kept.items() if isinstance(value, torch.Tensor)}).logits
    each = torch.nn.functional.cross_entropy(logits, kept["labels"][carrying], reduction="none").split(carrying.sum(1).tolist())
    assert [float(own.mean()) for own in each[2:]] == pytest.approx([before[0], before[1], before[3]], abs=1e-5)


@pytest.mark.parametrize("how", ["plain", "cached", "augmented", "taught"])
def test_a_picture_that_changes_its_size_is_a_lost_row(eyes: Graft, rows: list[Row], manifest: Path, tmp_path: Path, how: str) -> None:
    model, processor = eyes
    cache = open_cache(tmp_path / "cache", model, processor, torch.float32)
    fill_cache(cache, [(clip, row.padded) for row in rows for clip in row.sample.clips], lambda: (model, processor), torch.float32)
    dataset: SpeechDataset = {
        "plain": lambda: SpeechDataset(rows, processor),
        "cached": lambda: SpeechDataset(rows, processor, cache),
        "augmented": lambda: SpeechDataset(rows, processor, augmenter=Augmenter(AugmentRecipe(speed=(0.5, 2.0)), seed=0)),
        "taught": lambda: DistillationDataset([rows[0], rows[1], rows[2]], processor),
    }[how]()
    assert not any("lost" in dataset[number] for number in range(3))
    builders.picture(140, 112, 112).save(manifest.with_name("1.png"))
    item = dataset[2]
    assert (item["lost"].id, item["lost"].kind) == ("both", "lost")
    assert item["lost"].reason == f"row both: {manifest.with_name('1.png')} changed during the run: start it again"
    assert (len(item["input_ids"]), set(item["labels"])) == (rows[2].positions, {-100})
    assert set(item["teacher"]["labels"] if how == "taught" else [-100]) == {-100}
    builders.picture(140, 1200, 4).save(manifest.with_name("1.png"))  # which the model's processor refuses
    assert "1.png changed during the run (the model's processor refuses a picture" in dataset[2]["lost"].reason


def test_a_pupil_and_its_teacher_open_each_picture_once(eyes: Graft, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(pictures, "load_image", lambda path: opened.append(path) or load_image(path))
    item = DistillationDataset(rows, eyes[1])[2]
    assert torch.equal(item["vision"]["pixel_values"], item["teacher"]["vision"]["pixel_values"])
    assert opened == list(rows[2].sample.images)


def test_a_clip_that_is_lost_leaves_the_picture_beside_silence(eyes: Graft, rows: list[Row]) -> None:
    dataset = SpeechDataset(rows, eyes[1])
    whole = dataset[2]
    Path(rows[2].sample.clips[0]).unlink()
    item = dataset[2]
    assert item["lost"].id == "both"
    assert item["input_ids"] == whole["input_ids"]
    assert torch.equal(item["vision"]["pixel_values"], whole["vision"]["pixel_values"])
    assert set(item["labels"]) == {-100}


def test_the_preview_draws_pictures_as_spans(eyes: Graft, rows: list[Row]) -> None:
    processor = eyes[1]
    page = draw_batch([SpeechDataset(rows, processor)[2]], [rows[2]], 1, processor, colour=False)
    assert f"<image x {SIZES[1][0] * SIZES[1][1] // 28**2}>" in page
    assert "<audio x" in page
    assert "1.png" in page.replace("\n", "")


def test_the_teacher_sees_the_same_pictures(eyes: Graft, rows: list[Row]) -> None:
    processor = eyes[1]
    said = replace(rows[4], sample=replace(rows[4].sample, text="three"))
    assert [part["type"] for part in readable(said.sample)[0]["content"]] == ["image", "text"]
    assert readable(said.sample)[0]["content"][1]["text"] == " is three"
    dataset, collate = DistillationDataset([rows[2], said, rows[0]], processor), DistillationCollator(processor)
    batch = collate([dataset[number] for number in range(3)])
    for name in ("pixel_values", "image_grid_thw"):
        assert torch.equal(batch[f"teacher_{name}"], batch[name])
    assert batch["teacher_mm_token_type_ids"].shape == batch["teacher_input_ids"].shape
    learnt, taught = (batch[name][batch[name] != -100] for name in ("labels", "teacher_labels"))
    assert torch.equal(learnt, taught)
    Path(rows[2].sample.images[0]).unlink()
    lost = collate([dataset[number] for number in range(3)])
    assert [item.id for item in lost["lost"]] == ["both", "turns"]
    assert (lost["teacher_labels"][:2] == -100).all()


def test_a_streamed_row_has_its_pictures(eyes: Graft, rows: list[Row]) -> None:
    item = StreamedDataset(eyes[1])[rows[2]]
    assert item["input_ids"] == SpeechDataset(rows, eyes[1])[2]["input_ids"]
    assert "pixel_values" in item["vision"]


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Eight rows, each with a tone and a picture of its own; and two with pictures alone."""
    folder = tmp_path / "scenes"
    words = ("one", "two", "three", "four", "five", "six", "seven", "eight")
    made = builders.write_clips(folder, [builders.tone(0.4, 200.0 * 1.4**number, number) for number in range(8)], words)
    rows = [json.loads(line) for line in made.read_text().splitlines()]
    for number, row in enumerate(rows):
        builders.picture(20 + 25 * number, *SIZES[number % 3]).save(folder / f"{number}.png")
        row |= {"image": f"{number}.png", "prompt": "what", "response": row["text"]}
    alone = [{"id": f"seen-{number}", "image": f"{number}.png", "prompt": "what", "response": "two"} for number in range(2)]
    return write(folder, [*rows, *alone])


def test_scores_of_rows_are_those_of_batches_of_one(eyes: Graft, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "_ROWS_SEEN", 4)  # the ten rows are seen in three blocks
    model, processor = eyes
    rows, _ = index_rows(read_samples([str(scenes)]), processor)
    clips = [[builders.tone(0.4, 300.0 + 90 * number, number) for _ in row.sample.clips] for number, row in enumerate(rows)]
    together = score(model, processor, rows, clips)
    alone = [score(model, processor, [row], [own]) for row, own in zip(rows, clips, strict=True)]
    assert together.losses == pytest.approx([item.losses[0] for item in alone], abs=1e-5)
    assert together.hypotheses == [item.hypotheses[0] for item in alone]
    trained = Collator(processor)([SpeechDataset(rows, processor)[9]])
    assert together.losses[9] == pytest.approx(losses(model, trained)[0], abs=1e-5)


def test_shuffled_clips_leave_each_picture_in_its_row(eyes: Graft, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from audiograft.train import deafness

    model, processor = eyes
    rows, _ = index_rows(read_samples([str(scenes)]), processor)
    heard = [row for row in rows if row.n_samples]
    seen: list[list[tuple[str, ...]]] = []
    true_score = deafness.score

    def spied(model: Any, processor: Any, rows: Any, *rest: Any) -> Any:
        seen.append([row.sample.images for row in rows])
        return true_score(model, processor, rows, *rest)

    monkeypatch.setattr(deafness, "score", spied)
    report = check_deafness(model, processor, heard, "training", permutations=100, seed=0)
    assert report.clips == 8
    assert seen == [[row.sample.images for row in heard]] * 3
    assert np.isfinite([condition.loss for condition in report.conditions]).all()


@pytest.fixture
def scene_recipe(recipe: Recipe, seeing: Path, scenes: Path) -> Recipe:
    data = DataRecipe(train=(str(scenes),))
    return replace(recipe, model=str(seeing), data=data, tokens_per_batch=110, max_steps=6, save_steps=3)


def logged(result: dict[str, Any]) -> list[float]:
    return [line["loss"] for line in result["log"] if "loss" in line]


def test_a_run_learns_from_pictures_with_a_cache_and_with_workers_alike(
    scene_recipe: Recipe, tmp_path: Path, run_quietly: Callable[..., dict[str, Any]]
) -> None:
    usual = run_quietly(scene_recipe)
    assert usual["rows"] == {"train": 10, "validation": 0, "rejected": 0, "lost": 0}
    assert np.isfinite(logged(usual)).all()
    assert len(logged(usual)) == 6
    workers = run_quietly(scene_recipe, output_dir=str(tmp_path / "workers"), dataloader_workers=2)
    assert logged(workers) == logged(usual)
    cached = run_quietly(scene_recipe, output_dir=str(tmp_path / "cached"), feature_cache=str(tmp_path / "cache"))
    assert logged(cached) == pytest.approx(logged(usual), abs=0.02)


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(
    scene_recipe: Recipe, tmp_path: Path, run_quietly: Callable[..., dict[str, Any]]
) -> None:
    def stop(line: dict[str, float]) -> None:
        if line["step"] == 4:
            raise KeyboardInterrupt

    whole = run_quietly(scene_recipe)
    cut = replace(scene_recipe, output_dir=str(tmp_path / "cut"))
    with pytest.raises(KeyboardInterrupt):
        run_quietly(cut, stop)
    steps: list[float] = []
    resumed = run_quietly(cut, lambda line: steps.append(line["step"]))
    assert min(steps) == 4
    assert logged(resumed) == logged(whole)
    assert resumed["deafness"] == whole["deafness"]


def test_batches_are_cut_by_positions_with_pictures_in_them(scene_recipe: Recipe, eyes: Graft, scenes: Path) -> None:
    index = index_training_rows(scene_recipe, eyes[1], [scenes], Console(quiet=True))
    dataset = SpeechDataset(index, eyes[1])
    assert index.positions.tolist() == [len(dataset[number]["input_ids"]) for number in range(len(index))]
    assert len(set(index.positions[:8].tolist())) > 1


@pytest.mark.parametrize("source", ["whole", "parts"])
def test_a_plan_counts_the_pictures_that_a_run_learns(scene_recipe: Recipe, eyes: Graft, seeing: Path, scenes: Path, source: str) -> None:
    model, processor = eyes
    config = model.config
    found = find_eyes(config, {"model": str(seeing)} if source == "whole" else {"language_model": str(seeing.parent / "lm")})
    workload = read(count(config, scene_recipe, True), scene_recipe, [(str(scenes), 1.0)], found)
    index = index_training_rows(scene_recipe, processor, [scenes], Console(quiet=True))
    dataset = SpeechDataset(index, processor)
    batch = Collator(processor)([dataset[number] for number in range(10)])
    assert [example.picture_tokens for example in workload.examples] == (batch["input_ids"] == IMAGE_TOKEN).sum(1).tolist()
    assert len({example.picture_tokens for example in workload.examples}) > 1
    # What is left is the text, of which the plan knows the characters alone.
    assert [example.positions - example.prompt_tokens - example.response_tokens for example in workload.examples] == [
        len(item["input_ids"]) - sum(token not in (IMAGE_TOKEN, processor.audio_token_id) for token in item["input_ids"])
        for item in (dataset[number] for number in range(10))
    ]
    assert workload.source.endswith("characters each; what the eyes compute themselves is not counted")


def test_pictures_cost_memory_and_arithmetic(scene_recipe: Recipe, eyes: Graft, seeing: Path, scenes: Path, tmp_path: Path) -> None:
    recipe = replace(scene_recipe, tokens_per_batch=1000)
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe.as_dict()), encoding="utf-8")
    lines = [json.loads(line) for line in scenes.read_text(encoding="utf-8").splitlines()]
    blind = [{key: value for key, value in line.items() if key != "image"} for line in lines]
    (scenes.parent / "blind.jsonl").write_text("".join(json.dumps(line) + "\n" for line in blind), encoding="utf-8")
    plans = [
        plan_recipe(tmp_path / "recipe.yaml", (), Options(find_gpus("l4"), manifests=[str(manifest)]))
        for manifest in (scenes, scenes.parent / "blind.jsonl")
    ]
    per_row = sum(width * height // 28**2 for width, height in (*SIZES, *SIZES, *SIZES[:2], *SIZES[:2])) / 10
    assert [plan["picture_tokens_per_example"] for plan in plans] == [pytest.approx(per_row, abs=0.05), 0]
    assert plans[0]["positions_per_example"] - plans[1]["positions_per_example"] == pytest.approx(per_row, abs=0.1)
    assert plans[0]["train_memory"]["activations"] > plans[1]["train_memory"]["activations"]
    assert plans[0]["flops_per_example"]["language_model"] > plans[1]["flops_per_example"]["language_model"]
    assert "eyes" not in plans[1]["workload"]


def test_a_plan_asks_no_hub_for_eyes(eyes: Graft, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiograft.model.checkpoint.check_hub", lambda name: pytest.fail("the hub was asked"))
    found = find_eyes(eyes[0].config, {"language_model": "someone/not-in-the-cache"})
    assert found is not None
    assert found.processor is None


def test_a_plan_says_what_it_does_not_count(scene_recipe: Recipe, eyes: Graft, scenes: Path, clips: Path, tmp_path: Path) -> None:
    anatomy = count(eyes[0].config, scene_recipe, True)
    (tmp_path / "lm").mkdir()
    eyes[0].config.text_config.save_pretrained(tmp_path / "lm")  # its dimensions, and no processor
    without = find_eyes(eyes[0].config, {"language_model": str(tmp_path / "lm")})
    blurred = read(anatomy, scene_recipe, [(str(scenes), 1.0)], without)
    assert f"; the images of 10 rows are not counted (the image processor of {tmp_path / 'lm'} is not here" in blurred.source
    assert {example.picture_tokens for example in blurred.examples} == {0}
    assert "images" not in read(anatomy, scene_recipe, [(str(clips), 1.0)], without).source
    with scenes.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"id": "moving", "video": "0.mp4", "prompt": "what", "response": "two"}) + "\n")
    assert "; the videos of 1 rows are not counted" in read(anatomy, scene_recipe, [(str(scenes), 1.0)], without).source


def test_a_plan_leaves_out_what_a_run_leaves_out(scene_recipe: Recipe, eyes: Graft, seeing: Path, scenes: Path, graft: Any) -> None:
    anatomy = count(eyes[0].config, scene_recipe, True)
    scenes.with_name("1.png").unlink()
    builders.picture(9, 300, 1).save(scenes.with_name("2.png"))  # too narrow for the processor
    _, rejected = index_rows(read_samples([str(scenes)]), eyes[1])
    assert read(anatomy, scene_recipe, [(str(scenes), 1.0)], find_eyes(eyes[0].config, {"model": str(seeing)})).n_left_out == len(rejected) == 3
    assert find_eyes(graft[0].config, {"model": "blind"}) is None
    with pytest.raises(DataError, match="no row can be trained on"):
        read(anatomy, scene_recipe, [(str(scenes), 1.0)], None)


def test_a_run_names_missing_pictures_and_stops_where_they_are_too_many(
    scene_recipe: Recipe, scenes: Path, run_quietly: Callable[..., dict[str, Any]]
) -> None:
    scenes.with_name("1.png").unlink()
    with pytest.raises(DataError, match=r"2 of 10 rows can't be used.*1\.png"):
        run_quietly(scene_recipe, data=replace(scene_recipe.data, max_rejected=0.1))
    with scenes.open("a") as file:
        file.write(json.dumps({"id": "more", "audio": "1.wav", "text": "two"}) + "\n")
    result = run_quietly(scene_recipe, data=replace(scene_recipe.data, max_rejected=0.5))
    assert result["rows"] == {"train": 9, "validation": 0, "rejected": 2, "lost": 0}
    named = [json.loads(line) for line in Path(scene_recipe.output_dir, "rejected.jsonl").read_text().splitlines()]
    assert [(row["id"], row["kind"]) for row in named] == [("clip-1", "missing"), ("seen-1", "missing")]


@pytest.mark.parametrize("with_response", [False, True])
def test_the_teacher_of_a_run_sees_what_the_student_sees(
    scene_recipe: Recipe, scenes: Path, run_quietly: Callable[..., dict[str, Any]], with_response: bool
) -> None:
    rows = [json.loads(line) for line in scenes.read_text().splitlines()]
    for row in rows:
        if "audio" in row and not with_response:
            del row["response"]
    write(scenes.parent, rows)
    result = run_quietly(scene_recipe, loss="kl", tokens_per_batch=400)
    assert len(logged(result)) == 6
    assert np.isfinite(logged(result)).all()
    kept = Path(scene_recipe.output_dir, "responses.jsonl")
    asked = kept.read_text().splitlines() if kept.is_file() else []
    assert len(asked) == (0 if with_response else 8)
