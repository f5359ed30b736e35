"""An evaluation with an engine that answers from a table: files, figures by hand, and errors."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from audiograft import provenance
from audiograft.data.manifest import write_manifest
from audiograft.evaluate.run import evaluate, score
from audiograft.types import AudioError, ConfigError, DataError, Transcript

ROWS = [
    {"id": "1", "audio": "clips/a.wav", "text": "One two three four", "speaker": "ann", "prompt": "First."},
    {"id": "2", "audio": "./clips/b.wav", "text": "hello", "speaker": "bob"},
    {"id": "3", "audio": "clips/c.wav", "text": "stop", "speaker": "ann", "prompt": "First.", "duration_s": 9.0},
    {"id": "4", "audio": "clips/d.wav", "text": "go on now"},
]
ANSWERS: dict[str, str | None] = {"a.wav": "one  two free four", "b.wav": "hello there you", "c.wav": None, "d.wav": "go now"}


class FakeEngine:
    """Answers from a table by file name (None: the clip can't be read); 2 s a clip; keeps what it was asked."""

    name = "fake"

    def __init__(self, answers: dict[str, str | None]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str]] = []
        self.batch_sizes: list[int] = []

    def transcribe_many(
        self, sources: Sequence[str], *, batch_size: int, prompt: str, on_result: Callable[[int, Transcript | AudioError], None]
    ) -> list[Transcript | AudioError]:
        self.batch_sizes.append(batch_size)
        results = []
        for index, source in enumerate(sources):
            self.asked.append((source, prompt))
            text = self.answers[Path(source).name]
            result = AudioError(f"{source}: no such file") if text is None else Transcript(source, text, 2.0, self.name)
            on_result(index, result)
            results.append(result)
        return results


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_manifest(folder / "manifest.jsonl", ROWS)
    return folder


