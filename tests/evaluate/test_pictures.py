"""Evaluation of rows with pictures: asked and scored with them, and tried with those of other rows."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import builders
import pytest
from rich.console import Console

from audiograft.data.shuffling import shuffle_pictures
from audiograft.evaluate.predictions import read_predictions
from audiograft.evaluate.printing import print_metrics
from audiograft.evaluate.run import evaluate
from audiograft.evaluate.scoring import score, score_again
from audiograft.evaluate.sections import controls
from audiograft.inference.engine import Engine
from audiograft.types import DataError

N_ROWS = 10
QUIET = {"deafness_clips": 0}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine.load(builders.vlm_graft(tmp_path_factory.mktemp("seeing"), initializer_range=0.3), "cpu")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Rows with a clip and a picture; two rows share one picture; two have a picture alone, and one a clip alone."""
    folder = tmp_path / "scenes"
    made = builders.write_clips(folder, [builders.tone(0.3, 200.0 * 1.3**number, number) for number in range(N_ROWS)], ["what"] * N_ROWS)
    rows = [json.loads(line) for line in made.read_text().splitlines()]
    for number, row in enumerate(rows):
        builders.picture(20 + 20 * number, 56 + 28 * (number % 2)).save(folder / f"{number}.png")
        row |= {"image": f"{max(number, 1)}.png", "prompt": "", "response": "one" if number % 2 else "two", "question": "count"}
    alone = [{"id": f"seen-{number}", "image": [f"{number}.png"], "prompt": "what", "response": "two"} for number in (4, 5)]
    return write(folder, [*rows, *alone, {"id": "heard", "audio": "0.wav", "text": "one two"}])


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def answers(run: Path) -> dict[str, float | None]:
    """How unlikely the model found each reference: what it hears and sees shows in it."""
    return {row.id: row.reference_nats for row in read_predictions(run)}


def test_rows_are_answered_with_their_own_pictures(engine: Engine, scenes: Path, tmp_path: Path) -> None:
    metrics = evaluate(engine, scenes, tmp_path / "run", batch_size=4, **QUIET)
    assert metrics["failed"] == []
    assert metrics["accuracy"]["answers"] == N_ROWS + 2
    assert metrics["accuracy"]["by_question"]["count"]["answers"] == N_ROWS
    assert metrics["blindness"] is None
    rows = {row.id: row for row in read_predictions(tmp_path / "run")}
    assert (rows["clip-3"].audio, rows["clip-3"].images, rows["clip-3"].videos) == ("3.wav", ("3.png",), ())
    assert (rows["seen-4"].audio, rows["seen-4"].images) == (None, ("4.png",))
    assert "images" not in rows["heard"].as_row()
    alone = evaluate(engine, scenes, tmp_path / "alone", batch_size=1, **QUIET)
    assert answers(tmp_path / "alone") == pytest.approx(answers(tmp_path / "run"), abs=1e-3)
    assert alone["accuracy"]["rate"] == metrics["accuracy"]["rate"]


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ({"pictures": "shuffled"}, {"heard"}),
        ({"audio": "shuffled"}, {"seen-4", "seen-5"}),
        ({"audio": "none"}, {"seen-4", "seen-5"}),
        ({"pictures": "none"}, {"heard"}),
    ],
)
def test_baselines_change_what_they_name_and_nothing_else(
    engine: Engine, scenes: Path, tmp_path: Path, options: dict[str, Any], same: set[str]
) -> None:
    evaluate(engine, scenes, tmp_path / "true", **QUIET)
    evaluate(engine, scenes, tmp_path / "other", **QUIET, **options)
    true, other = answers(tmp_path / "true"), answers(tmp_path / "other")
    assert {id_ for id_ in true if other[id_] == pytest.approx(true[id_], abs=5e-5)} == same
    said = json.loads((tmp_path / "other" / "run.json").read_text())
    assert {key: said[key] for key in options} == options
    assert {row.id: row.images for row in read_predictions(tmp_path / "other")}["clip-3"] == ("3.png",)
    with pytest.raises(DataError, match=f"its {next(iter(options))} differs"):
        evaluate(engine, scenes, tmp_path / "other", **QUIET)


