"""The static page as a file: what is in it, and what must not be. How it behaves in a browser is in test_browser.py."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import soundfile
from reviewed import HOSTILE, mistaken, write_run

from audiograft.audit import export
from audiograft.audit.export import export_static
from audiograft.audit.results import results
from audiograft.audit.rows import patterns_row
from audiograft.audit.run import AuditRun, load_run
from audiograft.audit.suggestions import suggest
from audiograft.audit.verdicts import Verdict
from audiograft.types import ConfigError, DataError

PAGE = Path(export.__file__).parent / "page"


def exported(run: AuditRun, target: Path, verdicts: tuple[Verdict, ...] = (), **options: Any) -> Path:
    """An export with everything that there is."""
    found = results(run, verdicts)
    return export_static(run, target, verdicts=verdicts, results=found, patterns=patterns_row(run), suggestions=suggest(run), **options)


def island(page: Path) -> dict[str, Any]:
    """The data of a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


@pytest.fixture
def run(tmp_path: Path) -> AuditRun:
    return load_run(write_run(tmp_path / "run", mistaken(6), token_logprobs=[[-0.2, -0.4]] * 6, source=["talks"] * 6))


def test_one_file_holds_all_and_fetches_nothing(run: AuditRun, tmp_path: Path) -> None:
    page = exported(run, tmp_path / "pages" / "review.html")
    assert page == tmp_path / "pages" / "review.html"
    assert [path.name for path in page.parent.iterdir()] == ["review.html"]
    text = page.read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="([^"]*)"', text) == ["data:,"]  # no icon, and no server asked for one
    data = island(page)
    assert [clip["id"] for clip in data["clips"]] == [clip.prediction.id for clip in run.clips]
    for (address,), clip in zip(data["audio"], run.clips, strict=True):
        kind, _, content = address.partition(",")
        assert kind == "data:audio/mpeg;base64"
        heard, rate_hz = soundfile.read(io.BytesIO(base64.b64decode(content)))
        assert rate_hz == 16000
        assert len(heard) / rate_hz == pytest.approx(clip.prediction.duration_s, abs=0.15)
    assert data["results"]["clips"]["judged"] == 0
    assert data["patterns"]["totals"]["substitutions"] > 0


def test_a_folder_has_its_audio_beside_the_page(run: AuditRun, tmp_path: Path) -> None:
    page = exported(run, tmp_path / "review")
    assert page == tmp_path / "review" / "index.html"
    addresses = [address for clip in island(page)["audio"] for address in clip]
    assert sorted(addresses) == sorted(str(path.relative_to(page.parent)) for path in (page.parent / "audio").iterdir())
    assert len(set(addresses)) == len(run.clips)


def test_only_the_inlined_scripts_and_style_may_run(run: AuditRun, tmp_path: Path) -> None:
    text = exported(run, tmp_path / "review.html").read_text(encoding="utf-8")
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)
    assert policy is not None
    assert text.index(policy[0]) < text.index("<style>")
    assert "unsafe" not in policy[1]
    for tag in ("script", "style"):
        inlined = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in inlined]
        assert re.findall(rf"{tag}-src ([^;]*)", policy[1]) == [" ".join(f"'sha256-{value}'" for value in hashes)]
    assert len(re.findall("<script>", text)) == len(list(PAGE.glob("*.js")))


