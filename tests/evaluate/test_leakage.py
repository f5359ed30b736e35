"""An evaluation says what its data shares with what the model was trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from babble import babble
from builders import write_clips

from audiograft.data.leakage import save_traces
from audiograft.evaluate.run import evaluate
from audiograft.types import AudioError, Transcript

TEXTS = ["it rains in the old village", "the train leaves at noon today"]


class Repeating:
    """A model in a folder that hears the same in every clip."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)

    def transcribe_many(self, sources: list[str], **options: Any) -> list[Transcript]:
        return [Transcript(source, "it rains", 1.0, self.name) for source in sources]

    def score_references(self, questions: list[Any], targets: list[str], **options: Any) -> list[AudioError]:
        return [AudioError("no room") for _ in targets]


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    return write_clips(tmp_path / "test", [babble(1.5, seed) for seed in (1, 2)], TEXTS)


def run(model: Path, manifest: Path, out: Path) -> dict[str, Any]:
    metrics = evaluate(Repeating(model), manifest, out, deafness_clips=0)  # type: ignore[arg-type]
    assert json.loads((out / "metrics.json").read_text())["leakage"] == metrics["leakage"]
    return metrics["leakage"]  # type: ignore[no-any-return]


def test_a_model_without_a_record(held_out: Path, tmp_path: Path) -> None:
    told = run(tmp_path / "model", held_out, tmp_path / "run")
    assert told == {"checked": False, "why": "the model has no record of what it was trained on"}
    assert not (tmp_path / "test" / "manifest.traces").exists()


def test_a_model_that_has_heard_the_test(held_out: Path, tmp_path: Path) -> None:
    train = write_clips(tmp_path / "train", [babble(1.5, seed) for seed in (2, 3)], ["IT RAINS in the old village.", "quite another sentence"])
    (tmp_path / "model").mkdir()
    save_traces(tmp_path / "model", [train])
    told = run(tmp_path / "model", held_out, tmp_path / "run")
    assert told["checked"]
    assert told["touches"] == ["texts", "audio"]
    assert told["shared"]["texts"]["shared"] == told["shared"]["same_audio"]["shared"] == 1
