"""Labels of a manifest, detected by a tiny graft and by detectors that do not exist."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import soundfile

from audiograft.data.manifest import write_manifest
from audiograft.evaluate.run import evaluate
from audiograft.evaluate.scoring import score_again
from audiograft.inference.choices import DEFAULT_QUESTION, ClosedQuestion
from audiograft.inference.engine import Engine
from audiograft.types import ConfigError, DataError

N_CLIPS = 24
Row = dict[str, Any]


class Loudness:
    """Takes loud clips for speech, a little unsure; stops after so many clips."""

    name = "loudness"
    version = "1"
    threshold = 0.5

    def __init__(self, clips: int | None = None) -> None:
        self.clips = clips
        self.heard = 0

    def speech_probs(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        self.heard += len(waveforms)
        if self.clips is not None and self.heard > self.clips:
            raise KeyboardInterrupt
        return np.array([0.9 if float(np.abs(waveform).max()) > 0.2 else 0.2 for waveform in waveforms])


def rows(**changes: Any) -> list[Row]:
    """Every second clip is speech; three clips are of one recording."""
    return [
        {
            "id": f"c{i}", "audio": f"{i}.wav", "label": "SPEECH" if i % 2 else "NONSPEECH", "duration_ms": (200, 400)[i // 2 % 2], "snr_db": 5.1,
            "target_snr_db": 5, "recording": f"r{i // 3}", "kind": None if i % 2 else "rain", "split": "test", **changes,
        }
        for i in range(N_CLIPS)
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def without_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are tested elsewhere, and take longer than all else here."""
    monkeypatch.setattr("audiograft.evaluate.run.write_reports", lambda run: [])


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech is loud here."""
    folder = tmp_path_factory.mktemp("bench")
    for i in range(N_CLIPS):
        waveform = builders.tone(0.2 + 0.2 * (i // 2 % 2), 300 + 20 * i, seed=i) * (1.0 if i % 2 else 0.1)
        soundfile.write(folder / f"{i}.wav", waveform, 16_000, subtype="FLOAT")
    return folder


@pytest.fixture
def bench(sounds: Path) -> Path:
    write_manifest(sounds / "manifest.jsonl", rows())
    return sounds


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(*builders.graft(), name="tiny graft")


def run(model: Any, bench: Path, out: Path, **options: Any) -> dict[str, Any]:
    return evaluate(model, bench, out, **{"deafness_clips": 0} | options)


def predictions(out: Path) -> list[Row]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def about(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "run.json").read_text())
    return found


def question_folder(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    replace(DEFAULT_QUESTION, **changes).write(folder)
    return folder


def test_rows_hold_the_label_what_was_chosen_and_how_sure_the_model_was(engine: Engine, bench: Path, tmp_path: Path) -> None:
    metrics = run(engine, bench, tmp_path / "run")
    found = predictions(tmp_path / "run")
    assert [*found[1]] == [
        "id", "audio", "task", "label", "predicted", "duration_s", "decode_s", "speaker", "recording", "snr_db", "speech_prob", "scores",
        "duration_ms", "target_snr_db", "split",
    ]  # fmt: skip
    assert found[0]["kind"] == "rain"
    for row in found:
        prob = row["speech_prob"]
        assert row["scores"].keys() == {"SPEECH", "NONSPEECH"}
        assert prob == pytest.approx(np.exp(row["scores"]["SPEECH"]), abs=1e-5)
        assert row["predicted"] == ("SPEECH" if prob >= 0.5 else "NONSPEECH")
    assert metrics["detection"]["accuracy"]["rate"] == metrics["accuracy"]["rate"] == sum(row["label"] == row["predicted"] for row in found) / N_CLIPS
    assert about(tmp_path / "run")["question"]["prompt"] == DEFAULT_QUESTION.prompt
    assert about(tmp_path / "run")["prompt"] == DEFAULT_QUESTION.prompt


def test_a_threshold_by_hand_decides_and_is_told(bench: Path, tmp_path: Path) -> None:
    metrics = run(Loudness(), bench, tmp_path / "run", threshold=0.95)
    assert {row["predicted"] for row in predictions(tmp_path / "run")} == {"NONSPEECH"}
    found = metrics["detection"]
    assert (found["threshold"], found["threshold_from"], found["chosen_on_this_data"]) == (0.95, "by hand", None)
    assert found["choice"] == "the threshold, 0.95, was given by hand: what it was chosen on is not known"
    assert run(Loudness(), bench, tmp_path / "other")["detection"]["accuracy"]["rate"] == 1


def test_an_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(bench: Path, tmp_path: Path) -> None:
    before = run(Loudness(), bench, tmp_path / "whole", batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        run(Loudness(clips=12), bench, tmp_path / "run", batch_size=1)
    assert not (tmp_path / "run" / "predictions.jsonl").exists()
    rest = Loudness()
    after = run(rest, bench, tmp_path / "run", batch_size=1)
    assert rest.heard == N_CLIPS - 8
    for metrics, name in ((before, "whole"), (after, "run")):
        for row in predictions(tmp_path / name):
            assert row.pop("decode_s") >= 0
        for key in ("wall_s", "decode_s", "rtfx"):
            metrics.pop(key)
    assert before == after
    untouched = run(Loudness(clips=0), bench, tmp_path / "run", batch_size=1)
    assert untouched["detection"] == after["detection"]


def test_a_run_with_another_threshold_is_another_run(bench: Path, tmp_path: Path) -> None:
    run(Loudness(), bench, tmp_path / "run")
    with pytest.raises(DataError, match=r"holds another run \(its question differs\)"):
        run(Loudness(), bench, tmp_path / "run", threshold=0.6)


def test_clips_that_fail_are_counted_and_in_no_rate(sounds: Path, tmp_path: Path, engine: Engine) -> None:
    broken = sounds / "broken.jsonl"
    write_manifest(broken, [row | ({"audio": "none.wav"} if row["id"] == "c3" else {}) for row in rows()])
    for model in (engine, Loudness()):
        metrics = evaluate(model, broken, tmp_path / model.name, deafness_clips=0)
        assert [row["id"] for row in metrics["failed"]] == ["c3"]
        assert metrics["detection"]["n_clips"] == N_CLIPS - 1
        assert "speech_prob" not in predictions(tmp_path / model.name)[3]


def test_one_class_alone_is_scored_without_what_needs_two(sounds: Path, tmp_path: Path, engine: Engine) -> None:
    one = sounds / "one.jsonl"
    write_manifest(one, [row for row in rows() if row["label"] == "SPEECH"])
    found = evaluate(engine, one, tmp_path / "run", deafness_clips=20)
    detection = found["detection"]
    assert detection["accuracy"]["n"] == N_CLIPS // 2
    assert detection["roc_auc"]["value"] is None
    assert detection["roc_auc"]["reason"] in detection["notes"]
    assert detection["balanced_accuracy"]["rate"] is None
    assert found["deafness"] is None


def test_the_model_is_asked_again_on_other_clips_and_on_silence(engine: Engine, bench: Path, tmp_path: Path) -> None:
    metrics = run(engine, bench, tmp_path / "run", deafness_clips=20)
    found = metrics["deafness"]
    assert found["conditions"].keys() == {"true", "shuffled", "silence"}
    assert found["clips"] == 20
    assert found["measure"] == "loss"
    heard = [json.loads(line) for line in (tmp_path / "run" / "deafness.jsonl").read_text().splitlines()]
    own = {row["id"]: row for row in predictions(tmp_path / "run")}
    silent = {row["id"]: row for row in heard if row["heard"] == "silence"}
    short, long = ([silent[id_]["speech_prob"] for id_ in silent if own[id_]["duration_ms"] == length] for length in (200, 400))
    assert len({round(prob, 6) for prob in short}) == len({round(prob, 6) for prob in long}) == 1
    assert any(row["speech_prob"] != own[row["id"]]["speech_prob"] for row in heard if row["heard"] == "shuffled")
    assert run(Loudness(), bench, tmp_path / "vad", deafness_clips=20)["deafness"] is None


def test_clips_of_others_are_heard_instead(bench: Path, tmp_path: Path) -> None:
    found = run(Loudness(), bench, tmp_path / "run", audio="shuffled")
    assert found["detection"]["accuracy"]["rate"] < 0.8


def test_figures_on_the_clips_that_the_threshold_was_chosen_on_are_no_test(bench: Path, tmp_path: Path) -> None:
    run(Loudness(), bench, tmp_path / "first")
    digest = about(tmp_path / "first")["manifest_sha256"]
    for name, sha256, expected in (("here", digest, True), ("elsewhere", "0" * 64, False)):
        folder = question_folder(tmp_path / name, temperature=2.0, threshold=0.4, chosen_on={"manifest": "dev.jsonl", "sha256": sha256, "clips": 9})
        found = run(Loudness(), bench, tmp_path / f"run-{name}", question=folder)["detection"]
        assert (found["temperature"], found["threshold"], found["chosen_on_this_data"]) == (2.0, 0.4, expected)
        assert found["chosen_on"]["clips"] == 9
        assert found["choice"].startswith("not a test result") == expected
    tempered = predictions(tmp_path / "run-here")[1]["speech_prob"]
    assert tempered == pytest.approx(1 / (1 + (0.1 / 0.9) ** 0.5))


def test_what_was_fitted_to_another_model_is_refused(bench: Path, tmp_path: Path) -> None:
    folder = question_folder(tmp_path / "tuned", temperature=2.0, chosen_on={"manifest": "d", "sha256": "0" * 64, "clips": 9, "model": "silero-vad"})
    with pytest.raises(ConfigError, match="temperature and threshold were fitted to silero-vad, not to loudness: fit them to it with audiograft"):
        run(Loudness(), bench, tmp_path / "run", question=folder)


def test_the_number_of_parameters_is_told(engine: Engine, bench: Path, tmp_path: Path) -> None:
    run(engine, bench, tmp_path / "run")
    assert about(tmp_path / "run")["parameters"] == sum(parameter.numel() for parameter in engine.model.parameters())
    run(Loudness(), bench, tmp_path / "vad")
    assert about(tmp_path / "vad")["parameters"] is None


def test_another_prompt_has_no_calibration(engine: Engine, bench: Path, tmp_path: Path) -> None:
    folder = question_folder(tmp_path / "question", temperature=2.0, threshold=0.4)
    run(engine, bench, tmp_path / "run", question=folder, prompt="Speech? A or B.")
    asked = about(tmp_path / "run")["question"]
    assert (asked["prompt"], asked["temperature"], asked["threshold"]) == ("Speech? A or B.", 1.0, 0.5)
    assert asked["answers"] == {"SPEECH": "A", "NONSPEECH": "B"}
    run(engine, bench, tmp_path / "same", question=folder, prompt=DEFAULT_QUESTION.prompt)
    assert about(tmp_path / "same")["question"]["temperature"] == 2.0


def test_any_closed_question_is_evaluated(engine: Engine, sounds: Path, tmp_path: Path) -> None:
    several = sounds / "several.jsonl"
    labels = ("dog", "car", "rain")
    write_manifest(several, [row | {"label": labels[i % 3]} for i, row in enumerate(rows())])
    question = ClosedQuestion("Which one?\nA) dog\nB) car\nC) rain", dict(zip(labels, "ABC", strict=True)))
    found = evaluate(engine, several, tmp_path / "run", question=question, deafness_clips=0)["detection"]
    assert found["classes"] == ["dog", "car", "rain"]
    assert found["roc_auc"]["reason"] == "these figures are of two labels, and here are 3"
    assert sum(found["confusion"]["car"].values()) == 8
    with pytest.raises(ConfigError, match="a threshold is between two labels, and here are 3, of which the likeliest is taken: leave it out"):
        evaluate(engine, several, tmp_path / "other", question=question, threshold=0.4)
    with pytest.raises(DataError, match="row 'c0' is labelled 'dog', and the labels to choose from are SPEECH, NONSPEECH"):
        evaluate(engine, several, tmp_path / "other")


def test_figures_come_from_the_predictions_alone(engine: Engine, bench: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    before = run(engine, bench, out)
    (out / "metrics.json").unlink()
    assert score_again(out)["detection"] == before["detection"]
    (out / "run.json").unlink()
    after = score_again(out)["detection"]
    assert after["accuracy"] == before["detection"]["accuracy"]
    assert after["threshold"] is None
    assert "not known" in after["choice"]


@pytest.mark.parametrize(
    ("changes", "options", "error"),
    [
        ({"text": "hello"}, {"threshold": 0.4}, "has no rows with a label alone: leave --threshold and --question out"),
        ({"audio": ["0.wav", "1.wav"]}, {}, "row 'c0' has 2 clips, and a label is detected in one: give it one"),
        ({"messages": [{"role": "user", "content": "<audio>What?"}]}, {}, "row 'c0' has a conversation, and all labels are detected by one"),
        ({"prompt": "Is it?"}, {}, "row 'c0' has a prompt of its own, and all labels are detected by one: give it as --prompt"),
        ({"label": "SINGING"}, {}, "row 'c0' is labelled 'SINGING', and the labels to choose from are SPEECH, NONSPEECH"),
        ({"label": "speech"}, {}, "row 'c0' is labelled 'speech', and the labels to choose from are SPEECH, NONSPEECH: spell it SPEECH"),
        ({}, {"context": ["Ada"]}, "labels are detected in clips, by one question: leave --context and --audio none out"),
        ({}, {"audio": "none"}, "labels are detected in clips, by one question: leave --context and --audio none out"),
        ({}, {"threshold": 2}, "threshold must be a probability from 0 to 1, not 2"),
        ({}, {"question": Path("nowhere")}, "nowhere/detection.json: can't be read"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(changes: Row, options: dict[str, Any], error: str, sounds: Path, tmp_path: Path, engine: Engine) -> None:
    manifest = sounds / "strange.jsonl"
    write_manifest(manifest, rows(**changes))
    with pytest.raises((ConfigError, DataError)) as told:
        evaluate(engine, manifest, tmp_path / "run", **options)
    assert error in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("silero", "did you mean silero-vad?"), ("webrtc", "did you mean webrtc-vad?"), ("tiny-detekt", "did you mean tiny-detect?"), ("q", "give a")],
)
def test_an_unknown_detector_is_told_with_those_there_are(name: str, expected: str, bench: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as told:
        evaluate(name, bench, tmp_path / "run")
    assert f"unknown model {name}: {expected}" in str(told.value)
    assert "or one of silero-vad, silero-vad:loud, webrtc-vad, energy-vad" in str(told.value)
    assert "tiny-encoder" not in str(told.value)


def test_a_label_that_cannot_be_chosen_is_refused_before_a_model_is_opened(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = sounds / "misspelt.jsonl"
    write_manifest(manifest, rows(label="speech"))
    monkeypatch.setattr("audiograft.evaluate.detecting.open_engine", lambda *model, **options: pytest.fail("the model was opened"))
    with pytest.raises(DataError, match="spell it SPEECH"):
        evaluate("tiny", manifest, tmp_path / "run")


def test_labels_and_texts_are_not_mixed(sounds: Path, tmp_path: Path) -> None:
    mixed = sounds / "mixed.jsonl"
    write_manifest(mixed, [row | ({"text": "hello"} if row["id"] == "c1" else {}) for row in rows()])
    with pytest.raises(DataError, match="23 rows have a label alone, to be detected, and 1 a text, such as 'c1': put them into two manifests"):
        evaluate(Loudness(), mixed, tmp_path / "run")


def test_a_voice_activity_detector_is_evaluated_by_its_name(bench: Path, sounds: Path, tmp_path: Path) -> None:
    found = evaluate("energy-vad", bench, tmp_path / "run")
    assert found["detection"]["n_clips"] == N_CLIPS
    assert "scores" not in predictions(tmp_path / "run")[0]
    assert about(tmp_path / "run")["prompt"] is None
    with pytest.raises(ConfigError, match="energy-vad takes no instruction: leave --prompt out"):
        evaluate("energy-vad", bench, tmp_path / "other", prompt="Speech?")
    texts = sounds / "texts.jsonl"
    write_manifest(texts, rows(text="hello"))
    with pytest.raises(ConfigError, match="energy-vad detects speech and writes no text: evaluate it on rows with a label"):
        evaluate("energy-vad", texts, tmp_path / "other")
