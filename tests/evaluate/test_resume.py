"""An evaluation that is interrupted, repeated, or pointed at a folder that belongs to another."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import builders
import pytest
import soundfile

from audiograft.data.manifest import write_manifest
from audiograft.evaluate.folder import model_fingerprint
from audiograft.evaluate.run import evaluate
from audiograft.inference.batching import BATCHES_IN_FLIGHT
from audiograft.inference.questions import Question
from audiograft.inference.teacher_forcing import TokenScores
from audiograft.types import AudioError, DataError, Transcript

N_ROWS = 2 * BATCHES_IN_FLIGHT + 3
"""With batches of one: two whole blocks and a part of a third."""


class Table:
    """Hears `word <stem>` in each clip; stops after so many blocks; can't read some clips."""

    name = "table"

    def __init__(self, blocks: int | None = None, unreadable: Sequence[str] = ()) -> None:
        self.blocks = blocks
        self.unreadable = unreadable
        self.heard: list[str] = []

    def transcribe_many(self, sources: Sequence[str], *, on_result: Callable[..., None], **options: Any) -> list[Transcript | AudioError]:
        if self.blocks == 0:
            raise KeyboardInterrupt
        self.blocks = None if self.blocks is None else self.blocks - 1
        results: list[Transcript | AudioError] = []
        for index, source in enumerate(sources):
            stem = Path(source).stem
            self.heard.append(stem)
            results.append(AudioError(f"{source}: no such file") if stem in self.unreadable else self._hear(source, stem))
            on_result(index, results[-1])
        return results

    def _hear(self, source: str, stem: str) -> Transcript:
        return Transcript(source, f"word {stem}", 2.0, self.name, (), ("word", stem), (-0.25, -0.125), 0.5)

    def score_references(self, questions: Sequence[Question], targets: Sequence[str], **options: Any) -> list[TokenScores]:
        return [TokenScores(("a", "b"), (-1.0, -0.5), (1, 2), ("a", "c")) for _ in questions]


class Untouchable:
    """A model that must not be asked for anything but its name."""

    name = "table"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_manifest(
        folder / "manifest.jsonl", [{"id": f"r{i}", "audio": f"{i}.wav", "text": f"word {i}", "speaker": f"s{i % 4}"} for i in range(N_ROWS)]
    )
    return folder


def run(engine: Any, corpus: Path, out: Path, **options: Any) -> dict[str, Any]:
    return evaluate(engine, corpus, out, **{"batch_size": 1, "deafness_clips": 0} | options)


def interrupted(corpus: Path, out: Path, blocks: int = 1) -> Table:
    engine = Table(blocks)
    with pytest.raises(KeyboardInterrupt):
        run(engine, corpus, out)
    return engine


def test_rows_hold_what_the_model_said_and_how_sure_it_was(corpus: Path, tmp_path: Path) -> None:
    run(Table(), corpus, tmp_path / "run")
    first = json.loads((tmp_path / "run" / "predictions.jsonl").read_text().splitlines()[0])
    assert first == {
        "id": "r0",
        "audio": "0.wav",
        "task": "transcript",
        "prompt": "Transcribe the audio.",
        "reference": "word 0",
        "hypothesis": "word 0",
        "duration_s": 2.0,
        "decode_s": 0.5,
        "speaker": "s0",
        "tokens": ["word", "0"],
        "token_logprobs": [-0.25, -0.125],
        "reference_nats": 1.5,
        "reference_tokens": 2,
    }


