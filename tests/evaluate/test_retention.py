"""`evaluate --retention`: what a model still knows of what it knew before grafting, told by the model before grafting."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from audiograft.cli import main
from audiograft.data.manifest import read_manifest, write_manifest
from audiograft.evaluate.folder import RunFolder
from audiograft.evaluate.predictions import read_predictions
from audiograft.evaluate.retention import retain
from audiograft.evaluate.retention_figures import retention_figures
from audiograft.images import load_image
from audiograft.messages import conversation
from audiograft.metrics.intervals import wilson
from audiograft.model import graft, load_graft, load_model
from audiograft.model.adapters import save_adapter
from audiograft.model.checkpoint import save_graft
from audiograft.model.gating import gate_lora
from audiograft.model.lora import LoraSettings, inject_lora, lora_modules
from audiograft.model.merge import merge_adapter
from audiograft.model.outputs import IGNORE_INDEX
from audiograft.types import ConfigError, DataError

Retained = Callable[..., dict[str, Any]]
N_ROWS, N_TEXT, N_IMAGES = 9, 3, 6


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VLM in `lm`, grafted in `graft`, with adapters `gated` and `always` on it, the latter merged in `merged`; and a text model in `text`."""
    folder = tmp_path_factory.mktemp("retention")
    builders.vlm_graft(folder, initializer_range=0.3)
    for name in ("gated", "always"):
        model, processor = load_model(folder / "graft")
        model.requires_grad_(False)
        names = [name for name, module in model.named_modules() if name.startswith("language_model.model.language") and isinstance(module, nn.Linear)]
        inject_lora(model, names, LoraSettings(4, 8.0))
        torch.manual_seed(5)
        for layer in lora_modules(model).values():
            layer.lora_B["default"].weight.data.normal_(std=0.3)
        model.projector.requires_grad_(True)
        if name == "gated":
            gate_lora(model)
        save_adapter(model, processor, folder / name, {"model": str(folder / "graft")}, recipe={}, provenance={})
    merge_adapter(folder / "always", folder / "merged")
    builders.lm_checkpoint(folder / "text")
    graft(folder / "whisper", folder / "text", folder / "text-graft")
    for number in range(3):
        builders.picture(60 * number + 40, 56 + 28 * (number % 2)).save(folder / f"{number}.png")
    rows: list[dict[str, Any]] = [
        {"id": f"seen-{n}", "image": f"{n // 2}.png", "prompt": f"which {['one', 'two'][n % 2]}?", "response": "hello world", "question": "colour"}
        for n in range(N_IMAGES)
    ]
    rows += [{"id": f"read-{n}", "prompt": f"say {'hello ' * n}", "response": "three " * (n + 1), "question": "count"} for n in range(N_TEXT)]
    rows.append({"id": "heard", "audio": "never-opened.wav", "text": "hello"})
    write_manifest(folder / "manifest.jsonl", rows)
    write_manifest(folder / "text.jsonl", rows[N_IMAGES:])
    return folder


