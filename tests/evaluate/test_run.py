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
from audiograft.evaluate.run import evaluate
from audiograft.evaluate.scoring import score
from audiograft.inference.questions import Question
from audiograft.inference.teacher_forcing import TokenScores
from audiograft.types import Answer, AudioError, ConfigError, DataError, Transcript

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
        self.questions: list[Question] = []
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

    def ask_many(
        self, questions: Sequence[Question], *, batch_size: int, on_result: Callable[[int, Answer | AudioError], None]
    ) -> list[Answer | AudioError]:
        """Answers with the last word of the question and the stems of its clips."""
        self.questions += questions
        results: list[Answer | AudioError] = []
        for index, question in enumerate(questions):
            question.placed()
            clips = tuple(map(str, question.clips))
            if any(self.answers.get(Path(clip).name, "") is None for clip in clips):
                results.append(AudioError(f"{clips[0]}: no such file"))
            else:
                heard = "".join(Path(clip).stem for clip in clips)
                results.append(Answer(f"{question.words.split()[-1]} {heard}".strip(), question.words, clips, 2.0 * len(clips), self.name))
            on_result(index, results[-1])
        return results

    def score_references(self, questions: Sequence[Question], targets: Sequence[str], *, batch_size: int) -> list[TokenScores]:
        """As many tokens as the target has words, each half as likely as not."""
        return [TokenScores(words := tuple(target.split()), (-0.5,) * len(words), (1,) * len(words), words) for target in targets]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_manifest(folder / "manifest.jsonl", ROWS)
    return folder


@pytest.fixture
def run(corpus: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(engine: FakeEngine | None = None, **options: Any) -> dict[str, Any]:
        return evaluate(engine or FakeEngine(ANSWERS), corpus, tmp_path / "run", **{"deafness_clips": 0} | options)

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
            "task": "transcript",
            "prompt": "First.",
            "reference": "One two three four",
            "hypothesis": "one  two free four",
            "duration_s": 2.0,
            "speaker": "ann",
            "reference_nats": 2.0,
            "reference_tokens": 4,
        },
        {
            "id": "2",
            "audio": "./clips/b.wav",
            "task": "transcript",
            "prompt": "Transcribe the audio.",
            "reference": "hello",
            "hypothesis": "hello there you",
            "duration_s": 2.0,
            "speaker": "bob",
            "reference_nats": 0.5,
            "reference_tokens": 1,
        },
        {
            "id": "3",
            "audio": "clips/c.wav",
            "task": "transcript",
            "prompt": "First.",
            "reference": "stop",
            "hypothesis": "",
            "duration_s": 9.0,
            "speaker": "ann",
            "error": f"{corpus / 'clips/c.wav'}: no such file",
        },
        {
            "id": "4",
            "audio": "clips/d.wav",
            "task": "transcript",
            "prompt": "Transcribe the audio.",
            "reference": "go on now",
            "hypothesis": "go now",
            "duration_s": 2.0,
            "speaker": None,
            "reference_nats": 1.5,
            "reference_tokens": 3,
        },
    ]


def test_metrics_on_disk_are_those_returned_and_can_be_had_again_from_the_predictions(run: Callable[..., Any], tmp_path: Path) -> None:
    metrics = run()
    assert loaded(tmp_path / "run" / "metrics.json") == metrics
    again = score(tmp_path / "run" / "predictions.jsonl", "lower")
    assert metrics == again | {key: metrics[key] for key in ("wall_s", "leakage", "checkpoint", "context")}


def test_run_json_says_what_was_run(run: Callable[..., Any], corpus: Path, tmp_path: Path) -> None:
    run(prompt="Write it down.", batch_size=3)
    told = loaded(tmp_path / "run" / "run.json")
    manifest = corpus / "manifest.jsonl"
    assert (told["model"], told["prompt"], told["batch_size"]) == ("fake", "Write it down.", 3)
    assert (told["manifest"], told["manifest_sha256"]) == (str(manifest), hashlib.sha256(manifest.read_bytes()).hexdigest())
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


def test_a_row_without_reference_is_named_before_any_work(run: Callable[..., Any], corpus: Path) -> None:
    write_manifest(corpus / "manifest.jsonl", [*ROWS, {"id": "5", "audio": "e.wav"}])
    engine = FakeEngine(ANSWERS)
    mend = "add its reference, or its label, or leave the row out"
    with pytest.raises(DataError, match=rf"manifest\.jsonl: row '5' has no \"text\" and no \"response\": {mend}$"):
        run(engine)
    assert engine.asked == []


