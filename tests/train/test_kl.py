"""`loss: kl`: the language model that reads teaches the one that hears."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
from rich.console import Console

from audiograft.inference.decoding import Written
from audiograft.model import assemble
from audiograft.model.lora import lora_modules, lora_parameters
from audiograft.train.kl import RESPONSES, DistillationCollator, DistillationDataset, distillation_loss, readable, taught, with_responses
from audiograft.train.recipe import DataRecipe, LoraRecipe
from audiograft.train.rows import index_rows, read_samples
from audiograft.train.run import train
from audiograft.train.stages import prepare_stage
from audiograft.types import AudiograftError, DataError


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> Path:
    manifest = builders.write_clips(folder, [builders.tone(0.3, 200 + 100 * number) for number in range(len(rows))], ["one"] * len(rows))
    made = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps({key: value for key, value in (row | changes).items() if value is not None}) for row, changes in zip(made, rows, strict=True)]
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest


@pytest.fixture
def kl(recipe):
    return replace(recipe, loss="kl", learning_rate=1e-2, tokens_per_batch=400, max_steps=20, save_steps=100)


def losses(result: dict[str, Any]) -> list[float]:
    return [line["loss"] for line in result["log"] if "loss" in line]


def batch_of(processor, manifest: Path) -> dict[str, Any]:
    rows, rejected = index_rows(read_samples([str(manifest)]), processor)
    assert not rejected
    dataset = DistillationDataset(rows, processor)
    batch = DistillationCollator(processor)([dataset[index] for index in range(len(rows))])
    del batch["ids"], batch["audio_s"]
    return batch


def test_the_loss_is_that_of_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(3, 5, generator=generator), torch.randn(3, 5, generator=generator)
    p, q = (teacher / 2).softmax(-1), (student / 2).softmax(-1)
    torch.testing.assert_close(distillation_loss(student, teacher, 2.0), 4 * (p * (p / q).log()).sum())
    assert distillation_loss(teacher, teacher, 2.0).abs() < 1e-6


def test_the_teacher_reads_the_transcript_where_the_clip_is(tmp_path: Path) -> None:
    manifest = write_rows(
        tmp_path,
        [
            {"text": "hello world", "prompt": "Repeat."},
            {"text": "hello world", "prompt": "What is <audio></audio> in French?"},
            {"audio": None, "text": None, "prompt": "Two?", "response": "2"},
        ],
    )
    contents = [readable(sample)[0]["content"] for sample in read_samples([str(manifest)])]
    assert contents == ["hello world\nRepeat.", "What is hello world in French?", "Two?"]


def test_a_row_that_both_read_has_no_loss_and_one_that_is_heard_has(tmp_path: Path) -> None:
    _, processor = builders.graft()
    # Larger weights than usual, so that what is read makes a difference.
    model = assemble(builders.audio_tower(), builders.language_model(initializer_range=0.3), processor)
    read = batch_of(processor, write_rows(tmp_path / "read", [{"audio": None, "text": None, "prompt": "Two?", "response": "2"}]))
    heard = batch_of(processor, write_rows(tmp_path / "heard", [{"text": "hello", "response": "hello world"}]))
    assert taught(model, model, read, 2.0)(**read).loss.abs() < 1e-6
    assert taught(model, model, heard, 2.0)(**heard).loss > 1e-2


def test_the_teacher_has_no_adapters_and_gets_no_gradients(recipe, tmp_path: Path) -> None:
    model, processor = builders.graft()
    batch = batch_of(processor, write_rows(tmp_path, [{"text": "hello", "response": "hello world"}, {"text": "one", "response": "one two"}]))
    prepare_stage(model, replace(recipe, stage="finetune", lora=LoraRecipe(rank=4, dropout=0.5)))
    seen: list[dict[str, Any]] = []
    forward = type(model).forward

    def spy(self, *args: Any, **kwargs: Any) -> Any:
        adapters = [layer.disable_adapters for layer in lora_modules(self).values()]
        seen.append({"audio": "input_features" in kwargs, "off": all(adapters), "on": not any(adapters), "grad": torch.is_grad_enabled(),
                     "training": self.training})  # fmt: skip
        return forward(self, *args, **kwargs)

    model.train()
    model.audio_tower.eval()
    type(model).forward = spy
    try:
        output = taught(model, model, batch, 2.0)(**batch)
    finally:
        type(model).forward = forward
    assert seen == [
        {"audio": False, "off": True, "on": False, "grad": False, "training": False},
        {"audio": True, "off": False, "on": True, "grad": True, "training": True},
    ]
    assert model.language_model.training
    assert not model.audio_tower.training
    output.loss.backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in lora_parameters(model))


def test_the_teacher_is_the_model_from_before_the_adapters(recipe, tmp_path: Path) -> None:
    model, processor = builders.graft()
    manifest = write_rows(tmp_path, [{"text": "hello", "response": "hello world"}])
    prepare_stage(model, replace(recipe, stage="finetune", lora=LoraRecipe(rank=4)))
    for parameter in lora_parameters(model):
        torch.nn.init.normal_(parameter, std=0.5)
    # Without audio, the student is the teacher but for its adapters.
    read = write_rows(tmp_path / "read", [{"audio": None, "text": None, "prompt": "Two?", "response": "2"}])
    batch = batch_of(processor, read)
    assert taught(model, model, batch, 2.0)(**batch).loss > 1e-3
    plain, _ = builders.graft()
    batch = batch_of(processor, manifest)
    text = {name.removeprefix("teacher_"): tensor for name, tensor in batch.items() if name.startswith("teacher_")}
    loss = taught(model, model, batch, 2.0)(**batch).loss
    with torch.no_grad():
        expected = distillation_loss(model(**batch).logits, plain(**text).logits, 2.0) / (batch["labels"] != -100).sum()
    torch.testing.assert_close(loss.detach(), expected)


def test_rows_without_a_response_get_the_teachers_own(kl, clips: Path) -> None:
    page = io.StringIO()
    result = train(kl, console=Console(file=page, width=200))
    assert "the teacher answers 8 rows that have no response" in page.getvalue()
    assert losses(result)[-1] < 0.8 * losses(result)[0]
    lines = [json.loads(line) for line in (Path(kl.output_dir) / RESPONSES).read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 8
    # The same rows again are not asked again.
    again = train(replace(kl, max_steps=20), console=Console(quiet=True))
    assert losses(again) == losses(result)
    # Their answers are part of what a checkpoint belongs to.
    path = Path(kl.output_dir) / RESPONSES
    path.write_text("".join(json.dumps(line | {"response": "eight"}) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(AudiograftError, match="belongs to a run with responses_sha256"):
        train(kl, console=Console(quiet=True))


def test_answers_are_appended_and_half_a_line_is_asked_again(kl, clips: Path, tmp_path: Path, monkeypatch) -> None:
    model, processor = builders.graft()
    rows, _ = index_rows(read_samples([str(clips)]), processor)
    asked: list[int] = []

    def answer(model: Any, processor: Any, requests: Any, **options: Any) -> list[Written]:
        asked.append(len(requests))
        return [Written("zwölf\u2028", None) for _ in requests]

    monkeypatch.setattr("audiograft.train.kl.write_answers", answer)
    monkeypatch.setattr("audiograft.train.kl._BATCH_ROWS", 3)
    path = tmp_path / RESPONSES

    def respond(teacher: str = "a") -> list[str | None]:
        return [row.sample.response for row in with_responses(model, processor, rows, tmp_path, teacher, write=True)]

    assert respond() == ["zwölf\u2028"] * 8
    assert asked == [3, 3, 2]
    before = path.read_bytes()
    inode = path.stat().st_ino
    # Killed in the middle of a letter.
    path.write_bytes(before[: before.rindex("ö".encode()) + 1])
    assert respond() == ["zwölf\u2028"] * 8
    assert asked == [3, 3, 2, 1]
    assert path.read_bytes() == before
    respond("b")
    assert asked == [3, 3, 2, 1, 3, 3, 2]
    # Nothing was written anew: what was there still is, in the same file.
    assert path.read_bytes().startswith(before)
    assert path.stat().st_ino == inode


@pytest.mark.parametrize("line", ["{", "3", "{}", "\udcff"])
def test_damaged_answers_are_one_line(kl, run_quietly: Callable[..., dict[str, Any]], line: str) -> None:
    path = Path(kl.output_dir) / RESPONSES
    path.parent.mkdir()
    path.write_bytes(b'{"teacher": "a", "row": "b", "response": "c"}\n' + line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(DataError, match=r"responses\.jsonl: line 2 is damaged: delete the file") as caught:
        run_quietly(kl)
    assert "\n" not in str(caught.value)


def test_lora_learns_from_the_teacher_too(kl, run_quietly: Callable[..., dict[str, Any]]) -> None:
    result = run_quietly(kl, stage="finetune", lora=LoraRecipe(rank=4), gradient_checkpointing=True, save="adapter")
    assert losses(result)[-1] < 0.8 * losses(result)[0]


def test_rows_that_teach_nothing_are_named(kl, run_quietly: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    useful = [{"text": "one", "response": "two"}] * 8
    manifest = write_rows(tmp_path, [*useful, {"text": None, "response": "two"}, {"audio": ["0.wav", "1.wav"], "response": "two"}])
    result = run_quietly(kl, data=DataRecipe((str(manifest),)), max_steps=1)
    assert result["rows"] == {"train": 8, "validation": 0, "rejected": 2, "lost": 0}
    rejected = [json.loads(line) for line in (Path(kl.output_dir) / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["reason"] for row in rejected] == [
        "loss: kl needs what is said for the teacher to read: add text to the row",
        "loss: kl puts one transcript in the place of one clip, and the row has several",
    ]
    manifest = write_rows(tmp_path / "none", [{"text": None, "response": "two"}])
    with pytest.raises(DataError, match="no usable clip; the first of 1: .*loss: kl needs what is said"):
        run_quietly(kl, data=DataRecipe((str(manifest),)), output_dir=f"{kl.output_dir}-none")