@pytest.fixture
def retained(models: Path, tmp_path: Path) -> Retained:
    """Holds a model of `models` against another one."""

    def retained(model: str, base: str = "lm", manifest: str = "manifest.jsonl", out: str = "out", **options: Any) -> dict[str, Any]:
        return retain(str(models / model), str(models / base), models / manifest, tmp_path / out, **options)

    return retained


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("model", ["graft", "gated"])
def test_after_grafting_and_with_a_gate_nothing_changes(retained: Retained, model: str, tmp_path: Path) -> None:
    seen: list[int] = []
    found = retained(model, batch_size=4, on_row=lambda: seen.append(1))
    every = found["all"]
    assert (every["rows"], every["bit_equal"], found["left_out"], found["failed"]) == (N_ROWS, N_ROWS, 1, [])
    assert (found["kinds"]["text"]["rows"], found["kinds"]["image"]["rows"]) == (N_TEXT, N_IMAGES)
    assert (every["kl"]["mean"], every["kl"]["largest"], every["kl"]["interval"]["low"]) == (0.0, 0.0, None)
    assert every["top1"]["rate"] == every["same_answers"]["rate"] == 1.0
    # Three tokens more than words, an end of turn with them: as many as the distributions that were compared.
    assert every["tokens"] == every["top1"]["of"] == sum(len(row["kl"]) for row in read(tmp_path / "out/predictions.jsonl"))
    assert found["prompts_differ"]["rows"] == 0
    assert found["lora"] == {"graft": None, "gated": "audio"}[model]
    assert len(seen) == 2 * N_ROWS
    page = (tmp_path / "out/report.md").read_text()
    assert "nothing changed: the logits of each of 9 rows are bit-equal" in page
    # Its own answers differ, so that equal answers are no accident.
    assert len({row["hypothesis"] for row in read(tmp_path / "out/predictions.jsonl")}) > 2


def test_a_gate_that_is_given_up_is_seen(retained: Retained) -> None:
    always, merged = retained("always", out="always"), retained("merged", out="merged")
    for found in (always, merged):
        assert found["all"]["bit_equal"] == 0
        assert found["all"]["kl"]["interval"]["low"] > 0
        assert found["all"]["same_answers"]["rate"] < 1
    assert (always["lora"], merged["lora"]) == ("always", None)
    assert merged["all"]["kl"]["mean"] == pytest.approx(always["all"]["kl"]["mean"], rel=1e-4)
    # Against the graft before it was finetuned it is the same, since that is the language model bit for bit.
    assert retained("merged", "graft", out="graft")["all"]["kl"] == merged["all"]["kl"]


def test_the_divergence_is_that_of_arithmetic_by_hand(models: Path, retained: Retained, tmp_path: Path) -> None:
    """With stock transformers for the base, row by row, and the formula as it is written in books."""
    model, processor = load_graft(models / "graft")
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.language_model.model.language_model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    save_graft(model, processor, tmp_path / "changed")
    found = retained(str(tmp_path / "changed"), batch_size=4)
    base = AutoModelForImageTextToText.from_pretrained(models / "lm").eval()
    rows = {row["id"]: row for row in read(tmp_path / "out/predictions.jsonl")}
    samples = [sample for sample in read_manifest(models / "manifest.jsonl") if not sample.clips]
    largest = []
    for sample in samples:
        row = processor.training_inputs(conversation(sample), sample.response or "", [], images=[load_image(path) for path in sample.images])
        batch = processor.collate([row], [], "right")
        labels = batch.pop("labels")[0]
        at = (labels != IGNORE_INDEX).nonzero().flatten() - 1
        with torch.no_grad():
            p, q = (network(**batch).logits[0, at].double().softmax(-1) for network in (base, model.language_model))
        wanted = (p * (p / q).log()).sum(-1)
        kept = rows[sample.id]
        assert kept["kl"] == pytest.approx(wanted.tolist(), rel=1e-3)
        assert kept["top1"] == (p.argmax(-1) == q.argmax(-1)).tolist()
        assert not kept["equal"]
        largest.append((max(kept["kl"]), sample.id))
    kl = found["all"]["kl"]
    assert (kl["largest"], kl["largest_in"]) == max(largest)
    assert kl["mean"] == pytest.approx(sum(sum(row["kl"]) for row in rows.values()) / found["all"]["tokens"])
    assert kl["interval"]["low"] < kl["mean"] < kl["interval"]["high"]