def test_an_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(corpus: Path, tmp_path: Path) -> None:
    before = run(Table(), corpus, tmp_path / "whole")
    first = interrupted(corpus, tmp_path / "run", blocks=2)
    assert not (tmp_path / "run" / "predictions.jsonl").exists()
    second, ticks = Table(), []
    after = run(second, corpus, tmp_path / "run", on_clip=lambda: ticks.append(None))
    assert sorted(first.heard + second.heard) == sorted(str(i) for i in range(N_ROWS))
    assert len(ticks) == N_ROWS
    files = [tmp_path / name / "predictions.jsonl" for name in ("whole", "run")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert (before.pop("wall_s") or 0) > 0
    assert after.pop("wall_s") is None
    assert before == after


def test_a_half_written_line_is_done_again(corpus: Path, tmp_path: Path) -> None:
    interrupted(corpus, tmp_path / "run")
    part = tmp_path / "run" / "predictions.jsonl.part"
    with part.open("a") as file:
        file.write('{"id": "r9", "refe')
    second = Table()
    assert run(second, corpus, tmp_path / "run")["n_clips"] == N_ROWS
    assert "9" in second.heard


def test_a_broken_line_in_the_middle_is_named(corpus: Path, tmp_path: Path) -> None:
    interrupted(corpus, tmp_path / "run")
    part = tmp_path / "run" / "predictions.jsonl.part"
    part.write_text("nonsense\n" + part.read_text())
    with pytest.raises(DataError, match=r"predictions\.jsonl\.part:1: no JSON: take the line out, or start again with --overwrite"):
        run(Table(), corpus, tmp_path / "run")
    assert run(Table(), corpus, tmp_path / "run", overwrite=True)["n_clips"] == N_ROWS


def test_what_is_done_is_scored_again_without_the_model(corpus: Path, tmp_path: Path) -> None:
    before = run(Table(), corpus, tmp_path / "run")
    after = run(Untouchable(), corpus, tmp_path / "run", normaliser="none")
    assert (before["normaliser"]["name"], after["normaliser"]["name"]) == ("lower", "none")
    assert after["wall_s"] == before["wall_s"]


def test_clips_that_failed_are_tried_again_once_they_can_be_read(corpus: Path, tmp_path: Path) -> None:
    assert [row["id"] for row in run(Table(unreadable=["3"]), corpus, tmp_path / "run")["failed"]] == ["r3"]
    assert len(run(Untouchable(), corpus, tmp_path / "run")["failed"]) == 1
    soundfile.write(corpus / "3.wav", builders.tone(0.5), 16_000)
    second = Table()
    assert run(second, corpus, tmp_path / "run")["failed"] == []
    assert second.heard == ["3"]


def test_verdicts_keep_the_predictions_that_they_are_about(corpus: Path, tmp_path: Path) -> None:
    run(Table(unreadable=["3"]), corpus, tmp_path / "run")
    file = tmp_path / "run" / "predictions.jsonl"
    judged = file.read_bytes()
    (tmp_path / "run" / "verdicts.jsonl").touch()
    assert len(run(Untouchable(), corpus, tmp_path / "run")["failed"]) == 1
    with pytest.raises(DataError, match="holds verdicts about the predictions that would be replaced: choose another --out"):
        run(Table(), corpus, tmp_path / "run", overwrite=True)
    assert file.read_bytes() == judged


@pytest.mark.parametrize(
    ("options", "key"),
    [({"prompt": "Write."}, "prompt"), ({"audio": "none"}, "audio"), ({"context": ["Oslo"]}, "context"), ({"language": "de"}, "language")],
)
def test_another_run_is_not_written_over(corpus: Path, tmp_path: Path, options: dict[str, Any], key: str) -> None:
    run(Table(), corpus, tmp_path / "run")
    with pytest.raises(DataError, match=rf"run: holds another run \(its {key} differs\): choose another --out, or give it up with --overwrite"):
        run(Table(), corpus, tmp_path / "run", **options)


def test_another_instruction_is_another_run_beside_rows_that_keep_their_own(corpus: Path, tmp_path: Path) -> None:
    rows = [{"id": "a", "audio": "0.wav", "text": "word 0"}, {"id": "b", "audio": "1.wav", "text": "word 1", "prompt": "Listen."}]
    write_manifest(corpus / "manifest.jsonl", rows)
    run(Table(), corpus, tmp_path / "own")
    run(Table(), corpus, tmp_path / "own")
    with pytest.raises(DataError, match="its prompt differs"):
        run(Table(), corpus, tmp_path / "own", prompt="Write.")


def test_every_key_of_the_manifest_can_slice(corpus: Path, tmp_path: Path) -> None:
    rows = [{"id": f"{i}", "audio": f"{i}.wav", "text": f"word {i}", "label": "SPEECH" if i else "MUSIC", "accent": "x"} for i in range(3)]
    write_manifest(corpus / "manifest.jsonl", rows)
    slices = run(Table(), corpus, tmp_path / "run", slice_by=["label", "accent"])["slices"]
    assert {name: row["n_clips"] for name, row in slices["label"].items()} == {"MUSIC": 1, "SPEECH": 2}
    assert list(slices["accent"]) == ["x"]


def test_noise_that_was_put_into_clips_slices_too(corpus: Path, tmp_path: Path) -> None:
    stated = [{"snr_db": 7}, {"augmentation": {"noise": "pink", "snr_db": 3.2}}, {"augmentation": {"speed": 1.1}}, {"snr_db": "loud"}]
    write_manifest(corpus / "manifest.jsonl", [{"id": f"{i}", "audio": f"{i}.wav", "text": f"word {i}"} | keys for i, keys in enumerate(stated)])
    metrics = run(Table(), corpus, tmp_path / "run")
    assert {name: row["n_clips"] for name, row in metrics["slices"]["snr"].items()} == {"0-5": 1, "5-10": 1}
    assert metrics["rows_without"]["snr"] == 2


def test_a_key_that_no_row_has_stops_before_any_work(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.jsonl: no row has the key 'accent': take it out of --slice-by, or correct it"):
        run(Untouchable(), corpus, tmp_path / "run", slice_by=["accent"])


def test_a_changed_manifest_is_another_run(corpus: Path, tmp_path: Path) -> None:
    run(Table(), corpus, tmp_path / "run")
    write_manifest(corpus / "manifest.jsonl", [{"audio": "0.wav", "text": "word 0"}])
    with pytest.raises(DataError, match="its manifest sha256 differs"):
        run(Table(), corpus, tmp_path / "run")
    assert run(Table(), corpus, tmp_path / "run", overwrite=True)["n_clips"] == 1


def test_foreign_predictions_are_not_written_over(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_manifest(tmp_path / "run" / "predictions.jsonl", [{"id": "1", "reference": "a", "hypothesis": "a"}])
    with pytest.raises(DataError, match=r"holds predictions without a run\.json"):
        run(Table(), corpus, tmp_path / "run")


def test_a_model_that_was_trained_on_is_another_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"one")
    before = model_fingerprint(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"three")
    assert model_fingerprint(str(tmp_path)) != before
    assert model_fingerprint("tiny") == "tiny"