@pytest.fixture
def run(corpus: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(engine: FakeEngine | None = None, **options: Any) -> dict[str, Any]:
        return evaluate(engine or FakeEngine(ANSWERS), corpus, tmp_path / "run", **options)

    return run


def loaded(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def predictions(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_predictions_hold_each_clip_as_the_manifest_named_it(run: Callable[..., Any], corpus: Path, tmp_path: Path) -> None:
    run()
    assert predictions(tmp_path / "run" / "predictions.jsonl") == [
        {
            "id": "1",
            "audio": "clips/a.wav",
            "reference": "One two three four",
            "hypothesis": "one  two free four",
            "duration_s": 2.0,
            "speaker": "ann",
        },
        {"id": "2", "audio": "./clips/b.wav", "reference": "hello", "hypothesis": "hello there you", "duration_s": 2.0, "speaker": "bob"},
        {
            "id": "3",
            "audio": "clips/c.wav",
            "reference": "stop",
            "hypothesis": "",
            "duration_s": 9.0,
            "speaker": "ann",
            "error": f"{corpus / 'clips/c.wav'}: no such file",
        },
        {"id": "4", "audio": "clips/d.wav", "reference": "go on now", "hypothesis": "go now", "duration_s": 2.0, "speaker": None},
    ]


def test_figures_by_hand(run: Callable[..., Any]) -> None:
    metrics = run()
    wer, cer = metrics["wer"], metrics["cer"]
    counts = ("hits", "substitutions", "insertions", "deletions", "reference_length", "rate")
    # 1 substitution in 4 words, 2 insertions in 1, 1 deletion in 3
    assert [wer[key] for key in counts] == [6, 1, 2, 1, 8, 4 / 8]
    # three -> free: 2 errors in 18; " there you": 10 insertions in 5; "on ": 3 deletions in 9
    assert (cer["reference_length"], cer["insertions"]) == (18 + 5 + 9, 10)
    assert cer["rate"] == (2 + 10 + 3) / 32
    assert metrics["utterance_mean_wer"] == pytest.approx((1 / 4 + 2 / 1 + 1 / 3) / 3)
    assert metrics["by_speaker"] == {
        "ann": {"wer": 1 / 4, "n_clips": 1, "reference_length": 4},
        "bob": {"wer": 2.0, "n_clips": 1, "reference_length": 1},
    }
    assert metrics["normaliser"] == {"name": "lower", "version": "1"}


def test_a_clip_that_fails_is_named_and_left_out_of_the_rates(run: Callable[..., Any], corpus: Path) -> None:
    metrics = run()
    assert metrics["failed"] == [{"id": "3", "error": f"{corpus / 'clips/c.wav'}: no such file"}]
    assert (metrics["n_clips"], metrics["audio_s"]) == (3, 6.0)


def test_intervals_are_clustered_by_speaker(run: Callable[..., Any], corpus: Path) -> None:
    rows = [{"audio": f"{i}.wav", "text": "one two", "speaker": f"s{i % 3}"} for i in range(12)]
    write_manifest(corpus / "manifest.jsonl", rows)
    metrics = run(FakeEngine({f"{i}.wav": "one two" if i % 3 else "one" for i in range(12)}))
    interval = metrics["wer"]["interval"]
    assert (interval["method"], interval["clusters"], interval["confidence"]) == ("cluster-bootstrap", 3, 0.95)
    assert interval["low"] == 0.0 < metrics["wer"]["rate"] == 1 / 6 < interval["high"]


def test_a_single_speaker_shows_in_the_interval(run: Callable[..., Any], corpus: Path) -> None:
    write_manifest(corpus / "manifest.jsonl", [row | {"speaker": "ann"} for row in ROWS])
    assert run()["wer"]["interval"]["method"] == "utterance-bootstrap"


def test_the_normaliser_decides_what_counts_as_an_error(run: Callable[..., Any]) -> None:
    assert run(normaliser="none")["wer"]["substitutions"] == 2  # One / one
    english = run(normaliser="whisper-english")
    assert english["normaliser"]["name"] == "whisper-english"
    assert english["wer"]["substitutions"] == 1


def test_time_and_real_time_factor(run: Callable[..., Any]) -> None:
    metrics = run()
    assert metrics["wall_s"] > 0
    assert metrics["rtfx"] == pytest.approx(6.0 / metrics["wall_s"])


def test_metrics_on_disk_are_those_returned_and_can_be_had_again_from_the_predictions(run: Callable[..., Any], tmp_path: Path) -> None:
    metrics = run()
    assert loaded(tmp_path / "run" / "metrics.json") == metrics
    again = score(tmp_path / "run" / "predictions.jsonl", "lower")
    assert metrics == again | {"wall_s": metrics["wall_s"], "rtfx": metrics["rtfx"]}


def test_run_json_says_what_was_run(run: Callable[..., Any], corpus: Path, tmp_path: Path) -> None:
    run(prompt="Write it down.", batch_size=3)
    told = loaded(tmp_path / "run" / "run.json")
    manifest = corpus / "manifest.jsonl"
    assert (told["model"], told["prompt"], told["batch_size"]) == ("fake", "Write it down.", 3)
    assert (told["manifest"], told["manifest_sha256"]) == (str(manifest), hashlib.sha256(manifest.read_bytes()).hexdigest())
    assert told["normaliser"] == {"name": "lower", "version": "1"}
    assert told["versions"] == provenance.versions()
    assert told["commit"] == provenance.commit()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", told["date"])


def test_each_row_keeps_its_own_prompt_and_the_order_its_rows(run: Callable[..., Any], corpus: Path, tmp_path: Path) -> None:
    engine = FakeEngine(ANSWERS)
    run(engine, batch_size=5)
    assert {(Path(source).name, prompt) for source, prompt in engine.asked} == {
        ("a.wav", "First."),
        ("b.wav", "Transcribe the audio."),
        ("c.wav", "First."),
        ("d.wav", "Transcribe the audio."),
    }
    assert engine.batch_sizes == [5, 5]
    assert loaded(tmp_path / "run" / "run.json")["prompt"] is None
    assert [row["id"] for row in predictions(tmp_path / "run" / "predictions.jsonl")] == ["1", "2", "3", "4"]


def test_a_given_prompt_goes_to_every_clip(run: Callable[..., Any]) -> None:
    engine = FakeEngine(ANSWERS)
    run(engine, prompt="Write it down.")
    assert {prompt for _, prompt in engine.asked} == {"Write it down."}


def test_progress_is_told_once_a_clip(run: Callable[..., Any]) -> None:
    ticks: list[None] = []
    run(on_clip=lambda: ticks.append(None))
    assert len(ticks) == len(ROWS)


def test_a_clip_with_an_empty_reference_is_scored(run: Callable[..., Any], corpus: Path) -> None:
    write_manifest(corpus / "manifest.jsonl", [{"audio": "a.wav", "text": "one"}, {"audio": "b.wav", "text": ""}])
    metrics = run(FakeEngine({"a.wav": "one", "b.wav": "thank you"}))
    assert (metrics["wer"]["rate"], metrics["wer"]["reference_length"], metrics["utterance_mean_wer"]) == (2.0, 1, 1.0)


def test_a_row_without_reference_is_named_before_any_work(run: Callable[..., Any], corpus: Path) -> None:
    write_manifest(corpus / "manifest.jsonl", [*ROWS, {"id": "5", "audio": "e.wav"}])
    engine = FakeEngine(ANSWERS)
    with pytest.raises(DataError, match=r"manifest\.jsonl: row '5' has no \"text\": add its reference or leave the row out$"):
        run(engine)
    assert engine.asked == []


def test_an_unknown_normaliser_stops_before_any_work(run: Callable[..., Any]) -> None:
    engine = FakeEngine(ANSWERS)
    with pytest.raises(ConfigError, match="unknown normaliser 'upper'"):
        run(engine, normaliser="upper")
    assert engine.asked == []


def test_a_run_folder_that_is_a_file_is_named_before_any_work(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    engine = FakeEngine(ANSWERS)
    with pytest.raises(DataError, match=r"run: can't be used as a run folder \(File exists\): choose another --out$"):
        run(engine)
    assert engine.asked == []


def test_when_every_clip_fails_the_first_error_is_shown_and_no_old_figures_stay(run: Callable[..., Any], tmp_path: Path) -> None:
    run()
    with pytest.raises(DataError, match=r"all 4 clips failed, so there is nothing to score; the first: .*a\.wav: no such file$"):
        run(FakeEngine(dict.fromkeys(ANSWERS)))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["predictions.jsonl"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reference": None}, '"reference" must be a string'),
        ({"hypothesis": 1}, '"hypothesis" must be a string'),
        ({"duration_s": "2"}, '"duration_s" must be a number of seconds'),
        ({"speaker": 7}, '"speaker" must be a string or null'),
    ],
)
def test_a_predictions_row_that_does_not_fit_names_its_line_and_key(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    path = tmp_path / "predictions.jsonl"
    row = {"id": "1", "audio": "a.wav", "reference": "a", "hypothesis": "a", "duration_s": 2.0, "speaker": None}
    write_manifest(path, [row, row | changes])
    with pytest.raises(DataError) as error:
        score(path)
    assert str(error.value) == f"{path}:2: {expected}: repeat the evaluation or correct the row"