def test_figures_do_not_depend_on_the_batch(retained: Retained, tmp_path: Path) -> None:
    alone, together = (retained("merged", batch_size=size, out=str(size)) for size in (1, 8))
    rows = [{row["id"]: row for row in read(tmp_path / size / "predictions.jsonl")} for size in ("1", "8")]
    for id_, row in rows[0].items():
        other = rows[1][id_]
        assert other["kl"] == pytest.approx(row["kl"], rel=1e-3, abs=1e-7)
        assert {key: row[key] for key in ("hypothesis", "base_hypothesis", "top1", "equal")} == {
            key: other[key] for key in ("hypothesis", "base_hypothesis", "top1", "equal")
        }
    for kind in ("text", "image"):
        assert alone["kinds"][kind]["accuracy"] == together["kinds"][kind]["accuracy"]
        assert alone["kinds"][kind]["top1"] == together["kinds"][kind]["top1"]


def test_every_figure_comes_from_the_predictions(retained: Retained, models: Path, tmp_path: Path) -> None:
    found = retained("merged", slice_by=["question"])
    again = retention_figures(tmp_path / "out", ["question"])
    assert json.loads(json.dumps(again)) == {key: json.loads((tmp_path / "out/retention.json").read_text())[key] for key in again}
    assert {value: part["rows"] for value, part in found["slices"]["question"].items()} == {"colour": N_IMAGES, "count": N_TEXT}
    # For all other tools they are answers.
    predictions = {row.id: row for row in read_predictions(tmp_path / "out")}
    assert (predictions["seen-1"].task, predictions["seen-1"].images, predictions["seen-1"].question) == ("answer", ("0.png",), "colour")
    # What the base wrote, as the right answers: where it came to an end, it is right now.
    rows = [row for row in read(models / "manifest.jsonl") if row["id"] != "heard"]
    written = {row["id"]: row["base_hypothesis"] for row in read(tmp_path / "out/predictions.jsonl")}
    write_manifest(models / "answered.jsonl", [row | {"response": written[row["id"]]} for row in rows])
    accuracy = retained("merged", manifest="answered.jsonl", out="answered")["all"]["accuracy"]
    kept = read(tmp_path / "answered/predictions.jsonl")
    before, now = ([row["reference"] == row[key] for row in kept] for key in ("base_hypothesis", "hypothesis"))
    assert any(before)
    assert before != now
    assert (accuracy["base"]["count"], accuracy["model"]["count"]) == (sum(before), sum(now))
    assert accuracy["difference"] == pytest.approx((sum(now) - sum(before)) / N_ROWS)


def row(id_: str, reference: str, before: str, now: str, kl: list[float], **more: Any) -> dict[str, Any]:
    agreement = {"top1": [value < 1 for value in kl], "equal": not any(kl), "same_prompt": True}
    return {"id": id_, "kind": "text", "reference": reference, "hypothesis": now, "base_hypothesis": before, "kl": kl, **agreement, **more}


def test_figures_of_rows_that_are_known(tmp_path: Path) -> None:
    rows = [
        row("a", "red", "Red.", "a red", [0.0, 0.0]),
        row("b", "red", "red", "blue", [1.5, 0.1], kind="image", images=["1.png"]),
        row("c", "two", "three", "two", [0.2], kind="image", images=["2.png"]),
        row("d", "two", "two", "two", [0.0], kind="image", images=["3.png"], same_prompt=False),
        {"id": "e", "kind": "image", "reference": "x", "hypothesis": "", "error": "3.png: damaged"},
    ]
    write_manifest(tmp_path / "predictions.jsonl", rows)
    found = retention_figures(tmp_path)
    every = found["all"]
    # Case, punctuation and articles are no error; but the answers are not the same ones.
    assert (every["accuracy"]["base"]["count"], every["accuracy"]["model"]["count"], every["same_answers"]["count"]) == (3, 3, 1)
    assert (every["accuracy"]["mcnemar"]["only_a"], every["accuracy"]["mcnemar"]["only_b"], every["accuracy"]["difference"]) == (1, 1, 0)
    assert every["kl"]["mean"] == pytest.approx(1.8 / 6)
    assert (every["kl"]["largest"], every["kl"]["largest_in"], every["top1"]["count"], every["top1"]["of"]) == (1.5, "b", 5, 6)
    # With another prompt nothing counts as equal.
    assert (every["bit_equal"], found["prompts_differ"]) == (1, {"rows": 1, "ids": ["d"]})
    assert found["failed"] == [{"id": "e", "error": "3.png: damaged"}]
    ends = wilson(3, 4)
    interval = every["accuracy"]["model"]["interval"]
    assert (interval["low"], interval["high"], interval["method"]) == (ends.low, ends.high, "wilson")
    assert list(found["kinds"]) == ["text", "image"]