def test_without_pictures_nothing_is_seen_or_opened(engine: Engine, scenes: Path, tmp_path: Path) -> None:
    evaluate(engine, scenes, tmp_path / "blind", pictures="none", **QUIET)
    rows = [{key: value for key, value in json.loads(line).items() if key != "image"} for line in scenes.read_text().splitlines()]
    unseen = write(scenes.parent, rows)
    for picture in scenes.parent.glob("*.png"):
        picture.unlink()
    evaluate(engine, unseen, tmp_path / "bare", **QUIET)
    assert answers(tmp_path / "blind") == pytest.approx(answers(tmp_path / "bare"), abs=1e-4)
    with pytest.raises(DataError, match="no row has a picture, so none can be left out: leave --pictures out"):
        evaluate(engine, unseen, tmp_path / "again", pictures="none", **QUIET)


def test_a_row_without_its_picture_and_its_clip_is_asked_all_the_same(engine: Engine, scenes: Path, tmp_path: Path) -> None:
    metrics = evaluate(engine, scenes, tmp_path / "run", audio="none", pictures="none", **QUIET)
    assert metrics["failed"] == []
    assert metrics["accuracy"]["answers"] == N_ROWS + 2
    written = (tmp_path / "run" / "report.md").read_text()
    assert "--audio none --pictures none" in written


def test_a_run_of_before_there_were_pictures_goes_on(engine: Engine, scenes: Path, tmp_path: Path) -> None:
    evaluate(engine, scenes, tmp_path / "run", **QUIET)
    told = tmp_path / "run" / "run.json"
    told.write_text(json.dumps({key: value for key, value in json.loads(told.read_text()).items() if key != "pictures"}))
    before = (tmp_path / "run" / "predictions.jsonl").read_bytes()
    evaluate(engine, scenes, tmp_path / "run", **QUIET)
    assert (tmp_path / "run" / "predictions.jsonl").read_bytes() == before


def test_the_tables_hold_each_row_against_other_clips_and_other_pictures(engine: Engine, scenes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    metrics = evaluate(engine, scenes, run, batch_size=4)
    assert metrics["deafness"]["clips"] == N_ROWS + 1
    found = metrics["blindness"]
    assert list(found["conditions"]) == ["true", "shuffled"]
    assert (found["clips"], found["left_out"], found["measure"]) == (N_ROWS + 2, 0, "loss")
    assert isinstance(found["blind"], bool)
    evaluate(engine, scenes, tmp_path / "shuffled", pictures="shuffled", **QUIET)
    whole = answers(tmp_path / "shuffled")
    lines = [json.loads(line) for line in (run / "blindness.jsonl").read_text().splitlines()]
    assert {line["seen"] for line in lines} == {"shuffled"}
    assert {line["id"]: line["reference_nats"] for line in lines} == pytest.approx({line["id"]: whole[line["id"]] for line in lines}, abs=1e-3)
    shown = io.StringIO()
    print_metrics(metrics, Console(file=shown, width=200))
    assert "on true against shuffled pictures p = " in shown.getvalue()
    assert "Does it see?" in (run / "report.md").read_text()
    written = (run / "blindness.jsonl").stat().st_mtime_ns
    assert evaluate(engine, scenes, run, batch_size=4)["blindness"] == found
    assert (run / "blindness.jsonl").stat().st_mtime_ns == written
    assert score_again(run)["blindness"] == found


@pytest.mark.parametrize(("shuffled", "blind"), [({"hypothesis": "no", "reference_nats": 5.0}, False), ({}, True)])
def test_a_model_sees_where_other_pictures_make_it_worse(tmp_path: Path, shuffled: dict[str, Any], blind: bool) -> None:
    rows = [
        {"id": f"{n}", "task": "answer", "reference": "two", "hypothesis": "two", "images": ["a.png"], "reference_nats": 1.0, "reference_tokens": 2}
        for n in range(12)
    ]
    for name, more in (("predictions", {}), ("blindness", shuffled | {"seen": "shuffled"})):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row | more) + "\n" for row in rows))
    found = score(tmp_path / "predictions.jsonl", blindness=tmp_path / "blindness.jsonl")["blindness"]
    assert found["blind"] is blind
    assert found["conditions"]["true"]["accuracy"] == 1.0
    assert found["conditions"]["shuffled"]["accuracy"] == float(blind)


