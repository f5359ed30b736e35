"""The leakage gate and pictures: what is seen on both sides is found, counted, named, and stops a run."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from audiograft.data import gate as gate_module
from audiograft.data.gate import Gate
from audiograft.data.leakage import check_choice, check_model, check_training, compare, compare_manifests, save_traces, summary_line
from audiograft.data.looks import PictureTrace, find_look
from audiograft.data.manifest import write_manifest
from audiograft.data.scenes.scene import render, scenes
from audiograft.data.traces import Trace, TraceWriter
from audiograft.data.tracing import traces_of
from audiograft.types import TRAINING_TRACES, VALIDATION_TRACES, DataError

SCENES = [render(scene, random.Random(row)) for row, scene in enumerate(islice(scenes("train", 5), 12))]


def coded(number: int, quality: int) -> bytes:
    file = io.BytesIO()
    SCENES[number].save(file, "JPEG", quality=quality)
    return file.getvalue()


class Corpora:
    """Manifests of questions about scenes. A picture is named by its number, and by its quality as JPEG where it is a copy: `3` or `3-60`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, *pictures: str) -> Path:
        rows = []
        for place, picture in enumerate(pictures):
            image = self.folder / f"{name}-{picture}.img"
            number, _, quality = picture.partition("-")
            if quality:
                image.write_bytes(coded(int(number), int(quality)))
            else:
                SCENES[int(number)].save(image, "PNG")
            rows.append({"id": f"{name}-{place}", "image": image.name, "prompt": f"what is {name} {place}?", "response": f"answer {place} to {name}"})
        path = self.folder / f"{name}.jsonl"
        write_manifest(path, rows)
        return path


@pytest.fixture
def corpora(tmp_path: Path) -> Corpora:
    return Corpora(tmp_path)


def test_the_same_file_and_a_near_copy_are_found_and_told_once(corpora: Corpora) -> None:
    train, test = corpora.write("train", "0", "1-60", "2", "2-80", "9"), corpora.write("test", "0", "0", "1", "2", "3", "4")
    report = compare_manifests([train], test)
    assert {kind: count for kind, count in report.counts.items() if count} == {"same_pictures": 2, "near_pictures": 1}
    # Two rows ask about the first of them.
    assert (report.rows["same_pictures"], report.rows["near_pictures"]) == (3, 1)
    assert str(report.examples["near_pictures"][0]) == f"test-2, training row train-1 of {train}"
    assert report.touches == ("pictures",)
    assert (report.train.pictures, report.test.pictures) == (5, 6)


def test_blocks_do_not_matter(corpora: Corpora, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = corpora.write("train", *(f"{n}-70" for n in range(8))), corpora.write("test", *map(str, range(12)))
    whole = compare_manifests([train], test).as_dict()
    assert whole["shared"]["near_pictures"]["shared"] == 8
    monkeypatch.setattr(gate_module, "_BLOCK_PICTURES", 3)
    assert compare_manifests([train], test).as_dict() == whole


def test_videos_are_compared_by_their_files_alone() -> None:
    def row(name: str, digest: str) -> Trace:
        return Trace(name, None, None, None, None, 0, (), (PictureTrace(digest, 9),))

    assert compare([row("a", "x")], [row("t", "x"), row("u", "y")]).counts["same_pictures"] == 1
    assert compare([row("a", "z")], [row("t", "x")]).touches == ()


def test_rows_that_come_one_at_a_time() -> None:
    def row(name: str, number: int, quality: int) -> Trace:
        look = find_look(Image.open(io.BytesIO(coded(number, quality))).convert("RGB"))
        return Trace(name, None, None, None, None, 0, (), (PictureTrace(name, 9, look),))

    gate = Gate([row("t", 0, 90)])
    assert gate.kinds(row("t", 5, 90)) == gate.kinds(row("a", 0, 60)) == ["pictures"]
    assert gate.kinds(row("b", 1, 90)) == gate.kinds(Trace("c", None, None, None, None, 0, (), None)) == []


def test_pictures_that_are_blank_or_unreadable_are_counted(corpora: Corpora, tmp_path: Path) -> None:
    train, test = corpora.write("train", "0", "1", "2"), corpora.write("test", "3", "4")
    for path in ("train-0.img", "test-3.img"):
        Image.new("RGB", (20, 20), "white").save(tmp_path / path, "PNG")
    (tmp_path / "train-1.img").write_bytes(b"no picture")
    report = compare_manifests([train], test)
    assert report.touches == ()
    assert (report.train.blank_pictures, report.train.unreadable_pictures) == (1, 1)
    assert (report.test.blank_pictures, report.test.unreadable_pictures) == (1, 0)
    assert report.train.examples == ["row train-1: a picture can't be read"]


def test_a_picture_that_is_held_out_stops_a_run_unless_it_is_allowed(corpora: Corpora) -> None:
    train, test = corpora.write("train", "0", "1-50"), corpora.write("test", "1", "5")
    with pytest.raises(
        DataError, match=r"test\.jsonl: held out, .* shares 1 pictures .* test row test-0, training row train-1 .*data\.allow_leakage$"
    ):
        check_training([train], None, [test], ["speakers", "texts"])
    assert check_training([train], None, [test], ["pictures"])["held_out"][str(test)]["touches"] == ["pictures"]
    # Of validation data it is told, and no reason to stop.
    assert check_training([train], test, [], [])["validation"]["touches"] == ["pictures"]


def test_a_model_remembers_what_it_saw(corpora: Corpora, tmp_path: Path) -> None:
    train, test, clean = corpora.write("train", "0", "1"), corpora.write("test", "1-60", "2"), corpora.write("clean", "5")
    save_traces(tmp_path, [train])
    assert summary_line(check_model(tmp_path, test)) == "touches training data: 0 speakers, 0 recordings, 0 texts, 0 clips, 1 pictures"
    save_traces(tmp_path, [train], record=VALIDATION_TRACES)
    told = check_choice(tmp_path, test)
    assert (told["known"], told["chosen_on_this_data"], told["clips"], told["pictures"]) == (True, True, 0, 1)
    assert told["why"].startswith("not a clean test: 1 of these pictures were validated on")
    told = check_choice(tmp_path, clean)
    assert (told["known"], told["chosen_on_this_data"]) == (True, False)
    assert told["why"] == "not used to choose the checkpoint: none of its pictures was validated on during training"


def test_a_record_from_before_pictures_were_compared_says_so(corpora: Corpora, tmp_path: Path) -> None:
    train, test = corpora.write("train", "0", "1"), corpora.write("test", "1", "2")
    for record in (TRAINING_TRACES, VALIDATION_TRACES):
        with TraceWriter(tmp_path / record) as writer:
            for trace in traces_of(train):
                writer.append(replace(trace, pictures=None))
    line = summary_line(check_model(tmp_path, test))
    assert line.startswith("does not touch training data")
    assert line.endswith("0 pictures (of pictures its record does not know: it is older than their comparison)")
    assert not check_choice(tmp_path, test)["known"]
    assert compare_manifests([tmp_path], test).train.pictures_unknown == 2
    # Reports that are older still can be printed.
    old = check_model(tmp_path, test)
    for kind in ("same_pictures", "near_pictures"):
        del old["shared"][kind]
    for side in ("train", "test"):
        old[side] = {key: value for key, value in old[side].items() if "pictures" not in key}
    assert summary_line(old) == "does not touch training data: 0 speakers, 0 recordings, 0 texts, 0 clips"
