"""The model card: every figure with its file, nothing that no file says, metadata that the hub's own parser reads."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from audiograft.cli import VERBS
from audiograft.model.card import CardOptions, build_card, is_ours, sign
from audiograft.model.records import Evaluation, read_evaluation
from audiograft.types import ConfigError

REPO = "anna/listener-3b"
CONFIG = {
    "model_type": "audiograft",
    "projector_type": "swiglu",
    "frame_stack": 4,
    "pad_to_window": False,
    "note": "Hears short sentences.\nNothing else.",
    "audio_config": {"_name_or_path": "openai/whisper-small"},
    "text_config": {"_name_or_path": "/home/anna/models/qwen"},
}
DEAFNESS = {
    "conditions": [
        {"audio": "true", "loss": 0.25, "wer": 0.05},
        {"audio": "shuffled", "loss": 2.5, "wer": 1.25},
        {"audio": "silence", "loss": 2.0, "wer": 1.0},
    ],
    "p_value": 1e-4,
    "clips": 90,
    "source": "validation",
    "deaf": False,
}
FIGURE = re.compile(r"\d+(?:\.\d+)? %")


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def manifest(path: Path, text: str) -> Path:
    write(path / "manifest.jsonl", {"id": text, "audio": "1.wav", "text": text})
    return path


def evaluation(run: Path, model: Path | str, data: Path) -> Path:
    """A run folder as `audiograft evaluate` leaves it."""
    interval = {"low": 0.081, "high": 0.192, "confidence": 0.95, "method": "cluster bootstrap", "clusters": 7}
    normaliser = {"name": "whisper-english", "version": "0.1.15"}
    failed = [{"id": "9", "error": "9.wav: empty"}]
    write(run / "metrics.json", {"wer": {"rate": 0.1234, "interval": interval}, "n_clips": 321, "failed": failed, "normaliser": normaliser})
    path = data / "manifest.jsonl"
    about = {"model": str(model), "manifest": str(path), "manifest_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    write(run / "run.json", {**about, "prompt": "Transcribe | this.", "date": "2030-01-01T00:00:00+00:00"})
    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A trained model: finetune, which started from align, each with data of its own."""
    data = {name: str(manifest(tmp_path / name, name)) for name in ("a-train", "a-dev", "f-train", "f-dev")}
    align, finetune = tmp_path / "align", tmp_path / "finetune"
    write(align / "train.json", {"recipe": {"stage": "align", "model": None, "data": {"train": [data["a-train"]], "validation": data["a-dev"]}}})
    recipe = {
        "stage": "finetune",
        "model": str(align),
        "output_dir": str(finetune),
        "data": {"train": [data["f-train"]], "validation": data["f-dev"]},
        "graft": {"audio_encoder": "/home/anna/models/whisper", "language_model": "Qwen/Qwen3-1.7B"},
        "learning_rate": 2e-4,
        "lora": {"rank": 64},
    }
    record = {
        "recipe": recipe,
        "deafness": DEAFNESS,
        "steps": 1332,
        "rows": {"train": 36000},
        "parameters": {"trainable": 894080},
        "wall_time_s": 4644.7,
        "data_fingerprint": "fee1",
        "versions": {"audiograft": "0.2.0", "torch": "2.13.0"},
        "commit": "ab12",
    }
    write(finetune / "train.json", record)
    write(finetune / "config.json", CONFIG)
    return finetune