@pytest.mark.parametrize(("count", "said"), [(1, "1 row, and the test needs 8"), (5, "5 rows, and the test needs 8")])
def test_a_table_of_few_rows_has_no_verdict_and_says_rows(tmp_path: Path, count: int, said: str) -> None:
    rows = [{"id": f"{n}", "task": "answer", "reference": "two", "hypothesis": "two", "images": ["a.png"]} for n in range(count)]
    for name, kept, more in (("predictions", rows, {}), ("blindness", [*rows, rows[0] | {"id": "gone"}], {"seen": "shuffled"})):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row | more) + "\n" for row in kept))
    metrics = score_again(tmp_path)
    assert metrics["blindness"]["why"] == said
    assert [section.notes[-1] for section in controls(metrics)] == ["Left out, since not in each condition: 1 row."]
    (tmp_path / "blindness.jsonl").write_text(json.dumps(rows[0] | {"id": "gone", "seen": "shuffled"}) + "\n")
    with pytest.raises(DataError, match="no row of the run was done under shuffled"):
        score_again(tmp_path)


@pytest.mark.parametrize(("content", "expected"), [(None, "5.png"), (b"no picture", "5.png")])
def test_a_picture_that_cant_be_read_fails_its_rows_alone_and_is_tried_again(
    engine: Engine, scenes: Path, tmp_path: Path, content: bytes | None, expected: str
) -> None:
    picture = scenes.with_name("5.png")
    whole = picture.read_bytes()
    picture.unlink()
    if content is not None:
        picture.write_bytes(content)
    metrics = evaluate(engine, scenes, tmp_path / "run", **QUIET)
    assert [row["id"] for row in metrics["failed"]] == ["clip-5", "seen-5"]
    assert all(expected in row["error"] and "\n" not in row["error"] for row in metrics["failed"])
    assert metrics["n_clips"] == N_ROWS + 1
    picture.write_bytes(whole)
    assert evaluate(engine, scenes, tmp_path / "run", **QUIET)["failed"] == []


def test_no_row_is_tried_with_a_picture_that_cant_be_read(engine: Engine, scenes: Path, tmp_path: Path) -> None:
    for number in (3, 5, 7):
        scenes.with_name(f"{number}.png").write_bytes(b"no picture")
    metrics = evaluate(engine, scenes, tmp_path / "run")
    assert {row["id"] for row in metrics["failed"]} == {"clip-3", "clip-5", "clip-7", "seen-5"}
    # Rows with pictures, of which four failed.
    assert metrics["blindness"]["clips"] == N_ROWS + 2 - 4


def test_one_picture_for_all_rows_cant_be_exchanged(engine: Engine, scenes: Path, tmp_path: Path) -> None:
    rows = [{"id": f"{n}", "image": "1.png", "prompt": "what", "response": "two"} for n in range(3)]
    manifest = write(scenes.parent, rows)
    with pytest.raises(DataError, match="none can be exchanged"):
        evaluate(engine, manifest, tmp_path / "run", pictures="shuffled", **QUIET)
    assert evaluate(engine, manifest, tmp_path / "true")["blindness"] is None


def test_rows_about_one_picture_get_none_of_their_own() -> None:
    pictures = [("a",), ("a",), ("b",), ("c", "d"), ("c", "d"), (), ("e",)]
    shuffled = shuffle_pictures(pictures, 0)
    assert [len(own) for own in shuffled] == [len(own) for own in pictures]
    assert sorted(path for own in shuffled for path in own) == sorted(path for own in pictures for path in own)
    assert not any(set(own) & set(others) for own, others in zip(pictures, shuffled, strict=True))
    assert shuffle_pictures([("a",), ("a",)], 0) == [["a"], ["a"]]
    assert shuffle_pictures([(), ()], 0) == [[], []]