def test_no_text_ends_the_data(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", [(text, text[::-1]) for text in HOSTILE], id=HOSTILE, speaker=HOSTILE, source=HOSTILE))
    page = exported(run, tmp_path / "review.html")
    assert page.read_text(encoding="utf-8").count("<script") == len(list(PAGE.glob("*.js"))) + 1
    assert [clip["ref"] for clip in island(page)["clips"]] == list(HOSTILE)


def test_a_blind_page_holds_no_roles(run: AuditRun, tmp_path: Path) -> None:
    first, second = (clip.prediction.id for clip in run.clips[:2])
    verdicts = (Verdict(first, "label_noise", "anna"), Verdict(second, "label_noise", "anna", True, "x"), Verdict(second, "model_error", "ben"))
    page = exported(run, tmp_path / "review.html", verdicts, blind=True, rater="anna")
    data = island(page)
    assert {key for clip in data["clips"] for key in clip} == {"i", "id", "dur", "speaker", "source", "parts", "x", "y", "diff", "wer"}
    assert (data["results"], data["patterns"]) == (None, None)
    assert (data["run"]["blind"], data["run"]["rater"], data["run"]["has_suggestions"]) == (True, "anna", False)
    assert list(data["verdicts"]) == ["anna"]
    assert data["verdicts"]["anna"][second]["choice"] == "x"
    assert {verdict["verdict"] for verdict in data["verdicts"]["anna"].values()} == {None}
    assert "label_noise" not in json.dumps(data)


def test_a_blind_page_is_for_somebody(run: AuditRun, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--rater"):
        exported(run, tmp_path / "review.html", blind=True)
    assert not (tmp_path / "review.html").exists()


def test_verdicts_are_told_by_rater(run: AuditRun, tmp_path: Path) -> None:
    first = run.clips[0].prediction.id
    verdicts = (Verdict(first, "perfect", "anna", note="clear"), Verdict(first, "ambiguous", "ben"))
    data = island(exported(run, tmp_path / "review.html", verdicts))
    assert {rater: given[first]["verdict"] for rater, given in data["verdicts"].items()} == {"anna": "perfect", "ben": "ambiguous"}
    assert data["verdicts"]["anna"][first]["note"] == "clear"


def test_too_many_clips_for_one_file(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", mistaken(201)))
    with pytest.raises(ConfigError, match="201 clips are too many for one file, which takes 200: draw some with --sample, or name a folder"):
        exported(run, tmp_path / "review.html")
    assert not (tmp_path / "review.html").exists()


@pytest.mark.parametrize("name", ["e.pdf", "e.PDF", "e.json", "e.mp3"])
def test_a_file_of_another_kind_is_refused(run: AuditRun, tmp_path: Path, name: str) -> None:
    line = rf"{name}: the page is no {name[1:]} file: name {tmp_path}/e\.html, or a folder \({tmp_path}/e\)"
    with pytest.raises(ConfigError, match=line):
        exported(run, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_folder_may_have_a_version_in_its_name(run: AuditRun, tmp_path: Path) -> None:
    assert exported(run, tmp_path / "review.2").is_file()
    (tmp_path / "review.anna").mkdir()
    assert exported(run, tmp_path / "review.anna").is_file()


def test_a_folder_with_something_in_it_is_left_alone(run: AuditRun, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="mine: is not empty: name a new folder"):
        exported(run, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_folder_that_cant_be_made(run: AuditRun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written"):
        exported(run, tmp_path / "file" / "review")


def test_audio_that_is_not_there_is_null_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_run(tmp_path / "run", mistaken(4), audio=["clip-000.wav", "gone.wav", None, "clip-003.wav"])
    (folder / "clip-003.wav").write_bytes(b"no sound")
    run = load_run(folder)
    with caplog.at_level(logging.WARNING):
        data = island(exported(run, tmp_path / "review.html"))
    assert [len(clip) for clip in data["audio"]] == [1, 0, 0, 1]
    assert (data["audio"][3], data["peaks"][3]) == ([None], [None])
    assert [clip["parts"] for clip in data["clips"]] == [1, 1, 0, 1]
    assert "missing on the page: 1" in caplog.text
    assert "clip-003.wav" in caplog.text


def test_on_clip_is_called_for_each(run: AuditRun, tmp_path: Path) -> None:
    called: list[None] = []
    exported(run, tmp_path / "review.html", on_clip=lambda: called.append(None))
    assert len(called) == len(run.clips)


@pytest.mark.parametrize("name", sorted(path.name for path in PAGE.iterdir() if path.is_file()))
def test_no_html_from_texts_and_no_inline_handlers(name: str) -> None:
    source = (PAGE / name).read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\.srcdoc|DOMParser", source)
    assert not re.search(r'\son\w+="|\sstyle="', source)
    assert len(source.splitlines()) <= 400
    if not name.endswith(".html"):  # inlined as they are
        assert "</script" not in source
        assert "</style" not in source
        assert "<!--" not in source