def test_questions_about_one_picture_are_one_cluster(tmp_path: Path) -> None:
    pictures = [f"{n}.png" for n in range(20)]
    rows = [
        row(f"{picture}-{k}", "red", "red", "red" if n % 3 else "blue", [0.3 * (n % 3 == 0) + 0.01] * 2, kind="image", images=[picture])
        for n, picture in enumerate(pictures)
        for k in range(4)
    ]
    write_manifest(tmp_path / "predictions.jsonl", rows)
    every = retention_figures(tmp_path)["all"]
    for interval in (every["accuracy"]["model"]["interval"], every["accuracy"]["interval"], every["kl"]["interval"], every["top1"]["interval"]):
        assert interval["clusters"] == 20
    assert every["accuracy"]["interval"]["low"] < every["accuracy"]["difference"] < every["accuracy"]["interval"]["high"] < 0


def test_a_text_model_is_held_against_itself(retained: Retained) -> None:
    found = retained("text-graft", "text", "text.jsonl")
    assert (list(found["kinds"]), found["all"]["bit_equal"], found["all"]["rows"]) == (["text"], N_TEXT, N_TEXT)


def test_prompts_that_differ_are_told(models: Path, retained: Retained, tmp_path: Path) -> None:
    """The same weights with another chat template: what the model is fed in use is something else."""
    other = tmp_path / "other"
    builders.lm_checkpoint(other)
    tokenizer = builders.tokenizer(builders.CHATML.replace("assistant", "model"))
    tokenizer.save_pretrained(other)
    found = retain(str(models / "text-graft"), str(other), models / "text.jsonl", tmp_path / "out")
    assert found["prompts_differ"] == {"rows": N_TEXT, "ids": ["read-0", "read-1", "read-2"]}
    assert (found["all"]["bit_equal"], found["all"]["kl"]["largest"]) == (0, 0.0)
    assert "own processors write 3 of 3 rows differently" in (tmp_path / "out/report.md").read_text()