def metadata_of(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---")[1])
    return found


def test_figures_of_a_run_stand_with_all_that_belongs_to_them(model: Path, tmp_path: Path) -> None:
    run = evaluation(tmp_path / "on-test", model, manifest(tmp_path / "unseen", "unseen"))
    item = read_evaluation(run, model, REPO, [])
    card = build_card(model, REPO, [item], CardOptions())
    [row] = [line for line in card.splitlines() if line.startswith("| unseen")]
    digest = hashlib.sha256((run / "metrics.json").read_bytes()).hexdigest()
    for part in (
        "| word error rate | 12.34 % | 8.10 % to 19.20 % (95 %) | 321, 1 more failed |", "whisper-english 0.1.15", "not by its training",
        f"`on-test/metrics.json`, sha256 {digest[:12]}", item.manifest_sha256[:12],
    ):  # fmt: skip
        assert part in row
    [entry] = metadata_of(card)["model-index"][0]["results"]
    assert entry["dataset"] == {"type": "manifest", "name": "unseen", "args": {"manifest_sha256": item.manifest_sha256, "clips": 321}}
    [metric] = entry["metrics"]
    assert (metric["type"], metric["value"]) == ("wer", 12.34)
    assert metric["args"] == {
        "low": 8.1, "high": 19.2, "confidence": 0.95, "failed_rows": 1, "touches_training": None, "used_for_choosing": "not by its training",
        "metrics_sha256": digest,
    }  # fmt: skip
    assert "`Transcribe \\| this.`" in card


def test_answers_have_a_row_of_their_own_and_baselines_are_called_so(model: Path, tmp_path: Path) -> None:
    runs = [evaluation(tmp_path / name, model, manifest(tmp_path / "unseen", "unseen")) for name in ("true", "none")]
    for run in runs:
        metrics, about = (json.loads((run / name).read_text()) for name in ("metrics.json", "run.json"))
        accuracy = {"rate": 0.9, "answers": 300, "interval": {"low": 0.85, "high": 0.94, "confidence": 0.95}}
        write(run / "metrics.json", {**metrics, "accuracy": accuracy, "wer": metrics["wer"] if run.name == "true" else None})
        write(run / "run.json", {**about, "audio": run.name})
    card = build_card(model, REPO, [read_evaluation(run, model, REPO, []) for run in runs], CardOptions())
    rows = [line for line in card.splitlines() if line.startswith("| unseen")]
    assert ["| word error rate | 12.34 % | 8.10 % to 19.20 % (95 %) | 21, " in row for row in rows] == [True, False, False]
    assert ["| right answers | 90.00 % | 85.00 % to 94.00 % (95 %) | 300, " in row for row in rows] == [False, True, True]
    assert ["**baseline: no clips**" in row for row in rows] == [False, False, True]
    shown = [(entry["task"]["type"], entry["metrics"][0]["value"]) for entry in metadata_of(card)["model-index"][0]["results"]]
    assert shown == [("automatic-speech-recognition", 12.34), ("audio-text-to-text", 90.0)]
    write(runs[0] / "run.json", {**json.loads((runs[0] / "run.json").read_text()), "pictures": "shuffled"})
    card = build_card(model, REPO, [read_evaluation(runs[0], model, REPO, [])], CardOptions())
    assert card.count("**baseline: other rows' pictures**") == 2
    assert "model-index" not in metadata_of(card)


def test_the_hubs_own_parser_reads_the_metadata(model: Path, tmp_path: Path) -> None:
    run = evaluation(tmp_path / "on-test", model, manifest(tmp_path / "unseen", "unseen"))
    text = build_card(model, REPO, [read_evaluation(run, model, REPO, [])], CardOptions("audio-text-to-text", "apache-2.0", ("Qwen/Qwen3-1.7B",)))
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("audiograft", "audio-text-to-text", "apache-2.0")
    assert data.base_model == ["Qwen/Qwen3-1.7B"]
    [result] = data.eval_results or []
    assert (result.task_type, result.dataset_name, result.metric_type, result.metric_value) == (
        "automatic-speech-recognition",
        "unseen",
        "wer",
        12.34,
    )


@pytest.mark.parametrize(
    ("data", "role", "indexed"),
    [
        ("a-train", "training", False),
        ("f-train", "training", False),
        ("a-dev", "validation", True),
        ("f-dev", "validation", True),
        ("new", "other", True),
    ],
)
def test_what_the_data_was_to_training_is_said(model: Path, tmp_path: Path, data: str, role: str, indexed: bool) -> None:
    # A copy under another path, so that content decides; `model` has the data of both stages.
    run = evaluation(tmp_path / "run", model, manifest(tmp_path / "copy", data))
    item = read_evaluation(run, model, REPO, [])
    assert item.role == role
    card = build_card(model, REPO, [item], CardOptions())
    assert ("model-index" in metadata_of(card)) is indexed
    assert ("**it was trained on it**" in card) is (role == "training")


def test_what_the_evaluation_found_out_about_its_data_is_said(model: Path, tmp_path: Path) -> None:
    run = evaluation(tmp_path / "run", model, manifest(tmp_path / "new", "new"))
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["leakage"] = {"checked": True, "touches": ["speakers", "audio"]}
    metrics["checkpoint"] = {"known": True, "chosen_on_this_data": True}
    write(run / "metrics.json", metrics)
    item = read_evaluation(run, model, REPO, [])
    assert item.role == "validation"  # in part, though the manifest is another
    card = build_card(model, REPO, [item], CardOptions())
    assert "**shares speakers and audio with its training data** | word error rate" in card
    assert "yes, validation data of its training" in card
    args = metadata_of(card)["model-index"][0]["results"][0]["metrics"][0]["args"]
    assert args["touches_training"] == ["speakers", "audio"]
    metrics["leakage"] = {"checked": True, "touches": []}
    write(run / "metrics.json", metrics)
    assert "**shares" not in build_card(model, REPO, [read_evaluation(run, model, REPO, [])], CardOptions())


def test_a_run_without_a_rate_claims_none(model: Path, tmp_path: Path) -> None:
    run = evaluation(tmp_path / "run", model, manifest(tmp_path / "new", "new"))
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["wer"] |= {"rate": None, "interval": None}
    write(run / "metrics.json", metrics)
    with pytest.raises(ConfigError, match=r"metrics\.json: has no rate, since no reference has a word: leave the run out"):
        read_evaluation(run, model, REPO, [])
    answers = {"rate": 0.5, "answers": 20, "interval": {"low": 0.3, "high": 0.7, "confidence": 0.95}}
    write(run / "metrics.json", metrics | {"accuracy": answers})
    assert [figure.measure for figure in read_evaluation(run, model, REPO, []).figures] == ["accuracy"]


def test_an_interval_that_can_not_be_known_is_not_made_up(model: Path, tmp_path: Path) -> None:
    run = evaluation(tmp_path / "run", model, manifest(tmp_path / "new", "new"))
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["wer"]["interval"] |= {"low": None, "high": None}
    write(run / "metrics.json", metrics)
    assert "| 12.34 % | not known | 321" in build_card(model, REPO, [read_evaluation(run, model, REPO, [])], CardOptions())


def test_data_counts_as_unknown_where_a_training_manifest_is_gone(model: Path, tmp_path: Path) -> None:
    run = evaluation(tmp_path / "run", model, manifest(tmp_path / "new", "new"))
    (tmp_path / "a-train" / "manifest.jsonl").unlink()
    assert read_evaluation(run, model, REPO, []).role == "unknown"
    (model / "train.json").unlink()
    assert read_evaluation(run, model, REPO, []).role == "unknown"


def test_without_a_run_no_rate_is_claimed_outside_the_deafness_check(model: Path) -> None:
    card = build_card(model, REPO, [], CardOptions())
    assert "None are claimed" in card
    assert "model-index" not in metadata_of(card)
    assert FIGURE.findall(card) == ["5.00 %", "125.00 %", "100.00 %"]
    (model / "train.json").unlink()
    assert FIGURE.findall(build_card(model, REPO, [], CardOptions())) == []


def test_how_it_was_trained_comes_from_the_record(model: Path) -> None:
    card = build_card(model, REPO, [], CardOptions())
    for part in (
        "All of this is from `train.json`.", "| stage | finetune |", "| steps | 1332 |",
        "| clips for training | 36000 |", "| training data | sha256 fee1 |",
        "| trained parameters | 894,080 |", "| wall time | 4,645 s |", "| audiograft's commit | ab12 |", "audiograft 0.2.0, torch 2.13.0",
        "| shuffled | 2.500 | 125.00 % |", "on 90 validation clips", "p = 0.0001. It listens.", "learning_rate: 0.0002", "rank: 64",
        "80 ms of audio a token", "> Hears short sentences.\n> Nothing else.",
    ):  # fmt: skip
        assert part in card


def test_a_deaf_model_is_called_so(model: Path) -> None:
    record = json.loads((model / "train.json").read_text())
    write(model / "train.json", {**record, "deafness": {**DEAFNESS, "deaf": True, "p_value": 0.4}})
    assert "**It does not listen**" in build_card(model, REPO, [], CardOptions())


def test_no_path_of_the_machine_is_told(model: Path, tmp_path: Path) -> None:
    run = evaluation(tmp_path / "run", model, manifest(tmp_path / "new", "new"))
    card = build_card(model, REPO, [read_evaluation(run, model, REPO, [])], CardOptions())
    assert str(tmp_path) not in card
    assert "/home/anna" not in card
    assert "whisper (a local folder)" in card


def test_base_models_are_hub_ids_and_never_folders(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert metadata_of(build_card(model, REPO, [], CardOptions()))["base_model"] == ["openai/whisper-small"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "openai").mkdir()
    assert "base_model" not in metadata_of(build_card(model, REPO, [], CardOptions()))


def test_an_adapter_names_its_base_and_where_its_record_is_from(tmp_path: Path) -> None:
    parts = {"audio_encoder": "openai/whisper-large-v3-turbo", "language_model": "Qwen/Qwen2-VL-7B-Instruct", "projector": "linear"}
    provenance = {"versions": {"audiograft": "0.2.0"}, "commit": "ab12", "data_fingerprint": "fee1"}
    write(
        tmp_path / "adapter.json", {"format": 1, "base": {"graft": parts}, "recipe": {"stage": "finetune"}, "provenance": provenance, "note": "a toy"}
    )
    card = build_card(tmp_path, REPO, [], CardOptions())
    metadata = metadata_of(card)
    assert metadata["base_model"] == ["openai/whisper-large-v3-turbo", "Qwen/Qwen2-VL-7B-Instruct"]
    assert metadata["base_model_relation"] == "adapter"
    assert "All of this is from `adapter.json`." in card
    assert "\n> a toy\n" in card
    assert "sha256 fee1" in card


def test_a_merged_model_tells_how_its_adapter_was_trained(model: Path, tmp_path: Path) -> None:
    recipe = json.loads((model / "train.json").read_text())["recipe"]
    merged = tmp_path / "merged"
    write(merged / "config.json", CONFIG)
    merge = {"passed": True, "commit": "of the merge", "recipe": recipe, "provenance": {"commit": "ab12", "data_fingerprint": "fee1"}}
    write(merged / "merge.json", merge)
    card = build_card(merged, REPO, [], CardOptions())
    for part in ("All of this is from `merge.json`.", "| stage | finetune |", "sha256 fee1", "| audiograft's commit | ab12 |", "rank: 64"):
        assert part in card
    # Data of the training, and of the stage before it, is known as such.
    seen = evaluation(tmp_path / "run", merged, tmp_path / "a-train")
    assert read_evaluation(seen, merged, REPO, []).role == "training"
    write(merged / "merge.json", {"passed": True})
    assert "The folder had no train.json: not known." in build_card(merged, REPO, [], CardOptions())


@pytest.mark.parametrize("task", ["automatic-speech-recognition", "audio-text-to-text"])
def test_the_commands_are_those_of_the_command_line(model: Path, task: Any) -> None:
    card = build_card(model, REPO, [], CardOptions(task))
    commands = [shlex.split(line) for block in re.findall(r"```bash\n(.*?)```", card, re.DOTALL) for line in block.splitlines()]
    assert [words[1] for words in commands] == (["transcribe"] if task == "automatic-speech-recognition" else ["transcribe", "ask"])
    for words in commands:
        assert words[0] == "audiograft"
        assert words[1] in VERBS
        assert words[words.index("--model") + 1] == REPO
    [python] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    compile(python, "card", "exec")


def test_the_licence_is_the_users_to_name(model: Path) -> None:
    without, named = (build_card(model, REPO, [], CardOptions(licence=licence)) for licence in (None, "cc-by-4.0"))
    assert "license" not in metadata_of(without)
    assert "No licence was named" in without
    assert metadata_of(named)["license"] == "cc-by-4.0"
    assert "No licence was named" not in named


def test_a_card_is_ours_until_somebody_edits_it() -> None:
    card = sign("# A\n\n")
    assert is_ours(card)
    assert not is_ours(card.replace("# A", "# B"))
    assert not is_ours(card + "more")
    assert not is_ours("# A\n")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("metrics.json", None, r"metrics.json: can't be read"),
        ("metrics.json", "{", "metrics.json: is not valid JSON"),
        ("run.json", "[]", "run.json: is not a JSON object"),
        ("metrics.json", '{"wer": {"rate": null}}', "lacks what a card needs"),
        ("run.json", "{}", "lacks what a card needs"),
    ],
)
def test_a_run_that_can_not_be_used_is_one_line(model: Path, tmp_path: Path, file: str, content: str | None, message: str) -> None:
    run = evaluation(tmp_path / "run", model, manifest(tmp_path / "new", "new"))
    (run / file).unlink()
    if content is not None:
        (run / file).write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_evaluation(run, model, REPO, [])
    assert "\n" not in str(caught.value)


def test_a_damaged_record_of_the_model_is_one_line(model: Path) -> None:
    write(model / "train.json", {"deafness": {"clips": 3}})
    with pytest.raises(ConfigError, match="is not as audiograft writes it"):
        build_card(model, REPO, [], CardOptions())


@pytest.mark.parametrize(
    ("named", "fits"),
    [("{model}", True), (REPO, True), ("finetune", True), ("runs/finetune", False), ("align", False), ("anna/other", False), ("../finetune", False)],
)
def test_a_run_has_to_be_of_this_model(model: Path, tmp_path: Path, named: str, fits: bool) -> None:
    run = evaluation(tmp_path / "run", named.format(model=model), manifest(tmp_path / "new", "new"))
    if fits:
        assert isinstance(read_evaluation(run, model, REPO, []), Evaluation)
    else:
        with pytest.raises(ConfigError, match="is a run of the model"):
            read_evaluation(run, model, REPO, [])