def test_clips_outside_the_folder_need_the_switch(run: Callable[..., Any], corpus: Path) -> None:
    write_manifest(corpus / "manifest.jsonl", [ROWS[0] | {"audio": "../clips/a.wav"}, ROWS[1] | {"audio": "/clips/b.wav"}])
    engine = FakeEngine(ANSWERS)
    with pytest.raises(DataError, match=r"manifest\.jsonl:1: the clip \.\./clips/a\.wav leaves the folder .* allow it with --allow-outside"):
        run(engine)
    assert engine.asked == []
    assert run(engine, allow_outside=True)["n_clips"] == 2


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
        run(FakeEngine(dict.fromkeys(ANSWERS)), overwrite=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["predictions.jsonl", "run.json"]


MIXED = [
    {"id": "said", "audio": "a.wav", "text": "one two three four", "speaker": "ann"},
    {"id": "who", "audio": "a.wav", "text": "ann is here", "prompt": "Who?", "response": "who?  A", "speaker": "ann", "question": "who"},
    {"id": "where", "audio": "b.wav", "prompt": "Where?", "response": "here", "speaker": "bob", "question": "where"},
    {"id": "two", "audio": ["a.wav", "b.wav"], "prompt": "Same <audio> as <audio> ?", "response": "? ab", "speaker": "bob"},
    {"id": "text", "prompt": "Two and two", "response": "two"},
    {"id": "turns", "audio": "d.wav", "messages": [{"role": "user", "content": "hear <audio> well"}, {"role": "assistant", "content": "well d"}]},
    {"id": "learnt", "audio": "d.wav", "text": "go on now", "response": "go on now"},
]


def test_answers_are_right_or_wrong_beside_transcripts(run: Callable[..., Any], corpus: Path, tmp_path: Path) -> None:
    write_manifest(corpus / "manifest.jsonl", MIXED)
    engine = FakeEngine(ANSWERS)
    ticks: list[None] = []
    metrics = run(engine, on_clip=lambda: ticks.append(None))
    assert len(ticks) == metrics["n_clips"] == len(MIXED)
    # The transcripts are "said" (one word of four wrong) and "learnt" (one of three left out).
    assert [metrics["wer"][key] for key in ("substitutions", "deletions", "reference_length")] == [1, 1, 7]
    accuracy = metrics["accuracy"]
    assert [accuracy[key] for key in ("rate", "right", "answers")] == [4 / 5, 4, 5]
    assert accuracy["by_question"] == {"where": {"rate": 0.0, "answers": 1}, "who": {"rate": 1.0, "answers": 1}}
    assert 0 <= accuracy["interval"]["low"] < accuracy["rate"] < accuracy["interval"]["high"] <= 1
    rows = {row["id"]: row for row in predictions(tmp_path / "run" / "predictions.jsonl")}
    assert rows["two"] == {
        "id": "two",
        "audio": ["a.wav", "b.wav"],
        "task": "answer",
        "prompt": "Same <audio> as <audio> ?",
        "reference": "? ab",
        "hypothesis": "? ab",
        "duration_s": 4.0,
        "speaker": "bob",
        "reference_nats": 1.0,
        "reference_tokens": 2,
    }
    assert [rows[name]["task"] for name in ("said", "who", "learnt")] == ["transcript", "answer", "transcript"]
    assert (rows["text"]["audio"], rows["turns"].get("prompt"), rows["who"]["question"]) == (None, None, "who")
    assert loaded(tmp_path / "run" / "run.json")["audio"] == "true"
    assert score(tmp_path / "run" / "predictions.jsonl")["accuracy"] == accuracy


def test_without_audio_nothing_is_heard(run: Callable[..., Any], corpus: Path, tmp_path: Path) -> None:
    write_manifest(corpus / "manifest.jsonl", MIXED)
    engine = FakeEngine(ANSWERS)
    metrics = run(engine, audio="none")
    assert engine.asked == []
    assert [question.clips for question in engine.questions] == [()] * len(MIXED)
    assert engine.questions[5].words == "hear  well"
    assert metrics["accuracy"]["right"] == 1  # the row of text alone
    assert loaded(tmp_path / "run" / "run.json")["audio"] == "none"
    # Whose row it is stays in the predictions.
    assert predictions(tmp_path / "run" / "predictions.jsonl")[0]["audio"] == "a.wav"


def test_shuffled_audio_is_that_of_other_rows(run: Callable[..., Any], corpus: Path, tmp_path: Path) -> None:
    rows = [{"audio": f"{i}.wav", "text": f"word {i}", "speaker": f"s{i}"} for i in range(6)]
    rows += [{"id": f"q{i}", "audio": f"{i}.wav", "prompt": "Which", "response": f"Which {i}"} for i in range(6, 9)]
    write_manifest(corpus / "manifest.jsonl", rows)
    engine = FakeEngine({f"{i}.wav": f"word {i}" for i in range(9)})
    assert run(engine)["accuracy"]["rate"] == 1
    metrics = run(engine, audio="shuffled", overwrite=True)
    assert metrics["wer"]["substitutions"] == 6
    assert metrics["accuracy"]["rate"] == 0
    assert loaded(tmp_path / "run" / "run.json")["audio"] == "shuffled"


def test_an_answer_that_fails_is_named(run: Callable[..., Any], corpus: Path) -> None:
    write_manifest(corpus / "manifest.jsonl", [*MIXED, {"id": "bad", "audio": "c.wav", "prompt": "Who?", "response": "x"}])
    metrics = run()
    assert [row["id"] for row in metrics["failed"]] == ["bad"]
    assert metrics["accuracy"]["answers"] == 5


def test_a_prompt_without_place_for_the_clips_stops_before_any_work(run: Callable[..., Any]) -> None:
    engine = FakeEngine(ANSWERS)
    with pytest.raises(DataError, match="2 <audio> markers in the prompt but 1 clip"):
        run(engine, prompt="<audio> and <audio>")
    assert engine.asked == []