def test_a_broken_picture_fails_alone(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row for row in read(models / "manifest.jsonl") if row["id"] != "heard"]
    for row_ in rows:
        if "image" in row_:
            (tmp_path / row_["image"]).write_bytes((models / row_["image"]).read_bytes())
    (tmp_path / "2.png").write_bytes(b"no picture")
    write_manifest(tmp_path / "manifest.jsonl", rows)
    arguments = ["--model", str(models / "graft"), "--retention", str(models / "lm"), "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["evaluate", *arguments, "--json"]) == 1
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert [row["id"] for row in found["failed"]] == ["seen-4", "seen-5"]
    assert (found["all"]["rows"], found["all"]["bit_equal"]) == (N_ROWS - 2, N_ROWS - 2)
    assert [line for line in told.err.splitlines() if line.startswith("error: ")] == [f"error: {found['failed'][0]['error']}"] * 2
    assert "2.png" in found["failed"][0]["error"]
    # Repeated, it says the same; the row is tried again where the folder is given up.
    (tmp_path / "2.png").write_bytes((models / "2.png").read_bytes())
    assert main(["evaluate", *arguments]) == 1
    assert "failed: 2 rows, tried again with --overwrite" in " ".join(capsys.readouterr().out.split())
    assert main(["evaluate", *arguments, "--overwrite"]) == 0


def test_a_row_that_is_too_long_for_the_base_alone_fails_alone(models: Path, retained: Retained) -> None:
    short = models / "short"
    shutil.copytree(models / "lm", short)
    config = json.loads((short / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 32
    (short / "config.json").write_text(json.dumps(config))
    seen: list[int] = []
    found = retained("graft", "short", "text.jsonl", on_row=lambda: seen.append(1))
    assert [row["id"] for row in found["failed"]] == ["read-2"]
    assert found["all"]["bit_equal"] == found["all"]["rows"] == N_TEXT - 1
    assert len(seen) == 2 * N_TEXT


@pytest.mark.parametrize(
    ("model", "base", "manifest", "message"),
    [
        ("text-graft", "text", "manifest.jsonl", r"row 'seen-0' has images, and .*text has no eyes: leave such rows out"),
        ("graft", "text", "text.jsonl", r"text has another vocabulary: its token .* is .* in .*graft: name the model that it was grafted onto"),
        ("graft", "whisper", "text.jsonl", r"whisper"),
        ("lm", "lm", "text.jsonl", r"lm is a qwen2_vl model without a graft"),
        ("graft", "nowhere", "text.jsonl", r"nowhere"),
    ],
)
def test_models_that_do_not_fit_are_one_line(retained: Retained, model: str, base: str, manifest: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        retained(model, base, manifest)
    assert "\n" not in str(error.value)


def test_a_base_of_another_width_is_one_line(models: Path, tmp_path: Path) -> None:
    """Sizes of one family share a tokenizer, and not the number of their rows."""
    builders.language_model(vocab_size=builders.VOCABULARY_ROWS + 8).save_pretrained(tmp_path / "wide")
    builders.tokenizer().save_pretrained(tmp_path / "wide")
    with pytest.raises(ConfigError, match=r"another vocabulary: 428 rows, and .*text-graft has 420"):
        retain(str(models / "text-graft"), str(tmp_path / "wide"), models / "text.jsonl", tmp_path / "out")


@pytest.mark.parametrize("place", ["model", "base"])
def test_a_stock_audio_model_is_refused(models: Path, tmp_path: Path, place: str) -> None:
    stock = str(builders.stock_checkpoint(tmp_path / "stock", "qwen2_audio"))
    names = {"model": str(models / "text-graft"), "base": str(models / "text"), place: stock}
    with pytest.raises(ConfigError, match="stock is a stock audio model, which was never without ears"):
        retain(names["model"], names["base"], models / "text.jsonl", tmp_path / "out")


def test_rows_that_can_t_be_held_against_a_base_are_one_line(models: Path, retained: Retained, tmp_path: Path) -> None:
    write_manifest(models / "heard.jsonl", [{"id": "heard", "audio": "never-opened.wav", "text": "hello"}])
    with pytest.raises(DataError, match="each row has audio, which the model before grafting can't hear"):
        retained("graft", manifest="heard.jsonl")
    with pytest.raises(DataError, match="has the key 'size': take it out of --slice-by"):
        retained("graft", slice_by=["size"])
    write_manifest(models / "long.jsonl", [{"id": "long", "prompt": "one " * 40_000, "response": "two"}])
    with pytest.raises(DataError, match=r"every row failed, the first one with: row long: prompt and reference take \d+ positions"):
        retained("graft", manifest="long.jsonl")
    assert not list(tmp_path.glob("out/incomplete*"))


@pytest.mark.parametrize("option", [["--normaliser", "none"], ["--audio", "none"], ["--deafness-clips", "0"], ["--prompt", "say"]])
def test_options_that_would_do_nothing_are_refused(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str]) -> None:
    arguments = ["--model", str(models / "graft"), "--retention", str(models / "lm"), "--data", str(models), "--out", str(tmp_path / "out")]
    assert main(["evaluate", *arguments, *option]) == 2
    assert f"{option[0]} does nothing with --retention" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_the_tables_are_printed(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", str(models / "merged"), "--retention", str(models / "lm"), "--data", str(models), "--out", str(tmp_path / "out")]
    assert main(["evaluate", *arguments, "--slice-by", "question"]) == 0
    told = capsys.readouterr().out
    for text in (
        "right before",
        "KL, mean",
        "bit-equal rows",
        "colour",
        "the logits of 9 of 9 rows are not those of",
        "1 row with audio",
        "report.html",
    ):
        assert text in told
    page = (tmp_path / "out/report.html").read_text()
    assert "What changed most" in page
    assert f"--retention {models / 'lm'}" in (tmp_path / "out/report.md").read_text()


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, no model can be opened."""

    def refuse(*arguments: Any) -> Any:
        raise AssertionError(f"{arguments} was opened")

    def blind() -> None:
        for name in ("open_base", "open_base_processor", "open_listener", "open_listener_processor"):
            monkeypatch.setattr(f"audiograft.evaluate.retention.{name}", refuse)

    return blind


def test_repeated_it_is_scored_again_without_a_model(retained: Retained, tmp_path: Path, blind: Callable[[], None]) -> None:
    found = retained("merged")
    kept = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    (tmp_path / "out/report.md").unlink()
    blind()
    seen: list[int] = []
    assert retained("merged", on_row=lambda: seen.append(1)) == json.loads(json.dumps(found))
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == kept
    assert len(seen) == 2 * N_ROWS
    assert list(retained("merged", slice_by=["question"])["slices"]["question"]) == ["colour", "count"]
    for changes, differs in (
        ({"model": "always"}, "model"),
        ({"model": "merged", "base": "graft"}, "base"),
        ({"model": "merged", "manifest": "text.jsonl"}, "manifest sha256"),
        ({"model": "merged", "batch_size": 1}, "batch size"),
    ):
        with pytest.raises(DataError, match=rf"out: holds another run \(its {differs} differs\): choose another --out, or give it up with --over"):
            retained(**changes)


def test_a_report_leaves_a_retention_run_one(
    retained: Retained, tmp_path: Path, blind: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    retained("merged", slice_by=["question"])
    kept = {file.name: file.read_bytes() for file in out.iterdir()}
    (out / "report.md").write_text("lost")
    blind()
    assert main(["report", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(out / name) for name in ("retention.json", "report.md", "report.html")]
    assert {file.name: file.read_bytes() for file in out.iterdir()} == kept
    assert main(["report", str(out), "--slice-by", "kind"]) == 0
    assert list(json.loads((out / "retention.json").read_text())["slices"]) == ["question", "kind"]
    capsys.readouterr()
    assert main(["report", str(out), "--normaliser", "none"]) == 2
    assert capsys.readouterr().err == f"error: {out}: a run of evaluate --retention, on which --normaliser does nothing: leave it out\n"
    for content in ("[]", "{", "{}"):
        (out / "retention.json").write_text(content)
        assert main(["report", str(out)]) == 2
        assert capsys.readouterr().err.count("evaluate again, with --overwrite\n") == 1


def test_figures_of_runs_of_two_kinds_never_lie_together(retained: Retained, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_manifest(out / "predictions.jsonl", [{"id": "a", "reference": "one", "hypothesis": "one"}])
    (out / "metrics.json").write_text("{}")
    with pytest.raises(DataError, match="out: holds a run: choose another --out"):
        retained("graft")
    (out / "verdicts.jsonl").touch()
    with pytest.raises(DataError, match="holds verdicts about the predictions that would be replaced"):
        retained("graft", overwrite=True)
    (out / "verdicts.jsonl").unlink()
    retained("graft", overwrite=True)
    assert sorted(file.name for file in out.iterdir()) == ["predictions.jsonl", "report.html", "report.md", "retention.json", "run.json"]
    RunFolder(out, {}, overwrite=True).start()
    assert not (out / "retention.json").exists()
